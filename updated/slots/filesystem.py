"""A slot's file system, with the system's own tools: grow it to the slot, mount it for a while."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from updated import command
from updated.core.model import Slot
from updated.errors import DeviceError

CHECK_TIMEOUT = 1800.0  # seconds; e2fsck and resize2fs walk the whole file system, on slow cards for minutes
MOUNT_TIMEOUT = 60.0  # seconds; replaying a journal included
UNMOUNT_TRIES = 20
UNMOUNT_PAUSE = 0.1  # seconds between tries
MOUNTABLE = ("ext4", "vfat", "ubifs", "jffs2")  # slot types that hold a file system, as in RAUC

_E2FSCK_CORRECTED = 1  # exit code, e2fsck(8); 2 and above: errors remain or it could not run


async def grow_ext4(device: str) -> None:
    """Let the ext4 file system on `device` fill it (`resize=true`).  Raises DeviceError.

    Afterwards the slot no longer equals its image: read it back before.
    """
    # resize2fs refuses a file system that was mounted since its last check.
    result = await command.run(["e2fsck", "-f", "-p", device], timeout=CHECK_TIMEOUT)
    if result.code not in (0, _E2FSCK_CORRECTED):
        lines = (result.stdout + result.stderr).strip().splitlines()
        raise DeviceError(
            f"e2fsck of {device} failed with exit code {result.code}: {lines[-1] if lines else 'no message'}"
        )
    await command.check(["resize2fs", device], timeout=CHECK_TIMEOUT)


@contextlib.asynccontextmanager
async def mounted(slot: Slot, *, readonly: bool = False, folder: Path | None = None) -> AsyncIterator[Path]:
    """Mount `slot` at a fresh private folder inside `folder` (default: the temporary folder), and unmount it.

    Nothing on it may be run or become a device.  Raises DeviceError.
    """
    if slot.type not in MOUNTABLE:
        raise DeviceError(f"Mounting slots of type '{slot.type}' is not possible: no file system")
    options = ["nosuid", "nodev", "noexec", "ro" if readonly else "rw"]
    if await asyncio.to_thread(_is_file, slot.device):
        options.append("loop")
    if slot.extra_mount_opts:
        options.append(slot.extra_mount_opts)
    point = await asyncio.to_thread(_make_folder, slot, folder)
    mount = ["mount", "-t", slot.type, "-o", ",".join(options), "--", slot.device, str(point)]
    try:
        await command.check(mount, timeout=MOUNT_TIMEOUT)
        yield point
    finally:
        if await asyncio.to_thread(point.is_mount):
            await _unmount(point)
        with contextlib.suppress(OSError):
            await asyncio.to_thread(point.rmdir)


async def _unmount(point: Path) -> None:
    """Raises DeviceError if it stays busy: a thread of ours, or udev probing, may need a moment."""
    for _ in range(UNMOUNT_TRIES - 1):
        if not (await command.run(["umount", str(point)], timeout=MOUNT_TIMEOUT)).code:
            return
        await asyncio.sleep(UNMOUNT_PAUSE)
    await command.check(["umount", str(point)], timeout=MOUNT_TIMEOUT)


def _make_folder(slot: Slot, parent: Path | None) -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix=f"updated-{slot.name}-", dir=parent))
    except OSError as error:
        raise DeviceError(f"Failed to create a mount point: {error.strerror}") from error


def _is_file(device: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(device).st_mode)  # noqa: PTH116 - follows links
    except OSError:
        return False  # mount says what is wrong
