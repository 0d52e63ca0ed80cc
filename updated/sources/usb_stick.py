"""One file system on a stick, from plugging it in to pulling it out.

Whatever touches the medium runs in a thread of its own, for a limited time: a dying stick may hold a thread
for ever, and must hold nobody else.  What is mounted is told by the threads that do it, not by who waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from updated.core.source import Item
from updated.errors import SourceError
from updated.sources.usb_devices import Volume
from updated.sources.usb_files import bundles, write_text
from updated.sources.usb_mount import Mounter, make_place, refusal, remove_place

T = TypeVar("T")

PATIENCE: Final = 60.0
"""Seconds for a stick to be mounted, read through or written to: the kernel itself gives a command 30 s."""
LET_GO: Final = 5.0  # seconds: letting go touches no medium


class Stick:
    """Belongs to the event loop."""

    def __init__(
        self, volume: Volume, place: Path, mounter: Mounter, *, folder: str, patience: float = PATIENCE
    ) -> None:
        """`place`: where it is mounted, a path that no other stick had or will have."""
        self.volume = volume
        self.place = place
        self.items: tuple[Item, ...] | None = None  # None: not looked at yet
        self.given_up = False
        self.mounted = False
        self._mounter = mounter
        self._folder = folder
        self._patience = patience
        self._pulled = False
        self._turn = asyncio.Lock()
        self._jobs: set[asyncio.Task[None]] = set()

    def holds(self, location: str) -> bool:
        return Path(location).is_relative_to(self.place)

    async def open(self) -> None:
        """Mount it, and look what is on it unless that is known.  Raises SourceError: it is given up."""
        await self._job(self._open)

    async def close(self) -> None:
        """Unmount it; files that are still read from can be read to their end."""
        with contextlib.suppress(SourceError):
            await self._job(self._close)

    async def leave(self, name: str, text: str, *, replace: bool = True) -> None:
        """Write `text` into the file `name`, and unmount.  Raises SourceError; the stick is not given up.

        `replace=False`: a file that is there already stays as it is.
        """
        await self._job(lambda: self._leave(name, text, replace))

    async def pull(self) -> None:
        """It is out: forget what is mounted.  Waits for nothing that is under way."""
        self._pulled = self.given_up = True
        with contextlib.suppress(TimeoutError):
            await in_own_thread(self._let_go, LET_GO)

    # In the event loop

    async def _job(self, work: Callable[[], None]) -> None:
        """One after the other, to the end also when the caller is cancelled."""
        task = asyncio.create_task(self._in_turn(work))
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_seen)
            raise

    async def _in_turn(self, work: Callable[[], None]) -> None:
        async with self._turn:
            if self.given_up:
                raise SourceError(f"{self.volume.name} was pulled or given up")
            try:
                await in_own_thread(work, self._patience)
            except TimeoutError as error:
                self.given_up = self._pulled = True  # the thread lets go if it ever comes back
                raise SourceError(
                    f"{self.volume.name} does not answer for {self._patience:g} s, and is given up",
                    hint="Plug it in again, or use another stick.",
                ) from error

    # In a thread

    def _open(self) -> None:
        self._mount(writable=False)
        if self.items is not None:
            return
        try:
            found = bundles(self.place, self._folder)
        except OSError as error:
            self._let_go()
            self.given_up = True
            raise SourceError(
                f"Cannot read {self.volume.name}: {error.strerror}",
                hint="The medium may be damaged or was removed.",
            ) from error
        self.items = tuple(
            Item(str(self.place / name), (self.volume.uuid, info.st_size, info.st_mtime_ns))
            for name, info in found
        )

    def _close(self) -> None:
        if not self.mounted:
            return
        try:
            self._mounter.unmount(self.place, lazily=False)
        except OSError:  # a reader that has not closed its file yet
            self._let_go()
        self.mounted = False
        remove_place(self.place)

    def _leave(self, name: str, text: str, replace: bool) -> None:
        if not replace and self._has(name):
            return
        self._close()
        try:
            self._mount(writable=True)
            write_text(self.place, name, text)
        except OSError as error:
            raise SourceError(f"Cannot write {name} on {self.volume.name}: {error.strerror}") from error
        finally:
            self._close()

    def _has(self, name: str) -> bool:
        self._mount(writable=False)
        return os.path.lexists(self.place / name)

    def _mount(self, *, writable: bool) -> None:
        """Raises SourceError."""
        if self.mounted:
            return
        volume = self.volume
        try:
            make_place(self.place, self._mounter)
            self._mounter.mount(volume.node, self.place, volume.driver, writable=writable)
        except OSError as error:
            remove_place(self.place)
            self.given_up = self.given_up or not writable
            raise refusal(error, volume.name, volume.driver) from error
        self.mounted = True
        if self._pulled:  # meanwhile
            self._let_go()
            raise SourceError(f"{volume.name} was pulled")

    def _let_go(self) -> None:
        with contextlib.suppress(OSError):
            self._mounter.unmount(self.place, lazily=True)
        self.mounted = False
        remove_place(self.place)


async def in_own_thread(work: Callable[[], T], timeout: float) -> T:
    """What `work` returns or raises.  Raises TimeoutError; the thread is left to itself then.

    Not one of a pool: those wait for each other, and the process for all of them at its end.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def deliver(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, failure = None, None
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - whoever waits gets it
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(deliver, result, failure)

    threading.Thread(target=run, name="usb", daemon=True).start()
    async with asyncio.timeout(timeout):
        return await future


def _seen(task: asyncio.Task[None]) -> None:
    """asyncio shall not complain that nobody looked."""
    if not task.cancelled():
        task.exception()
