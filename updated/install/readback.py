"""Proof that a slot holds what was written to it.

Flash that is worn out or a loose contact may take a write and return other bytes.  So everything is read back
past the page cache and hashed again.  That happens one stretch behind the writes: the medium is busy all the
time, and the last sync, which everybody waits for, is short.

The end of each stretch is a place where an interrupted install can go on.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING

from updated.core.model import SlotWriter
from updated.errors import SourceError
from updated.finish import settled
from updated.install.threads import in_thread

if TYPE_CHECKING:
    from hashlib import _Hash

STRETCH = 32 << 20  # bytes between two syncs: seconds of a slow SD card, and few flushes for a fast disk
FETCHED = 7 << 17  # bytes from a network that end a stretch, too; with the last part 1 MiB as a rule
PIECE = 1 << 20  # bytes read back at once


@dataclass(slots=True)
class Begun:
    """The first bytes of an image: the slot holds them for sure."""

    position: int = 0  # how many
    digest: _Hash = field(default_factory=hashlib.sha256)  # was fed with them, and is fed with what follows


class ReadBack:
    """Syncs and reads back what `writer` was given.  An asynchronous context manager.

    Needs one thread of `pool` while the writer uses another.
    """

    def __init__(
        self,
        writer: SlotWriter,
        pool: ThreadPoolExecutor,
        begun: Begun,
        *,
        on_durable: Callable[[int, bytes], None],
        fetched: Callable[[], int],
    ) -> None:
        """`on_durable` and `fetched` are those of `stream_image`."""
        self._writer = writer
        self._pool = pool
        self._digest = begun.digest
        self._begun = begun.position  # bytes whose way back has begun
        self._on_durable = on_durable
        self._fetched = fetched
        self._mark = fetched()  # when it began
        self._stop = threading.Event()
        self._behind: asyncio.Task[None] | None = None

    async def __aenter__(self) -> ReadBack:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._behind is None:
            return
        if not isinstance(error, SourceError):  # what comes next goes on where this stretch ends
            self._stop.set()
        await settled(self._behind)  # its own error does not matter: another one ended the stream

    async def up_to(self, written: int) -> None:
        """`written` bytes from the start of the image have reached the writer.  Raises DeviceError."""
        fetched = self._fetched()
        if written - self._begun < STRETCH and fetched - self._mark < FETCHED:
            return
        await self._join()
        start, self._begun, self._mark = self._begun, written, fetched
        self._behind = asyncio.create_task(in_thread(self._pool, self._stretch, start, written))

    async def finish(self, written: int) -> bytes:
        """Everything is written: sync and read the rest; the SHA-256 of all that was read back (32 bytes).

        Raises DeviceError.
        """
        await self._join()
        if written > self._begun:
            await in_thread(self._pool, self._stretch, self._begun, written)
        return self._digest.digest()

    async def _join(self) -> None:
        behind, self._behind = self._behind, None
        if behind is None:
            return
        try:
            await asyncio.shield(behind)
        except asyncio.CancelledError:
            self._behind = behind  # `__aexit__` waits for it
            raise

    def _stretch(self, start: int, end: int) -> None:
        self._writer.sync()
        for offset in range(start, end, PIECE):
            if self._stop.is_set():
                return
            self._digest.update(self._writer.read_back(offset, min(PIECE, end - offset)))
        self._on_durable(end, self._digest.digest())
