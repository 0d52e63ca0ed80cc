"""Who uses a slot's device: mounts, swap, other block devices.  For messages, and where O_EXCL is blind."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

_OCTAL = re.compile(r"\\([0-7]{3})")  # how mountinfo writes blanks


def mount_point(device: str) -> str | None:
    """Where a block device, or a regular file through a loop device, is mounted in our namespace."""
    try:
        status = os.stat(device)  # noqa: PTH116 - follows links, like every use of the path
    except OSError:
        return None
    numbers = {_numbers(status.st_rdev)} if stat.S_ISBLK(status.st_mode) else set(_loops_on(status))
    return next((point for number, point in _mounts() if number in numbers), None)


def holder(device: str) -> str:
    """What has claimed a block device, in words, "" if nobody is known."""
    point = mount_point(device)
    if point is not None:
        return f"mounted at {point}"
    number = _device_number(device)
    folder = Path("/sys/dev/block", number)
    names = sorted(path.name for path in _entries(folder / "holders"))
    if names:
        return f"held by {', '.join(names)}"
    if number in (_device_number(line.partition(" ")[0]) for line in _lines(Path("/proc/swaps"))[1:]):
        return "used as swap"
    parts = [path.name for path in _entries(folder) if (path / "partition").exists()]
    mounted = sorted(name for name in parts if mount_point(f"/dev/{name}"))
    return f"its partitions {', '.join(mounted)} are mounted" if mounted else ""


def _device_number(device: str) -> str:
    """major:minor, "-" if there is no such device (any more)."""
    try:
        return _numbers(os.stat(device).st_rdev)  # noqa: PTH116 - follows links
    except OSError:
        return "-"


def _mounts() -> Iterator[tuple[str, str]]:
    """(major:minor, mount point) of everything mounted; proc(5), mountinfo."""
    for line in _lines(Path("/proc/self/mountinfo")):
        fields = line.split(" ")
        yield (
            fields[2],
            _OCTAL.sub(lambda found: chr(int(found[1], 8)), fields[4]),
        )


def _loops_on(status: os.stat_result) -> Iterator[str]:
    """major:minor of the loop devices whose backing file is this one."""
    for loop in Path("/sys/block").glob("loop*"):
        for name in _lines(loop / "loop" / "backing_file"):
            try:
                backing = os.stat(name)  # noqa: PTH116
            except OSError:
                continue
            if (backing.st_dev, backing.st_ino) == (status.st_dev, status.st_ino):
                yield from _lines(loop / "dev")


def _numbers(device: int) -> str:
    return f"{os.major(device)}:{os.minor(device)}"


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
