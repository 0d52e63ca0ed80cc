"""The files of one URL in the spool folder, and what may be believed of them.  Everything here blocks."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import logging
import math
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from updated.document import Document
from updated.errors import DeviceError, SourceError

log = logging.getLogger(__name__)

SYNC: Final = 8 << 20  # bytes between two syncs: what a power cut may cost
PIECE: Final = 1 << 20  # bytes read back at once
FULL: Final = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class Note:
    """Whose bytes the part file holds."""

    url: str = ""
    etag: str = ""
    size: int = 0  # bytes of the whole object; 0: not known
    synced: int = 0  # bytes that are durable


def stem(url: str) -> str:
    """The name of what belongs to `url`, without its ending."""
    return hashlib.sha256(url.encode(errors="surrogateescape")).hexdigest()[:16]


def is_strong(etag: str) -> bool:
    """Two objects with this ETag are the same, byte for byte (RFC 9110, section 8.8.1)."""
    return bool(etag) and not etag.startswith("W/")


def make_folder(folder: Path) -> None:
    """Nobody but us may write there.  Raises DeviceError."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            raise DeviceError(
                f"{folder} is not a folder of this service",
                hint="Remove it. To use another disk, mount it there.",
            )
        folder.chmod(0o700)
    except OSError as error:
        raise DeviceError(
            f"Failed to make {folder}: {error.strerror}",
            hint="The data directory must be a folder that can be written to.",
        ) from error


class Part:
    """Open and locked from the beginning to `close` or `detach`."""

    def __init__(self, folder: Path, url: str, reserve: int) -> None:
        """`reserve`: bytes that stay free.  Raises DeviceError; SourceError if another task has it."""
        make_folder(folder)
        self.folder = folder
        self.length = 0  # bytes
        self._url = url
        self._reserve = reserve
        self._synced = 0
        self._path, self._note_path = (folder / f"{stem(url)}.{end}" for end in ("part", "json"))
        with self._told():
            self._handle = _open(self._path)
        try:
            _remove_foreign(self._note_path)
            self._note = Document(self._note_path, Note, Note(), log.warning)
        except BaseException:
            os.close(self._handle)
            raise

    def there(self, etag: str) -> Note:
        """What is left of the object that has `etag` now; an empty note if nothing of it can be used."""
        note = self._note.value
        known = is_strong(etag) and note.url == self._url and note.etag == etag
        if not known or not 0 < note.synced <= os.fstat(self._handle).st_size:
            return Note()
        self.length = self._synced = note.synced
        return note

    def begin(self, start: int, etag: str, size: int) -> None:
        """Bytes of this object from `start` on come next.  Raises DeviceError."""
        # Noted before the first byte is replaced: else the old note could vouch for new bytes.
        self._note.save(Note(self._url, etag, size, start))
        with self._told():
            os.ftruncate(self._handle, start)
        self.length = self._synced = start

    def check_room(self, needed: int) -> None:
        """Is there room for `needed` more bytes?  Raises DeviceError."""
        with self._told():
            status = os.fstatvfs(self._handle)
        free = status.f_bavail * status.f_frsize
        if free - self._reserve < needed:
            raise self._full(needed, free)

    def append(self, data: bytes | bytearray) -> None:
        """Raises DeviceError."""
        view = memoryview(data)
        with self._told(len(view)):
            while view:
                written = os.pwrite(self._handle, view, self.length)
                self.length += written
                view = view[written:]
        if self.length - self._synced >= SYNC:
            self.sync()

    def sync(self) -> None:
        """All that was appended survives a power cut.  Raises DeviceError."""
        with self._told():
            os.fdatasync(self._handle)
        self._synced = self.length
        if is_strong(self._note.value.etag):  # else nobody could go on from there
            self._note.save(replace(self._note.value, synced=self.length))

    def pieces(self) -> Iterator[bytes]:
        """What is there so far.  Raises DeviceError."""
        for offset in range(0, self.length, PIECE):
            with self._told():
                data = os.pread(self._handle, min(PIECE, self.length - offset), offset)
            yield data

    @property
    def resumable(self) -> bool:
        """Would the next download go on from here?"""
        return self.length > 0 and is_strong(self._note.value.etag)

    def close(self, *, keep: bool) -> None:
        """Let go of it; `keep` leaves what a later download can use.  Raises nothing."""
        if keep and self.resumable:
            try:
                self.sync()
            except DeviceError as error:
                log.warning("%s", error)
                keep = False
        if not (keep and self.resumable):
            self.remove()
        os.close(self._handle)

    def detach(self) -> int:
        """The handle, now the caller's to close; `remove` still works."""
        return self._handle

    def remove(self) -> None:
        """Raises nothing: what stays behind is swept later."""
        for path in (self._note_path, self._path):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                log.warning("%s cannot be removed: %s", path, error.strerror)

    @contextlib.contextmanager
    def _told(self, needed: int = 0) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in FULL:
                raise DeviceError(
                    f"Failed to spool to {self._path}: {error.strerror}",
                    hint="Look for errors of the data directory's disk in the kernel's log.",
                ) from error
            status = os.statvfs(self.folder)
            raise self._full(needed, status.f_bavail * status.f_frsize) from error

    def _full(self, needed: int, free: int) -> DeviceError:
        size = self._note.value.size
        whole = f" of {size}" if size else ""
        reserve = f", of which {self._reserve} are reserved" if self._reserve else ""
        return DeviceError(
            f"No space to spool the bundle in {self.folder}: {needed} more bytes{whole} are needed,"
            f" {free} are free{reserve}",
            hint="Free space there, lower spool-reserve in [install] of updated.toml, or offer a verity"
            " bundle on a server that supports range requests: it needs no space.",
        )


def sweep(folder: Path, keep_url: str = "", *, keep_for: float = 0.0) -> None:
    """Remove what is there of other URLs, unless it is in use or was within `keep_for` seconds.

    Raises nothing.
    """
    try:
        names = [] if folder.is_symlink() else [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        return
    except OSError as error:
        log.warning("%s cannot be swept: %s", folder, error.strerror)
        return
    keep = {stem(keep_url)} if keep_url else set()
    keep |= {_stem_of(name) for name in names if name.endswith(".part") and _in_use(folder / name)}
    keep |= {_stem_of(name) for name in names if keep_for and _age(folder / name) < keep_for}
    for name in names:
        path = folder / name
        try:
            if _stem_of(name) not in keep and not stat.S_ISDIR(path.lstat().st_mode):
                path.unlink(missing_ok=True)
        except FileNotFoundError:
            continue
        except OSError as error:
            log.warning("%s cannot be removed: %s", path, error.strerror)


def _age(path: Path) -> float:
    """Seconds since it was written; less than 0 before the clock is set."""
    try:
        return time.time() - path.lstat().st_mtime
    except OSError:
        return math.inf


def _stem_of(name: str) -> str:
    return name.lstrip(".").partition(".")[0]


def _in_use(path: Path) -> bool:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def _open(path: Path) -> int:
    """A regular file that is ours alone, locked.  Raises OSError, SourceError."""
    _remove_foreign(path)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise SourceError(
            "The same bundle is being downloaded already", hint="Wait until it has ended."
        ) from error
    except BaseException:
        os.close(handle)
        raise
    return handle


def _remove_foreign(path: Path) -> None:
    """Raises OSError for a folder."""
    with contextlib.suppress(FileNotFoundError):
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1 or status.st_uid != os.geteuid():
            log.warning("%s is not a file of this service: it is removed", path)
            path.unlink()
