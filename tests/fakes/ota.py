"""Time that passes when told, and a feed that says what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from updated.core.polling import FeedMemory, Finding
from updated.errors import UpdatedError

EPOCH = datetime(2026, 6, 1, 12, tzinfo=UTC).timestamp()


class FakeClock:
    """Behind `updated.sources.clock.Clock`."""

    def __init__(self, boottime: float = 100.0, wall: float = EPOCH) -> None:
        self.now = boottime
        self.time_of_day = wall
        self._waiting: list[tuple[float, asyncio.Future[None]]] = []

    def boottime(self) -> float:
        return self.now

    def wall(self) -> datetime:
        return datetime.fromtimestamp(self.time_of_day, UTC)

    async def until(self, boottime: float) -> None:
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((boottime, over))
        await over

    @property
    def waited_for(self) -> bool:
        return any(not over.done() for _, over in self._waiting)

    def pass_by(self, seconds: float) -> None:
        self.now += seconds
        self.time_of_day += seconds
        self._tell(lambda due: due <= self.now)

    def set(self, wall: float) -> None:
        """Somebody sets the time of day."""
        self.time_of_day = wall
        self._tell(lambda due: True)

    def _tell(self, concerned: Callable[[float], bool]) -> None:
        waiting, self._waiting = self._waiting, []
        for due, over in waiting:
            if over.done():
                continue
            if concerned(due):
                over.set_result(None)
            else:
                self._waiting.append((due, over))


@dataclass
class ScriptedFeed:
    """Behind `updated.core.polling.Feed`; says the same again when its script is over."""

    says: list[Finding | UpdatedError]
    url: str = "https://example.com/manifest.json"
    heard: list[FeedMemory] = field(default_factory=list)
    open: asyncio.Event = field(default_factory=asyncio.Event)

    _looking: bool = False

    def __post_init__(self) -> None:
        self.open.set()

    @property
    def looking(self) -> bool:
        """And it will not end before the feed is opened."""
        return self._looking and not self.open.is_set()

    async def look(self, memory: FeedMemory) -> Finding:
        self.heard.append(memory)
        self._looking = True
        await self.open.wait()
        self._looking = False
        answer = self.says.pop(0) if len(self.says) > 1 else self.says[0]
        if isinstance(answer, UpdatedError):
            raise answer
        return answer
