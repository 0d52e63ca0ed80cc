"""A service that cannot start, where a reboot is no help: it stays up, says why, and waits for a person."""

from __future__ import annotations

import asyncio
import logging
import signal
from typing import Final

from updated.errors import UpdatedError
from updated.health.watchdog import Watchdog
from updated.host.systemd import Notifier, watchdog_timeout

log = logging.getLogger(__name__)

MAX_ERROR: Final = 300  # characters of STATUS=; what can be done about it must still fit


async def stay_up(error: Exception, reason: str, notifier: Notifier) -> int:
    """Until SIGTERM or SIGHUP; returns the exit code.  `reason`: why it does not end.

    After SIGHUP (`systemctl reload`) systemd starts it anew: Restart=always.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    bug = not isinstance(error, UpdatedError)
    text = f"internal error: {error!r}" if bug else str(error)
    log.error("Degraded: %s; %s", text, reason, exc_info=error if bug else None)
    if isinstance(error, UpdatedError) and error.hint:
        log.error("hint: %s", error.hint)
    notifier.status(f"Degraded: {text[:MAX_ERROR]}; {reason}; `systemctl reload updated` tries again")
    notifier.ready()
    pings = asyncio.create_task(Watchdog(watchdog_timeout(), notifier.watchdog).run(lambda: ""))
    await stop.wait()
    pings.cancel()
    notifier.stopping()
    return 0
