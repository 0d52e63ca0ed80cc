"""What may be in the folder of a bundle; refusals have RAUC's texts."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from updated.authoring import content
from updated.errors import BundleError, NotSupportedError

UPDATE = "[update]\ncompatible=Test\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "content"
    path.mkdir()
    (path / "manifest.raucm").write_text(UPDATE)
    return path


@pytest.fixture
def stage(folder: Path, tmp_path: Path) -> Callable[[], Path]:
    """Stage the folder and return where it is staged."""

    def run() -> Path:
        work = tmp_path / "work"
        work.mkdir()
        content.stage(folder, work)
        return work

    return run


def complete(folder: Path, work: Path) -> None:
    manifest, _ = content.read_manifest(folder)
    content.complete(manifest, folder, work)


def test_files_folders_and_local_links_are_staged(folder: Path, stage: Callable[[], Path]) -> None:
    (folder / "a.img").write_bytes(b"a")
    (folder / ".hidden-file").write_bytes(b"h")
    (folder / "link.img").symlink_to("a.img")
    (folder / "deep" / ".er").mkdir(parents=True)
    (folder / "deep" / ".er" / "b").write_bytes(b"b")
    (folder / "deep").chmod(0o500)
    work = stage()
    assert {str(path.relative_to(work)) for path in work.rglob("*")} == {
        "a.img", ".hidden-file", "link.img", "deep", "deep/.er", "deep/.er/b",
    }  # fmt: skip
    assert (work / "link.img").readlink() == Path("a.img")
    assert (work / "deep").stat().st_mode & 0o777 == 0o700
    assert (folder / "deep").stat().st_mode & 0o777 == 0o500


def test_hidden_folders_are_refused(folder: Path, stage: Callable[[], Path]) -> None:
    (folder / ".git").mkdir()
    with pytest.raises(BundleError) as caught:
        stage()
    assert str(caught.value) == "hidden directories are not supported as top-level bundle contents (.git)"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("/etc/passwd", "absolute symlinks are not supported as bundle contents (x)"),
        ("../x", "symlinks containing slashes are not supported as bundle contents (x)"),
    ],
)
def test_links_that_lead_away_are_refused(
    target: str, message: str, folder: Path, stage: Callable[[], Path]
) -> None:
    (folder / "x").symlink_to(target)
    with pytest.raises(BundleError) as caught:
        stage()
    assert str(caught.value) == message


def test_other_kinds_of_files_are_refused(folder: Path, stage: Callable[[], Path]) -> None:
    os.mkfifo(folder / "x")
    with pytest.raises(BundleError) as caught:
        stage()
    assert str(caught.value) == "only regular files are supported as bundle contents (x)"


def test_a_folder_on_another_filesystem_is_copied(folder: Path) -> None:
    (folder / "a.img").write_bytes(b"a")
    other = Path("/dev/shm")
    assert other.stat().st_dev != folder.stat().st_dev
    work = other / f"updated-test-{os.getpid()}"
    work.mkdir()
    try:
        content.stage(folder, work)
        assert (work / "a.img").read_bytes() == b"a"
    finally:
        (work / "a.img").unlink()
        work.rmdir()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[image.a]\nfilename=a.img\n",
            "image file 'a.img' for slot 'a' does not exist in bundle content dir ({})",
        ),
        ("[hooks]\nfilename=h\n", "hook file 'h' does not exist in bundle content dir ({})"),
        ("[handler]\nfilename=h\n", "handler file 'h' does not exist in bundle content dir ({})"),
    ],
)
def test_missing_files_are_named(text: str, message: str, folder: Path, stage: Callable[[], Path]) -> None:
    (folder / "manifest.raucm").write_text(UPDATE + text)
    with pytest.raises(BundleError) as caught:
        complete(folder, stage())
    assert str(caught.value) == message.format(folder)


def test_digests_of_the_maker_do_not_count(folder: Path, stage: Callable[[], Path]) -> None:
    (folder / "a.img").write_bytes(b"a")
    (folder / "manifest.raucm").write_text(UPDATE + "[image.a]\nfilename=a.img\nsha256=zz\nsize=99\n")
    manifest, _ = content.read_manifest(folder)
    (image,) = content.complete(manifest, folder, stage()).images
    assert (image.sha256, image.size) == (hashlib.sha256(b"a").hexdigest(), 1)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (0, "Failed to generate hash index for a.img: image/partition is empty"),
        (
            5000,
            "Failed to generate hash index for a.img: "
            "image/partition size (5000) is not a multiple of 4096 bytes",
        ),
    ],
)
def test_images_that_cannot_have_an_index_are_refused(
    size: int, message: str, folder: Path, stage: Callable[[], Path]
) -> None:
    (folder / "a.img").write_bytes(bytes(size))
    (folder / "manifest.raucm").write_text(UPDATE + "[image.a]\nfilename=a.img\nadaptive=block-hash-index\n")
    with pytest.raises(BundleError) as caught:
        complete(folder, stage())
    assert str(caught.value) == message


def test_an_old_index_in_the_folder_is_not_changed(folder: Path, stage: Callable[[], Path]) -> None:
    (folder / "a.img").write_bytes(bytes(8192))
    (folder / "a.img.block-hash-index").write_bytes(b"old")
    (folder / "manifest.raucm").write_text(UPDATE + "[image.a]\nfilename=a.img\nadaptive=block-hash-index\n")
    work = stage()
    complete(folder, work)
    zero = bytes.fromhex("ad7facb2586fc6e966c004d7d1d16b024f5805ff7cb47c7a85dabd8b48892ca7")
    assert (work / "a.img.block-hash-index").read_bytes() == zero * 2
    assert (folder / "a.img.block-hash-index").read_bytes() == b"old"


def test_an_unknown_adaptive_method_is_refused(folder: Path, stage: Callable[[], Path]) -> None:
    (folder / "a.img").write_bytes(b"a")
    (folder / "manifest.raucm").write_text(
        UPDATE + "[image.a]\nfilename=a.img\nadaptive=adaptive-test-method;foo\n"
    )
    with pytest.raises(BundleError, match=r"^Unsupported adaptive method: foo$"):
        complete(folder, stage())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (UPDATE + "foo=1\n", "Failed to load manifest: Invalid key 'foo' in group '[update]'"),
        (UPDATE + "[image.a]\nfilename=a/b.img\n", "Image filename a/b.img must not contain '/'"),
        (
            UPDATE + f"[bundle]\nformat=verity\nverity-salt={'00' * 32}\n",
            "Unexpected verity or crypt options in input manifest",
        ),
        (
            UPDATE + "[hooks]\nfilename=h\n[image.a]\nfilename=a.img\nhooks=install;post-install\n",
            "An 'install' hook must not be combined with 'pre-install' or 'post-install' hooks",
        ),
        (
            UPDATE + "[bundle]\nformat=verity\n[image.a/b]\nfilename=b\nconverted=c\n",
            "Unexpected 'converted' option in input manifest",
        ),
    ],
)
def test_manifests_that_make_no_bundle_are_refused(text: str, message: str, folder: Path) -> None:
    (folder / "manifest.raucm").write_text(text)
    with pytest.raises(BundleError) as caught:
        content.read_manifest(folder)
    assert str(caught.value) == message


def test_a_missing_manifest_is_named(folder: Path) -> None:
    (folder / "manifest.raucm").unlink()
    with pytest.raises(
        BundleError, match=r"^Failed to load manifest: Failed to open file “.*manifest.raucm”: No such"
    ):
        content.read_manifest(folder)


def test_converters_are_not_supported_yet(folder: Path) -> None:
    (folder / "manifest.raucm").write_text(
        UPDATE + "[bundle]\nformat=verity\n[image.a/b]\nfilename=b.tar\nconvert=tar-extract\n"
    )
    with pytest.raises(NotSupportedError, match=r"b\.tar"):
        content.read_manifest(folder)
