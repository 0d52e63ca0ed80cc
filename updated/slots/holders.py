"""Who uses a slot's device: mounts, swap, other block devices.  For messages, and where O_EXCL is blind."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from updated.devices import device_number, identity, loops_over, read_mounts


def mount_point(device: str) -> str | None:
    """Where a block device, or a regular file through a loop device, is mounted in our namespace.

    What stands on the device (a partition, dm-verity) does not count: its file system is another one.
    Raises DeviceError if the mounts cannot be read.
    """
    try:
        status = os.stat(device)  # noqa: PTH116 - follows links, like every use of the path
    except OSError:
        return None
    block = stat.S_ISBLK(status.st_mode)
    numbers = {device_number(status.st_rdev)} if block else set(loops_over(identity(device)))
    return next((mount.mountpoint for mount in read_mounts() if mount.number in numbers), None)


def holder(device: str) -> str:
    """What has claimed a block device, in words, "" if nobody is known."""
    point = mount_point(device)
    if point is not None:
        return f"mounted at {point}"
    own = _number_of(device)
    folder = Path("/sys/dev/block", own)
    names = sorted(path.name for path in _entries(folder / "holders"))
    if names:
        return f"held by {', '.join(names)}"
    if own in (_number_of(line.partition(" ")[0]) for line in _lines(Path("/proc/swaps"))[1:]):
        return "used as swap"
    parts = [path.name for path in _entries(folder) if (path / "partition").exists()]
    mounted = sorted(name for name in parts if mount_point(f"/dev/{name}"))
    return f"its partitions {', '.join(mounted)} are mounted" if mounted else ""


def _number_of(device: str) -> str:
    """major:minor, "-" if there is no such device (any more)."""
    try:
        return device_number(os.stat(device).st_rdev)  # noqa: PTH116 - follows links
    except OSError:
        return "-"


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return []


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []
