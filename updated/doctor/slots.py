"""The slots: there, writable, of one size, each with a device of its own, and not in use."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

from updated.core.model import Slot, slot_groups
from updated.devices import device_number, find_mountpoint, identity
from updated.doctor.finding import Finding, error, ok, unknown, warning
from updated.doctor.subject import AS_ROOT, Subject
from updated.errors import DeviceError
from updated.slots.raw import TYPES

SECTOR = 512  # bytes; /sys counts in these whatever the medium has


def check(subject: Subject) -> Iterator[Finding]:
    states = subject.states() or {}
    sizes: dict[str, int] = {}
    for slot in subject.slots:
        try:
            found = os.stat(slot.device)  # noqa: PTH116 - follows links
        except OSError as problem:
            yield _missing(slot, problem)
            continue
        size = _size(subject, found)
        if size is not None:
            sizes[slot.name] = size
        yield _device(slot, found, size)
        if states.get(slot.name) == "inactive":
            yield from _unused(subject, slot, found)
    yield from _pairs(subject.slots, sizes)
    yield from _shared(subject.slots)


def _missing(slot: Slot, problem: OSError) -> Finding:
    hint = "Is the medium there, and does udev make this link? See `lsblk -o NAME,PARTLABEL,SIZE`."
    if isinstance(problem, PermissionError):
        return unknown("slots.device", slot.name, f"{slot.device}: {problem.strerror}", hint=AS_ROOT)
    return error("slots.device", slot.name, f"{slot.device}: {problem.strerror}", hint=hint)


def _size(subject: Subject, found: os.stat_result) -> int | None:
    """Bytes, without opening anything; None: neither a block device nor a regular file, or not known."""
    if stat.S_ISREG(found.st_mode):
        return found.st_size
    if not stat.S_ISBLK(found.st_mode):
        return None
    text = _attribute(subject, found, "size")
    return int(text) * SECTOR if text.isdecimal() else None


def _attribute(subject: Subject, found: os.stat_result, name: str) -> str:
    """Of a block device, from /sys; "" if it does not tell."""
    try:
        folder = subject.places.sysfs / "dev" / "block" / device_number(found.st_rdev)
        return (folder / name).read_text().strip()
    except OSError:
        return ""


def _device(slot: Slot, found: os.stat_result, size: int | None) -> Finding:
    if slot.type not in TYPES:
        return warning(
            "slots.device",
            slot.name,
            f"type {slot.type} cannot be written yet",
            expected=", ".join(TYPES),
            got=slot.type,
        )
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISBLK(found.st_mode)):
        return error("slots.device", slot.name, f"{slot.device} is neither a block device nor a regular file")
    if size == 0:
        hint = "Is the medium in its slot?"
        return error("slots.device", slot.name, f"{slot.device} is empty", got="0 bytes", hint=hint)
    return ok("slots.device", slot.name, f"{slot.device}, {'size unknown' if size is None else _mib(size)}")


def _unused(subject: Subject, slot: Slot, found: os.stat_result) -> Iterator[Finding]:
    """What an install would be refused for."""
    try:
        point = find_mountpoint(slot.device, mountinfo=subject.places.mountinfo, sysfs=subject.places.sysfs)
    except DeviceError as problem:
        yield subject.failed("slots.mounted", slot.name, problem)
        point = None
    if point is not None:
        yield warning(
            "slots.mounted",
            slot.name,
            f"does not run, and is mounted at {point}: it cannot be written",
            hint="Unmount it, and see what mounts it.",
        )
    if slot.readonly:
        return
    if _protected(subject, slot, found):
        yield error(
            "slots.writable",
            slot.name,
            f"{slot.device} is read-only",
            hint="See `blockdev --getro`, the switch of the medium; an eMMC that is worn out is read-only.",
        )


def _protected(subject: Subject, slot: Slot, found: os.stat_result) -> bool:
    if stat.S_ISBLK(found.st_mode):
        return _attribute(subject, found, "ro") == "1"
    return subject.root and not os.access(slot.device, os.W_OK)


def _pairs(slots: tuple[Slot, ...], sizes: dict[str, int]) -> Iterator[Finding]:
    classes: dict[str, list[Slot]] = {}
    for slot in slots:
        if slot.name in sizes:
            classes.setdefault(slot.slot_class, []).append(slot)
    for name, members in classes.items():
        if len(members) < 2:
            continue
        found = {slot.name: sizes[slot.name] for slot in members}
        if len(set(found.values())) > 1:
            yield warning(
                "slots.size",
                name,
                "its slots differ in size: an image may fit into one of them only",
                expected="the same size",
                got=", ".join(f"{each} {_mib(size)}" for each, size in found.items()),
            )
        else:
            yield ok("slots.size", name, f"{len(members)} slots of {_mib(sizes[members[0].name])}")


def _shared(slots: tuple[Slot, ...]) -> Iterator[Finding]:
    """Slots of one group may share a device (two parts of one image); what replaces another may not."""
    groups = {slot.name: group for group in slot_groups(slots).values() for slot in group}
    for one, other in combinations(slots, 2):
        if not Path(one.device).exists() or identity(one.device) != identity(other.device):
            continue
        regions = one.region_start is not None and other.region_start is not None
        twins = one.slot_class == other.slot_class
        rivals = groups[one.name] is not groups[other.name] and all(
            groups[slot.name][0].bootname for slot in (one, other)
        )
        if (twins or rivals) and not regions:
            yield error(
                "slots.shared",
                f"{one.name}, {other.name}",
                f"both are {os.path.realpath(one.device)}: an install would overwrite what runs",
                expected="a device for each",
                hint="Correct device= in system.conf, or the partition labels.",
            )


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB" if size % 2**20 else f"{size // 2**20} MiB"
