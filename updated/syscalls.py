"""mount(2), umount2(2) and unshare(2), which Python 3.11 does not have.  All raise OSError.

Numbers: Linux include/uapi/linux/mount.h and sched.h, the same on all architectures.
"""

from __future__ import annotations

import ctypes
import enum
import os
from functools import cache
from pathlib import Path
from typing import Final


class MountFlag(enum.IntFlag):
    """`MS_*` of mount(2)."""

    RDONLY = 1
    NOSUID = 2
    NODEV = 4
    NOEXEC = 8
    SYNCHRONOUS = 16
    NOSYMFOLLOW = 256  # since Linux 5.10; older ones pay no attention to it
    NOATIME = 1024
    REC = 16384
    SLAVE = 1 << 19


MNT_DETACH: Final = 2
CLONE_NEWNS: Final = 0x00020000


def mount(source: str, target: Path, kind: str | None, flags: MountFlag, data: str = "") -> None:
    """Mount `source` on `target`.  May block as long as the device does; other threads go on."""
    words = (os.fsencode(source), os.fsencode(target), kind and kind.encode())
    _check(_libc().mount(*words, ctypes.c_ulong(flags), data.encode() or None), target)


def unmount(target: Path, *, lazily: bool = False) -> None:
    """`lazily`: out of sight at once, let go of when nobody uses it any more."""
    _check(_libc().umount2(os.fsencode(target), MNT_DETACH if lazily else 0), target)


def unshare(flags: int) -> None:
    """Of this thread and those that it starts afterwards."""
    _check(_libc().unshare(flags))


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, path: Path | None = None) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), *([str(path)] if path else []))
