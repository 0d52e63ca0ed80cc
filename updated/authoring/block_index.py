"""Writing the block hash index of an image as `rauc bundle` does (RAUC src/bundle.c)."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from updated.bundle.block_index import SUFFIX, chunks_of, digests_of
from updated.errors import BundleError

PIECE: Final = 1 << 20  # bytes read at once


def write_index(image: Path) -> Path:
    """Write `<image>.block-hash-index` beside `image`; an old one is replaced.

    Raises BundleError with RAUC's texts, OSError.
    """
    try:
        chunks_of(image.stat().st_size)
    except BundleError as error:
        raise BundleError(f"Failed to generate hash index for {image.name}: {error}") from error
    index = image.with_name(image.name + SUFFIX)
    index.unlink(missing_ok=True)  # it may be a link into the maker's folder
    with image.open("rb") as source, index.open("wb") as target:
        while data := source.read(PIECE):
            target.write(digests_of(data))
    return index
