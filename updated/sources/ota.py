"""A server that is looked at again and again: a channel index (`[ota]`) or a bundle (`[polling]`).

What differs between the two is the `Feed`; when it is looked at, and what comes of it, is here.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from updated.core import polling, schedule
from updated.core.link import without_secrets
from updated.core.model import TIMESTAMP, Outcome
from updated.core.polling import Feed, FeedMemory, Finding, PollStatus
from updated.core.rollout import place
from updated.core.schedule import SOON, Now, Plan, Timing
from updated.core.source import Item
from updated.document import Document
from updated.errors import UpdatedError
from updated.sources.clock import Clock
from updated.sources.ota_memory import OtaMemory, Remembered

log = logging.getLogger(__name__)

_GONE: Final = (404, 410)


@dataclass(frozen=True, slots=True)
class Identity:
    """Which device this is, and which of its lives."""

    machine_id: str  # "" if there is none
    boot_id: str


class OtaSource:
    """A `Source`, and the `Poller` of the D-Bus interface.  Belongs to the event loop."""

    def __init__(
        self,
        feed: Feed,
        timing: Timing,
        memory: Document[OtaMemory],
        identity: Identity,
        clock: Clock,
        *,
        allowed: Callable[[], str],
        inhibit_files: Sequence[str] = (),
        jitter: Callable[[], float] = lambda: random.uniform(-1.0, 1.0),
    ) -> None:
        """`allowed` says why this is no time to look, "" if it is one; so does a file of `inhibit_files`."""
        self._feed = feed
        self._timing = timing
        self._memory = Remembered(memory, feed.url)
        self._identity = identity
        self._clock = clock
        self._allowed = allowed
        self._inhibit_files = inhibit_files
        self._jitter = jitter
        self._place = place(identity.machine_id or identity.boot_id, feed.url)
        self._before = self._memory.value.plan  # as it was when the service started

        self._status = PollStatus(recent_errors=self._memory.value.errors)
        self._due: float | None = None  # seconds of CLOCK_BOOTTIME; None: not started, or stopped
        self._looked = False  # since the service started
        self._asked = False  # somebody wants a look, since the last one began
        self._postponed = 0  # times in a row
        self._wake = asyncio.Event()
        self._changed: Callable[[], None] = lambda: None

        self._last: Finding | None = None  # what the last good look brought
        self._item: Item | None = None
        self._tried: tuple[int | str, ...] | None = None  # identity of what is not to be tried again
        self._failed_installs = 0  # in a row

    # Poller ---------------------------------------------------------------

    def poll(self) -> None:
        """Look in 30 seconds, as RAUC, or earlier if that was planned."""
        self._asked = True
        self._bring_forward(SOON)

    def next_poll(self) -> int:
        return 0 if self._due is None else int(self._due * 1_000_000)

    def status(self) -> PollStatus:
        return self._status

    def subscribe(self, changed: Callable[[], None]) -> None:
        self._changed = changed

    def nudge(self) -> None:
        """What forbade to look may be over."""
        if self._postponed:
            self._postponed = 0
            self._bring_forward(0.0)

    def stop(self) -> None:
        """No more looks: the device is about to reboot."""
        self._due = None
        self._wake.set()
        self._changed()

    # Source ---------------------------------------------------------------

    @property
    def name(self) -> str:
        return "ota"

    async def watch(self, changed: Callable[[], None]) -> None:
        await self._start()
        while True:
            await self._wait()
            reason = await self._why_not()
            if reason:
                self._postpone(reason)
            else:
                await self._look()
                changed()

    async def scan(self, known: Callable[[Item], bool]) -> Sequence[Item]:
        item = self._item
        return [] if item is None or item.identity == self._tried or known(item) else [item]

    async def gone(self, location: str) -> bool:
        return self._item is None or self._item.location != location

    async def refused(self, item: Item, reason: str) -> None:
        """It stays offered: the rules may change."""

    async def started(self, item: Item) -> None:
        if self._last is not None and self._last.manifest is not None:
            self._tell(replace(self._status, attempted_hash=self._last.manifest.hash))

    async def ended(self, item: Item, outcome: Outcome, *, again: bool) -> None:
        """RAUC looks again soon after each install, we only after one that failed and may succeed."""
        if outcome.manifest_hash:
            self._tell(replace(self._status, attempted_hash=outcome.manifest_hash))
        if again:
            self._failed_installs += 1
        else:
            self._failed_installs = 0
            self._tried = item.identity
        if self._timing.linear:
            self._bring_forward(SOON)
        elif again:
            delay = schedule.after_failure(self._timing, self._failed_installs, self._jitter())
            self._bring_forward(self._plan(delay).wait)

    async def settled(self) -> None:
        """Nothing is held."""

    # When -----------------------------------------------------------------

    async def _start(self) -> None:
        plan = self._resumed()
        self._due = plan.due
        self._changed()
        log.info("%s is looked at in %.0f s", without_secrets(self._feed.url), plan.wait)
        await self._memory.save(replace(self._memory.value, plan=plan))
        if self._asked:
            self._bring_forward(SOON)

    async def _wait(self) -> None:
        """Until a look is due."""
        while self._due is None or self._due > self._clock.boottime():
            self._wake.clear()
            if self._due is None:
                await self._wake.wait()
                continue
            await _first(self._clock.until(self._due), self._wake.wait())
            self._mind_the_time_of_day()

    def _mind_the_time_of_day(self) -> None:
        """If it was set only after the start, it is known only now for how long the device was off."""
        before = self._before
        if self._looked or before is None or before.boot_id == self._identity.boot_id:
            return
        due = self._resumed().due
        if self._due is not None and due < self._due:
            self._set_due(due)

    async def _why_not(self) -> str:
        reason = self._allowed()
        if reason:
            return reason
        found = await asyncio.to_thread(_existing, self._inhibit_files)
        return f"{found} is there" if found else ""

    def _postpone(self, reason: str) -> None:
        self._postponed += 1
        if self._postponed == 1:
            log.info("%s is not looked at now: %s", without_secrets(self._feed.url), reason)
        self._set_due(self._plan(schedule.postpone(self._postponed)).due)

    def _bring_forward(self, delay: float) -> None:
        """Look after `delay` seconds at the latest."""
        due = self._clock.boottime() + delay
        if self._due is not None and due < self._due:
            self._set_due(due)
            self._wake.set()

    def _set_due(self, due: float) -> None:
        self._due = due
        self._changed()

    def _now(self) -> Now:
        return Now(self._clock.boottime(), self._identity.boot_id, self._clock.wall().timestamp())

    def _plan(self, delay: float) -> Plan:
        return schedule.plan(delay, self._now(), self._timing)

    def _resumed(self) -> Plan:
        return schedule.resume(self._before, self._now(), self._timing, self._place)

    # What -----------------------------------------------------------------

    async def _look(self) -> None:
        """One attempt."""
        self._postponed, self._asked, self._looked = 0, False, True
        self._status = polling.attempted(self._status, self._clock.boottime())
        memory = self._memory.value
        # If the service dies of what the server says, it does not ask again at once.
        plan = self._plan(schedule.after_failure(self._timing, memory.errors + 1, self._jitter()))
        await self._memory.save(replace(memory, plan=plan, attempted=self._time()))
        try:
            found = await self._feed.look(FeedMemory(memory.seen, self._last))
        except UpdatedError as error:
            await self._missed(error)
        else:
            await self._found(found)

    async def _found(self, found: Finding) -> None:
        if self._status.last_error:
            log.info("polling works again: %s", without_secrets(self._feed.url))
        self._log(found)
        self._last, self._item = found, found.item
        memory, plan = self._memory.value, self._plan(schedule.after_success(self._timing))
        self._finish(polling.succeeded(self._status, found, self._clock.boottime()), plan)
        seen = found.seen or memory.seen
        await self._memory.save(replace(memory, plan=plan, errors=0, succeeded=self._time(), seen=seen))

    async def _missed(self, error: UpdatedError) -> None:
        """What was offered is not offered any more: it may have been withdrawn."""
        if str(error) != self._status.last_error:  # a server that is gone for days is told once
            log.warning("polling failed: %s", error.with_hint())
        self._item = None
        memory, errors = self._memory.value, self._memory.value.errors + 1
        status, wait = _server_said(error)
        delay = schedule.after_failure(
            self._timing, errors, self._jitter(), retry_after=wait, gone=status in _GONE
        )
        plan = self._plan(delay)
        self._finish(polling.failed(self._status, error), plan)
        await self._memory.save(replace(memory, plan=plan, errors=errors))

    def _finish(self, status: PollStatus, plan: Plan) -> None:
        """Status and the time of the next look are told together, as RAUC does."""
        if self._due is None:  # stopped meanwhile
            self._tell(status)
            return
        self._status = status
        # Who asked while this look was under way may know of news that it has missed.
        self._set_due(min(plan.due, self._clock.boottime() + SOON) if self._asked else plan.due)

    def _tell(self, status: PollStatus) -> None:
        self._status = status
        self._changed()

    def _log(self, found: Finding) -> None:
        """Whatever is new, once."""
        last = self._last or Finding(None, "")
        for alarm in found.alarms:
            if alarm not in last.alarms:
                log.warning("%s", alarm)
        for reason in found.reasons:
            if reason not in last.reasons:
                log.info("%s", reason)
        if (last.summary, last.item) != (found.summary, found.item):
            version = f" ({found.item.expected.version})" if found.item else ""
            log.info("polling: %s%s", found.summary, version)

    def _time(self) -> str:
        return self._clock.wall().strftime(TIMESTAMP)


def _server_said(error: UpdatedError) -> tuple[int, float | None]:
    """HTTP status (0: none), and `Retry-After` in seconds: readers have errors of their own with these."""
    status: object = getattr(error, "status", 0)
    wait: object = getattr(error, "retry_after", None)
    return (
        status if isinstance(status, int) else 0,
        float(wait) if isinstance(wait, int | float) else None,
    )


async def _first(*waits: Coroutine[Any, Any, Any]) -> None:
    """Until the first of them is over; the others are cancelled."""
    tasks = [asyncio.create_task(wait) for wait in waits]
    try:
        over, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in over:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _existing(paths: Sequence[str]) -> str:
    """The first of them that is there, "" if none is.  Blocks."""
    for path in paths:
        with suppress(ValueError):
            if Path(path).exists():
                return path
    return ""
