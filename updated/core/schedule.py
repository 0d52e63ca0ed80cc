"""When to look at a server next.  Times are seconds, of CLOCK_BOOTTIME or since 1970.  Pure.

Nothing here is random: what differs from device to device (`place`, 0 to 1) and from wait to wait (`jitter`,
-1 to 1) is given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

SOON: Final = 30.0  # between two looks at least, and RAUC's delay after Poll(), an install, or when busy
BACKOFF: Final = 60.0  # after the first error; a server that is restarted is back within it
JITTER: Final = 0.25  # of a backoff, so that devices that failed together do not come back together
SPREAD: Final = 0.1  # of the interval: over this time devices come back that were switched on together
MAX_SPREAD: Final = 600.0
MAX_POSTPONE: Final = 600.0  # while something forbids to look; whoever knows that it is over says so
PLAUSIBLE: Final = 1_735_689_600.0  # 2025-01-01: a clock that says less was never set


@dataclass(frozen=True, slots=True)
class Timing:
    """How often."""

    interval: float
    max_interval: float
    linear: bool = False  # RAUC's backoff: one more interval for each error

    @property
    def cap(self) -> float:
        """The longest wait of all."""
        return max(SOON, self.interval, self.max_interval)


@dataclass(frozen=True, slots=True)
class Plan:
    """The next look, as it was planned; survives restarts."""

    due: float  # CLOCK_BOOTTIME
    boot_id: str
    made: float  # seconds since 1970
    wait: float  # from `made` to `due`


@dataclass(frozen=True, slots=True)
class Now:
    boottime: float
    boot_id: str
    wall: float  # seconds since 1970; may be anything


def plan(delay: float, now: Now, timing: Timing) -> Plan:
    """Look after `delay`, within bounds."""
    delay = _bounded(delay, timing)
    return Plan(now.boottime + delay, now.boot_id, now.wall, delay)


def resume(saved: Plan | None, now: Now, timing: Timing, place: float) -> Plan:
    """The plan after the service, or the device, has started: neither at once nor from the beginning."""
    if saved is None or not _finite(saved):
        return plan(first_delay(timing, place), now, timing)
    if saved.boot_id == now.boot_id:
        return plan(saved.due - now.boottime, now, timing)
    if now.wall < max(saved.made, PLAUSIBLE):  # the clock is not set: how long it was off is not known
        return plan(first_delay(timing, place), now, timing)
    left = saved.made + saved.wait - now.wall
    return plan(max(left, spread(timing, place)), now, timing)


def first_delay(timing: Timing, place: float) -> float:
    """RAUC's 0.1 to 0.9 of the interval."""
    return timing.interval * (0.1 + 0.8 * place)


def spread(timing: Timing, place: float) -> float:
    """After a reboot at least: power comes back everywhere at once."""
    return min(timing.interval * SPREAD, MAX_SPREAD) * place


def after_success(timing: Timing) -> float:
    return timing.interval


def after_failure(
    timing: Timing, errors: int, jitter: float, *, retry_after: float | None = None, gone: bool = False
) -> float:
    """`errors` in a row, this one included; `gone`: the server knows that there is nothing (404, 410).

    `retry_after` is what the server asked for at least.
    """
    delay = _linear(timing, errors) if timing.linear else _exponential(timing, errors, jitter, gone)
    return delay if retry_after is None or math.isnan(retry_after) else max(delay, retry_after)


def _linear(timing: Timing, errors: int) -> float:
    return min(timing.interval * (errors + 1), timing.max_interval)


def _exponential(timing: Timing, errors: int, jitter: float, gone: bool) -> float:
    if gone:
        return timing.interval
    doubled = min(timing.interval, BACKOFF) * 2.0 ** min(max(errors - 1, 0), 60)
    return min(doubled, timing.cap) * (1 + JITTER * jitter)


def postpone(times: int) -> float:
    """Looking is not allowed now, for the `times`-th time in a row."""
    return min(SOON * 2.0 ** min(max(times - 1, 0), 60), MAX_POSTPONE)


def _bounded(delay: float, timing: Timing) -> float:
    return min(max(SOON, delay), timing.cap)


def _finite(saved: Plan) -> bool:
    return all(map(math.isfinite, (saved.due, saved.made, saved.wait)))
