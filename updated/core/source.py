"""What the automatic sources have in common.  Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from updated.core.model import Expected, Outcome


@dataclass(frozen=True, slots=True)
class Item:
    """A bundle that lies about: nothing of it is verified."""

    location: str  # local path or http(s) URL
    identity: tuple[int | str, ...]  # another identity at the same location is another bundle
    expected: Expected = field(default_factory=Expected)


class Source(Protocol):
    """Where bundles come from by themselves: a level, looked at again and again.

    Its methods belong to the event loop, and never raise for what a medium or a server does.
    """

    @property
    def name(self) -> str:
        """As in `Offer.source`."""
        ...

    async def watch(self, changed: Callable[[], None]) -> None:
        """Call `changed` whenever `scan` may have other news, for ever."""
        ...

    async def scan(self, known: Callable[[Item], bool]) -> Sequence[Item]:
        """What it has, by name, without what is `known` to be of no interest now."""
        ...

    async def gone(self, location: str) -> bool:
        """True: what was found there will not come back by itself, so it may be forgotten."""
        ...

    async def refused(self, item: Item, reason: str) -> None:
        """`item` is not installed."""
        ...

    async def started(self, item: Item) -> None:
        """An attempt to install `item` begins."""
        ...

    async def ended(self, item: Item, outcome: Outcome, *, again: bool) -> None:
        """The attempt is over.  `again`: it will be tried again by itself."""
        ...

    async def settled(self) -> None:
        """Nothing of it is being read or waits to be: media may be let go of."""
        ...

    def nudge(self) -> None:
        """What forbade it to look may be over."""
        ...
