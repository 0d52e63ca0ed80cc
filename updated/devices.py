"""What is mounted where, which paths are the same device, and how large it is.

Sources: Linux Documentation/filesystems/proc.rst (mountinfo), Documentation/ABI/testing/sysfs-block.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from updated.errors import DeviceError

MOUNTINFO = Path("/proc/self/mountinfo")
SYSFS = Path("/sys")
FSTAB = Path("/etc/fstab")
MAX_HOLDERS = 64  # block devices on top of one slot (dm-verity, LUKS, LVM); bounds the walk through sysfs

_OCTAL = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo."""

    number: str  # "major:minor" of the file system's device
    mountpoint: str
    source: str  # what was mounted, often a path in /dev
    fstype: str
    options: str = field(default="", compare=False)  # the file system's own, separated by commas


def parse_mountinfo(data: bytes) -> tuple[Mount, ...]:
    """Read mountinfo; lines that are none are left out (the kernel may add fields, not take them away)."""
    return tuple(mount for line in data.splitlines() if (mount := _parse_mount(line)) is not None)


def read_mounts(path: Path = MOUNTINFO) -> tuple[Mount, ...]:
    """All mounts of this process, in the kernel's order.  Raises DeviceError."""
    try:
        return parse_mountinfo(path.read_bytes())
    except OSError as error:
        raise DeviceError(f"Failed to read {path}: {error.strerror}") from error


def identity(path: str) -> str:
    """The same text for all paths to one device: by number, for a regular file by file system and inode.

    Where nothing is there (yet), the path itself.
    """
    try:
        found = Path(path).stat()
    except (OSError, ValueError):
        return path
    if stat.S_ISBLK(found.st_mode):
        return f"block:{device_number(found.st_rdev)}"
    if stat.S_ISCHR(found.st_mode):  # raw flash
        return f"char:{device_number(found.st_rdev)}"
    return f"file:{device_number(found.st_dev)}:{found.st_ino}"


def identities(paths: Iterable[str]) -> dict[str, str]:
    """Path -> identity, for the pure code that compares slots."""
    return {path: identity(path) for path in paths}


def capacity(path: str) -> int:
    """Bytes that a block device holds, or the size of a regular file.  Raises DeviceError."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            mode = os.fstat(handle).st_mode
            if not (stat.S_ISBLK(mode) or stat.S_ISREG(mode)):
                raise DeviceError(f"{path} is neither a block device nor a regular file")
            return os.lseek(handle, 0, os.SEEK_END)
        finally:
            os.close(handle)
    except OSError as error:
        raise DeviceError(f"Failed to open {path}: {error.strerror}") from error


def find_mountpoint(device: str, *, mountinfo: Path = MOUNTINFO, sysfs: Path = SYSFS) -> str | None:
    """Where `device` (a block device or a regular file) is mounted; the first place if there are more.

    A mount also counts through a loop device over the file or device, through its partitions, and through
    whatever holds the device (dm-verity, LUKS, LVM).  Raises DeviceError if the mounts cannot be read.
    """
    mounts = read_mounts(mountinfo)
    try:
        numbers = _numbers(device, sysfs)
    except (OSError, ValueError):  # not there, so not mounted
        return None
    for mount in mounts:
        if mount.number in numbers or _source_number(mount) in numbers:
            return mount.mountpoint
    return None


def standing_on(device: str, *, sysfs: Path = SYSFS) -> frozenset[str]:
    """Numbers of `device` itself and of everything that stands on it, as for `find_mountpoint`."""
    try:
        return frozenset(_numbers(device, sysfs))
    except (OSError, ValueError):  # not there
        return frozenset()


def _parse_mount(line: bytes) -> Mount | None:
    """`36 35 98:0 /root /mountpoint options [optional...] - type source superoptions`"""
    fields = line.split(b" ")
    if len(fields) < 7 or b"-" not in fields[6:]:
        return None
    dash = fields.index(b"-", 6)
    if len(fields) < dash + 3:
        return None
    return Mount(
        number=_text(fields[2]),
        mountpoint=_text(fields[4]),
        fstype=_text(fields[dash + 1]),
        source=_text(fields[dash + 2]),
        options=_text(fields[dash + 3]) if len(fields) > dash + 3 else "",
    )


def _text(field: bytes) -> str:
    """Undo the kernel's octal escapes (blank, tab, line feed, backslash)."""
    return os.fsdecode(_OCTAL.sub(lambda octal: bytes((int(octal[1], 8) & 0xFF,)), field))


def device_number(device: int) -> str:
    """A device number (`st_rdev`, `st_dev`) as the kernel writes it, "major:minor"."""
    return f"{os.major(device)}:{os.minor(device)}"


def _source_number(mount: Mount) -> str | None:
    """File systems over several devices (btrfs) have a number of their own: look at what was mounted."""
    if not mount.source.startswith("/dev/"):
        return None
    try:
        found = Path(mount.source).stat()
    except (OSError, ValueError):
        return None
    return device_number(found.st_rdev) if stat.S_ISBLK(found.st_mode) else None


def _numbers(device: str, sysfs: Path) -> set[str]:
    """The device's number and those of everything that stands on it.  Raises OSError."""
    found = Path(device).stat()
    backing = identity(device)
    wanted = [device_number(found.st_rdev)] if stat.S_ISBLK(found.st_mode) else []
    wanted += loops_over(backing, sysfs)
    numbers: set[str] = set()
    while wanted and len(numbers) < MAX_HOLDERS:
        number = wanted.pop()
        if number in numbers:
            continue
        numbers.add(number)
        wanted += _standing_on(number, sysfs)
    return numbers


def _standing_on(number: str, sysfs: Path) -> list[str]:
    """Numbers of the partitions of a loop device, and of the holders of a block device."""
    block = sysfs / "dev" / "block" / number
    partitions = block.glob("loop*p*/dev")
    holders = (holder / "dev" for holder in (block / "holders").glob("*"))
    return [text for path in (*partitions, *holders) if (text := _read(path)) is not None]


def loops_over(backing: str, sysfs: Path = SYSFS) -> Iterator[str]:
    """Numbers of the loop devices whose backing file has the identity `backing`."""
    for file in sorted((sysfs / "block").glob("loop*/loop/backing_file")):
        path = _read(file)
        if path is not None and identity(path) == backing:
            number = _read(file.parent.parent / "dev")
            if number is not None:
                yield number


def _read(path: Path) -> str | None:
    try:
        return path.read_text(errors="surrogateescape").rstrip("\n")
    except OSError:
        return None


def declared_mountpoint(folder: Path, fstab: Path = FSTAB) -> str:
    """The file system that fstab(5) wants `folder` to lie on; "": the root, or nobody says.  Blocks."""
    try:
        lines = fstab.read_bytes().splitlines()
    except OSError:
        return ""
    declared = [fields for line in lines if len(fields := line.split()) >= 4 and not line.startswith(b"#")]
    points = {
        Path(_text(point)) for _, point, _, options, *_ in declared if b"noauto" not in options.split(b",")
    }
    return next((str(place) for place in (folder, *folder.parents) if place in points and place.name), "")
