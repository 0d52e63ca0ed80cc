"""A bundle that cannot be read by ranges is laid down on disk first.

    <folder>/<16 hex digits of the URL's SHA-256>.part   the bytes so far, locked while in use
    <folder>/<the same>.json                             whose bytes they are, how many of them are durable

An interrupted download leaves both, and the next one of the same object goes on from there.  After a power
cut only what was synced counts: a file's length may reach the disk before its bytes do.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final, Protocol

from updated.core.model import Expected
from updated.errors import DeviceError, SourceError
from updated.finish import stop_if_cancelled, to_its_end
from updated.readers.file import FileReader
from updated.readers.spool_part import Part, sweep

__all__ = ["Body", "OpenBody", "SpoolReader", "spool", "sweep"]

PIECE: Final = 1 << 20  # bytes written at once


class Body(Protocol):
    """An object as a server sends it, to its end."""

    @property
    def start(self) -> int:
        """Its first byte: as asked for, or 0 if the server cannot do that or the object is another one."""
        ...

    @property
    def size(self) -> int:
        """Bytes of the whole object; 0: not known."""
        ...

    @property
    def etag(self) -> str: ...

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Chunks that are not empty; raises SourceError unless they are complete."""
        ...


OpenBody = Callable[[int, str], AbstractAsyncContextManager[Body]]
"""Asks for an object from a byte on, if it still has this ETag."""


class SpoolReader(FileReader):
    """A `Reader` of the spooled file, which `close` removes."""

    def __init__(self, part: Part, name: str, fetched: int) -> None:
        super().__init__(part.detach(), name, part.length)
        self._part = part
        self._over_network = fetched
        self._keep = False
        self._gone = False

    @property
    def fetched(self) -> int:
        """Bytes that came over the network."""
        return self._over_network

    def keep_for_retry(self) -> None:
        """`close` shall leave the file: the same bundle will be tried again."""
        self._keep = True

    async def close(self) -> None:
        """More than once is fine."""
        if not self._gone:
            self._gone = True
            if not (self._keep and self._part.resumable):
                await to_its_end(asyncio.to_thread(self._part.remove))
        await super().close()


async def no_rest() -> None:
    """Go on at once."""


async def spool(
    url: str,
    open_body: OpenBody,
    *,
    folder: Path,
    reserve: int,
    name: str = "",
    etag: str = "",
    expected: Expected | None = None,
    on_progress: Callable[[], None] = lambda: None,
    on_bytes: Callable[[int, int], None] = lambda _there, _size: None,
    rest: Callable[[], Awaitable[None]] = no_rest,
) -> SpoolReader:
    """Download the object at `url` into `folder`; whatever is there of other URLs is removed first.

    `reserve`: bytes that stay free there.  `etag`: of the object as the server has it now.  `expected`: what
    an index says of it.  `name`: of the reader, for messages.  `on_progress` is called whenever it gets on,
    `on_bytes` with how many bytes are there and how many there will be (0: not known).  `rest` is awaited
    before each chunk, and may take as long as it likes.

    Raises SourceError (the object cannot be had, or is not what the index says), DeviceError (no space).
    """
    await to_its_end(asyncio.to_thread(sweep, folder, url))
    part = await to_its_end(asyncio.to_thread(Part, folder, url, reserve))
    filling = _Filling(part, expected or Expected(), on_progress, on_bytes, rest)
    try:
        stop_if_cancelled()
        fetched = await filling.fill(open_body, etag)
    except BaseException:
        await to_its_end(asyncio.to_thread(part.close, keep=filling.worth_keeping))
        raise
    return SpoolReader(part, name or url, fetched)


class _Filling:
    """One download into one part file."""

    def __init__(
        self,
        part: Part,
        expected: Expected,
        on_progress: Callable[[], None],
        on_bytes: Callable[[int, int], None],
        rest: Callable[[], Awaitable[None]],
    ) -> None:
        self.worth_keeping = True
        self._part = part
        self._expected = expected
        self._on_progress = on_progress
        self._on_bytes = on_bytes
        self._rest = rest
        self._hash = hashlib.sha256() if expected.sha256 else None

    async def fill(self, open_body: OpenBody, etag: str) -> int:
        """The bytes that came over the network."""
        fetched = 0
        there = await asyncio.to_thread(self._part.there, etag)
        try:
            if there.size and there.synced == there.size:
                await self._begin(there.synced, there.etag, there.size)
            else:
                async with open_body(there.synced, there.etag) as body:
                    fetched = await self._take(body, there.synced)
        except DeviceError:
            self.worth_keeping = False
            raise
        self._check()
        return fetched

    async def _take(self, body: Body, asked: int) -> int:
        chunks = aiter(body)
        chunk = await anext(chunks, b"")  # what is there is not given up before something comes
        if body.start not in (0, asked):
            raise SourceError(f"Server sends bytes from {body.start} on, expected from {asked}")
        if body.size:
            self._check_size(body.size)
        await self._begin(body.start, body.etag, body.size)
        if body.size:
            await asyncio.to_thread(self._part.check_room, body.size - body.start)
        fetched, waiting = 0, bytearray()
        while chunk:
            self._on_progress()
            fetched += len(chunk)
            waiting += chunk
            if len(waiting) >= PIECE:
                await self._append(waiting, body.size)
                waiting = bytearray()
                self._on_bytes(self._part.length, body.size or self._expected.size)
            await self._rest()
            chunk = await anext(chunks, b"")
        await self._append(waiting, body.size)
        await self._blocking(self._part.sync)
        if body.size and self._part.length < body.size:
            raise SourceError(
                f"Download ended early: expected {body.size} bytes, got {self._part.length}",
                hint="Try again: it goes on from there if the server can do that.",
            )
        return fetched

    async def _begin(self, start: int, etag: str, size: int) -> None:
        await self._blocking(self._part.begin, start, etag, size)
        if self._hash is None:
            return
        pieces = self._part.pieces()
        while piece := await asyncio.to_thread(next, pieces, b""):
            await asyncio.to_thread(self._hash.update, piece)
            self._on_progress()

    async def _append(self, data: bytearray, size: int) -> None:
        whole = size or self._expected.size
        if whole and self._part.length + len(data) > whole:
            raise self._wrong(f"has more than {whole} bytes")
        await self._blocking(self._append_now, data, size)

    def _append_now(self, data: bytearray, size: int) -> None:
        self._part.check_room(size - self._part.length if size else len(data))
        self._part.append(data)
        if self._hash is not None:
            self._hash.update(data)

    async def _blocking(self, function: Callable[..., None], *args: object) -> None:
        """In a thread that is done with the file when this returns, also if it is cancelled."""
        await to_its_end(asyncio.to_thread(function, *args))
        stop_if_cancelled()
        self._on_progress()

    def _check(self) -> None:
        self._check_size(self._part.length)
        if self._hash is not None and self._hash.hexdigest() != self._expected.sha256:
            raise self._wrong(f"has the SHA-256 {self._hash.hexdigest()}, expected {self._expected.sha256}")

    def _check_size(self, size: int) -> None:
        if self._expected.size and size != self._expected.size:
            raise self._wrong(f"has {size} bytes, expected {self._expected.size}")

    def _wrong(self, what: str) -> SourceError:
        self.worth_keeping = False
        return SourceError(
            f"Downloaded bundle is not what was offered: it {what}",
            hint="Publish index and bundle together, and never replace a bundle under its name.",
        )
