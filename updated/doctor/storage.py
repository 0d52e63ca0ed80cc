"""What must survive a reboot: the slot status and the data directory.

Whether a folder can be written is asked of the kernel (access(2): rights, read-only file systems, immutable
folders), and its room of the file system: nothing is written to find out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from updated.devices import standing_on
from updated.doctor.finding import Finding, error, note, ok, unknown, warning
from updated.doctor.mounts import Home, home_of, nearest
from updated.doctor.subject import AS_ROOT, Subject
from updated.errors import DeviceError

NEEDED: Final = 1 << 20  # bytes; all that is kept has some 10 kB, and is written anew beside itself
COMFORTABLE: Final = 16 << 20  # bytes; flash file systems get slow, and journals need room
FILES: Final = 16  # new files at least
ELSEWHERE: Final = "Set data-directory= in [system] of system.conf to a folder on a data partition."


def check(subject: Subject) -> Iterator[Finding]:
    for check, folder in _folders(subject).items():
        yield from _folder(subject, check, folder)
    yield from _memory(subject)


def _folders(subject: Subject) -> dict[str, Path]:
    folders = {"storage.data": subject.data}
    if subject.system is not None and subject.system.system.statusfile is not None:
        folders["storage.status"] = subject.system.system.statusfile.parent
    return folders


def _folder(subject: Subject, check: str, folder: Path) -> Iterator[Finding]:
    there = nearest(folder)
    if not there.is_dir():
        yield error(check, str(folder), f"{there} is no folder", hint=ELSEWHERE)
        return
    if not os.access(there, os.W_OK | os.X_OK, effective_ids=True):
        if not subject.root:
            yield unknown(check, str(folder), "only root can tell whether it can be written", hint=AS_ROOT)
        else:
            hint = f"Mount it writable. {ELSEWHERE}"
            yield error(check, str(folder), f"{there} cannot be written: no install can begin", hint=hint)
            return
    yield _room(subject, check, folder, there)
    try:
        home = home_of(folder, subject.places.mountinfo)
    except DeviceError as problem:
        yield subject.failed(check, str(folder), problem)
        return
    if home is None:
        yield unknown(check, str(folder), "it cannot be found out which file system holds it")
        return
    yield from _survives(subject, check, folder, home)


def _room(subject: Subject, check: str, folder: Path, there: Path) -> Finding:
    found = os.statvfs(there)
    free = found.f_bavail * found.f_frsize
    files = found.f_favail if found.f_files else FILES  # file systems without a table of files say 0
    wanted = max(COMFORTABLE, subject.agent.policy.min_free)
    got = f"{free // 1024} KiB free" + ("" if files >= FILES else f", room for {files} new files")
    if free < NEEDED or files < FILES:
        hint = "Remove what nobody needs from this file system."
        return error(check, str(folder), "is full", expected=f"{wanted // 1024} KiB", got=got, hint=hint)
    if free < wanted:
        return warning(check, str(folder), "has little room", expected=f"{wanted // 1024} KiB", got=got)
    return ok(check, str(folder), f"{free // 2**20} MiB free")


def _survives(subject: Subject, check: str, folder: Path, home: Home) -> Iterator[Finding]:
    if home.volatile:
        over = f" (upper layer of {home.overlay})" if home.overlay else ""
        yield warning(
            check,
            str(folder),
            "is forgotten at every reboot: after one nobody knows what was installed, or what failed",
            expected="a file system on a medium",
            got=f"{home.mount.fstype} at {home.mount.mountpoint}{over}",
            hint=ELSEWHERE,
        )
    elif home.mount.fstype == "overlay":
        yield unknown(check, str(folder), f"the upper layer of {home.mount.mountpoint} is out of sight")
    for slot in subject.slots:
        if home.mount.number in standing_on(slot.device, sysfs=subject.places.sysfs):
            yield error(
                check,
                str(folder),
                f"is inside slot {slot.name}: the other group does not see it, and an install overwrites it",
                expected="a file system that no slot is on",
                got=f"{slot.device} at {home.mount.mountpoint}",
                hint=ELSEWHERE,
            )


def _memory(subject: Subject) -> Iterator[Finding]:
    """The documents and the slot status, as the service would read them now."""
    for text in subject.memory_warnings:
        hint = "Keep a copy if you want to know why; the service starts without it."
        yield warning("storage.documents", "", text, hint=hint)
    for broken in _broken(subject):
        yield note(
            "storage.documents", str(broken), "could not be read once, and was set aside", hint="Remove it."
        )
    if subject.store is None:
        return
    if not subject.memory_warnings:
        yield ok("storage.documents", str(subject.data), "readable")
    for entry in subject.store.quarantine().values():
        yield note(
            "storage.quarantine",
            entry.version or entry.manifest_hash[:16],
            f"not installed again by itself since {entry.time}: {entry.reason}",
            hint="Publish a version that works.",
        )


def _broken(subject: Subject) -> list[Path]:
    try:
        return sorted(subject.data.glob("*.broken"))
    except OSError:
        return []
