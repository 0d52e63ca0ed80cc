"""RAUC's `block-hash-index`: the SHA-256 of each 4096 bytes of an image, one after the other.

No header, no salt, no shorter last chunk (RAUC src/hash_index.c).  In a bundle it is the file
`<image>.block-hash-index` beside the image.
"""

from __future__ import annotations

import hashlib
from typing import Final

from updated.errors import BundleError

METHOD: Final = "block-hash-index"  # in `adaptive=` of the manifest
SUFFIX: Final = ".block-hash-index"  # of the file in the bundle
CHUNK: Final = 4096  # bytes of the image
DIGEST: Final = 32  # bytes
MAX_CHUNKS: Final = 0x7FFFFFF  # RAUC's limit: just under 512 GiB
ZERO: Final = hashlib.sha256(bytes(CHUNK)).digest()  # of a chunk of zeros


def chunks_of(size: int) -> int:
    """How many chunks an image of `size` bytes has.  Raises BundleError with RAUC's texts."""
    if size == 0:
        raise BundleError("image/partition is empty")
    if size % CHUNK:
        raise BundleError(f"image/partition size ({size}) is not a multiple of {CHUNK} bytes")
    if size // CHUNK > MAX_CHUNKS:
        raise BundleError(f"image/partition size ({size}) is too large")
    return size // CHUNK


def digests_of(data: bytes | bytearray | memoryview) -> bytes:
    """The digests of whole chunks."""
    view, sha256 = memoryview(data), hashlib.sha256
    return b"".join([sha256(view[start : start + CHUNK]).digest() for start in range(0, len(view), CHUNK)])
