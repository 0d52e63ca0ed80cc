"""Digests of a plain payload, taken in the same pass that checks its signature.

A plain bundle has no hash tree.  What was verified once could be changed before it is used; so every later
read is compared with the digests that were taken while the signed bytes went by.
"""

from __future__ import annotations

import hashlib

from updated.bundle.plan import Range
from updated.bundle.verity import corrupted

CHUNK = 64 * 1024  # bytes; 32 bytes of memory for each, 1 MiB for the largest plain bundle


class ChunkDigests:
    """A `Verifier` that needs nothing beside the data.  Never changes: any number of threads may use it."""

    granule = CHUNK

    def __init__(self, data_size: int, digests: bytes) -> None:
        self.data_size = data_size
        self._digests = digests

    def digests(self, offset: int, length: int) -> Range | None:
        """Nothing: they are in memory."""
        return None

    def check(self, offset: int, data: bytes | memoryview, digests: bytes) -> None:
        """Accept `data` (whole chunks from `offset`, the last one of the payload may be short).

        Raises BundleError("bundle payload is corrupted") otherwise.
        """
        end = offset + len(data)
        if offset % CHUNK or end > self.data_size or (end % CHUNK and end != self.data_size):
            raise ValueError(f"not a range of chunks: {len(data)} bytes at {offset}")
        view = memoryview(data)
        found = b"".join(
            hashlib.sha256(view[start : start + CHUNK]).digest() for start in range(0, len(view), CHUNK)
        )
        position = offset // CHUNK * hashlib.sha256().digest_size
        if found != self._digests[position : position + len(found)]:
            raise corrupted()


class ChunkDigestsBuilder:
    """Is fed the payload from its beginning, in pieces of any size."""

    def __init__(self) -> None:
        self._digests = bytearray()
        self._chunk = hashlib.sha256()
        self._size = 0

    def feed(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        while view:
            room = CHUNK - self._size % CHUNK
            part = view[:room]
            self._chunk.update(part)
            self._size += len(part)
            if len(part) == room:
                self._end_chunk()
            view = view[room:]

    def finish(self) -> ChunkDigests:
        """The digests of what was fed; the builder must not be used any more."""
        if self._size % CHUNK:
            self._end_chunk()
        return ChunkDigests(self._size, bytes(self._digests))

    def _end_chunk(self) -> None:
        self._digests += self._chunk.digest()
        self._chunk = hashlib.sha256()
