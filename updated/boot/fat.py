"""Small files on the FAT partition that a firmware reads, changed so that a power cut does no harm.

FAT has no journal, and a rename over a file is no single step on the medium: the name's entry (where the
file begins, how long it is), the removal of the temporary name and the release of the old clusters are
sectors of their own, which the kernel writes in no promised order (Linux fs/fat/namei_vfat.c).  So:

- `overwrite`, for files of one sector at most: the bytes are written in place and the size stays, so that
  one sector changes, and of the file system only the time of the change.  A medium writes a sector or does
  not.  A file that has to become longer is first filled up with line feeds; of that any part may arrive, also
  the length alone, which leaves zeros.
- `replace`, for longer ones: the new file is on the medium before the name points to it, and the old one is
  held open until the entry is there, so that its clusters are not given away before.  What is left is that a
  cut finds both names, or the old file.

Everything here blocks.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from updated import syscalls
from updated.devices import find_mountpoint
from updated.durable import sync_folder
from updated.errors import DeviceError
from updated.syscalls import MountFlag

SECTOR: Final = 512  # bytes
TEMPORARY: Final = "updated.tmp"  # a fixed name: what a power cut leaves is used up by the next change
_HINTS: Final = {
    errno.EROFS: "It is mounted read-only: `mount -o remount,rw`, or fsck.fat if the kernel has done that.",
    errno.ENOSPC: "The partition is full: a few kilobytes have to be free.",
    errno.ENOENT: "Is this the right partition, and mounted?",
}
_MOUNT_HINTS: Final = {
    errno.ENODEV: "The kernel has no driver for FAT (CONFIG_VFAT_FS).",
    errno.ENOENT: "There is no such partition: look at `lsblk -o NAME,PARTLABEL,FSTYPE`.",
    errno.EINVAL: "It is no FAT file system, or a damaged one: look at it with `fsck.fat -n`.",
    errno.ENOTBLK: "Expected a partition, as /dev/disk/by-partlabel/NAME.",
    errno.EPERM: "The service needs CAP_SYS_ADMIN, and DeviceAllow=block-* rw in its unit.",
    errno.EROFS: "The medium is write-protected.",
    errno.EBUSY: "It is mounted elsewhere, in another way.",
}


class Place(Protocol):
    """Where the files are."""

    def opened(self, *, writable: bool) -> AbstractContextManager[Path]:
        """Their folder, for a while.  Raises DeviceError."""
        ...


class Mounter(Protocol):
    """Both raise OSError."""

    def mount(self, device: str, point: Path, *, readonly: bool) -> None: ...

    def unmount(self, point: Path) -> None: ...


class KernelMounter:
    """The real `Mounter`, for FAT."""

    def mount(self, device: str, point: Path, *, readonly: bool) -> None:
        flags = MountFlag.NOSUID | MountFlag.NODEV | MountFlag.NOEXEC | MountFlag.NOATIME
        syscalls.mount(device, point, "vfat", flags | MountFlag.RDONLY if readonly else flags)

    def unmount(self, point: Path) -> None:
        try:
            syscalls.unmount(point)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            syscalls.unmount(point, lazily=True)  # what was written is on the medium already


@dataclass(frozen=True, slots=True)
class Folder:
    """A `Place` that is always mounted."""

    path: Path

    @contextlib.contextmanager
    def opened(self, *, writable: bool) -> Iterator[Path]:
        yield self.path


@dataclass(frozen=True, slots=True)
class Partition:
    """A `Place` that is mounted only while it is looked at, so that no crash leaves it dirty.

    Where somebody has mounted it already, that mount is used.
    """

    device: str
    parent: Path | None = None  # where the mount point is made; None: the temporary folder
    mounter: Mounter = field(default_factory=KernelMounter)
    mountpoint_of: Callable[[str], str | None] = find_mountpoint

    @contextlib.contextmanager
    def opened(self, *, writable: bool) -> Iterator[Path]:
        mounted = self.mountpoint_of(self.device)
        if mounted is not None:
            yield Path(mounted)
            return
        with self._failure():
            point = Path(tempfile.mkdtemp(prefix="updated-tryboot-", dir=self.parent))
        try:
            with self._failure():
                self.mounter.mount(self.device, point, readonly=not writable)
            try:
                yield point
            finally:
                with self._failure():
                    self.mounter.unmount(point)
        finally:
            with contextlib.suppress(OSError):
                point.rmdir()

    @contextlib.contextmanager
    def _failure(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DeviceError(
                f"Cannot mount {self.device}: {error.strerror}", hint=_MOUNT_HINTS.get(error.errno or 0, "")
            ) from error


def read(path: Path, limit: int) -> bytes:
    """All bytes of a regular file.  Raises DeviceError, also if there are more than `limit`."""
    with _named("read", path), _open(path, os.O_RDONLY) as handle:
        data = os.pread(handle, limit + 1, 0)
    if len(data) > limit:
        raise DeviceError(f"{path} is too large: at most {limit} bytes expected")
    return data


def overwrite(path: Path, old: bytes, new: bytes) -> None:
    """Change a file from `old` to `new`, which is as long or longer, and at most one sector.

    Raises DeviceError, also if the file does not hold `old`, and then nothing was changed.
    """
    assert len(old) <= len(new) <= SECTOR
    with _named("write", path), _open(path, os.O_RDWR) as handle:
        if os.pread(handle, SECTOR + 1, 0) != old:
            raise DeviceError(f"{path} was changed by somebody else at the same moment")
        if len(new) > len(old):
            os.pwrite(handle, b"\n" * (len(new) - len(old)), len(old))
            os.fsync(handle)
        os.pwrite(handle, new, 0)
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        _compare(path, os.pread(handle, SECTOR + 1, 0), new)


def replace(path: Path, new: bytes) -> None:
    """Put a file with the bytes `new` under the name `path`.

    Raises DeviceError; the old one is still there then.
    """
    temporary = path.with_name(TEMPORARY)
    with contextlib.ExitStack() as stack, _named("write", path):
        with contextlib.suppress(FileNotFoundError):
            stack.enter_context(_open(path, os.O_RDONLY))
        with temporary.open("wb") as file:
            file.write(new)
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(path)
            os.fsync(file.fileno())  # the entry of its new name
        sync_folder(path.parent)
    _compare(path, read(path, len(new)), new)


def touch(path: Path) -> None:
    """An empty file, if none is there.  Raises DeviceError."""
    if not path.exists():
        replace(path, b"")


def remove(path: Path) -> None:
    """Raises DeviceError; what is not there is no error."""
    with _named("remove", path):
        try:
            path.unlink()
        except FileNotFoundError:
            return
        sync_folder(path.parent)


@contextlib.contextmanager
def _open(path: Path, flags: int) -> Iterator[int]:
    # O_NONBLOCK: a FIFO must not hang the service.
    handle = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise DeviceError(f"{path} is not a regular file")
        yield handle
    finally:
        os.close(handle)


@contextlib.contextmanager
def _named(action: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DeviceError(
            f"Failed to {action} {path}: {error.strerror}", hint=_HINTS.get(error.errno or 0, "")
        ) from error


def _compare(path: Path, found: bytes, wanted: bytes) -> None:
    if found != wanted:
        raise DeviceError(f"{path} does not hold what was written", hint="The medium may be failing.")
