"""A reader that says when it gets on, and that a person can let rest."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from updated.install.location import Located


class Pace:
    """Open: reads go on.  Closed: they wait.  Belongs to the event loop."""

    def __init__(self, moved: Callable[[], None]) -> None:
        """`moved` is called whenever something gets on."""
        self.moved = moved
        self._open = asyncio.Event()
        self._open.set()

    @property
    def paused(self) -> bool:
        return not self._open.is_set()

    def pause(self) -> None:
        self._open.clear()

    def resume(self) -> None:
        self._open.set()

    async def wait(self) -> None:
        await self._open.wait()


class Watched:
    """A `Reader` around another: a plain bundle is read for minutes before anything else happens."""

    def __init__(self, located: Located, pace: Pace) -> None:
        self.located = self._reader = located
        self._pace = pace

    @property
    def size(self) -> int:
        return self._reader.size

    @property
    def name(self) -> str:
        return self._reader.name

    @property
    def remote(self) -> bool:
        return self._reader.remote

    @property
    def fetched(self) -> int:
        return self._reader.fetched

    def expect(self, ranges: Iterable[tuple[int, int]]) -> None:
        self._reader.expect(ranges)

    async def read(self, offset: int, length: int) -> bytes:
        await self._pace.wait()
        data = await self._reader.read(offset, length)
        self._pace.moved()
        return data

    def forget(self, offset: int, length: int) -> None:
        self._reader.forget(offset, length)

    async def close(self) -> None:
        await self._reader.close()
