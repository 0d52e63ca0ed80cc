"""A server and a slot that can be interrupted anywhere; what each of them did can be counted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from updated.errors import SourceError

WINDOW = 2 << 20  # bytes that a streaming server is ahead of who reads


class Server:
    """A remote `Reader`: it streams what it is told to expect, ahead of the reads, until it dies."""

    remote = True

    def __init__(self, data: bytes, *, dies_after: int | None = None, window: int = WINDOW) -> None:
        """`dies_after` so many bytes were fetched from it."""
        self.size = len(data)
        self.name = "https://server/bundle.raucb"
        self.fetched = 0
        self.reads: list[tuple[int, int]] = []
        self.announced: list[tuple[int, int]] = []
        self.surprises: list[tuple[int, int]] = []  # reads that broke a stream, or came without one
        self.on_read: Callable[[int, int], None] = lambda _offset, _length: None
        self._data = data
        self._dies_after = dies_after
        self._window = window
        self.coming: list[tuple[int, int]] = []  # announced, not read yet
        self._ahead = 0  # bytes of them that were fetched

    def expect(self, ranges: Iterable[tuple[int, int]]) -> None:
        self.coming = [(offset, length) for offset, length in ranges]
        self.announced += self.coming
        self._ahead = 0

    async def read(self, offset: int, length: int) -> bytes:
        assert 0 <= offset <= offset + length <= self.size
        await asyncio.sleep(0)
        self.on_read(offset, length)
        self.reads.append((offset, length))
        if self.coming and self.coming[0] == (offset, length):
            del self.coming[0]
            ahead = min(self._window, sum(size for _, size in self.coming))
            self._fetch(length + ahead - self._ahead)
            self._ahead = ahead
        else:
            self.surprises.append((offset, length))
            self._ahead = 0
            self._fetch(length)
        return self._data[offset : offset + length]

    def forget(self, offset: int, length: int) -> None:
        pass

    async def close(self) -> None:
        pass

    def _fetch(self, length: int) -> None:
        self.fetched += length
        if self._dies_after is not None and self.fetched > self._dies_after:
            self.fetched = self._dies_after
            raise SourceError("the server is gone")


@dataclass
class Medium:
    """What survives a power cut."""

    data: bytearray
    synced: int = 0  # how often


@dataclass
class VolatileSlot:
    """A `SlotWriter` with a write cache: what was not synced is lost with it."""

    medium: Medium
    sync_time: float = 0.0  # seconds
    written: list[tuple[int, int]] = field(default_factory=list)
    _cache: list[tuple[int, bytes]] = field(default_factory=list)

    @property
    def capacity(self) -> int:
        return len(self.medium.data)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        assert offset + len(data) <= self.capacity
        self._cache.append((offset, bytes(data)))
        self.written.append((offset, len(data)))

    def sync(self) -> None:
        count = len(self._cache)  # a write that comes meanwhile is not part of it
        time.sleep(self.sync_time)
        for offset, data in self._cache[:count]:
            self.medium.data[offset : offset + len(data)] = data
        del self._cache[:count]
        self.medium.synced += 1

    def read_back(self, offset: int, length: int) -> bytes:
        return bytes(self.medium.data[offset : offset + length])

    def close(self) -> None:
        pass
