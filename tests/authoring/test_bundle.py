"""Bundles of our writer and of the real `rauc bundle`: each is read by the other."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess
from typing import Protocol

import pytest

from updated.authoring.bundle import create
from updated.authoring.verity_tree import TreeBuilder
from updated.bundle import manifest_parse, verity
from updated.bundle.manifest import Manifest
from updated.bundle.plan import run_on_bytes
from updated.bundle.tail import Tail, check_verity_geometry, read_tail
from updated.errors import BundleError, DeviceError, NotSupportedError, SignatureError

Rauc = Callable[..., CompletedProcess[str]]
Content = Callable[[str], Path]


class Keys(Protocol):
    certificate: Path
    key: Path


def make(folder: Path, output: Path, keys: Keys, *options: str) -> Manifest:
    certificate, key = keys.certificate.read_bytes(), keys.key.read_bytes()
    return create(folder, output, certificate=certificate, key=key, mksquashfs_args=options)


def state_of(folder: Path) -> dict[str, tuple[int, int, int, bytes]]:
    return {
        path.name: ((stat := path.stat()).st_mode, stat.st_mtime_ns, stat.st_nlink, path.read_bytes())
        for path in folder.iterdir()
    }


@pytest.mark.parametrize("bundle_format", ["plain", "verity"])
def test_the_real_rauc_reads_ours(
    bundle_format: str, content: Content, keys: Keys, rauc: Rauc, tmp_path: Path
) -> None:
    folder, bundle, out = content(bundle_format), tmp_path / "ours.raucb", tmp_path / "out"
    before = state_of(folder)
    manifest = make(folder, bundle, keys)
    info = rauc("info", bundle)
    assert info.returncode == 0, info.stderr
    assert "Compatible: \t'Test Dev'" in info.stdout
    extracted = rauc("extract", bundle, out)
    assert extracted.returncode == 0, extracted.stderr
    assert state_of(folder) == before
    assert bundle.stat().st_mode & 0o7777 == 0o644
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([folder.name, bundle.name, out.name])
    for name in ("rootfs.img", "app.img", "hook.sh"):
        assert (out / name).read_bytes() == (folder / name).read_bytes()
    assert (out / "hook.sh").stat().st_mode & 0o777 == 0o755
    root, app = manifest.images
    assert (root.size, root.sha256) == (
        1 << 20,
        hashlib.sha256((folder / "rootfs.img").read_bytes()).hexdigest(),
    )
    assert (app.size, app.hooks) == (5000, ("post-install",))


@pytest.mark.parametrize("bundle_format", ["plain", "verity"])
def test_the_content_is_what_rauc_would_put_in(
    bundle_format: str, content: Content, keys: Keys, rauc: Rauc, tmp_path: Path
) -> None:
    """Manifest and block hash index byte by byte; RAUC 1.8 drops what newer versions keep."""
    folder = content(bundle_format)
    make(folder, tmp_path / "ours", keys)
    assert rauc("bundle", folder, tmp_path / "theirs").returncode == 0
    for name in ("ours", "theirs"):
        assert rauc("extract", tmp_path / name, tmp_path / f"{name}-content").returncode == 0
    ours, theirs = (
        {path.name: path.read_bytes() for path in (tmp_path / f"{name}-content").iterdir()}
        for name in ("ours", "theirs")
    )
    for dropped in (b"[bundle]\nformat=plain\n\n", b"\n[meta.label]\nkey=value\n"):
        ours["manifest.raucm"] = ours["manifest.raucm"].replace(dropped, b"")
    assert ours == theirs


def inline_manifest(tail: Tail) -> bytes:
    command = ["openssl", "cms", "-verify", "-noverify", "-binary", "-inform", "DER"]
    return subprocess.run(command, input=tail.cms, capture_output=True, check=True).stdout


@pytest.mark.parametrize("writer", ["ours", "theirs"])
def test_our_reader_reads_verity_bundles_of_both(
    writer: str, content: Content, keys: Keys, rauc: Rauc, tmp_path: Path
) -> None:
    folder, bundle = content("verity"), tmp_path / "bundle"
    if writer == "ours":
        make(folder, bundle, keys)
    else:
        assert rauc("bundle", folder, bundle).returncode == 0
    data = bundle.read_bytes()
    tail = run_on_bytes(read_tail(len(data)), data)
    manifest = manifest_parse.parse(inline_manifest(tail), inline=True)
    assert manifest.format == "verity" and manifest.images[0].adaptive == ("block-hash-index",)
    params = check_verity_geometry(manifest, tail.payload_size)
    builder = TreeBuilder(params.salt)
    builder.feed(data[: params.data_size])
    assert builder.finish() == (params.root, data[params.data_size : tail.payload_size])
    tree = run_on_bytes(verity.load(params), data)
    wanted = tree.digests(0, params.data_size)
    digests = data[wanted.offset : wanted.offset + wanted.length]
    tree.check(0, data[: params.data_size], digests)
    for position in range(0, params.data_size, params.data_size // 50):
        changed = bytearray(data[: params.data_size])
        changed[position] ^= 0x80
        with pytest.raises(BundleError, match="bundle payload is corrupted"):
            tree.check(0, bytes(changed), digests)


def test_a_plain_bundle_of_rauc_has_a_detached_signature(
    content: Content, keys: Keys, rauc: Rauc, tmp_path: Path
) -> None:
    assert rauc("bundle", content("plain"), tmp_path / "bundle").returncode == 0
    data = (tmp_path / "bundle").read_bytes()
    tail = run_on_bytes(read_tail(len(data)), data)
    assert data[: tail.payload_size].startswith(b"hsqs") and tail.payload_size % 4096 == 0
    assert tail.cms.startswith(b"\x30\x82")


@pytest.mark.parametrize("bundle_format", ["plain", "verity"])
def test_source_date_epoch_makes_the_same_bytes(
    bundle_format: str, content: Content, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    folder = content(bundle_format)
    for path in folder.iterdir():
        os.utime(path, (1600000000, 1600000000))
    make(folder, tmp_path / "one", keys)
    make(folder, tmp_path / "two", keys)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_two_verity_bundles_have_different_salts(content: Content, keys: Keys, tmp_path: Path) -> None:
    folder = content("verity")
    salts = {make(folder, tmp_path / name, keys).verity_salt for name in ("one", "two")}
    assert len(salts) == 2


def test_min_rauc_version_is_kept(content: Content, keys: Keys, tmp_path: Path) -> None:
    folder = content("verity")
    text = (folder / "manifest.raucm").read_text()
    (folder / "manifest.raucm").write_text(
        text.replace("version=1.2\n", "version=1.2\nmin-rauc-version=1.14\n")
    )
    assert make(folder, tmp_path / "bundle", keys).min_rauc_version == "1.14"


def test_mksquashfs_options_are_passed_on(content: Content, keys: Keys, tmp_path: Path) -> None:
    folder, bundle = content("verity"), tmp_path / "bundle"
    make(folder, bundle, keys, "-comp", "xz")
    assert int.from_bytes(bundle.read_bytes()[20:22], "little") == 4  # xz
    with pytest.raises(BundleError, match=r'^Failed to run mksquashfs: exit code 1: .*Compressor "foo"'):
        make(folder, tmp_path / "other", keys, "-comp", "foo")


def test_an_unpadded_payload_is_refused(content: Content, keys: Keys, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"^squashfs size \(\d+\) is not a multiple of 4096 bytes$"):
        make(content("verity"), tmp_path / "bundle", keys, "-nopad")


def test_a_tiny_payload_is_refused_for_verity(keys: Keys, tmp_path: Path) -> None:
    folder = tmp_path / "content"
    folder.mkdir()
    (folder / "manifest.raucm").write_text("[update]\ncompatible=x\n[bundle]\nformat=verity\n")
    with pytest.raises(BundleError, match=r"^squashfs size \(4096\) must be larger than 4096 bytes$"):
        make(folder, tmp_path / "bundle", keys)
    assert list(tmp_path.iterdir()) == [folder]


def test_an_existing_file_is_not_overwritten(content: Content, keys: Keys, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.write_text("precious")
    with pytest.raises(BundleError, match=f"^bundle {bundle} already exists$"):
        make(content("plain"), bundle, keys)
    assert bundle.read_text() == "precious"


def test_without_mksquashfs_the_package_is_named(
    content: Content, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = content("plain")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeviceError, match="Failed to execute mksquashfs") as caught:
        make(folder, tmp_path / "bundle", keys)
    assert "squashfs-tools" in caught.value.hint
    assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_that_cannot_be_written_is_our_error(content: Content, keys: Keys, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="Failed to create bundle"):
        make(content("plain"), tmp_path / "missing" / "bundle", keys)


def test_a_key_that_is_none_leaves_nothing_behind(content: Content, keys: Keys, tmp_path: Path) -> None:
    folder = content("plain")
    certificate = keys.certificate.read_bytes()
    with pytest.raises(SignatureError):
        create(folder, tmp_path / "bundle", certificate=certificate, key=b"rubbish")
    assert list(tmp_path.iterdir()) == [folder]


def test_a_signature_over_the_limit_is_refused(content: Content, keys: Keys, tmp_path: Path) -> None:
    certificate, key = keys.certificate.read_bytes(), keys.key.read_bytes()
    with pytest.raises(BundleError, match=r"exceeds max-bundle-signature-size \(1000\)"):
        create(
            content("plain"), tmp_path / "bundle", certificate=certificate, key=key, max_signature_size=1000
        )


@pytest.mark.parametrize("epoch", ["tomorrow", "9" * 30])
def test_a_wrong_source_date_is_refused(
    epoch: str, content: Content, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
    with pytest.raises(BundleError, match="SOURCE_DATE_EPOCH must be a number of seconds"):
        make(content("plain"), tmp_path / "bundle", keys)


def test_crypt_is_not_supported_yet(content: Content, keys: Keys, tmp_path: Path) -> None:
    with pytest.raises(NotSupportedError, match="crypt"):
        make(content("crypt"), tmp_path / "bundle", keys)


def test_the_manifest_of_the_result_is_complete(content: Content, keys: Keys, tmp_path: Path) -> None:
    manifest = make(content("plain"), tmp_path / "bundle", keys)
    assert replace(manifest, images=(), meta={}, hash="") == Manifest(
        "Test Dev", version="1.2", hook_filename="hook.sh"
    )
    assert manifest.meta == {"label": {"key": "value"}}
