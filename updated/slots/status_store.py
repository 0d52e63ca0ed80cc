"""Where slot status is kept: one central file, or a file in each slot.  See `status.py` for the format."""

from __future__ import annotations

import asyncio
import errno
import glob
import os
import stat
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from updated.bundle import keyfile
from updated.bundle.keyfile import KeyFile, KeyFileError, Value
from updated.core.model import Slot, SlotStatus
from updated.durable import write_durably
from updated.errors import DeviceError
from updated.slots import holders, status
from updated.slots.filesystem import MOUNTABLE, mounted

MAX_SIZE = 1 << 20  # bytes; a thousand slots fit
PER_SLOT_FILE = "slot.raucs"
CENTRAL_FILE = "central.raucs"

_EMPTY = KeyFile(())


class StatusStore(Protocol):
    """Reads never fail, writes raise DeviceError: an unwritable status aborts an install, as in RAUC."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the last `load` found wrong, for the journal."""
        ...

    async def load(self) -> dict[str, SlotStatus]:
        """Status by slot name; slots without any are missing."""
        ...

    async def save(self, slot_name: str, slot_status: SlotStatus) -> None: ...

    async def load_boot_id(self) -> str | None:
        """The boot id that was saved last; None if there is none or the store has no place for it."""
        ...

    async def save_boot_id(self, boot_id: str) -> None: ...


class CentralStore:
    """A `StatusStore` in one file, replaced durably at every save."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._warnings: tuple[str, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        return self._warnings

    async def load(self) -> dict[str, SlotStatus]:
        return await asyncio.to_thread(self._load)

    async def save(self, slot_name: str, slot_status: SlotStatus) -> None:
        entries = status.to_entries(slot_status)
        await asyncio.to_thread(self._replace, status.SLOT_PREFIX + slot_name, entries)

    async def load_boot_id(self) -> str | None:
        return await asyncio.to_thread(self._load_boot_id)

    async def save_boot_id(self, boot_id: str) -> None:
        await asyncio.to_thread(self._replace, status.SYSTEM_GROUP, [("boot-id", boot_id)])

    def _load(self) -> dict[str, SlotStatus]:
        with self._lock:
            file, warnings = _read_anyway(self._path)
            warnings += _sweep(self._path)
        statuses = {}
        for group in file.groups:
            if group.name.startswith(status.SLOT_PREFIX):
                statuses[group.name.removeprefix(status.SLOT_PREFIX)], found = status.from_group(group)
                warnings += found
        self._warnings = warnings
        return statuses

    def _load_boot_id(self) -> str | None:
        with self._lock:
            file, _ = _read_anyway(self._path)
        group = file.group(status.SYSTEM_GROUP)
        try:
            return group.get_string("boot-id") if group else None
        except KeyFileError:
            return None

    def _replace(self, group: str, entries: Sequence[tuple[str, Value]]) -> None:
        with self._lock:
            _write(self._path, lambda: status.with_group(_read(self._path)[0], group, entries))


class PerSlotStore:
    """A `StatusStore` with a file in each slot that holds a file system; it has no place for a boot id.

    A slot that is mounted is used where it is; another one is mounted for the time of the call.
    """

    def __init__(self, slots: Sequence[Slot], *, mount_folder: Path | None = None) -> None:
        self._slots = {slot.name: slot for slot in slots if slot.type in MOUNTABLE}
        self._folder = mount_folder
        self._lock = asyncio.Lock()
        self._warnings: tuple[str, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        return self._warnings

    async def load(self) -> dict[str, SlotStatus]:
        statuses = {}
        warnings: list[str] = []
        async with self._lock:
            for slot in self._slots.values():
                try:
                    statuses[slot.name], found = await self._load(slot)
                except DeviceError as error:
                    warnings.append(f"Failed to load status of slot {slot.name}: {error}")
                else:
                    warnings += found
        self._warnings = tuple(warnings)
        return statuses

    async def save(self, slot_name: str, slot_status: SlotStatus) -> None:
        """A slot without a file system has no status and nothing is saved, as in RAUC."""
        slot = self._slots.get(slot_name)
        if slot is None:
            return
        data = status.with_group(_EMPTY, status.PER_SLOT_GROUP, status.to_entries(slot_status))
        async with self._lock:
            point = await asyncio.to_thread(holders.mount_point, slot.device)
            if point is not None:
                await asyncio.to_thread(_write, Path(point) / PER_SLOT_FILE, lambda: data)
                return
            async with mounted(slot, folder=self._folder) as folder:
                await asyncio.to_thread(_write, folder / PER_SLOT_FILE, lambda: data)

    async def load_boot_id(self) -> str | None:
        return None

    async def save_boot_id(self, boot_id: str) -> None:
        """Nowhere to save it."""

    async def _load(self, slot: Slot) -> tuple[SlotStatus, tuple[str, ...]]:
        point = await asyncio.to_thread(holders.mount_point, slot.device)
        if point is not None:
            return await asyncio.to_thread(_load_slot, Path(point))
        async with mounted(slot, readonly=True, folder=self._folder) as folder:
            return await asyncio.to_thread(_load_slot, folder)


def _load_slot(folder: Path) -> tuple[SlotStatus, tuple[str, ...]]:
    file, warnings = _read_anyway(folder / PER_SLOT_FILE, rename=False)
    group = file.group(status.PER_SLOT_GROUP)
    if group is None:
        return SlotStatus(), warnings
    found, more = status.from_group(group)
    return found, warnings + more


def _read(path: Path, *, rename: bool = True) -> tuple[KeyFile, tuple[str, ...]]:
    """The file's groups, and warnings.

    A missing file is empty.  So is one that cannot be parsed: it is renamed to `<path>.broken`, where a
    person can look at it and the next save does not destroy it.  Raises OSError if it cannot be read.
    """
    try:
        with open(path, "rb", opener=_open_at_once) as opened:
            regular = stat.S_ISREG(os.fstat(opened.fileno()).st_mode)
            data = opened.read(MAX_SIZE + 1) if regular else b""
    except FileNotFoundError:
        return _EMPTY, ()
    except OSError as error:
        if error.errno not in (errno.EISDIR, errno.ELOOP):
            raise  # the medium may come to its senses: nothing is set aside
        regular = False
    try:
        if not regular:
            raise KeyFileError("not a regular file")
        if len(data) > MAX_SIZE:
            raise KeyFileError(f"larger than {MAX_SIZE} bytes")
        return keyfile.parse(data), ()
    except KeyFileError as error:
        warning = f"Failed to load status file {path}: {error}"
    if not rename:
        return _EMPTY, (warning,)
    broken = path.with_name(path.name + ".broken")
    try:
        path.replace(broken)
    except OSError as error:
        return _EMPTY, (warning, f"Renaming {path} to {broken} failed: {error.strerror}")
    return _EMPTY, (warning, f"Moved status file to {broken}")


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO must not hang the service


def _sweep(path: Path) -> tuple[str, ...]:
    """Remove what `write_durably` left beside `path` when the power was cut; warnings."""
    try:
        for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
            leftover.unlink()
    except OSError as error:
        return (f"Cannot remove what a power cut left beside {path}: {error.strerror}",)
    return ()


def _read_anyway(path: Path, *, rename: bool = True) -> tuple[KeyFile, tuple[str, ...]]:
    """Like `_read`, but a file that cannot be read is empty, with a warning."""
    try:
        return _read(path, rename=rename)
    except OSError as error:
        return _EMPTY, (f"Failed to load status file {path}: {error.strerror}",)


def _write(path: Path, make: Callable[[], bytes]) -> None:
    try:
        data = make()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_durably(path, data)
    except OSError as error:
        raise DeviceError(
            f"Error while writing status file: {path}: {error.strerror}",
            hint="Is its folder on a writable file system with room?",
        ) from error
