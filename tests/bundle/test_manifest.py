"""Manifests: what RAUC accepts is accepted, what it refuses is refused with its text."""

from __future__ import annotations

import contextlib
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from updated.bundle.manifest import Image
from updated.bundle.manifest_parse import parse, read, type_of
from updated.errors import BundleError

DIGEST = "ab" * 32
UPDATE = "[update]\ncompatible=Test\nversion=1.2\ndescription=Some text\nbuild=7\n"
VERITY = f"[bundle]\nformat=verity\nverity-hash={'11' * 32}\nverity-salt={'22' * 32}\nverity-size=8192\n"
IMAGE = f"[image.rootfs]\nsha256={DIGEST}\nsize=5\nfilename=rootfs.ext4\n"
WHOLE = UPDATE + VERITY + (
    "[handler]\nfilename=custom.sh\nargs=-x y\n"
    "[hooks]\nfilename=hook.sh\nhooks=install-check;\n"
    f"[image.rootfs.big]\nsha256={DIGEST.upper()}\nsize=5\nfilename=rootfs.img\nhooks=post-install;pre-install\n"
    "adaptive=block-hash-index;new-method;\nversion=x\n"
    f"[image.files/app]\nsha256={DIGEST}\nsize=6\nfilename=app.tar.gz\nconvert=tar-extract;keep;\n"
    "converted=app.tar.gz.extracted;app.tar.gz;\n"
    "[image.data]\nhooks=install\n"
    "[image.empty]\ntype=emptyfs\n"
    "[meta.label]\nkey-1=value;x\n"
    "[rollout]\nanything=goes\n"
)  # fmt: skip


def test_everything_that_can_be_in_a_manifest() -> None:
    data = WHOLE.encode()
    manifest = parse(data, inline=True)
    assert (manifest.compatible, manifest.version, manifest.description, manifest.build) == (
        "Test", "1.2", "Some text", "7",
    )  # fmt: skip
    assert (manifest.format, manifest.verity_hash, manifest.verity_salt, manifest.verity_size) == (
        "verity", b"\x11" * 32, b"\x22" * 32, 8192,
    )  # fmt: skip
    assert (manifest.handler_filename, manifest.handler_args) == ("custom.sh", "-x y")
    assert (manifest.hook_filename, manifest.hooks) == ("hook.sh", ("install-check",))
    assert manifest.images == (
        Image(
            slot_class="rootfs",
            variant="big",
            filename="rootfs.img",
            type="raw",
            type_detected=True,
            sha256=DIGEST,
            size=5,
            hooks=("pre-install", "post-install"),
            adaptive=("block-hash-index", "new-method"),
        ),
        Image(
            slot_class="files",
            artifact="app",
            filename="app.tar.gz",
            sha256=DIGEST,
            size=6,
            convert=("tar-extract", "keep"),
            converted=("app.tar.gz.extracted", "app.tar.gz"),
        ),
        Image(slot_class="data", hooks=("install",)),
        Image(slot_class="empty", type="emptyfs"),
    )
    assert manifest.meta == {"label": {"key-1": "value;x"}}
    assert manifest.hash == hashlib.sha256(data).hexdigest()


def test_a_plain_manifest_needs_no_bundle_section() -> None:
    assert parse((UPDATE + IMAGE).encode(), inline=False).format == "plain"


def test_a_crypt_manifest_has_a_key_that_is_not_shown() -> None:
    text = UPDATE + VERITY.replace("=verity", "=crypt") + f"crypt-key={'33' * 32}\n"
    manifest = parse(text.encode(), inline=True)
    assert manifest.crypt_key == b"\x33" * 32
    assert "33333" not in repr(manifest) and "\\x33" not in repr(manifest)


def test_an_install_hook_needs_neither_size_nor_type() -> None:
    text = (
        UPDATE + f"[hooks]\nfilename=h\n[image.a]\nsha256={DIGEST}\nfilename=a.foo\nhooks=install\nsize=-1\n"
    )
    (image,) = parse(text.encode(), inline=False).images
    assert (image.type, image.size) == (None, 0)


NOT_LOADED = [
    ("", "Key file does not have group “update”"),
    ("[update]\n", "Key file does not have key “compatible” in group “update”"),
    ("[update]\ncompatible=\n", "Missing value for key 'compatible'"),
    (UPDATE + "[update]\nversion=2\n", "Invalid key 'version' in group '[update]'"),
    (UPDATE + "foo=1\n", "Invalid key 'foo' in group '[update]'"),
    (UPDATE + "[foo]\n", "Invalid group '[foo]'"),
    (UPDATE + "[image]\n", "Invalid group '[image]'"),
    (UPDATE + "[bundle]\nformat=verity \n", "Invalid format value 'verity ' in group '[bundle]'"),
    (UPDATE + "[bundle]\nformat=plain\nverity-size=1\n", "Invalid key 'verity-size' in group '[bundle]'"),
    (UPDATE + VERITY + "crypt-key=1\n", "Invalid key 'crypt-key' in group '[bundle]'"),
    (
        UPDATE + "[handler]\nargs=x\n",
        "Setting 'args' requires a full custom handler to be defined under 'filename' in group '[handler]'.",
    ),
    (UPDATE + "[hooks]\nhooks=foo\n", "install hook type 'foo' not supported"),
    (UPDATE + "[hooks]\nhooks=a\\qb\n", "Invalid key 'hooks' in group '[hooks]'"),
    (UPDATE + IMAGE + "hooks=foo\n", "Cannot parse [image.rootfs]: slot hook type 'foo' not supported"),
    (UPDATE + IMAGE + "foo=1\n", "Cannot parse [image.rootfs]: Invalid key 'foo' in group '[image.rootfs]'"),
    (
        UPDATE + IMAGE + "size=6\n",
        "Cannot parse [image.rootfs]: Invalid key 'size' in group '[image.rootfs]'",
    ),
    (UPDATE + IMAGE + "type=foo\n", "Cannot parse [image.rootfs]: Unsupported image type 'foo'"),
    (UPDATE + IMAGE + "type=\n", "Cannot parse [image.rootfs]: Missing value for key 'type'"),
    (UPDATE + "[image.a]\nfilename=\n", "Cannot parse [image.a]: Missing value for key 'filename'"),
    (UPDATE + "[image.a]\n", "Cannot parse [image.a]: Missing required 'filename'"),
    (
        UPDATE + "[image.a/b]\nfilename=b\ntype=raw\n",
        "Cannot parse [image.a/b]: Invalid key 'type' in group '[image.a/b]'",
    ),
    (
        UPDATE + "[image.a]\nfilename=rootfs.foo\n",
        "Cannot parse [image.a]: "
        "No 'type=' set and unable to map extension of file 'rootfs.foo' to known image type",
    ),
    (
        UPDATE + "[image.a]\nfilename=x.img\ntype=emptyfs\n",
        "Cannot parse [image.a]: It is not supported setting 'filename' when 'type=emptyfs' is set",
    ),
    (
        UPDATE + "[image.a]\nfilename=x.img\nsize=1k\n",
        "Cannot parse [image.a]: Key “size” in group “image.a” has value “1k” where uint64 was expected",
    ),
    (UPDATE + "[meta.a.b]\n", "invalid metadata section name 'meta.a.b' (must contain a single '.')"),
    (
        UPDATE + "[meta.a b]\n",
        "Invalid metadata section name 'a b': Character ' ' is unsuitable for environment variables",
    ),
    (
        UPDATE + "[meta.a]\nx.y=1\n",
        "Invalid metadata key name 'x.y': Character '.' is unsuitable for environment variables",
    ),
    (UPDATE + "[meta.a]\nx=1\nx=2\n", "Key file does not have key “x” in group “meta.a”"),
    (UPDATE + "[meta.a]\nx=\n", "Missing value for key 'x'"),
    (
        "\ufeff" + UPDATE,
        "Key file contains line “\ufeff[update]” which is not a key-value pair, group, or comment",
    ),
]


@pytest.mark.parametrize(("text", "message"), NOT_LOADED)
def test_refused_while_reading(text: str, message: str) -> None:
    with pytest.raises(BundleError) as caught:
        parse(text.encode(), inline=False)
    assert str(caught.value) == "Failed to load manifest: " + message


def without(text: str, key: str) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith(key + "="))


CRYPT = VERITY.replace("=verity", "=crypt")
INCONSISTENT = [
    (UPDATE, "Bundle format 'plain' not allowed for external manifest"),
    (UPDATE + CRYPT, "Missing key for crypt bundle"),
    (UPDATE + CRYPT + "crypt-key=00", "Invalid key for crypt bundle"),
    (UPDATE + without(VERITY, "verity-hash"), "Missing hash for verity bundle"),
    (UPDATE + VERITY.replace("11" * 32, "zz"), "Invalid hash for verity bundle"),
    (UPDATE + without(VERITY, "verity-salt"), "Missing salt for verity bundle"),
    (UPDATE + VERITY.replace("22" * 32, "2" * 62), "Invalid salt for verity bundle"),
    (UPDATE + without(VERITY, "verity-size"), "Missing size for verity bundle"),
    (UPDATE + VERITY.replace("8192", "many"), "Missing size for verity bundle"),
    (UPDATE + VERITY.replace("8192", "8193"), "Unaligned size for verity bundle"),
    (UPDATE + VERITY.replace("8192", "-1"), "Unaligned size for verity bundle"),
    (
        UPDATE + VERITY + IMAGE.replace("rootfs.ext4", "a/b.img"),
        "Image filename a/b.img must not contain '/'",
    ),
    (
        UPDATE + VERITY + IMAGE.replace("rootfs.ext4", "..\ntype=raw"),
        "Image filename '..' is not the name of a file",
    ),
    (UPDATE + VERITY + without(IMAGE, "sha256"), "Unsupported checksum algorithm for image rootfs.ext4"),
    (UPDATE + VERITY + IMAGE.replace(DIGEST, "zz"), "Invalid digest zz for image rootfs.ext4"),
    (UPDATE + VERITY + without(IMAGE, "size"), "Missing size for image rootfs.ext4"),
    (UPDATE + VERITY + IMAGE.replace("size=5", "size=-1"), "Missing size for image rootfs.ext4"),
    (
        UPDATE + VERITY + IMAGE.replace("size=5", "size=9223372036854775808"),
        "Missing size for image rootfs.ext4",
    ),
    (
        UPDATE + VERITY + IMAGE + "hooks=install\n",
        "Hooks used, but no hook 'filename' defined in [hooks] section",
    ),
    (
        UPDATE + VERITY + "[hooks]\nhooks=install-check\n",
        "Hooks used, but no hook 'filename' defined in [hooks] section",
    ),
    (UPDATE + VERITY + "[hooks]\nfilename=../x\n", "Hook or handler ../x must not be outside of the bundle"),
    (UPDATE + VERITY + "[image.a]\ntype=emptyfs\nadaptive=x\n", "'adaptive' requires 'filename' to be set"),
    (UPDATE + VERITY + IMAGE + "convert=keep\n", "Missing converted outputs for image rootfs.ext4"),
    (
        UPDATE + VERITY + IMAGE + "convert=keep\nconverted=a;b\n",
        "Inconsistent number of converted inputs/outputs for image rootfs.ext4",
    ),
    (
        UPDATE + VERITY + IMAGE + "convert=keep\nconverted=../a\n",
        "Converted output ../a of image rootfs.ext4 must not contain '/'",
    ),
    (
        UPDATE + "min-rauc-version=abc\n" + VERITY,
        "Failed to parse 'min-rauc-version'. Expected 'Major[.Minor[.Patch]][-pre_release]]', got 'abc'",
    ),
    (
        UPDATE + "min-rauc-version=0.0.0-alpha\n" + VERITY,
        "Failed to parse 'min-rauc-version'. "
        "Expected 'Major[.Minor[.Patch]][-pre_release]]', got '0.0.0-alpha'",
    ),
    (
        UPDATE + "min-rauc-version=99\n" + VERITY,
        "Minimum RAUC version in manifest (99) is newer than current version (1.15.2)",
    ),
    (
        UPDATE + "min-rauc-version=1.13\n" + VERITY,
        "Minimum RAUC version field in manifest is only supported since 1.14 (not '1.13')",
    ),
]


@pytest.mark.parametrize(("text", "message"), INCONSISTENT)
def test_refused_as_inconsistent(text: str, message: str) -> None:
    with pytest.raises(BundleError) as caught:
        parse(text.encode(), inline=True)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (UPDATE + VERITY, "Bundle format 'verity' not allowed for internal manifest"),
        (
            UPDATE + f"[image.a/b]\nfilename=b\nsha256={DIGEST}\nsize=1\n",
            "Artifacts are not supported in plain bundles",
        ),
        (
            UPDATE + IMAGE + "convert=keep\nconverted=a\n",
            "Image converters are not supported in plain bundles",
        ),
    ],
)
def test_refused_in_plain_bundles(text: str, message: str) -> None:
    with pytest.raises(BundleError) as caught:
        parse(text.encode(), inline=False)
    assert str(caught.value) == message


def test_a_wrong_key_comes_with_the_nearest_known_one() -> None:
    with pytest.raises(BundleError) as caught:
        read((UPDATE + "[image.a]\nfilname=a.img\nfilename=a.img\n").encode())
    assert caught.value.hint == "Did you mean 'filename'?"


@pytest.mark.parametrize(
    ("filename", "type_"),
    [
        ("a.ext4.caibx", "ext4-caibx"),
        ("a.img.caibx", "raw-caibx"),
        ("a.squashfs-xz.caibx", "squashfs-caibx"),
        ("a.catar", "catar"),
        ("a.caidx", "caidx"),
        ("a.tar.gz", "tar"),
        ("my.target.img", "tar"),
        ("a.tgz", "tar"),
        ("a.ext4", "ext4"),
        ("a.vfat", "vfat"),
        ("a.img", "raw"),
        ("a.squashfs-zstd", "squashfs"),
        ("a.squashfs", "squashfs"),
        ("a.ubifs", "ubifs"),
        (".img", "raw"),
        ("a.IMG", None),
        ("img", None),
    ],
)
def test_types_by_file_name(filename: str, type_: str | None) -> None:
    assert type_of(filename) == type_


def test_many_keys_do_not_take_long() -> None:
    keys = "".join(f"k{number}=v\n" for number in range(100_000))
    manifest = parse((UPDATE + "[meta.a]\n" + keys).encode(), inline=False)
    assert len(manifest.meta["a"]) == 100_000


@pytest.mark.parametrize("length", range(0, len(WHOLE), 3))
def test_cut_short_it_is_refused_or_read(length: int) -> None:
    with contextlib.suppress(BundleError):
        parse(WHOLE.encode()[:length], inline=True)


@given(st.integers(0, len(WHOLE) - 1), st.binary(max_size=4))
def test_changed_it_is_refused_or_read(position: int, new: bytes) -> None:
    data = WHOLE.encode()
    with contextlib.suppress(BundleError):
        parse(data[:position] + new + data[position + len(new) :], inline=True)


@given(st.binary(max_size=100), st.booleans())
def test_any_bytes_are_refused_or_read(data: bytes, inline: bool) -> None:
    with contextlib.suppress(BundleError):
        parse(data, inline=inline)
