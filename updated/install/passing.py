"""A plain payload that passes by once, in order, and is hashed on the way (why that is safe: `direct.py`)."""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final

from updated.bundle.chunks import CHUNK
from updated.core.model import Reader
from updated.errors import BundleError, SourceError, UpdatedError
from updated.finish import stop_if_cancelled, to_its_end
from updated.install.opened import Detached
from updated.readers.around import ReaderAround

PIECE: Final = 16 * CHUNK  # bytes that pass at once
KEPT: Final = 3  # pieces that have passed and are still at hand: one run of the pipeline touches no more
AHEAD: Final = 32  # chunks read apart that are still at hand: metadata is asked for again and again
DIGEST: Final = 32  # bytes


class Record:
    """The SHA-256 of each chunk as it was first seen: 32 bytes of memory each, 1 MiB at most."""

    def __init__(self, size: int) -> None:
        self._digests = bytearray(-(-size // CHUNK) * DIGEST)

    def see(self, offset: int, data: bytes) -> None:
        """Whole chunks from `offset`, the last one of the payload may be short.

        Blocks: a millisecond for each MiB.  Raises SourceError if one of them was another before.
        """
        view = memoryview(data)
        for start in range(0, len(view), CHUNK):
            digest = hashlib.sha256(view[start : start + CHUNK]).digest()
            place = (offset + start) // CHUNK * DIGEST
            known = self._digests[place : place + DIGEST]
            if any(known) and known != digest:
                raise SourceError(
                    f"Bundle changed while it was read: bytes {offset + start} to"
                    f" {min(offset + start + CHUNK, offset + len(view))} are not what they were",
                    hint="Give new bundles new names on the server, or replace them as a whole.",
                )
            self._digests[place : place + DIGEST] = digest


class PassingReader(ReaderAround[Reader]):
    """A `Reader` of the payload that lets it pass once, in order, and hashes it on the way.

    Reads of what was announced with `stream` move the pass on; all others are requests of their own.
    """

    def __init__(self, found: Detached) -> None:
        super().__init__(found.reader)
        self._payload_size = found.payload_size
        self._message = found.message
        self._whole = hashlib.new(found.message.digest_algorithm)
        self._record = Record(found.payload_size)
        self._streamed: set[range] = set()
        self._metadata = 0
        self._position = 0  # bytes that have passed
        self._passed: deque[tuple[int, bytes]] = deque(maxlen=KEPT)
        self._ahead: dict[int, bytes] = {}  # chunk offset -> chunk, the one that goes next first
        self._turn = asyncio.Lock()
        self._fault: UpdatedError | None = None

    def metadata_at(self, start: int) -> None:
        """From here on nothing is read in order."""
        self._metadata = start - start % CHUNK

    def stream(self, start: int, length: int) -> None:
        """What lies there will be read in order, as it passes."""
        self._streamed.add(range(start, start + length))

    def expect(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Nothing to do: what comes next is the next piece."""

    async def read(self, offset: int, length: int) -> bytes:
        """`length` bytes of the payload from `offset`.  Raises BundleError (outside of it), SourceError."""
        if offset < 0 or length < 0 or offset + length > self._payload_size:
            raise BundleError(
                f"Bundle payload has {self._payload_size} bytes,"
                f" but bytes {offset} to {offset + length} are needed"
            )
        start = offset - offset % CHUNK
        end = min(-(-(offset + length) // CHUNK) * CHUNK, self._payload_size)
        async with self._turn:
            if self._is_streamed(start):
                await self._pass_to(end)
            if self._passed and self._passed[0][0] <= start and end <= self._position:
                data = self._out_of_passed(start, end)
            else:
                data = await self._read_apart(start, end)
        return data[offset - start : offset - start + length]

    def forget(self, offset: int, length: int) -> None:
        """Nothing to do: bytes are neither good nor bad before the proof, only the same or not."""

    async def prove(self) -> None:
        """Let the rest pass; is all of it what was signed?  Raises SignatureError or SourceError."""
        async with self._turn:
            await self._pass_to(self._payload_size)
            self._message.check_digest(self._whole.digest())

    def _is_streamed(self, start: int) -> bool:
        """Is any of the chunk at `start` part of an image?"""
        return start < self._metadata and any(
            region.start - CHUNK < start < region.stop for region in self._streamed if region
        )

    async def _pass_to(self, end: int) -> None:
        if self._fault is not None:
            raise self._fault
        if self._position == 0:
            self.inner.expect(self._pieces())
        while self._position < end:
            piece = await self.inner.read(self._position, min(PIECE, self._payload_size - self._position))
            # A piece is hashed once, whoever is cancelled meanwhile.
            await to_its_end(self._take(piece))
            stop_if_cancelled()

    def _pieces(self) -> Iterator[tuple[int, int]]:
        for offset in range(0, self._payload_size, PIECE):
            yield offset, min(PIECE, self._payload_size - offset)

    async def _take(self, piece: bytes) -> None:
        try:
            await asyncio.gather(
                asyncio.to_thread(self._whole.update, piece),
                asyncio.to_thread(self._record.see, self._position, piece),
            )
        except UpdatedError as error:
            self._fault = error
            raise
        self._passed.append((self._position, piece))
        self._position += len(piece)

    def _out_of_passed(self, start: int, end: int) -> bytes:
        return b"".join(
            piece[max(start - position, 0) : max(end - position, 0)] for position, piece in self._passed
        )

    async def _read_apart(self, start: int, end: int) -> bytes:
        """Whole chunks, by a request of their own unless they are at hand."""
        offsets = range(start, end, CHUNK)
        if all(offset in self._ahead for offset in offsets):
            return b"".join(self._ahead[offset] for offset in offsets)
        data = await self.inner.read(start, end - start)
        await asyncio.to_thread(self._record.see, start, data)
        for offset in offsets:
            self._ahead.pop(offset, None)
            self._ahead[offset] = data[offset - start : offset - start + CHUNK]
        while len(self._ahead) > AHEAD:
            del self._ahead[next(iter(self._ahead))]
        return data
