"""A service that cannot run, where a reboot is no help: it stays up, says why, and waits for a person."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from typing import Final

from updated.core import events
from updated.errors import UpdatedError
from updated.health.watchdog import Watchdog
from updated.host.systemd import Notifier, watchdog_timeout

log = logging.getLogger(__name__)

RETRY: Final = 3600.0
"""Seconds until it tries again by itself: what was wrong may have passed, and nobody need be near."""

MAX_ERROR: Final = 300  # characters of STATUS=; what can be done about it must still fit


async def stay_up(error: Exception, reason: str, notifier: Notifier) -> int:
    """Until SIGTERM or SIGHUP, or for an hour; returns the exit code.  `reason`: why a reboot is no help.

    Unless it was stopped systemd starts it anew (Restart=always), so SIGHUP (`systemctl reload`) tries again.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    bug = not isinstance(error, UpdatedError)
    text = f"internal error: {error!r}" if bug else str(error)
    event = events.degraded(f"{text}; {reason}")
    log.error("%s", event.text, exc_info=error if bug else None, extra={"event": event})
    if isinstance(error, UpdatedError) and error.hint:
        log.error("hint: %s", error.hint)
    notifier.status(f"Degraded: {text[:MAX_ERROR]}; {reason}; `systemctl reload updated` tries again")
    notifier.ready()
    pings = asyncio.create_task(Watchdog(watchdog_timeout(), notifier.watchdog).run(lambda: ""))
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), RETRY)
    pings.cancel()
    notifier.stopping()
    return 0
