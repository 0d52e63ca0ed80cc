"""What is seen of the runner from outside: its state as a sentence, what it waits for, whether it gets on."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from updated.core import states
from updated.core.gate import Hold
from updated.service.announce import Announcer
from updated.service.details import Course, describe, transaction_of

if TYPE_CHECKING:
    from updated.service.runner import Runner


class Shown:
    """Reads, and changes nothing."""

    def __init__(self, runner: Runner, announcer: Announcer) -> None:
        self._runner = runner
        self._announce = announcer

    @property
    def detail(self) -> str:
        """The sentence of the state, without what holds it."""
        return describe(self._runner.state, self._runner.device.booted_group, self._course())

    def show(self, text: str = "") -> None:
        """Tell everybody; `text` instead of the sentence of the state."""
        runner = self._runner
        match runner.state:
            case states.Install(update) | states.RebootPending(update) | states.Confirming(update):
                self._announce.transaction(transaction_of(update))
            case states.Idle() if not runner.busy:
                self._announce.transaction(None)
        hold, paused = self._hold(), runner.jobs.paused
        self._announce.waits(hold, paused=paused)
        where = runner.device.booted_group
        text = text or describe(runner.state, where, self._course(), hold=hold, paused=paused)
        self._announce.state(states.NAMES[type(runner.state)], text)

    def stuck(self) -> str:
        """Why the machine does not get on, or ""."""
        runner = self._runner
        overdue = runner.judging.overdue() if isinstance(runner.state, states.Confirming) else ""
        if overdue and not runner.leaving:
            return overdue
        silent = time.monotonic() - self._announce.moved_at
        if not runner.busy or runner.jobs.paused or silent < runner.config.install.stall_timeout:
            return ""
        return f"nothing moved for {silent:.0f} s in state {states.NAMES[type(runner.state)]}"

    def may_poll(self) -> str:
        """Why this is no time to ask a server; "" if it is one."""
        if self._runner.busy:
            return "something is being installed"
        return "" if self._runner.offers.judged else "the running system is not confirmed yet"

    def _course(self) -> Course:
        runner = self._runner
        return Course(
            judging=runner.judging.pending or not runner.resumed.is_set(),
            sick=runner.judging.sick,
            left_for=runner.departure.left_for if runner.leaving else "",
            hook=runner.hooks.running,
            rebooting=runner.departure.begun,
        )

    def _hold(self) -> Hold | None:
        """Why what is known to be there does not begin."""
        if isinstance(self._runner.state, states.RebootPending):
            return self._runner.departure.hold
        return None if self._runner.busy else self._runner.offers.held
