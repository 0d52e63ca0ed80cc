"""Judges the running system: once in each boot, and again and again while it is not well."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from updated.core import events, states
from updated.core.health import Check, CheckReport, Judgement, Verdict
from updated.document import Document
from updated.health.gate import Gate
from updated.health.watchdog import Watchdog
from updated.host.clock import timestamp
from updated.host.journal import tell
from updated.service.announce import Announcer
from updated.service.memory import Memory
from updated.service.setting import Setting
from updated.store import Store

log = logging.getLogger(__name__)

AGAIN: Final = 60.0  # seconds from a bad verdict to the next look at a system that runs on with it
LOOK: Final = 30.0  # seconds for the last looks before a reboot
PAUSES: Final = (0.0, 1.0, 3.0)  # seconds before each of them
SAVE_AFTER: Final = 5.0  # seconds; what led to a reset is known then, and flash is not worn
BEFORE: Final = "the system before could not reach it either"
ORDINARY: Final = "other machines are asked for on a trial only"


@dataclass(frozen=True, slots=True)
class _Began:
    """When the judging began in this boot, for a service that was restarted."""

    boot_id: str = ""
    monotonic: float = 0.0


class Judging:
    """Belongs to the event loop."""

    def __init__(
        self,
        setting: Callable[[], Setting],
        watchdog: Watchdog,
        store: Store,
        announcer: Announcer,
        *,
        runtime_directory: Path,
    ) -> None:
        self.pending = False  # whether the running group is healthy is not known yet
        self.verdict: states.Event | None = None  # the last that was posted
        self._task: asyncio.Task[None] | None = None
        self._setting = setting
        self._watchdog = watchdog
        self._store = store
        self._memory = Memory(store, announcer)
        self._announce = announcer
        self._runtime = runtime_directory
        self._gate: Gate | None = None
        self._judgement: Judgement | None = None
        self._saving: asyncio.Task[None] | None = None
        self._overdue = ""
        self._looking = asyncio.Lock()

    @property
    def running(self) -> bool:
        """There is no verdict, or a bad one that may still change."""
        return self._task is not None and not self._task.done()

    @property
    def sick(self) -> str:
        """Why the running system is not healthy, as far as it was judged; "": it is, or nobody knows yet."""
        judgement = self._judgement
        return judgement.text if judgement is not None and judgement.state == "bad" else ""

    def overdue(self) -> str:
        """Why the system on trial gets no ping any more; "" while all is in time."""
        return self._overdue or (self._gate.overdue() if self._gate is not None else "")

    def begin(self, trial: states.Update | None, post: Callable[[states.Event], None]) -> None:
        """Post HealthGood or HealthBad, and after a bad one HealthGood should it get well.

        `trial`: the update that has to prove itself; None on an ordinary boot.
        """
        self.pending = True
        self._task = asyncio.create_task(self._run(trial, post))
        self._task.add_done_callback(_tell_bug)

    def settled(self) -> None:
        """What follows from the verdict was done: pings may go on."""
        self.pending = False
        self._overdue = ""

    def stop(self) -> None:
        """Nobody wants to know any more."""
        if self._task is not None:
            self._task.cancel()
        self.settled()

    async def close(self) -> None:
        self.stop()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self, trial: states.Update | None, post: Callable[[states.Event], None]) -> None:
        self._begin(trial)
        try:
            excused = self._excused(trial)
            verdict = await self._judge(await self._first_began(), trial, excused)
            self._overdue = "" if verdict.good or trial is None else verdict.text
            self._post(verdict, post)
            while not verdict.good:
                await asyncio.sleep(AGAIN)
                verdict = await self._judge(time.monotonic(), None, excused)
                if verdict.good:
                    self._post(verdict, post)
        finally:
            if asyncio.current_task() is self._task:  # else another judging has begun
                self._gate = None
                if self._saving is not None:
                    self._saving.cancel()

    async def remember_unreachable(self) -> None:
        """What of other machines this system cannot reach is no fault of the next one."""
        async with self._looking:  # two at once would be in each other's way
            await self._remember_unreachable()

    async def _remember_unreachable(self) -> None:
        remote = [check for check in self._setting().checks if check.rule.remote and check.rule.required]
        failed = {check.rule.name for check in remote}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK):
                for pause in PAUSES:  # one bad moment excuses nothing
                    await asyncio.sleep(pause)
                    failed &= {report.name for report in await self.look(remote) if not report.ok}
                    if not failed:
                        break
        await self._memory.keep(self._store.save_unreachable, sorted(failed))

    async def overruled(self) -> None:
        """A person has said that it is good, unless it was the verdict that did."""
        self.stop()
        known = self._judgement
        if known is None:  # nobody judged what had been given up
            self._begin(None)
        if known is None or known.state != "good":
            await self._settle(Verdict(good=True, decided="", text="A person said so."))

    async def look(self, checks: Sequence[Check]) -> tuple[CheckReport, ...]:
        """Each once, now."""
        if not checks:
            return ()
        return await self._make_gate(checks, time.monotonic(), {}).look_once()

    def _begin(self, trial: states.Update | None) -> None:
        device = self._setting().device
        version = trial.version if trial else device.running_version
        self._judgement = Judgement(device.boot_id, device.booted_group, version, "judging", timestamp())
        self._announce.health(self._judgement)
        if trial is not None:
            self._save_soon(0)

    def _excused(self, trial: states.Update | None) -> Mapping[str, str]:
        """Name of a check of other machines -> why it does not count."""
        if trial is not None:
            return dict.fromkeys(self._store.unreachable(), BEFORE)
        # Else an outage would use up the attempts of a fleet that is switched off at night, and lead it back.
        return dict.fromkeys([one.rule.name for one in self._setting().checks if one.rule.remote], ORDINARY)

    async def _judge(self, began: float, trial: states.Update | None, excused: Mapping[str, str]) -> Verdict:
        gate = self._make_gate(self._setting().checks, began, excused)
        if trial is not None:
            self._gate = gate  # an ordinary boot is pinged whatever the checks say
        verdict = await gate.judge()
        await self._settle(verdict)
        return verdict

    def _make_gate(self, checks: Sequence[Check], began: float, excused: Mapping[str, str]) -> Gate:
        confirm = self._setting().config.confirm
        return Gate(
            self._watchdog,
            checks,
            stable_for=confirm.stable_for,
            deadline=confirm.deadline,
            began=began,
            excused=excused,
            changed=self._changed,
        )

    async def _first_began(self) -> float:
        """A service that is restarted again and again has no more time than one that is not."""
        path = self._runtime / "judging.json"
        began = await asyncio.to_thread(Document, path, _Began, _Began(), log.warning)
        boot_id, now = self._setting().device.boot_id, time.monotonic()
        if began.value.boot_id == boot_id and began.value.monotonic <= now:
            return began.value.monotonic
        await self._memory.keep(began.save, _Began(boot_id, now))
        return now

    def _changed(self, reports: tuple[CheckReport, ...]) -> None:
        if self._judgement is None:
            return
        self._judgement = replace(self._judgement, checks=reports)
        self._announce.health(self._judgement)
        if self._gate is not None:
            self._save_soon(SAVE_AFTER)

    def _save_soon(self, delay: float) -> None:
        if self._saving is None or self._saving.done():
            self._saving = asyncio.create_task(self._save_later(delay))

    async def _save_later(self, delay: float) -> None:
        await asyncio.sleep(delay)
        await self._save()

    async def _save(self) -> None:
        if self._judgement is not None:
            await self._memory.keep(self._store.judged, self._judgement)

    async def _settle(self, verdict: Verdict) -> None:
        assert self._judgement is not None
        state = "good" if verdict.good else "bad"
        changed = self._judgement.state != state
        self._judgement = replace(
            self._judgement,
            state=state,
            time=timestamp() if changed else self._judgement.time,
            decided=verdict.decided,
            text=verdict.text,
        )
        self._announce.health(self._judgement)
        if changed:
            group, check = self._judgement.group, verdict.decided
            tell(log, events.judged(group, good=verdict.good, check=check, text=verdict.text))
            await self._save()

    def _post(self, verdict: Verdict, post: Callable[[states.Event], None]) -> None:
        booted = self._setting().device.booted_group
        self.verdict = states.HealthGood(booted) if verdict.good else states.HealthBad(verdict.text)
        post(self.verdict)


def _tell_bug(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        log.error("a bug in `updated`", exc_info=error)
