"""The block hash index that `updated bundle` writes, against the one of the real `rauc bundle`."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from updated.authoring.block_index import PIECE, write_index
from updated.bundle.block_index import CHUNK, DIGEST, MAX_CHUNKS
from updated.errors import BundleError

Rauc = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.mark.parametrize("size", [CHUNK, PIECE + 3 * CHUNK], ids=["one chunk", "some pieces"])
def test_it_is_raucs(size: int, tmp_path: Path, rauc: Rauc) -> None:
    folder = tmp_path / "content"
    folder.mkdir()
    image = folder / "rootfs.img"
    image.write_bytes(
        bytes(size // 2 // CHUNK * CHUNK) + random.Random(2).randbytes(size - size // 2 // CHUNK * CHUNK)
    )
    (folder / "manifest.raucm").write_text(
        "[update]\ncompatible=Test\nversion=1\n[bundle]\nformat=verity\n"
        "[image.rootfs]\nfilename=rootfs.img\nadaptive=block-hash-index\n"
    )
    (folder / "more").write_bytes(random.Random(3).randbytes(8192))  # or the bundle is too small
    assert rauc("bundle", folder, tmp_path / "bundle").returncode == 0
    assert rauc("extract", tmp_path / "bundle", tmp_path / "extracted").returncode == 0
    index = write_index(image)
    assert index.name == "rootfs.img.block-hash-index"
    assert index.read_bytes() == (tmp_path / "extracted" / index.name).read_bytes()
    assert index.stat().st_size == size // CHUNK * DIGEST


def test_an_image_that_is_too_large_is_refused(tmp_path: Path) -> None:
    image = tmp_path / "rootfs.img"
    with image.open("wb") as file:
        file.truncate((MAX_CHUNKS + 1) * CHUNK)  # it has no blocks on disk
    with pytest.raises(BundleError, match=r"rootfs\.img: image/partition size \(549755813888\) is too large"):
        write_index(image)
    assert list(tmp_path.iterdir()) == [image]
