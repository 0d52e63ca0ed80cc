"""The events that wait for the machine, and who waits for what comes of them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from updated.core.states import Event
from updated.errors import Refused, UpdatedError


@dataclass(frozen=True, slots=True)
class Letter:
    """An event, and perhaps somebody who waits."""

    event: Event
    done: asyncio.Future[None] | None = None

    def answer(self, error: Exception | None) -> None:
        """All is done that the event leads to at once, or `error` kept it from being done."""
        if self.done is None or self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        elif isinstance(error, UpdatedError):
            self.done.set_exception(error)
        else:
            self.done.set_exception(Refused("already processing a different method", rule="busy"))


class Inbox:
    """First come, first served.  Belongs to the event loop."""

    def __init__(self) -> None:
        self._letters: asyncio.Queue[Letter] = asyncio.Queue()

    def post(self, event: Event) -> None:
        self._letters.put_nowait(Letter(event))

    async def deliver(self, event: Event) -> None:
        """Wait for the answer.  Raises UpdatedError."""
        letter = Letter(event, asyncio.get_running_loop().create_future())
        self._letters.put_nowait(letter)
        assert letter.done is not None
        await letter.done

    async def get(self) -> Letter:
        """The next one; whoever gets it answers it."""
        return await self._letters.get()

    def empty(self) -> bool:
        return self._letters.empty()

    def close(self) -> None:
        """Nobody answers any more."""
        while not self._letters.empty():
            self._letters.get_nowait().answer(Refused("The service ends", rule="busy"))
