"""Waits until policy allows the reboot."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from updated.core.gate import Hold


class Rebooter:
    """Asks again whenever something changed, or the time has come.  Belongs to the event loop."""

    def __init__(
        self,
        wanted: Callable[[], bool],
        may: Callable[[], Awaitable[Hold | None]],
        tell: Callable[[Hold | None], None],
    ) -> None:
        """`wanted`: is a reboot waited for?  `tell` is called with why not yet; None: now."""
        self._wanted = wanted
        self._may = may
        self._tell = tell
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def ask(self) -> None:
        """Something may have changed, a reboot may be wanted at all."""
        self._changed.set()
        if self._wanted() and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._ask())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _ask(self) -> None:
        while self._wanted():
            self._changed.clear()
            hold = await self._may()
            if not self._wanted():
                return
            self._tell(hold)
            if hold is None:
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), hold.delay)
