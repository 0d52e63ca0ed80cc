"""Mounting a stranger's file system: read-only, nothing on it counts but plain files.

Sources: mount(2), Linux Documentation/filesystems/vfat.rst and ntfs3.rst, Documentation/admin-guide/ext4.rst,
fs/exfat/super.c.
"""

from __future__ import annotations

import contextlib
import errno
from pathlib import Path
from typing import Final, Protocol

from updated.errors import SourceError
from updated.syscalls import MountFlag, mount, unmount

SAFE: Final = (
    MountFlag.NOSUID | MountFlag.NODEV | MountFlag.NOEXEC | MountFlag.NOSYMFOLLOW | MountFlag.NOATIME
)
READ: Final = SAFE | MountFlag.RDONLY
WRITE: Final = SAFE | MountFlag.SYNCHRONOUS  # people pull the stick as soon as they read the answer

# Names in UTF-8, times the same in every time zone.  A superblock may ask for a panic at the first error: not
# with us.
OPTIONS: Final = {
    "vfat": "utf8=1,tz=UTC",
    "exfat": "iocharset=utf8,errors=remount-ro",
    "ext4": "errors=remount-ro",
    "ntfs3": "iocharset=utf8",
}
# A journal is not replayed: that writes, and fails on a stick with its write protection on.
READ_OPTIONS: Final = {"ext4": "noload"}


class Mounter(Protocol):
    """Its methods block, perhaps for ever, and raise OSError."""

    def mount(self, node: str, target: Path, driver: str, *, writable: bool) -> None: ...

    def unmount(self, target: Path, *, lazily: bool) -> None: ...


class KernelMounter:
    """The kernel's own."""

    def mount(self, node: str, target: Path, driver: str, *, writable: bool) -> None:
        mount(node, target, driver, WRITE if writable else READ, options(driver, writable=writable))

    def unmount(self, target: Path, *, lazily: bool) -> None:
        unmount(target, lazily=lazily)


def options(driver: str, *, writable: bool) -> str:
    """The file system's own ones, as mount(2) wants them."""
    parts = (OPTIONS.get(driver, ""), "" if writable else READ_OPTIONS.get(driver, ""))
    return ",".join(part for part in parts if part)


def refusal(error: OSError, name: str, driver: str) -> SourceError:
    """What a mount that failed with `error` means."""
    match error.errno:
        case errno.ENODEV:
            return SourceError(
                f"Cannot mount {name}: the kernel has no {driver}",
                hint=f"Add its driver to the system, or take {driver} out of [usb] file-systems.",
            )
        case errno.EPERM:
            hint = "The service needs CAP_SYS_ADMIN, and DeviceAllow=block-* rw in its unit."
        case errno.EROFS | errno.EACCES:
            hint = "Its write protection is on: use its switch, or another stick."
        case errno.EBUSY:
            hint = "It is mounted elsewhere: only one may mount a stick."
        case errno.EINVAL | errno.EUCLEAN | errno.EIO | errno.ENXIO:
            hint = (
                "The file system is damaged, or the stick was pulled: check it, or format it anew."
                " FAT also needs the kernel's tables of letters (NLS_CODEPAGE_437, NLS_ISO8859_1)."
            )
        case _:
            hint = ""
    return SourceError(f"Cannot mount {name} ({driver}): {error.strerror}", hint=hint)


def make_place(target: Path, mounter: Mounter) -> None:
    """An empty folder that only root may enter.  Raises OSError."""
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(OSError):  # of a service that was killed
        mounter.unmount(target, lazily=True)
    with contextlib.suppress(FileNotFoundError):
        target.rmdir()
    target.mkdir(mode=0o700)


def remove_place(target: Path) -> None:
    """Or not: somebody else's mount is over it."""
    with contextlib.suppress(OSError):
        target.rmdir()
