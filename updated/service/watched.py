"""A reader that says when it gets on, and that a person can let rest."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from updated.install.location import Located
from updated.readers.around import ReaderAround


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


class Watched(ReaderAround[Located]):
    """A `Reader` around another: a plain bundle is read for minutes before anything else happens."""

    def __init__(self, located: Located, pace: Pace) -> None:
        super().__init__(located)
        self._pace = pace

    async def read(self, offset: int, length: int) -> bytes:
        await self._pace.wait()
        data = await super().read(offset, length)
        self._pace.moved()
        return data
