"""What the automatic sources have to offer: a level, looked at again whenever the machine comes to rest.

A bundle that was tried is not tried again until it changes or the service starts anew, except after a fault
that may pass.  What the manifest hash decides (quarantine, already installed) is on disk instead.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from updated.core.gate import Hold
from updated.core.link import is_url, without_secrets
from updated.core.model import Offer, Outcome
from updated.core.policy import PolicyFacts
from updated.core.source import Item, Source
from updated.service.choice import Chosen, Peek, choose

log = logging.getLogger(__name__)

LATER: Final = 600.0  # seconds until another look after a fault that may pass: a wrong clock, a busy slot
LATEST: Final = 86400.0  # seconds
NEVER: Final = float("inf")


@dataclass(frozen=True, slots=True)
class PutOff:
    """A bundle that is not to be looked at for a while."""

    source: str
    item: Item
    reason: str  # why it is not installed; "": it is
    until: float  # monotonic seconds; NEVER: until it changes
    tries: int = 0  # installs that were begun; 0: it was only compared with others
    held: bool = False  # good, but policy says: not now

    def over(self, now: float) -> bool:
        """`now`: monotonic seconds."""
        return now >= self.until


class Offers:
    """All automatic sources, the highest rank first.  Belongs to the event loop."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.judged = False  # automatic sources wait until the running system is known to be healthy
        self.held: Hold | None = None  # why the best bundle of a source waits
        self._sources = {source.name: source for source in sources}
        self._last_held: tuple[Chosen, Hold] | None = None  # also after `release`
        self._chosen: tuple[str, Item] | None = None  # what is being tried
        self._put_off: dict[str, PutOff] = {}

    @property
    def names(self) -> Sequence[str]:
        """Of the sources, the highest rank first."""
        return tuple(self._sources)

    @property
    def put_off(self) -> Sequence[PutOff]:
        return tuple(self._put_off.values())

    def replace(self, sources: Sequence[Source]) -> None:
        """From now on these are the sources; not while something is being tried."""
        self._sources = {source.name: source for source in sources}
        self.forget()

    async def waiting(self, *, begin: bool = True) -> str:
        """The first source that has something to look at; "" for none.

        `begin=False`: nobody would take it, so nothing is looked at.
        """
        if not self.judged or self._chosen:
            return ""
        await self._forget_what_is_gone()
        now = time.monotonic()  # the same for all, or a lower rank could be due a moment before a higher one
        if any(put.held and put.over(now) for put in self._put_off.values()):
            self._forget_held()
        for name, source in self._sources.items() if begin else ():
            if await source.scan(lambda item: self._is_put_off(item, now)):
                return name
        if not self._chosen:
            for source in self._sources.values():
                await source.settled()
        return ""

    def due(self) -> float | None:
        """Seconds until something that was put off is worth another look; None: nothing was."""
        times = [put.until for put in self._put_off.values() if put.until != NEVER]
        return max(0.0, min(times) - time.monotonic()) if times else None

    def nudge(self) -> None:
        """What forbade to look for something new may be over."""
        for source in self._sources.values():
            source.nudge()

    def forget(self) -> None:
        """Look at everything again: the rules may have changed."""
        self._put_off.clear()
        self.held = self._last_held = None

    def reopen(self) -> None:
        """What was refused without a try may be taken now: the quarantine or the floor was lifted."""
        self._put_off = {key: put for key, put in self._put_off.items() if put.tries}

    def release(self) -> None:
        """What waits for policy may have its turn now."""
        self._forget_held()
        self.held = None

    async def choose(self, name: str, facts: PolicyFacts, peek: Peek) -> Chosen | None:
        """The best bundle of a source; what is not worth another look is put off, with the reason said."""
        source = self._sources.get(name)
        if source is None:  # it was taken away meanwhile
            return None
        self._chosen = (name, _NOTHING)  # its media must stay
        try:
            found = await source.scan(self._is_put_off)
            chosen, refused = await choose(name, found, facts, peek)
        finally:
            self._chosen = None
        for refusal in refused:
            log.info("%s is not installed: %s", without_secrets(refusal.item.location), refusal.reason)
            until = time.monotonic() + LATER if refusal.passing else NEVER
            self._put(PutOff(name, refusal.item, refusal.reason, until))
            await source.refused(refusal.item, refusal.reason)
        return chosen

    async def held_before(self, name: str) -> Chosen | None:
        """What policy held back when it was last asked, if a server still offers that, and nothing else.

        So it can be asked again without another look at the server: some rules are asked every minute.
        """
        source = self._sources.get(name)
        if source is None or self._last_held is None:
            return None
        chosen, _ = self._last_held
        found = await source.scan(self._is_put_off)
        return chosen if is_url(chosen.item.location) and list(found) == [chosen.item] else None

    def hold(self, name: str, chosen: Chosen, hold: Hold) -> None:
        """Policy does not want `chosen` now."""
        last = self._last_held
        if last is None or (last[0].item, last[1].text) != (chosen.item, hold.text):
            log.info("%s (%s)", hold.text, without_secrets(chosen.item.location))
        self.held, self._last_held = hold, (chosen, hold)
        until = NEVER if hold.delay is None else time.monotonic() + hold.delay
        self._put(PutOff(name, chosen.item, hold.text, until, held=True))

    async def started(self, name: str, chosen: Chosen) -> Offer:
        """An attempt with `chosen` begins."""
        self.held = self._last_held = None
        self._chosen = (name, chosen.item)
        source = self._sources.get(name)
        if source is not None:
            await source.started(chosen.item)
        return Offer(name, chosen.item.location, expected=chosen.item.expected)

    async def ended(self, offer: Offer, outcome: Outcome, *, retry_after: float | None) -> None:
        """An attempt is over: remember it, and let its source do what it does then."""
        if self._chosen is None or offer.source != self._chosen[0]:
            return
        (name, item), self._chosen = self._chosen, None
        tries = 1 + self._tries_of(item)
        until = NEVER
        if retry_after is not None:  # the longer the more often it was in vain: writing wears flash out
            until = time.monotonic() + min(retry_after * 2 ** (tries - 1), LATEST)
        if outcome.code in ("failed", "refused") and (retry_after is None or retry_after >= LATER):
            # What was below it has another chance; what was tried before has not.
            self._put_off = {key: put for key, put in self._put_off.items() if put.tries}
        reason = "" if outcome.code == "installed" else outcome.text
        if outcome.code == "cancelled":
            reason = f"{reason}; `updated install` takes it up again"
        self._put(PutOff(name, item, reason, until, tries=tries))
        source = self._sources.get(name)
        if source is not None:
            await source.ended(item, outcome, again=retry_after is not None)

    def _forget_held(self) -> None:
        self._put_off = {key: put for key, put in self._put_off.items() if not put.held}

    def _tries_of(self, item: Item) -> int:
        put = self._put_off.get(item.location)
        return put.tries if put and put.item.identity == item.identity else 0

    def _put(self, put: PutOff) -> None:
        self._put_off[put.item.location] = put

    async def _forget_what_is_gone(self) -> None:
        """Or names that never come again would be remembered for ever."""
        for location, put in tuple(self._put_off.items()):
            source = self._sources.get(put.source)
            if source is None or await source.gone(location):
                self._put_off.pop(location, None)
                if put.held:
                    self.held = None

    def _is_put_off(self, item: Item, now: float | None = None) -> bool:
        """`now`: monotonic seconds, if it is not just now."""
        put = self._put_off.get(item.location)
        now = time.monotonic() if now is None else now
        return bool(put and put.item.identity == item.identity and not put.over(now))


_NOTHING: Final = Item("", ())
