"""Runs the pure machine: delivers events one after the other, and performs their effects in order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

from updated.config.agent_toml import AgentConfig
from updated.core import machine, states
from updated.core.model import Offer
from updated.errors import NotSupportedError, Refused, UpdatedError
from updated.finish import stop_if_cancelled, to_its_end
from updated.health.watchdog import Watchdog
from updated.install.device import Device
from updated.install.opened import OpenedBundle
from updated.service.aftermath import Aftermath
from updated.service.announce import Announcer
from updated.service.attempt import RETRY
from updated.service.departure import Departure
from updated.service.gate import Gatekeeper
from updated.service.hooks import Hooks
from updated.service.inbox import Inbox
from updated.service.jobs import Jobs
from updated.service.judging import Judging
from updated.service.looker import Looker
from updated.service.memory import Memory, log_error
from updated.service.offers import Offers
from updated.service.setting import Setting
from updated.service.shown import Shown
from updated.service.watched import Pace
from updated.store import Store

log = logging.getLogger(__name__)

_ENDS: Final = (states.Activated, states.Written, states.Failed, states.Condemned, states.Cancelled)


class Runner:
    """The one owner of the machine's state.  All methods belong to the event loop."""

    def __init__(
        self,
        *,
        setting: Setting,
        store: Store,
        offers: Offers,
        announcer: Announcer,
        watchdog: Watchdog,
        runtime_directory: Path,
        on_good: Callable[[], None] = lambda: None,
    ) -> None:
        """`runtime_directory`: lives until the next boot.  `on_good`: the running group is; it may block."""
        self.setting = setting
        self._on_good = on_good
        self.gate.changed = self.reconsider
        self.offers = offers
        self.state: states.State = states.Idle()
        self._memory = Memory(store, announcer)
        self._store = store
        self._announce = announcer
        self.shown = Shown(self, announcer)
        self.judging = Judging(
            lambda: self.setting, watchdog, store, announcer, runtime_directory=runtime_directory
        )
        self._inbox = Inbox()
        self._tasks: set[asyncio.Task[None]] = set()
        self.jobs = Jobs(lambda: self.setting, offers, store, announcer, self.post)
        self.hooks = Hooks(
            lambda: self.config,
            store,
            self._memory,
            booted=lambda: self.device.booted_group,
            over=self._hooks_over,
        )
        self._aftermath = Aftermath(
            lambda: self.setting, store, self._memory, self.judging, lifted=self.lifted
        )
        self.departure = Departure(
            lambda: self.setting,
            store,
            self.judging,
            pending=self._pending,
            busy=lambda: self.judging.pending or self.hooks.running or not self.resumed.is_set(),
            post=self.post,
            show=self.shown.show,
            give_up=self.give_up,
        )
        self._looker = Looker(offers, self._found, busy=lambda: self.busy, may_begin=self._may_begin)
        self.resumed = asyncio.Event()  # the saved state is known; before, nobody may ask for anything
        self._stopping = False

    # What others ask of it

    @property
    def leaving(self) -> bool:
        """The running group was given up in this boot: nothing may mark it good, or write to another."""
        return self._store.left_boot() == self.device.boot_id

    @property
    def busy(self) -> bool:
        """Something is being installed, or looked at to be installed."""
        return self.jobs.busy

    def post(self, event: states.Event) -> None:
        self._inbox.post(event)

    async def deliver(self, event: states.Event) -> None:
        """Returns when all is done that `event` leads to at once.  Raises what kept it from being done."""
        await self._inbox.deliver(event)

    def request(self, offer: Offer) -> None:
        """Take a person's request.  Raises Refused(rule="busy", "confirming" or "rollback")."""
        if self.jobs.taken or self._stopping or not self.resumed.is_set():
            raise Refused("Already processing a different method", rule="busy")
        if self.leaving:
            raise Refused(
                "The running system was given up: an install would overwrite the one that starts next",
                rule="rollback",
                hint="Reboot first.",
            )
        if isinstance(self.state, states.Confirming):
            raise Refused(
                "The running system is not confirmed yet: an install would overwrite the only way back",
                rule="confirming",
                hint="Wait until it is confirmed, or run `updated confirm` or `updated rollback`.",
            )
        self.jobs.request(offer)

    async def marked_bad(self) -> None:
        """The running group was, by hand."""
        await self.give_up()
        self._spawn(self.departure.go_on(None))

    async def give_up(self) -> None:
        """The running group was marked bad: nothing marks it good again before the reboot."""
        self.offers.judged = False
        await self._memory.keep(self._store.leave_boot, self.device.boot_id)
        self.judging.stop()

    def look(self) -> None:
        """A source may have something new."""
        self._looker.look()

    async def cancel(self) -> None:
        """End the running install; returns when it is over.  Raises Refused if none runs."""
        await self.jobs.cancel()

    async def stop(self) -> None:
        """End the running install in good order, and start nothing more."""
        self._stopping = True
        if self.busy:
            await self.jobs.cancel("The service was stopped; the next install goes on where this one ended")

    async def rest(self) -> None:
        """Wait until nothing is being installed."""
        await self.jobs.rest()

    def reconfigure(self, setting: Setting) -> None:
        """From now on, this is the device and these are the rules; not while something is being installed."""
        assert not self.busy
        judges_anew = self.judging.running and setting.config.confirm != self.config.confirm
        self.setting = setting
        polling = setting.device.config.polling
        self.gate.reconfigure(setting.config.policy, setting.config.consent, polling.inhibit_files)
        self.offers.forget()
        if judges_anew:
            self.judging.stop()
            self._check_health()
        self.look()
        self.departure.ask()

    @property
    def device(self) -> Device:
        return self.setting.device

    @property
    def config(self) -> AgentConfig:
        return self.setting.config

    @property
    def gate(self) -> Gatekeeper:
        return self.setting.gate

    async def peek(self, offer: Offer) -> OpenedBundle:
        """Verify what somebody asks about.  Raises UpdatedError."""
        return await self.setting.bundles.peek(offer, Pace(lambda: None), whole=True)

    def reconsider(self) -> None:
        """Policy may allow now what it did not allow before."""
        self.offers.release()
        self.look()
        self.departure.ask()

    def lifted(self) -> None:
        """What was refused may be taken now."""
        self.offers.reopen()
        self.reconsider()

    def pause(self, *, rest: bool) -> None:
        """Let the stream of the running install rest, or go on.  Raises Refused."""
        self.jobs.pause(rest=rest)
        self.shown.show()

    async def run(self) -> None:
        """Resume what was saved, then deliver events until cancelled."""
        facts, saved = await self.device.facts(), self._store.saved_state()
        self.state, effects = machine.resume(saved, facts)
        for last in self._store.history(1):
            self._announce.outcome(last)
        self.shown.show()
        try:
            self.hooks.resume(self.state)  # before another is added
            await self._resume(effects)
            if isinstance(saved, states.RebootPending) and isinstance(self.state, states.Idle):
                self._spawn(self._aftermath.look_into(saved))
            self.resumed.set()
            self.shown.show()
            self.departure.ask()
            while True:
                letter = await self._inbox.get()
                # To its end: a bootloader's tool is not killed half-way.
                letter.answer(await to_its_end(self._deliver(letter.event)))
                stop_if_cancelled()
        finally:
            await self._looker.close()
            await self.departure.close()
            await self.hooks.close()
            await self.judging.close()
            await self.jobs.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._inbox.close()

    # The machine

    async def _resume(self, effects: tuple[states.Effect, ...]) -> None:
        for effect in effects:
            try:
                await self._perform(effect)
            except Exception as error:  # noqa: BLE001 - a sick bootloader must not keep the service from being reached
                self._trouble(error)

    async def _deliver(self, event: states.Event) -> Exception | None:
        """Never raises: the service goes on, whatever an event leads to."""
        if event is self.judging.verdict and self.leaving:  # given up while the verdict was on its way
            self.judging.settled()
            return None
        before = self.state
        failure: Exception | None = None
        try:
            self.state, effects = machine.step(before, event)
            if not isinstance(self.state, states.Resting):
                self.shown.show()
            for effect in effects:
                await self._perform(effect)
            if self.state != before:  # who sees the device at rest may rely on it
                self.shown.show()
        except machine.IllegalTransition as error:
            self._illegal(error)
            failure = error
        except Exception as error:  # noqa: BLE001 - it is logged
            self._undone(before, event, error)
            failure = error
        if isinstance(event, _ENDS):
            await self._end(event)
        if isinstance(event, states.HealthGood | states.HealthBad) and failure is None:
            await self._judged(event)
        return failure

    async def _judged(self, event: states.HealthGood | states.HealthBad) -> None:
        self.judging.settled()
        if isinstance(event, states.HealthBad) and not self.leaving:
            await self._let_the_sick_be_mended()
        self.shown.show()
        self.departure.ask()

    def _illegal(self, error: machine.IllegalTransition) -> None:
        """A bug: the event is ignored, but what it was to end must end."""
        if isinstance(error.event, states.RollbackWanted):
            return  # a source began to look in the same moment: refused
        log.error("a bug in `updated`: the event is ignored", exc_info=error)
        if self.jobs.over and not isinstance(error.event, _ENDS):
            self.post(states.Failed(f"internal error: {error}"))

    def _undone(self, before: states.State, event: states.Event, error: Exception) -> None:
        """An effect failed: nothing that needs it counts as done."""
        if isinstance(event, states.HealthGood | states.HealthBad | states.RollbackWanted):
            self.state = before  # whoever is told of the trouble sees this one
        self._trouble(error)
        match event:
            case states.Verified():
                if self.jobs.attempt is not None:
                    self.jobs.attempt.error = error
                self.post(states.Failed(str(error)))
            case states.RollbackWanted(running) if isinstance(before, states.Idle):  # it is not on trial
                self._spawn(self._memory.keep(self._store.save_state, before))
                self._spawn(self._memory.keep(self._store.lift, running.manifest_hash))
            case states.HealthGood() | states.HealthBad() if not isinstance(error, NotSupportedError):
                self._spawn(self._later(RETRY, event))

    def _trouble(self, error: Exception) -> None:
        log_error(error)
        self.shown.show(str(error))

    async def _perform(self, effect: states.Effect) -> None:
        match effect:
            case states.ChooseCandidate(source):
                self.jobs.begin(source)
            case states.ReadTail() | states.VerifyTail():
                self.jobs.go_on(effect)
            case states.InstallGroup():
                await self.departure.call_off()  # what waited is about to be overwritten
                self.jobs.go_on(effect)
            case states.Rescan():
                self.look()
            case states.CheckHealth():
                self._check_health()
            case states.AskToReboot():
                self._spawn(self.judging.remember_unreachable())
                self._spawn(self.departure.prepare())
                self.departure.ask()
            case states.Reboot() if isinstance(self.state, states.RebootPending):
                self.departure.reboot(self.state.update)
            case states.RollBack(group, by_request):
                await self.departure.roll_back(group, by_request=by_request)
            case states.RunHook(kind, update):
                await self.hooks.add(kind, update)
            case states.MarkGood(group):
                await self._mark_good(group)
            case states.MarkBad(group):
                await self.device.mark_group(group, good=False)
                await self.departure.call_off()
            case states.Save() | states.Reject() | states.Record():
                floor = self.config.policy.version_floor == "confirmed"
                await self._memory.remember(effect, boot_id=self.device.boot_id, raises_floor=floor)

    async def _end(self, event: states.Event) -> None:
        try:
            ended = await self.jobs.end(event)
        except Exception as error:  # noqa: BLE001 - it is logged
            self._trouble(error)
        else:
            if ended is not None:
                self.look()  # what came meanwhile was not looked at
                self.offers.nudge()
                failed = isinstance(event, states.Condemned | states.Failed) and ended.counts(event)
                if failed and ended.offer.source == "ota" and self.setting.reboots_after_failure():
                    self._spawn(self.departure.reboot_after_failure())
        self.shown.show()

    def _may_begin(self) -> bool:
        """Whether the machine takes what an automatic source has."""
        resting = not self.busy and not self.hooks.running and isinstance(self.state, states.Idle)
        return self.offers.judged and resting

    def _found(self, source: str) -> None:
        if not self._stopping:
            self.post(states.Offered(source, by_request=False))

    # Health, reboot, the way back

    def _check_health(self) -> None:
        if not self.device.booted_group:
            self.offers.judged = True  # started from elsewhere: there is no group to judge
            self.look()
            return
        trial = self.state.update if isinstance(self.state, states.Confirming) else None
        if self.leaving:
            self._spawn(self.departure.go_on(trial))
            return
        self.judging.begin(trial, self.post)

    async def _mark_good(self, group: str) -> None:
        await self.device.mark_group(group, good=True)
        try:
            await self.device.prevent_late_fallback()
        except UpdatedError as error:  # the running system is good all the same
            self._trouble(error)
        await self.judging.overruled()
        await self._memory.keep(self._store.save_unreachable, ())
        await asyncio.to_thread(self._on_good)
        self.offers.judged = True
        self.offers.nudge()
        if self.leaving:  # a person has changed his mind
            await self._memory.keep(self._store.leave_boot, "")
            await self.departure.call_off()

    async def _let_the_sick_be_mended(self) -> None:
        """With no other group to start, an update can only help: there is no way back to destroy."""
        try:
            other = await self.device.other_bootable_group(self.device.booted_group)
        except UpdatedError as error:
            self._trouble(error)  # there may be one
            return
        if not other:
            self.offers.judged = True
            self.look()

    async def _later(self, delay: float, event: states.Event) -> None:
        await asyncio.sleep(delay)
        self.post(event)

    def _hooks_over(self) -> None:
        self.shown.show()
        self.look()
        self.departure.ask()

    # Small things

    def _pending(self) -> states.Update | None:
        return self.state.update if isinstance(self.state, states.RebootPending) else None

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._reap)
        return task

    def _reap(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("a bug in `updated`", exc_info=error)
