"""Runs the pure machine: delivers events one after the other, and performs their effects in order."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

from updated import command
from updated.api.port import Transaction
from updated.config.agent_toml import AgentConfig
from updated.core import machine as m
from updated.core.model import Offer, Outcome
from updated.errors import BundleError, Refused, UpdatedError
from updated.health.gate import judge
from updated.health.watchdog import Watchdog
from updated.host.clock import timestamp
from updated.install.device import Device
from updated.service.announce import Announcer
from updated.service.attempt import Attempt
from updated.service.details import describe
from updated.service.facts import policy_facts
from updated.service.offers import Offers
from updated.store import Quarantined, Store

log = logging.getLogger(__name__)

RETRY: Final = 10.0  # seconds until a failed install or a failed bootloader write is tried again
_ENDS: Final = (m.Activated, m.Failed, m.Condemned, m.Cancelled)


class Runner:
    """The one owner of the machine's state.  All methods belong to the event loop."""

    def __init__(
        self,
        *,
        device: Device,
        config: AgentConfig,
        store: Store,
        offers: Offers,
        announcer: Announcer,
        watchdog: Watchdog,
    ) -> None:
        self.device = device
        self.config = config
        self.offers = offers
        self.state: m.State = m.Idle()
        self._store = store
        self._announce = announcer
        self._watchdog = watchdog
        self._events: asyncio.Queue[m.Event] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._job: asyncio.Task[m.Event] | None = None
        self._attempt: Attempt | None = None  # what the job works on
        self._requested: Attempt | None = None  # a person's, not begun yet
        self._cancelling = False
        self._at_rest = asyncio.Event()
        self._at_rest.set()
        self._stopping = False

    # What others ask of it

    @property
    def busy(self) -> bool:
        """Something is being installed, or looked at to be installed."""
        return not self._at_rest.is_set()

    def post(self, event: m.Event) -> None:
        self._events.put_nowait(event)

    def request(self, offer: Offer) -> None:
        """Take a person's request.  Raises Refused(rule="busy" or "confirming")."""
        if self._attempt or self._requested or self._stopping:
            raise Refused("Already processing a different method", rule="busy")
        if isinstance(self.state, m.Confirming):
            raise Refused(
                "The running system is not confirmed yet: an install would overwrite the only way back",
                rule="confirming",
                hint="Wait until it is confirmed, or run `updated confirm` or `updated rollback`.",
            )
        self._requested = self._new_attempt(offer)
        if self._job is not None:
            self._job.cancel()  # an automatic source that only looks gives way to a person
        self.post(m.Offered(offer.source, by_request=True))

    def look(self) -> None:
        """A source may have something new."""
        self._spawn(self._rescan())

    async def cancel(self) -> None:
        """End the running install; returns when it is over.  Raises Refused if none runs."""
        if not self.busy:
            raise Refused("No installation is running", rule="idle")
        self._cancelling = True
        if self._job is not None:
            self._job.cancel()
        await self._at_rest.wait()

    async def stop(self) -> None:
        """End the running install in good order, and start nothing more."""
        self._stopping = True
        if self.busy:
            await self.cancel()

    async def rest(self) -> None:
        """Wait until nothing is being installed."""
        await self._at_rest.wait()

    def reconfigure(self, device: Device, config: AgentConfig) -> None:
        """From now on, this is the device and these are the rules; not while something is being installed."""
        assert not self.busy
        self.device, self.config = device, config
        self.offers.forget()
        self.look()

    def stuck(self) -> str:
        """Why the machine does not get on, or ""."""
        silent = time.monotonic() - self._announce.moved_at
        if not self.busy or silent < self.config.install.stall_timeout:
            return ""
        return f"nothing moved for {silent:.0f} s in state {m.NAMES[type(self.state)]}"

    async def run(self) -> None:
        """Resume what was saved, then deliver events until cancelled."""
        facts = await self.device.facts()
        self.state, effects = m.resume(self._store.saved_state(), facts)
        for last in self._store.history(1):
            self._announce.outcome(last)
        self._show()
        try:
            await self._resume(effects)
            while True:
                await self._deliver(await self._events.get())
        finally:
            tasks = [*self._tasks, *([self._job] if self._job else [])]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # The machine

    async def _resume(self, effects: tuple[m.Effect, ...]) -> None:
        for effect in effects:
            try:
                await self._perform(effect)
            except UpdatedError as error:  # a sick bootloader must not keep the service from being reached
                self._trouble(error)

    async def _deliver(self, event: m.Event) -> None:
        before = self.state
        self.state, effects = m.step(before, event)
        self._show()
        try:
            for effect in effects:
                await self._perform(effect)
        except UpdatedError as error:
            self._undone(before, event, error)
        if isinstance(event, _ENDS):
            await self._end(event)

    def _undone(self, before: m.State, event: m.Event, error: UpdatedError) -> None:
        """An effect failed: nothing that needs it counts as done."""
        self._trouble(error)
        if isinstance(event, m.Verified):
            self.post(m.Failed(str(error)))
        elif isinstance(event, m.HealthGood | m.HealthBad | m.RollbackWanted):
            self.state = before
            if not isinstance(event, m.RollbackWanted):
                self._spawn(self._later(RETRY, event))

    def _trouble(self, error: UpdatedError) -> None:
        log.error("%s%s", error, f" ({error.hint})" if error.hint else "")
        self._show(str(error))

    async def _perform(self, effect: m.Effect) -> None:
        match effect:
            case m.ChooseCandidate(source):
                self._start(self._choose(source))
            case m.ReadTail():
                self._start(self._current.read_tail())
            case m.VerifyTail():
                self._start(self._current.verify())
            case m.InstallGroup():
                self._start(self._current.install())
            case m.Rescan():
                self.look()
            case m.CheckHealth():
                self._spawn(self._judge())
            case m.AskToReboot():
                if self.config.reboot.when == "immediately":
                    self.post(m.RebootAllowed())
            case m.Reboot():
                self._spawn(self._reboot())
            case m.RollBack(group):
                await self._roll_back(group)
            case m.MarkGood(group):
                await self.device.mark_group(group, good=True)
                self.offers.judged = True
            case m.MarkBad(group):
                await self.device.mark_group(group, good=False)
            case m.Save() | m.Reject() | m.Record():
                await self._remember(effect)

    async def _remember(self, effect: m.Save | m.Reject | m.Record) -> None:
        match effect:
            case m.Save(m.Install() as state):
                await asyncio.to_thread(self._store.save_state, state)  # or nothing is written
            case m.Save(state):
                await self._keep(self._store.save_state, state)
            case m.Reject(manifest_hash, version, reason):
                log.warning("bundle %s (version %s) is quarantined: %s", manifest_hash, version, reason)
                entry = Quarantined(manifest_hash, version, reason, timestamp(), self.device.boot_id)
                await self._keep(self._store.reject, entry)
            case m.Record(update, code, text):
                if code == "confirmed":
                    await self._keep(self._confirmed, update)
                await self.record(outcome_of(update, code, text))

    async def _keep(self, save: Callable[..., None], *args: object) -> None:
        """Save; but a full or read-only data directory must not keep a good system from being confirmed."""
        try:
            await asyncio.to_thread(save, *args)
        except UpdatedError as error:
            self._trouble(error)

    def _confirmed(self, update: m.Update) -> None:
        self._store.forget_attempts(update.manifest_hash)
        self._store.lift(update.manifest_hash)
        if self.config.policy.version_floor == "confirmed":
            self._store.raise_floor(update.version)

    async def record(self, outcome: Outcome) -> None:
        """Add a line to the history and show it as the last result."""
        log.info("%s: %s", outcome.code, outcome.text)
        self._announce.outcome(outcome)
        await self._keep(self._store.record, outcome)

    # One attempt after the other

    @property
    def _current(self) -> Attempt:
        assert self._attempt is not None
        return self._attempt

    def _new_attempt(self, offer: Offer) -> Attempt:
        self._at_rest.clear()
        attempt = Attempt(offer, self.device, self.config, self._store, self._announce)
        attempt.begin()
        return attempt

    async def _choose(self, source: str) -> m.Event:
        if self._requested:
            self._attempt, self._requested = self._requested, None
        else:
            facts = policy_facts(self.device, self._store, self.config, automatic=True)
            offer = await self.offers.choose(source, self.device, facts)
            if offer is None:
                return m.Cancelled()
            self._attempt = self._new_attempt(offer)
        return await self._current.start()

    def _start(self, job: Coroutine[Any, Any, m.Event]) -> None:
        self._at_rest.clear()
        self._job = asyncio.create_task(job)
        self._job.add_done_callback(self._job_done)
        if self._cancelling:
            self._job.cancel()

    def _job_done(self, job: asyncio.Task[m.Event]) -> None:
        if job.cancelled():
            self.post(m.Cancelled())
            return
        error = job.exception()
        if error is None:
            self.post(job.result())
            return
        if self._attempt is not None:
            self._attempt.error = error
        if isinstance(error, BundleError):
            self.post(m.Condemned(str(error)))
        elif isinstance(error, UpdatedError):
            self.post(m.Failed(str(error)))
        else:
            log.error("a bug in `updated`", exc_info=error)
            self.post(m.Failed(f"internal error: {error!r}"))

    async def _end(self, event: m.Event) -> None:
        attempt, self._attempt, self._job, self._cancelling = self._attempt, None, None, False
        if attempt is not None:
            outcome = await attempt.end(event)
            retry = isinstance(event, m.Failed) and attempt.update is not None
            self.offers.ended(attempt.offer, outcome, retry_after=RETRY if retry else None)
            if retry:
                self._spawn(self._look_later(RETRY))
            await self.record(outcome)
        if self._requested is None:
            self._at_rest.set()
        else:
            self.post(m.Offered(self._requested.offer.source, by_request=True))
        self._show()

    async def _rescan(self) -> None:
        source = await self.offers.waiting()
        if source and not self._stopping:
            self.post(m.Offered(source, by_request=False))

    async def _look_later(self, delay: float) -> None:
        await asyncio.sleep(delay)
        await self._rescan()

    # Health, reboot, the way back

    async def _judge(self) -> None:
        if not self.device.booted_group:
            self.offers.judged = True  # started from elsewhere: there is no group to judge
            await self._rescan()
            return
        confirm = self.config.confirm
        reason = await judge(self._watchdog, stable_for=confirm.stable_for, deadline=confirm.deadline)
        self.post(m.HealthBad(reason) if reason else m.HealthGood(self.device.booted_group))

    async def _later(self, delay: float, event: m.Event) -> None:
        await asyncio.sleep(delay)
        self.post(event)

    async def _reboot(self) -> None:
        try:
            await command.check(self.config.reboot.command)
        except UpdatedError as error:
            self._trouble(error)

    async def _roll_back(self, group: str) -> None:
        other = await self.device.other_bootable_group(group)
        if not other:
            self.post(m.NothingToFallBackTo())
            return
        await self.device.mark_group(group, good=False)
        self._show(f"Rolled back: the next start is from {other}.")
        if self.config.reboot.when == "immediately":
            self._spawn(self._reboot())

    # Small things

    def _show(self, text: str = "") -> None:
        match self.state:
            case m.Install(update) | m.RebootPending(update) | m.Confirming(update):
                self._announce.transaction(transaction_of(update))
            case m.Idle() if not self.busy:
                self._announce.transaction(None)
        text = text or describe(self.state, self.device.booted_group)
        self._announce.state(m.NAMES[type(self.state)], text)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._reap)
        return task

    def _reap(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("a bug in `updated`", exc_info=error)


def transaction_of(update: m.Update) -> Transaction:
    """What is shown of a verified update while it is worked on."""
    return Transaction(
        id=update.transaction,
        source=update.source,
        location=update.location,
        compatible=update.compatible,
        version=update.version,
        manifest_hash=update.manifest_hash,
        target=update.target,
    )


def outcome_of(update: m.Update, code: str, text: str) -> Outcome:
    """The history line of a verified update."""
    return Outcome(
        transaction=update.transaction,
        source=update.source,
        location=update.location,
        version=update.version,
        manifest_hash=update.manifest_hash,
        target=update.target,
        code=code,
        text=text,
        time=timestamp(),
    )
