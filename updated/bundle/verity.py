"""dm-verity's hash tree, checked in user space (Linux Documentation/admin-guide/device-mapper/verity.rst).

RAUC's parameters: hash format 1, SHA-256, blocks of 4096 bytes, a salt of 32 bytes in front of what is
hashed, no superblock.  Level 1 holds the digests of the data blocks, level i+1 those of the blocks of
level i, 128 in each block; the single block of the highest level comes first on disk, level 1 last.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from updated.bundle.plan import Plan, Range
from updated.errors import BundleError

if TYPE_CHECKING:
    from hashlib import _Hash

BLOCK = 4096  # bytes, of data and of hashes
DIGEST = 32  # bytes
PER_BLOCK = BLOCK // DIGEST
READ = 1 << 20  # bytes of upper levels read at once


@dataclass(frozen=True, slots=True)
class VerityParams:
    """What the signed manifest says of the hash tree; `data_size` is two or more whole blocks."""

    root: bytes
    salt: bytes
    data_size: int  # bytes; the tree begins here


def level_blocks(data_size: int) -> tuple[int, ...]:
    """How many blocks the levels 1, 2, ... have."""
    counts = []
    blocks = data_size // BLOCK
    while blocks > 1:
        blocks = -(-blocks // PER_BLOCK)
        counts.append(blocks)
    return tuple(counts)


def tree_size(data_size: int) -> int:
    """Bytes of the whole hash tree."""
    return BLOCK * sum(level_blocks(data_size))


def hash_blocks(salted: _Hash, data: bytes | bytearray | memoryview) -> bytes:
    """The digests of all 4096-byte blocks of `data`; `salted` is a SHA-256 that was fed the salt."""
    view = memoryview(data)
    copy = salted.copy
    digests = []
    for position in range(0, len(view), BLOCK):
        hasher = copy()
        hasher.update(view[position : position + BLOCK])
        digests.append(hasher.digest())
    return b"".join(digests)


class VerityTree:
    """A `Verifier`: all levels above the first are verified and in memory (1/16384 of the data).

    Never changes after `load`, so any number of threads may use it.
    """

    granule = BLOCK

    def __init__(self, params: VerityParams, leaf_digests: bytes) -> None:
        """`leaf_digests`: the verified digests of the blocks of level 1.  Use `load` instead."""
        self.data_size = params.data_size
        self._salted = hashlib.sha256(params.salt)
        self._leaf_digests = leaf_digests
        self._leaves = params.data_size + tree_size(params.data_size) - BLOCK * (len(leaf_digests) // DIGEST)

    def digests(self, offset: int, length: int) -> Range:
        """The blocks of level 1 that cover the data."""
        first, last = offset // BLOCK // PER_BLOCK, (offset + length - 1) // BLOCK // PER_BLOCK
        return Range(self._leaves + first * BLOCK, (last - first + 1) * BLOCK)

    def check(self, offset: int, data: bytes | memoryview, digests: bytes) -> None:
        """Accept `data` (whole blocks from `offset`) with the bytes of `digests(offset, len(data))`.

        Raises BundleError("bundle payload is corrupted") otherwise.
        """
        if offset % BLOCK or offset + len(data) > self.data_size:
            raise ValueError(f"not a range of data blocks: {len(data)} bytes at {offset}")
        first = offset // BLOCK
        leaf = first // PER_BLOCK * DIGEST
        leaf_digests = hash_blocks(self._salted, digests)
        if leaf_digests != self._leaf_digests[leaf : leaf + len(leaf_digests)]:
            raise corrupted()
        position = first % PER_BLOCK * DIGEST
        found = hash_blocks(self._salted, data)
        if found != digests[position : position + len(found)]:
            raise corrupted()


def load(params: VerityParams) -> Plan[VerityTree]:
    """Read the levels above the first from the top down, each checked against the one above it.

    Raises BundleError("bundle payload is corrupted").
    """
    salted = hashlib.sha256(params.salt)
    expected = params.root
    offset = params.data_size
    counts = level_blocks(params.data_size)
    below = (params.data_size // BLOCK, *counts)
    for level in range(len(counts), 1, -1):
        size = counts[level - 1] * BLOCK
        pieces = []
        for start in range(0, size, READ):
            piece = yield Range(offset + start, min(READ, size - start))
            pieces.append(piece)
        blocks = b"".join(pieces)
        if len(blocks) != size or hash_blocks(salted, blocks) != expected:
            raise corrupted()
        expected = blocks[: below[level - 1] * DIGEST]
        offset += size
    return VerityTree(params, expected)


def corrupted() -> BundleError:
    return BundleError(
        "bundle payload is corrupted",
        hint="The signature is good, the bytes are not: copy the bundle again, or check the medium.",
    )
