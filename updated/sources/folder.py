"""The drop folder: a complete `*.raucb` that appears in it is offered.

Complete is a file that was closed by its writer or renamed into the folder, and whose last bytes are a
bundle's trailer; all else (half-copied files, dot files, folders, symlinks, names that are no UTF-8 and so
cannot be told on D-Bus) is passed over in silence.
"""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

from asyncinotify import Inotify, Mask

from updated.core.model import Outcome
from updated.core.source import Item

log = logging.getLogger(__name__)

SUFFIX: Final = ".raucb"
MAX_FILES: Final = 100  # that are looked at in one go
TRAILER: Final = 8  # bytes: big-endian size of the signature (RAUC reference, "Bundle Formats")
RETRY: Final = 30.0  # seconds until a folder that went away is looked for again
_WATCHED: Final = Mask.CLOSE_WRITE | Mask.MOVED_TO | Mask.DELETE_SELF | Mask.MOVE_SELF | Mask.ONLYDIR
_GONE: Final = Mask.DELETE_SELF | Mask.MOVE_SELF | Mask.IGNORED | Mask.UNMOUNT


def look(path: Path) -> Item | None:
    """`path` as a bundle that may be offered, or None.  Blocks."""
    info = examine(path)
    return Item(str(path), (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns)) if info else None


def examine(path: Path, *, dir_fd: int | None = None, complete: bool = True) -> os.stat_result | None:
    """What `path` (below `dir_fd`) is, if it is a bundle with a good name.  Blocks.

    `complete`: and all of it seems to be there; somebody may be writing it just now.
    """
    if path.name.startswith(".") or path.suffix != SUFFIX or not _is_text(path):
        return None
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=dir_fd)
    except OSError:
        return None
    try:
        info = os.fstat(handle)
        good = stat.S_ISREG(info.st_mode) and (not complete or _has_trailer(handle, info.st_size))
        return info if good else None
    except OSError:
        return None
    finally:
        os.close(handle)


def _is_text(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _has_trailer(handle: int, size: int) -> bool:
    if size <= TRAILER:
        return False
    signature = int.from_bytes(os.pread(handle, TRAILER, size - TRAILER), "big")
    if not 0 < signature < size - TRAILER:
        return False
    return os.pread(handle, 1, size - TRAILER - signature) == b"\x30"  # a DER SEQUENCE, as every CMS is


class FolderSource:
    """One drop folder, as a `Source`."""

    name = "folder"

    def __init__(
        self, path: Path, *, after: str = "keep", move_to: Path | None = None, retry: float = RETRY
    ) -> None:
        """`after`: what becomes of a bundle that was tried: keep, delete, or move into `move_to`.

        `retry`: seconds until a folder that went away is looked for again.
        """
        self.path = path
        self._after = after
        self._move_to = move_to
        self._retry = retry

    async def scan(self, known: Callable[[Item], bool] = lambda _: False) -> Sequence[Item]:
        """The first MAX_FILES complete bundles in it, by name, that are not `known` (called in a thread)."""
        return await asyncio.to_thread(self._scan, known)

    def _scan(self, known: Callable[[Item], bool]) -> Sequence[Item]:
        try:
            with os.scandir(self.path) as entries:
                names = sorted(entry.name for entry in entries if entry.name.endswith(SUFFIX))
        except OSError:
            return []
        found = filter(None, (look(self.path / name) for name in names))
        return list(islice((item for item in found if not known(item)), MAX_FILES))

    async def gone(self, location: str) -> bool:
        """Its name is there no more: names that never come again need not be remembered."""
        return not await asyncio.to_thread(os.path.lexists, location)

    async def refused(self, item: Item, reason: str) -> None:
        """Nothing to do, and so the next."""

    async def started(self, item: Item) -> None: ...

    async def ended(self, item: Item, outcome: Outcome, *, again: bool) -> None:
        """Do with the file what the configuration says, unless it is wanted once more."""
        if outcome.code in ("installed", "failed", "refused") and not again:
            await asyncio.to_thread(self._tidy, item)

    async def settled(self) -> None:
        """Nothing to do, and so the next."""

    def nudge(self) -> None: ...

    def _tidy(self, tried: Item) -> None:
        path = Path(tried.location)
        if look(path) != Item(tried.location, tried.identity):
            return  # another file has taken its place: that one was not tried
        try:
            if self._after == "delete":
                remove(path)
            elif self._after == "move" and self._move_to:
                move(path, self._move_to)
        except OSError as error:
            log.warning("cannot %s %s: %s", self._after, path, error.strerror)

    async def watch(self, changed: Callable[[], None]) -> None:
        """Call `changed` whenever a file may have become complete, for ever.

        The folder is made if it is missing; one that is taken away is waited for.
        """
        while True:
            try:
                await self._watch_once(changed)
                log.warning("drop folder %s went away", self.path)
            except OSError as error:
                log.warning("cannot watch the drop folder %s: %s", self.path, error)
            await asyncio.sleep(self._retry)

    async def _watch_once(self, changed: Callable[[], None]) -> None:
        await asyncio.to_thread(self.path.mkdir, parents=True, exist_ok=True)
        with Inotify() as inotify:
            os.set_blocking(inotify.fd, False)
            inotify.add_watch(self.path, _WATCHED)
            changed()  # what came before the watch
            async for event in inotify:
                if event.mask & _GONE:
                    return
                if event.mask & Mask.Q_OVERFLOW or (event.name and event.name.suffix == SUFFIX):
                    changed()


class AutoinstallSource:
    """RAUC's `[autoinstall]`: one bundle file that is there when the service starts, as a `Source`."""

    name = "autoinstall"

    def __init__(self, path: Path) -> None:
        self.path = path

    async def watch(self, changed: Callable[[], None]) -> None:
        """Only what is there at start is news."""
        changed()
        await asyncio.get_running_loop().create_future()

    async def scan(self, known: Callable[[Item], bool] = lambda _: False) -> Sequence[Item]:
        item = await asyncio.to_thread(look, self.path)
        return [item] if item and not known(item) else []

    async def gone(self, location: str) -> bool:
        return not await asyncio.to_thread(os.path.lexists, location)

    async def refused(self, item: Item, reason: str) -> None:
        """Nothing to do, and so the next four."""

    async def started(self, item: Item) -> None: ...

    async def ended(self, item: Item, outcome: Outcome, *, again: bool) -> None: ...

    async def settled(self) -> None: ...

    def nudge(self) -> None: ...


def remove(path: Path) -> None:
    """Take a finished bundle away.  Raises OSError."""
    path.unlink(missing_ok=True)


def move(path: Path, target: Path) -> None:
    """Put a finished bundle into the folder `target`, made if missing.  Raises OSError."""
    target.mkdir(parents=True, exist_ok=True)
    path.replace(target / path.name)
