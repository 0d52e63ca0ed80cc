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
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from asyncinotify import Inotify, Mask

log = logging.getLogger(__name__)

SUFFIX: Final = ".raucb"
MAX_FILES: Final = 100  # that are looked at in one go
TRAILER: Final = 8  # bytes: big-endian size of the signature (RAUC reference, "Bundle Formats")
RETRY: Final = 30.0  # seconds until a folder that went away is looked for again
_WATCHED: Final = Mask.CLOSE_WRITE | Mask.MOVED_TO | Mask.DELETE_SELF | Mask.MOVE_SELF | Mask.ONLYDIR
_GONE: Final = Mask.DELETE_SELF | Mask.MOVE_SELF | Mask.IGNORED | Mask.UNMOUNT


@dataclass(frozen=True, slots=True)
class Found:
    """A complete bundle file."""

    path: Path
    identity: tuple[int, int, int, int]  # device, inode, size, mtime in ns: another identity, another file


def look(path: Path) -> Found | None:
    """`path` as a bundle that may be offered, or None.  Blocks."""
    if path.name.startswith(".") or path.suffix != SUFFIX or not _is_text(path):
        return None
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        info = os.fstat(handle)
        if not stat.S_ISREG(info.st_mode) or not _has_trailer(handle, info.st_size):
            return None
    except OSError:
        return None
    finally:
        os.close(handle)
    return Found(path, (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns))


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


class Folder:
    """One drop folder."""

    def __init__(self, path: Path, *, retry: float = RETRY) -> None:
        """`retry`: seconds until a folder that went away is looked for again."""
        self.path = path
        self._retry = retry

    def scan(self, known: Callable[[Found], bool] = lambda _: False) -> list[Found]:
        """The first MAX_FILES complete bundles in it, by name, that are not `known`.  Blocks."""
        try:
            with os.scandir(self.path) as entries:
                names = sorted(entry.name for entry in entries if entry.name.endswith(SUFFIX))
        except OSError:
            return []
        found = filter(None, (look(self.path / name) for name in names))
        return list(islice((item for item in found if not known(item)), MAX_FILES))

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


def remove(path: Path) -> None:
    """Take a finished bundle away.  Raises OSError."""
    path.unlink(missing_ok=True)


def move(path: Path, target: Path) -> None:
    """Put a finished bundle into the folder `target`, made if missing.  Raises OSError."""
    target.mkdir(parents=True, exist_ok=True)
    path.replace(target / path.name)
