"""Is the running system healthy?  The built-in gate: this service runs well, its pings on time."""

from __future__ import annotations

import asyncio
import time

from updated.health.watchdog import Watchdog

MAX_PERIOD = 1.0  # seconds between two looks while judging


async def judge(watchdog: Watchdog, *, stable_for: float, deadline: float) -> str:
    """Wait until the service was well for `stable_for` seconds without a break; returns "".

    While it judges, it pings at every look, so that the run of pings it asks for is there to be seen.
    If that has not happened `deadline` seconds after the start, returns the reason.
    """
    period = min(MAX_PERIOD, stable_for / 4) if stable_for else 0.0
    start = since = time.monotonic()
    missed, reason = watchdog.missed, ""
    while True:
        due = time.monotonic() + period
        await asyncio.sleep(period)
        now = time.monotonic()
        watchdog.beat()
        if watchdog.missed != missed:
            missed, since, reason = watchdog.missed, now, "a watchdog ping was missed"
        elif now - due > MAX_PERIOD:
            since, reason = now, f"the service was blocked for {now - due:.1f} s"
        if now - since >= stable_for:
            return ""
        if now - start >= deadline:
            why = f": {reason}" if reason else ""
            return f"not healthy for {stable_for:g} s within {deadline:g} s of the start{why}"
