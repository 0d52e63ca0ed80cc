"""The watchdog pings: they say that the event loop runs and that the machine gets on."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from updated.core import events

log = logging.getLogger(__name__)


class Watchdog:
    """Pings every half of systemd's timeout, unless the machine is stuck.

    A ping that comes late (the loop was blocked) or not at all (the machine is stuck) counts as missed.
    """

    def __init__(self, timeout: float | None, ping: Callable[[], None]) -> None:
        """`timeout` in seconds; None: there is no watchdog."""
        self.missed = 0
        self._timeout = timeout
        self._ping = ping
        self._stuck: Callable[[], str] = lambda: ""

    async def run(self, stuck: Callable[[], str]) -> None:
        """Ping for ever, while `stuck` does not say why the machine does not get on.

        Returns at once where there is no watchdog, so that nothing wakes the device.
        """
        self._stuck = stuck
        if self._timeout is None:
            return
        period = self._timeout / 2
        while True:
            self.beat()
            due = time.monotonic() + period
            await asyncio.sleep(period)
            if time.monotonic() - due > period:
                self.missed += 1
                log.warning("the event loop was blocked for %.1f s", time.monotonic() - due)

    def beat(self) -> None:
        """One ping, if the machine gets on."""
        reason = self._stuck()
        if reason:
            self.missed += 1
            log.error("no watchdog ping: %s", reason, extra={"event": events.ping_withheld(reason)})
        else:
            self._ping()
