"""Expected ranges, fetched before they are read: one long request for all that lie together.

A task takes bytes from the server and hands out the pieces that are read already; the others wait in a window
of bounded size.  When it is full, nothing more is taken until somebody reads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import aclosing

from updated.readers.http_object import HttpObject
from updated.readers.http_plan import Piece, Plan, Span

WINDOW = 2 << 20  # bytes that nobody reads yet
AHEAD = 64  # pieces; reads that run at once are found among so many


class Stream:
    """The ranges of one `expect`.  Its methods belong to one event loop."""

    def __init__(
        self, source: HttpObject, ranges: Iterable[tuple[int, int]], needed: Callable[[int, int], bool]
    ) -> None:
        self._source = source
        self._plan = Plan(ranges, needed)
        self._span = Span()
        self._ready: dict[tuple[int, int], bytes] = {}  # pieces that nobody read yet, oldest first
        self._unread = 0  # bytes in them
        self._waiting: dict[Piece, asyncio.Future[bytes | None]] = {}
        self._changed = asyncio.Event()  # somebody reads
        self._task: asyncio.Task[None] | None = None
        self._ended = False

    def resume(self) -> None:
        """Go on where `pause` or an earlier stream's end left it."""
        if self._task is None and not self._ended:
            self._task = asyncio.get_running_loop().create_task(self._fetch())
            self._task.add_done_callback(self._done)

    async def pause(self) -> None:
        """Give the connection free.  What was fetched stays."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    def end(self) -> None:
        """Those who wait are told that this brings nothing any more."""
        self._ended = True
        self._ready.clear()
        for waiter in self._waiting.values():
            if not waiter.done():
                waiter.set_result(None)
        if self._task is not None:
            self._task.cancel()

    def forget(self, offset: int, length: int) -> None:
        """What waits to be read and has some of these bytes is thrown away."""
        for start, size in [key for key in self._ready if key[0] < offset + length and offset < sum(key)]:
            del self._ready[start, size]
            self._unread -= size
        self._changed.set()

    async def read(self, offset: int, length: int) -> bytes | None:
        """The piece; None: it is not, or no more, among what is expected.  Raises SourceError."""
        if self._ended:
            return None
        data = self._ready.pop((offset, length), None)
        if data is not None:
            self._unread -= length
            self._changed.set()
            return data
        self._plan.fill(AHEAD)
        piece = self._plan.find(offset, length)
        if piece is None or piece in self._waiting:
            return None
        waiter: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._waiting[piece] = waiter
        self._changed.set()
        try:
            return await waiter
        finally:
            self._waiting.pop(piece, None)

    async def _fetch(self) -> None:
        plan, span = self._plan, self._span
        while piece := plan.next:
            if not span.start <= piece.offset <= span.end:
                span.restart(piece.offset)
            if span.end >= piece.end:  # an earlier one held all of it
                self._hand_out()
                continue
            async with aclosing(self._source.stream(span.end, plan.run_end())) as chunks:
                async for chunk in chunks:
                    span.append(chunk)
                    self._hand_out()
                    await self._room()

    def _hand_out(self) -> None:
        """All pieces that are complete."""
        span = self._span
        while piece := self._plan.next:
            if piece.offset < span.start:  # back to where we were before: another request
                return
            span.forget(piece.offset)
            if piece.end > span.end:
                return
            self._give(self._plan.pop(), span.first(piece.length))

    def _give(self, piece: Piece, data: bytes) -> None:
        waiter = self._waiting.pop(piece, None)
        if waiter is not None and not waiter.done():
            waiter.set_result(data)
        elif (piece.offset, piece.length) not in self._ready:
            self._ready[piece.offset, piece.length] = data
            self._unread += piece.length

    async def _room(self) -> None:
        """Wait until there is room for more, or somebody waits for what is to come."""
        while self._unread + self._span.size >= WINDOW and not self._waiting:
            self._changed.clear()
            await self._changed.wait()
        # Who waits for what lies further ahead has left the oldest out.
        while self._unread >= WINDOW and self._waiting:
            key = next(iter(self._ready))
            self._unread -= len(self._ready.pop(key))

    def _done(self, task: asyncio.Task[None]) -> None:
        """The fetching failed: so do those who wait.  Later reads try on their own."""
        if task.cancelled() or (error := task.exception()) is None:
            return
        self._ended = True
        for waiter in self._waiting.values():
            if not waiter.done():
                waiter.set_exception(error)
