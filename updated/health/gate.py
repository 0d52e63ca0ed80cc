"""Is the running system healthy?  Looks until it is known; this service's own pings count, too."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from updated.core.health import GATE, Check, CheckReport, Judge, Look, Rule, Verdict
from updated.core.model import TIMESTAMP
from updated.finish import stop_if_cancelled, to_its_end
from updated.health.watchdog import Watchdog

log = logging.getLogger(__name__)

MAX_PERIOD: Final = 1.0  # seconds between two rounds
MIN_PERIOD: Final = 0.05
MAX_BLOCKED: Final = 3.0
"""Seconds that the event loop may be late: a first boot from a slow card takes the processor away for one or
two now and then; a service that hangs is far above."""
GRACE: Final = 5.0  # seconds that a check may take longer than it says

Changed = Callable[[tuple[CheckReport, ...]], None]


class Gate:
    """One judging.  Made for it, and thrown away after it.

    All that counts must hold together without a break for `stable_for`, the watchdog's pings among it: the
    gate pings at each round, and a ping that is missed or an event loop that was blocked begins the run anew.
    Times are seconds of `time.monotonic`, which stands still while the device sleeps.
    """

    def __init__(
        self,
        watchdog: Watchdog,
        checks: Sequence[Check],
        *,
        stable_for: float,
        deadline: float,
        began: float,
        excused: Mapping[str, str] | None = None,
        changed: Changed = lambda _: None,
    ) -> None:
        """`deadline`: of the pings.  `began`: when the first judging of this boot began.

        `excused`: name of a remote check -> why it does not count.  `changed`: called each time when a check
        has become better or worse; it must not raise.
        """
        self._watchdog = watchdog
        self._checks = checks
        self._stable_for = stable_for
        self._deadline = deadline
        self._began = began
        self._excused = excused or {}
        self._tell = changed
        self._judge: Judge | None = None  # None: nothing is being judged
        self._missed = watchdog.missed

    async def judge(self) -> Verdict:
        """Returns when it is known.  Cancelled, it leaves nothing behind.

        A service that was restarted late has time to look before it condemns: twice `stable_for`, and one
        look of each check.
        """
        start = time.monotonic()
        period = max((check.period for check in self._checks), default=0.0)
        judge = Judge(
            [Rule(GATE, deadline=self._deadline), *(check.rule for check in self._checks)],
            stable_for=self._stable_for,
            began=self._began,
            excused=self._excused,
            not_before=start + 2 * self._stable_for + period,
            looked_by=start + max((check.limit for check in self._checks), default=0.0),
        )
        self._judge, self._missed = judge, self._watchdog.missed
        looking = [asyncio.create_task(self._watch(judge, check)) for check in self._checks]
        try:
            verdict = await self._rounds(judge)
        finally:
            self._judge = None
            await to_its_end(self._end(looking))
        stop_if_cancelled()
        return verdict

    def overdue(self) -> str:
        """Which check is past its deadline while there is no verdict, as a sentence: no ping may be sent."""
        return self._judge.overdue(time.monotonic()) if self._judge is not None else ""

    async def look_once(self) -> tuple[CheckReport, ...]:
        """Every check once, all at the same time."""
        try:
            looks = await asyncio.gather(*map(_look, self._checks))
        finally:
            await to_its_end(self._end([]))
        stop_if_cancelled()
        now = _timestamp()
        return tuple(
            CheckReport(check.rule.name, check.rule.required, look.ok, look.text, now)
            for check, look in zip(self._checks, looks, strict=True)
        )

    async def _rounds(self, judge: Judge) -> Verdict:
        period = max(MIN_PERIOD, min(MAX_PERIOD, self._stable_for / 4))
        late = 0.0
        while True:
            self._saw(judge, GATE, self._look_at_pings(late))
            verdict = judge.verdict(time.monotonic())
            if verdict is not None:
                return verdict
            self._watchdog.beat()
            due = time.monotonic() + period
            await asyncio.sleep(period)
            late = time.monotonic() - due

    def _look_at_pings(self, late: float) -> Look:
        missed, self._missed = self._missed, self._watchdog.missed
        if self._missed != missed:
            return Look(ok=False, text="a watchdog ping was missed")
        if late > MAX_BLOCKED:
            return Look(ok=False, text=f"the service was blocked for {late:.1f} s")
        return Look(ok=True, text="the service runs, its pings are on time")

    async def _watch(self, judge: Judge, check: Check) -> None:
        while True:
            self._saw(judge, check.rule.name, await _look(check))
            await asyncio.sleep(check.period)

    def _saw(self, judge: Judge, name: str, look: Look) -> None:
        if judge.saw(name, look, time.monotonic(), _timestamp()):
            self._tell(judge.reports())

    async def _end(self, looking: Sequence[asyncio.Task[None]]) -> None:
        for task in looking:
            task.cancel()
        await asyncio.gather(*looking, return_exceptions=True)
        for check in self._checks:
            try:
                await check.close()
            except Exception:
                log.exception("a bug in `updated`: the check %s does not let go", check.rule.name)


async def _look(check: Check) -> Look:
    """A check that does not keep its word is a failing one."""
    try:
        async with asyncio.timeout(check.limit + GRACE):
            return await check.look()
    except TimeoutError:
        return Look(ok=False, text=f"no end after {check.limit + GRACE:g} s")
    except Exception as error:
        log.exception("a bug in `updated`: the check %s raises", check.rule.name)
        return Look(ok=False, text=f"internal error: {error}")


def _timestamp() -> str:
    return datetime.now(UTC).strftime(TIMESTAMP)
