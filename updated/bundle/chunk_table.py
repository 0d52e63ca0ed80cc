"""Where chunks of an image can be had, in little memory: 12 bytes for each that is looked for.

A hash table with open addressing in one array.  An entry is 35 bits of the digest and the place, so digests
are never fetched again to compare them.  Two digests with the same bits are taken for one, about once in a
thousand images: so whoever reads a chunk from its place hashes it.
"""

from __future__ import annotations

import sys
from array import array
from typing import Final

from updated.bundle.block_index import DIGEST, MAX_CHUNKS

PLACE_BITS: Final = 29
PLACE_MASK: Final = (1 << PLACE_BITS) - 1
SOURCES: Final = PLACE_MASK // (MAX_CHUNKS + 1)  # a place is a chunk number of one of so many
MAX_PROBES: Final = 64  # entries looked at: digests that were made to collide cost no more than that
WORDS: Final = DIGEST // 8


class ChunkTable:
    """Digest -> place.  First all digests are `want`ed, then the places `offer`ed, then asked for."""

    def __init__(self, wanted: int) -> None:
        """For at most `wanted` digests."""
        self._size = wanted + wanted // 2 + 1
        self._table = array("Q", [0]) * self._size

    def want(self, prefix: int, place: int) -> None:
        """Look for a digest; it will be found at `place`, the first of them, if nobody offers another one."""
        at = self._find(prefix)
        if at >= 0 and not self._table[at]:
            self._table[at] = _tag(prefix) << PLACE_BITS | (place + 1)

    def offer(self, digests: bytes, place: int) -> None:
        """The chunks with these digests are at `place` and behind it; the last offer of a digest counts."""
        table, size = self._table, self._size
        for place_after, prefix in enumerate(prefixes(digests), place + 1):
            at = prefix % size
            entry = table[at]
            if not entry:  # almost always
                continue
            tag = _tag(prefix)
            for _ in range(MAX_PROBES):
                if entry >> PLACE_BITS == tag:
                    table[at] = tag << PLACE_BITS | place_after
                    break
                at = at + 1 if at + 1 < size else 0
                entry = table[at]
                if not entry:
                    break

    def place(self, digest: bytes | memoryview) -> int:
        """Where the chunk with this digest is; -1: not known."""
        at = self._find(int.from_bytes(digest[:8], sys.byteorder))
        return (self._table[at] & PLACE_MASK) - 1 if at >= 0 else -1

    def _find(self, prefix: int) -> int:
        """Its entry, or the free one where it belongs; -1: too many others are in its way."""
        table, size, tag = self._table, self._size, _tag(prefix)
        at = prefix % size
        for _ in range(MAX_PROBES):
            if not table[at] or table[at] >> PLACE_BITS == tag:
                return at
            at = at + 1 if at + 1 < size else 0
        return -1


def prefixes(digests: bytes) -> array[int]:
    """The first 64 bits of each digest."""
    return array("Q", digests)[::WORDS]


def _tag(prefix: int) -> int:
    return prefix >> PLACE_BITS or 1  # an entry is never 0
