"""A bootloader that many may ask: what changes it is neither mixed with another change nor left half done."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from updated.core.model import Bootloader
from updated.install.threads import stop_if_cancelled, to_its_end

T = TypeVar("T")


class OneAtATime:
    """A `Bootloader` around another.

    Every backend reads its variables, changes some and writes them back: two at a time, and one change is
    lost.  And a tool that is killed half-way may leave no valid environment, so a cancelled caller waits.
    """

    def __init__(self, bootloader: Bootloader) -> None:
        self._bootloader = bootloader
        self._lock = asyncio.Lock()

    async def get_primary(self) -> str | None:
        return await self._alone(self._bootloader.get_primary())

    async def set_primary(self, bootname: str) -> None:
        await self._alone(self._bootloader.set_primary(bootname))

    async def get_state(self, bootname: str) -> bool:
        return await self._alone(self._bootloader.get_state(bootname))

    async def set_state(self, bootname: str, good: bool) -> None:
        await self._alone(self._bootloader.set_state(bootname, good))

    async def get_current(self) -> str | None:
        return await self._alone(self._bootloader.get_current())

    async def _alone(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            await self._lock.acquire()
        except asyncio.CancelledError:
            work.close()
            raise
        try:
            result = await to_its_end(work)
        finally:
            self._lock.release()
        stop_if_cancelled()
        return result
