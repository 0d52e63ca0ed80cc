"""After a fallback: what became of the boots in which the other system ran, or tried to."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from updated.core import states
from updated.core.health import Check
from updated.host.boots import boots_between, last_lines
from updated.service.details import outcome_of
from updated.service.judging import Judging
from updated.service.memory import Memory
from updated.service.setting import Setting
from updated.service.trials import decisive_check, trials_of
from updated.store import Store

log = logging.getLogger(__name__)

LINES = 20  # of the journal


class Aftermath:
    """Looks into it beside everything else: it may take seconds."""

    def __init__(
        self,
        setting: Callable[[], Setting],
        store: Store,
        memory: Memory,
        judging: Judging,
        *,
        lifted: Callable[[], None],
    ) -> None:
        """`lifted`: called when a bundle is out of quarantine."""
        self._lifted = lifted
        self._setting = setting
        self._store = store
        self._memory = memory
        self._judging = judging

    async def look_into(self, saved: states.RebootPending) -> None:
        """Of the trial of `saved`, which is over."""
        update = saved.update
        failed = await boots_between(saved.boot_id, self._setting().device.boot_id)
        lines = await last_lines(failed[-1], LINES) if failed else ()
        if failed and update.manifest_hash:
            await self._memory.keep(self._store.annotate, update.manifest_hash, failed, lines)
        for line in lines:
            log.info("the journal of the failed boot: %s", line)
        await self._excuse(update)

    async def _excuse(self, update: states.Update) -> None:
        """A server that this system cannot reach either has said nothing about that one.

        Once for each bundle: after that it is more likely the bundle that does it.
        """
        here = self._setting().device.boot_id  # may be judged by now, and is no trial
        earlier = [one for one in self._store.judgements() if one.boot_id != here]
        decided = decisive_check(trials_of(update, earlier))
        checks = [c for c in self._setting().checks if c.rule.name == decided and c.rule.remote]
        if not checks or update.manifest_hash not in self._store.quarantine():
            return
        if update.manifest_hash in {
            one.manifest_hash for one in self._store.history() if one.code == "excused"
        }:
            log.warning("version %s was excused before: it stays quarantined", update.version)
            return
        if await self._reached(checks):
            log.info("%s can be reached from here: version %s stays quarantined", decided, update.version)
            return
        if update.manifest_hash not in self._store.quarantine():  # a person was quicker
            return
        await self._memory.keep(self._store.lift, update.manifest_hash)
        text = f"Not held against version {update.version}: {decided} cannot be reached from here either."
        await self._memory.note(outcome_of(update, "excused", text))
        self._lifted()

    async def _reached(self, checks: Sequence[Check]) -> bool:
        """As long as the other system had: after a start the network takes its time here, too."""
        until = time.monotonic() + max(check.rule.deadline for check in checks)
        while not all(report.ok for report in await self._judging.look(checks)):
            if time.monotonic() >= until:
                return False
            await asyncio.sleep(max(check.period for check in checks))
        return True
