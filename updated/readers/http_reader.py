"""A bundle on a server, read by ranges: one connection, one long request for all that is expected."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import aclosing

from updated.errors import BundleError, SourceError
from updated.readers.http_object import HttpObject
from updated.readers.http_stream import Stream


class HttpReader:
    """A `Reader` of one object on a server.  Make it with `HttpClient.open`.

    What is expected streams; any other read interrupts the stream, which then goes on where it was.
    A connection that breaks or stalls (fewer than 1 KiB within the stall timeout) is made again at the next
    byte, several times; an object that changes meanwhile is an error, never a mixture.
    """

    def __init__(self, source: HttpObject, tail: bytes) -> None:
        self._source = source
        self._tail = tail  # the end of the object, kept: it is read again
        self._tail_start = source.size - len(tail)
        self._stream: Stream | None = None
        self._line = asyncio.Lock()  # for reads that were not expected
        self._alone: set[asyncio.Task[bytes]] = set()
        self._closed = False

    @property
    def size(self) -> int:
        """Size of the whole bundle in bytes."""
        return self._source.size

    @property
    def name(self) -> str:
        """URL without what is secret in it."""
        return self._source.name

    @property
    def remote(self) -> bool:
        return True

    @property
    def fetched(self) -> int:
        """Bytes taken from the server so far, repeated ones included."""
        return self._source.fetched

    @property
    def url(self) -> str:
        """Where the object is, after redirects."""
        return self._source.at

    @property
    def etag(self) -> str:
        """As the server gave it; "": it did not."""
        return self._source.etag

    @property
    def modified(self) -> int:
        """Seconds since 1970; 0: not known."""
        return self._source.modified

    def expect(self, ranges: Iterable[tuple[int, int]]) -> None:
        """The reads that come next, as (offset, length), in this order and each once.

        They are fetched from now on, up to a window of 2 MiB before they are read.
        """
        if self._closed:
            return
        if self._stream is not None:
            self._stream.end()
        self._stream = Stream(self._source, ranges, self._is_fetched)
        if not self._alone:
            self._stream.resume()

    async def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`.

        Raises BundleError for a range that is not inside the object (only a bundle's own words lead there),
        and SourceError when the bytes cannot be had.
        """
        if offset < 0 or length < 0 or offset + length > self.size:
            raise BundleError(
                f"Bundle is cut short: bytes {offset} to {offset + length} of {self.name} are needed,"
                f" but it has {self.size}"
            )
        if self._closed:
            raise self._was_closed()
        if not self._is_fetched(offset, length):
            return self._tail[offset - self._tail_start :][:length] if length else b""
        while stream := self._stream:
            data = await stream.read(offset, length)
            if data is not None:
                return data
            if self._closed:
                raise self._was_closed()
            if stream is self._stream:
                break
        return await self._read_alone(offset, length)

    def forget(self, offset: int, length: int) -> None:
        """These bytes were bad: the next read of them asks the server, and caches on the way not to help."""
        self._source.fresh = True
        if offset + length > self._tail_start:
            self._tail, self._tail_start = b"", self.size
        if self._stream is not None:
            self._stream.forget(offset, length)

    async def close(self) -> None:
        """End the reads that wait.  More than once is fine; the connection stays with the client."""
        self._closed = True
        for task in self._alone:
            task.cancel()
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.end()
            await stream.pause()

    def _is_fetched(self, offset: int, length: int) -> bool:
        """Does it take the server to read this?"""
        return 0 <= offset < self._tail_start and 0 < length <= self.size - offset

    async def _read_alone(self, offset: int, length: int) -> bytes:
        task = asyncio.get_running_loop().create_task(self._fetch(offset, length))
        self._alone.add(task)
        try:
            await asyncio.wait({task})
            if task.cancelled():
                raise self._was_closed()
            return task.result()
        finally:
            task.cancel()
            self._alone.discard(task)
            if not self._alone and self._stream is not None:
                self._stream.resume()

    async def _fetch(self, offset: int, length: int) -> bytes:
        async with self._line:
            if self._stream is not None:
                await self._stream.pause()
            async with aclosing(self._source.stream(offset, offset + length)) as chunks:
                return b"".join([chunk async for chunk in chunks])

    def _was_closed(self) -> SourceError:
        return SourceError(f"Failed to read {self.name}: it was closed meanwhile")
