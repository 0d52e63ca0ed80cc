"""UEFI's own boot manager: BootOrder and BootNext, through efibootmgr.  A bootname is the label of an entry.

Source of the rules: RAUC's integration guide, "EFI", and src/bootloaders/efi.c; UEFI specification, "Boot
Manager".  Some firmware drops entries whose file system it could not read once, as after a power cut in the
middle of an install.  They are made again where the loader is known (RAUC's slot keys `efi-loader` and
`efi-cmdline`, or `[efi]` of updated.toml for loaders that are not on the slot itself).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from updated import command
from updated.boot import efitable
from updated.boot.efitable import BootTable, Entry
from updated.errors import DeviceError

BLOCK_DEVICES = Path("/sys/class/block")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EfiLoader:
    """What an entry starts."""

    partition: str  # path of the block device that holds the loader
    path: str  # on that partition, with backslashes
    arguments: str = ""


class Efi:
    """A `Bootloader`.  A slot is good when its entry is active and stands in BootOrder."""

    def __init__(
        self,
        bootnames: Sequence[str],
        *,
        use_bootnext: bool = True,
        loaders: Mapping[str, EfiLoader] | None = None,
        block_devices: Path = BLOCK_DEVICES,
    ) -> None:
        """`use_bootnext`: a new primary is started once, and stands first for good when it is marked good;
        `loaders`: bootname -> how its entry is made again; `block_devices`: sysfs folder of partitions.
        """
        self._bootnames = tuple(bootnames)
        self._use_bootnext = use_bootnext
        self._loaders = loaders or {}
        self._block_devices = block_devices

    async def get_primary(self) -> str | None:
        """BootNext, else the first of BootOrder, of those that are slots.  Raises DeviceError."""
        table = await self._read()
        following = table.entry(table.next)
        entries = [*([following] if following else []), *table.startable()]
        return next((entry.label for entry in entries if entry.label in self._bootnames), None)

    async def set_primary(self, bootname: str) -> None:
        table, entry = await self._entry(bootname)
        if self._use_bootnext and table.startable()[:1] != [entry]:
            await self._write(table, replace(table, next=entry.number))
            return
        wanted = replace(_activated(table, entry), order=table.order_with_first(entry))
        await self._write(table, _not_next(wanted, table.next if table.next != entry.number else None))

    async def get_state(self, bootname: str) -> bool:
        """Good: an active entry of BootOrder.  BootNext does not count, as in RAUC.  Raises DeviceError."""
        return any(entry.label == bootname for entry in (await self._read()).startable())

    async def set_state(self, bootname: str, good: bool) -> None:
        """Good: first of BootOrder, as in RAUC; bad: neither in BootOrder nor BootNext.

        Without BootNext what is to start next stands first already, and what runs must not get before it.
        """
        if good:
            table, entry = await self._entry(bootname)
            keeps = not self._use_bootnext and entry.number in table.order
            order = table.order if keeps else table.order_with_first(entry)
            await self._write(table, replace(_activated(table, entry), order=order))
            return
        table = await self._read()
        following = table.entry(table.next)
        gone = following.number if following and following.label == bootname else None
        await self._write(table, _not_next(replace(table, order=table.order_without(bootname)), gone))

    async def get_current(self) -> str | None:
        """The entry that was started, if it is one of the slots.  Raises DeviceError."""
        table = await self._read()
        entry = table.entry(table.current)
        return entry.label if entry and entry.label in self._bootnames else None

    async def _entry(self, bootname: str) -> tuple[BootTable, Entry]:
        """The entry of a bootname, made if the firmware has forgotten it."""
        table = await self._read()
        entry = table.labelled(bootname)
        if entry is None:
            await self._create(bootname)
            table = await self._read()
            entry = table.labelled(bootname)
        if entry is None:
            raise DeviceError(f"The firmware did not keep the new efi entry for bootname '{bootname}'")
        return table, entry

    async def _create(self, bootname: str) -> None:
        loader = self._loaders.get(bootname)
        if loader is None:
            raise DeviceError(
                f"Did not find efi entry for bootname '{bootname}'!",
                hint="The firmware may have dropped it. Make it again with `efibootmgr --create-only --disk"
                f" DISK --part NUMBER --label {bootname} --loader PATH`, or say in system.conf"
                f" (efi-loader= of the slot) or updated.toml ([efi.entries.{bootname}]) how it is made.",
            )
        disk, part = await asyncio.to_thread(_disk_and_part, loader.partition, self._block_devices)
        arguments = ["--unicode", loader.arguments] if loader.arguments else []
        await _run(
            *("--create-only", "--disk", disk, "--part", part),
            *("--label", bootname, "--loader", loader.path, *arguments),
        )
        log.warning("the firmware had no boot entry for %s: made it again", bootname)

    async def _read(self) -> BootTable:
        return efitable.parse(await _run())

    async def _write(self, table: BootTable, wanted: BootTable) -> None:
        """Write what differs, in one call, and look whether it is there."""
        arguments = _arguments(table, wanted)
        if not arguments:
            return
        await _run("--quiet", *arguments)
        left = _arguments(await self._read(), wanted)
        if left:
            raise DeviceError(
                f"The firmware did not keep what was written: {' '.join(left)}",
                hint="Its variable store may be full or locked; look at `efibootmgr -v`.",
            )


def _activated(table: BootTable, entry: Entry) -> BootTable:
    active = replace(entry, active=True)
    return replace(table, entries=tuple(active if known == entry else known for known in table.entries))


def _not_next(table: BootTable, gone: str | None) -> BootTable:
    """`table` whose BootNext is not `gone`.

    efibootmgr's --delete-bootnext works only where there is a Boot0001 (17 and 18 at least); elsewhere
    BootNext becomes what starts without it.
    """
    if gone is None or table.next != gone:
        return table
    following = table.startable()
    if table.entry("0001") or not following:
        return replace(table, next=None)
    return replace(table, next=following[0].number)


def _arguments(table: BootTable, wanted: BootTable) -> list[str]:
    """efibootmgr's options that turn `table` into `wanted`, in the order in which it works them off."""
    arguments = []
    for entry in wanted.entries:
        found = table.entry(entry.number)
        if entry.active and found and not found.active:
            arguments += ["--bootnum", entry.number, "--active"]
    if wanted.order != table.order:
        arguments += ["--bootorder", ",".join(wanted.order)] if wanted.order else ["--delete-bootorder"]
    if wanted.next != table.next:
        arguments += ["--bootnext", wanted.next] if wanted.next else ["--delete-bootnext"]
    return arguments


async def _run(*arguments: str) -> str:
    result = await command.run(["efibootmgr", *arguments])
    if result.code == 0:
        return result.stdout
    lines = result.stderr.strip().splitlines()
    reason = f" ({lines[-1]})" if lines else ""
    hint = ""
    if "not supported" in reason:
        hint = "Was the device started by UEFI, and is efivarfs mounted on /sys/firmware/efi/efivars?"
    elif "Read-only file system" in reason:
        hint = (
            "The unit's sandbox makes /sys read-only: put ReadWritePaths=/sys/firmware/efi/efivars into a"
            " drop-in of updated.service (docs/install.md). Or efivarfs itself is mounted read-only."
        )
    raise DeviceError(f"efibootmgr failed with exit code: {result.code}{reason}", hint=hint)


def _disk_and_part(partition: str, block_devices: Path) -> tuple[str, str]:
    """The disk that a partition is on, and its number there.  Blocks.  Raises DeviceError."""
    try:
        folder = (block_devices / Path(partition).resolve(strict=True).name).resolve(strict=True)
        return f"/dev/{folder.parent.name}", (folder / "partition").read_text().strip()
    except (OSError, RuntimeError, ValueError) as error:
        raise DeviceError(
            f"Can't resolve device {partition} for EFI boot entry: {error}",
            hint="It must be the partition that holds the loader.",
        ) from error
