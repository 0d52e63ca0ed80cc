"""When to ask the automatic sources: whenever something may be new, or what was put off is due."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from updated.service.offers import Offers

log = logging.getLogger(__name__)


class Looker:
    """Asks one time after the other, however often it is told to.  Belongs to the event loop."""

    def __init__(
        self,
        offers: Offers,
        found: Callable[[str], None],
        *,
        busy: Callable[[], bool],
        may_begin: Callable[[], bool],
    ) -> None:
        """`found` is called with the name of a source that has something to offer.

        `busy`: something is being installed; whoever ends it calls `look`.  `may_begin`: not busy, and what
        is found would be taken; otherwise sources only let go of their media.
        """
        self._offers = offers
        self._found = found
        self._busy = busy
        self._may_begin = may_begin
        self._task: asyncio.Task[None] | None = None
        self._again = False
        self._due: asyncio.TimerHandle | None = None

    def look(self) -> None:
        """There may be something new.  While it looks, any number of calls are one more look."""
        self._again = True
        if self._task is None:
            self._task = asyncio.create_task(self._look())

    def look_when_due(self) -> None:
        """What was put off gets its time; without such a thing nothing wakes the device."""
        if self._due is not None:
            self._due.cancel()
        delay = self._offers.due() if self._may_begin() else None
        self._due = None if delay is None else asyncio.get_running_loop().call_later(delay, self.look)

    async def close(self) -> None:
        """Look no more."""
        if self._due is not None:
            self._due.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _look(self) -> None:
        try:
            while self._again and not self._busy():
                self._again = False
                source = await self._offers.waiting(begin=self._may_begin())
                if source:
                    self._found(source)
        except Exception:
            log.exception("a bug in `updated`")
        finally:
            self._task = None
        self.look_when_due()
