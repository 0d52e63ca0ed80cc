"""Tryboot with a boot partition for each system: autoboot.txt says which one is started.

    [all]
    tryboot_a_b=1
    boot_partition=2
    [tryboot]
    boot_partition=3
    # updated: on trial

`[all]` is the committed system, `[tryboot]` the one that is started with the flag; while the comment is
there, a trial is prepared.  A bad system is in neither place.  Since the whole file is shorter than a sector
and is rewritten in place (`fat.overwrite`), a power cut finds it before or after a change.

Without autoboot.txt the firmware would start the first FAT partition that it finds, in most layouts the one
that holds only this file; so it is never removed, truncated or made anew here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from updated.boot import fat, tryboot_text
from updated.boot.fat import Place
from updated.boot.tryboot_firmware import BY_PARTITION, Firmware
from updated.boot.tryboot_text import Autoboot
from updated.errors import DeviceError

FILE: Final = "autoboot.txt"


class TrybootPartitions:
    """A `Bootloader` for two systems."""

    def __init__(self, place: Place, partitions: Mapping[str, int], firmware: Firmware) -> None:
        """`partitions`: bootname -> number of its boot partition, as the firmware counts (from 1)."""
        self._place = place
        self._partitions = dict(partitions)
        self._names = {number: name for name, number in partitions.items()}
        self._firmware = firmware

    async def get_primary(self) -> str | None:
        """The one on trial while a trial is prepared, else the committed one.  Raises DeviceError."""
        file = await asyncio.to_thread(self._read)
        on_trial = self._names.get(file.trial or 0) if file.pending else None
        return on_trial or self._names.get(file.normal)

    async def set_primary(self, bootname: str) -> None:
        """Prepare a trial; for the committed one, give up the trial that is prepared.

        Raises DeviceError, also if this firmware cannot start a trial.
        """
        wanted = self._partitions[bootname]

        def edit(file: Autoboot) -> Autoboot:
            if wanted == file.normal:
                return file.selecting(file.normal, file.trial or file.normal, pending=False)
            self._firmware.check(BY_PARTITION)
            if not file.whole_partition:
                raise DeviceError(
                    f"{FILE} has no tryboot_a_b=1 below [all]: the firmware would look for tryboot.txt",
                    hint="Nothing was changed. Add that line.",
                )
            return file.selecting(file.normal, wanted, pending=True)

        await asyncio.to_thread(self._change, edit)

    async def get_state(self, bootname: str) -> bool:
        """Good: in one of the two places.  Raises DeviceError."""
        file = await asyncio.to_thread(self._read)
        return self._partitions[bootname] in (file.normal, file.trial)

    async def set_state(self, bootname: str, good: bool) -> None:
        """Good: commit what runs, or note that the other may be started.  Bad: never start it.

        Raises DeviceError, also if no system would be left, or this firmware cannot start a trial: an install
        begins with "bad", so it ends here, before anything is written.
        """
        change = self._good if good else self._bad
        await asyncio.to_thread(self._change, lambda file: change(file, self._partitions[bootname]))

    async def get_current(self) -> str | None:
        """What the firmware says it has started; older ones of the Pi 5 do not."""
        number = await asyncio.to_thread(self._firmware.partition)
        return self._names.get(number or 0)

    def _good(self, file: Autoboot, wanted: int) -> Autoboot:
        if wanted == file.normal:
            return file
        if self._runs(file, wanted):
            other = self._other(wanted)
            known = other in (file.normal, file.trial)
            return file.selecting(wanted, other if known else wanted, pending=False)
        if wanted == file.trial:
            return file
        return file.selecting(file.normal, wanted, pending=False)

    def _bad(self, file: Autoboot, unwanted: int) -> Autoboot:
        if unwanted == file.normal:
            other = self._other(unwanted)
            if other != file.trial:
                raise DeviceError(
                    f"{self._names[unwanted]} is the only system that the firmware would start",
                    hint=f"Mark {self._names[other]} good first, if it is.",
                )
            return file.selecting(other, other, pending=False)
        self._firmware.check(BY_PARTITION)
        if unwanted == file.trial:
            return file.selecting(file.normal, file.normal, pending=False)
        return file

    def _runs(self, file: Autoboot, wanted: int) -> bool:
        current = self._firmware.partition()
        if current is not None:
            return current == wanted
        return self._firmware.on_trial() and file.pending and file.trial == wanted

    def _other(self, number: int) -> int:
        return next(other for other in self._names if other != number)

    def _read(self) -> Autoboot:
        with self._place.opened(writable=False) as folder:
            return tryboot_text.parse(fat.read(folder / FILE, tryboot_text.MAX_SIZE))

    def _change(self, edit: Callable[[Autoboot], Autoboot]) -> None:
        """A file that would say the same is not written, and not even mounted for that."""
        found = self._read()
        if edit(found) == found:
            return
        with self._place.opened(writable=True) as folder:
            old = fat.read(folder / FILE, tryboot_text.MAX_SIZE)
            new = edit(tryboot_text.parse(old)).render(len(old))
            if new != old:
                fat.overwrite(folder / FILE, old, new)
