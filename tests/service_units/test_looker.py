"""When the automatic sources are asked, and when they are left alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from updated.core.model import Offer, Outcome
from updated.core.source import Item
from updated.service.choice import Chosen
from updated.service.looker import Looker
from updated.service.offers import Offers

ITEM = Item("/stick/a.raucb", ())


class Stick:
    """A Source with one bundle."""

    name = "usb"

    def __init__(self) -> None:
        self.scans = 0
        self.let_go = asyncio.Event()

    async def watch(self, changed: Callable[[], None]) -> None: ...

    async def scan(self, known: Callable[[Item], bool] = lambda _: False) -> Sequence[Item]:
        self.scans += 1
        return [] if known(ITEM) else [ITEM]

    async def gone(self, location: str) -> bool:
        return False

    async def refused(self, item: Item, reason: str) -> None: ...

    async def started(self, item: Item) -> None: ...

    async def ended(self, item: Item, outcome: Outcome, *, again: bool) -> None: ...

    async def settled(self) -> None:
        self.let_go.set()

    def nudge(self) -> None: ...


class Site:
    def __init__(self) -> None:
        self.stick = Stick()
        self.offers = Offers([self.stick])
        self.offers.judged = True
        self.busy, self.may_begin = False, True
        self.found: asyncio.Queue[str] = asyncio.Queue()
        self.looker = Looker(
            self.offers,
            self.found.put_nowait,
            busy=lambda: self.busy,
            may_begin=lambda: self.may_begin and not self.busy,
        )

    async def fail_and_be_due(self) -> None:
        """One install was in vain, and may be tried again now."""
        await self.offers.started("usb", Chosen(ITEM, None))
        failed = Outcome("id", "usb", ITEM.location, "", "", "", "failed", "", "")
        await self.offers.ended(Offer("usb", ITEM.location), failed, retry_after=0.0)


def test_before_the_reboot_media_are_let_go_and_nothing_is_looked_at() -> None:
    async def scenario() -> None:
        site = Site()
        site.may_begin = False
        site.looker.look()
        await site.stick.let_go.wait()
        assert site.stick.scans == 0
        assert site.found.empty()
        site.may_begin = True
        site.looker.look()
        assert await site.found.get() == "usb"
        await site.looker.close()

    asyncio.run(scenario())


def test_what_is_due_waits_for_the_end_of_what_runs() -> None:
    """Or the service would look, in vain, as fast as it can."""

    async def scenario() -> None:
        site = Site()
        await site.fail_and_be_due()
        site.busy = True
        site.looker.look()
        for _ in range(100):
            await asyncio.sleep(0)
        assert site.stick.scans == 0
        assert site.found.empty()
        site.busy = False
        site.looker.look()
        assert await site.found.get() == "usb"
        await site.looker.close()

    asyncio.run(scenario())


def test_what_is_due_waits_for_the_reboot() -> None:
    async def scenario() -> None:
        site = Site()
        await site.fail_and_be_due()
        site.may_begin = False
        site.looker.look()
        await site.stick.let_go.wait()
        site.stick.let_go.clear()
        await asyncio.sleep(0.02)
        assert not site.stick.let_go.is_set()  # it looked once
        await site.looker.close()

    asyncio.run(scenario())
