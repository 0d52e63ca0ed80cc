"""What is being installed, or looked at to be installed: one attempt at a time, one phase after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from updated.core import states
from updated.core.model import Offer
from updated.errors import Refused
from updated.finish import stop_if_cancelled, to_its_end
from updated.service.announce import Announcer
from updated.service.attempt import Attempt, event_of
from updated.service.choice import Chosen
from updated.service.facts import policy_facts, polls_any_version, subject_of
from updated.service.memory import Memory
from updated.service.offers import Offers
from updated.service.setting import Setting
from updated.service.watched import Pace
from updated.store import Store


class Jobs:
    """The phases run in a task each; their ends are events.  Belongs to the event loop."""

    def __init__(
        self,
        setting: Callable[[], Setting],
        offers: Offers,
        store: Store,
        announcer: Announcer,
        post: Callable[[states.Event], None],
    ) -> None:
        self.attempt: Attempt | None = None  # what the job works on
        self.requested: Attempt | None = None  # a person's, not begun yet
        self._setting = setting
        self._offers = offers
        self._store = store
        self._memory = Memory(store, announcer)
        self._announce = announcer
        self._post = post
        self._job: asyncio.Task[states.Event] | None = None
        self._cancelling = False
        self._at_rest = asyncio.Event()
        self._at_rest.set()

    @property
    def busy(self) -> bool:
        return not self._at_rest.is_set()

    @property
    def taken(self) -> bool:
        """Somebody's bundle is worked on, or will be."""
        return bool(self.attempt or self.requested)

    @property
    def paused(self) -> bool:
        return self.attempt is not None and self.attempt.pace.paused

    @property
    def over(self) -> bool:
        """The last phase has ended, but what came of it is not known to the machine yet."""
        return self._job is not None and self._job.done()

    # What is asked of it

    def request(self, offer: Offer) -> None:
        """A person's, in its turn; an automatic source that only looks gives way."""
        self.requested = self._new_attempt(offer)
        if self._job is not None:
            self._job.cancel()
        self._offer_requested()

    def pause(self, *, rest: bool) -> None:
        """Let the stream rest, or go on.  Raises Refused."""
        if self.attempt is None or (not rest and not self.paused):
            raise Refused("No installation is running" if rest else "Nothing is paused", rule="idle")
        if rest:
            self.attempt.pace.pause()
        else:
            self.attempt.pace.resume()

    async def cancel(self, why: str = "Installation cancelled") -> None:
        """End what runs; returns when it is over.  Raises Refused if nothing does."""
        if not self.busy:
            raise Refused("No installation is running", rule="idle")
        self._cancelling = True
        for attempt in (self.attempt, self.requested):
            if attempt is not None:
                attempt.cancelled = why
        if self._job is not None:
            self._job.cancel()
        await self._at_rest.wait()

    async def rest(self) -> None:
        """Wait until nothing is being installed."""
        await self._at_rest.wait()

    async def close(self) -> None:
        """Whatever runs is left behind."""
        if self._job is not None:
            self._job.cancel()
            await asyncio.gather(self._job, return_exceptions=True)

    # The phases

    def begin(self, source: str) -> None:
        """Of a person's request if there is one, else of the best that `source` has."""
        if self.requested is None:
            self._start(self._choose(source))
            return
        # From here on it can be cancelled.
        self.attempt, self.requested = self.requested, None
        self._start(self.attempt.start())

    def go_on(self, effect: states.ReadTail | states.VerifyTail | states.InstallGroup) -> None:
        assert self.attempt is not None
        match effect:
            case states.ReadTail():
                self._start(self.attempt.read_tail())
            case states.VerifyTail():
                self._start(self.attempt.verify())
            case states.InstallGroup():
                self._start(self.attempt.install())

    async def end(self, event: states.Event) -> Attempt | None:
        """It is over, one way or another: what ended.  Raises what kept it from being written down."""
        if self.attempt is None and self._cancelling:  # a request that had not begun is cancelled, too
            self.attempt, self.requested = self.requested, None
        attempt = self.attempt
        try:
            if attempt is not None:
                await self._close(attempt, event)
        finally:
            # Only now: a request that came meanwhile would be taken for the end of this one.
            self.attempt, self._job, self._cancelling = None, None, False
            if self.requested is None:
                self._at_rest.set()  # before anybody is told: who hears of it may go on at once
            else:
                self._offer_requested()
            if attempt is not None:
                attempt.tell()
        return attempt

    def _offer_requested(self) -> None:
        assert self.requested is not None
        self._post(states.Offered(self.requested.offer.source, by_request=True))

    def _new_attempt(self, offer: Offer) -> Attempt:
        self._at_rest.clear()
        attempt = Attempt(offer, self._setting(), self._store, self._announce)
        attempt.begin()
        return attempt

    async def _choose(self, source: str) -> states.Event:
        setting, pace = self._setting(), Pace(self._announce.moved)
        held = await self._offers.held_before(source)
        if held is not None and await self._holds(source, held):
            return states.Cancelled()
        only_above = not (source == "ota" and polls_any_version(setting.device))
        facts = policy_facts(
            setting.device, self._store, setting.config, automatic=True, only_above=only_above
        )
        chosen = await self._offers.choose(source, facts, lambda offer: setting.bundles.peek(offer, pace))
        if chosen is None or await self._holds(source, chosen):
            return states.Cancelled()
        # To its end: a source that was told of a start must be told of the end, too.
        self.attempt = self._new_attempt(await to_its_end(self._offers.started(source, chosen)))
        stop_if_cancelled()
        return await self.attempt.start()

    async def _holds(self, source: str, chosen: Chosen) -> bool:
        """Policy says: not now."""
        hold = await self._setting().gate.may_install(subject_of(source, chosen))
        if hold is not None:
            self._offers.hold(source, chosen, hold)
        return hold is not None

    def _start(self, phase: Coroutine[Any, Any, states.Event]) -> None:
        self._at_rest.clear()
        self._job = asyncio.create_task(phase)
        self._job.add_done_callback(self._done)
        if self._cancelling:
            self._job.cancel()

    def _done(self, job: asyncio.Task[states.Event]) -> None:
        if not job.cancelled() and self.attempt is not None:
            self.attempt.error = job.exception()
        self._post(event_of(job, self.attempt.offer.source if self.attempt else ""))

    async def _close(self, attempt: Attempt, event: states.Event) -> None:
        outcome = await attempt.end(event)
        if attempt.update is not None and not attempt.counts(event):
            await self._memory.keep(self._store.forget_attempts, attempt.update.manifest_hash)
        if outcome.code == "installed":  # whatever was said of the bundle before: it is on trial anew
            await self._memory.keep(self._store.lift, outcome.manifest_hash)
        await self._offers.ended(attempt.offer, outcome, retry_after=attempt.retry_after(event))
        await self._memory.record(outcome)
