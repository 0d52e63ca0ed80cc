"""This device: its slots, which of them runs, its bootloader and what is known to be on each slot."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from updated.boot.tryboot import REBOOT_ARGUMENT
from updated.boot.tryboot_firmware import CHOSEN
from updated.config import agent_tables
from updated.config.system_conf import SystemConfig
from updated.core import events
from updated.core.model import Bootloader, BootStatus, Slot, SlotReport, SlotState, SlotStatus, slot_groups
from updated.core.states import Facts
from updated.core.target import find_booted, resolve_identifier, slot_states
from updated.devices import find_mountpoint, identities
from updated.errors import DeviceError, Refused, UpdatedError
from updated.host import clock, identity, proc
from updated.host.journal import tell
from updated.install.bootloader import open_bootloader
from updated.slots import status as slot_status
from updated.slots.status_store import CentralStore, PerSlotStore, StatusStore

log = logging.getLogger(__name__)

MAX_VARIANT: Final = 1024  # bytes of the variant file that are looked at
DEVICE_TREE: Final = Path("/sys/firmware/devicetree/base/compatible")


class Device:
    """Made by `open_device`.  The slot status is read once and kept: nobody else writes it."""

    def __init__(
        self,
        config: SystemConfig,
        bootloader: Bootloader,
        statuses: StatusStore,
        *,
        boot_slot: str,
        booted: Slot | DeviceError | None,
        boot_id: str,
        variant: str,
        image_version: str = "",
    ) -> None:
        """`booted`: the slot that runs, None if the system runs from elsewhere, or why that is not known."""
        self.config = config
        self.slots: Sequence[Slot] = config.slots
        self.bootloader = bootloader
        self.boot_slot = boot_slot
        self.boot_id = boot_id
        self.variant = variant
        self.image_version = image_version
        self.status: dict[str, SlotStatus] = {}
        self._statuses = statuses
        self._booted = booted
        self._groups = slot_groups(config.slots)

    @property
    def booted(self) -> Slot | None:
        """The slot that runs; None: the system runs from elsewhere.  Raises DeviceError if not known."""
        if isinstance(self._booted, DeviceError):
            raise DeviceError(str(self._booted), hint=self._booted.hint)
        return self._booted

    @property
    def booted_group(self) -> str:
        """Root slot name of the group that runs; "" if the system runs from elsewhere or it is not known."""
        return self._group_of(self._booted) if isinstance(self._booted, Slot) else ""

    def states(self) -> Mapping[str, SlotState]:
        """Slot name -> state.  Raises DeviceError if the booted slot is not known."""
        return slot_states(self.slots, self.booted)

    def resolve(self) -> Mapping[str, str]:
        """Device path -> identity.  Blocks."""
        return identities([slot.device for slot in self.slots])

    async def load_status(self) -> None:
        """Read the slot status; what cannot be read is said and counts as unknown."""
        self.status = await self._statuses.load()
        for warning in self._statuses.warnings:
            log.warning("%s", warning)

    async def save_status(self, slot: Slot, status: SlotStatus) -> None:
        """Raises DeviceError if it cannot be made durable."""
        self.status[slot.name] = status
        await self._statuses.save(slot.name, status)

    @property
    def status_in_slots(self) -> bool:
        """True: each slot's file system holds its own status, so a new image wipes it."""
        return isinstance(self._statuses, PerSlotStore)

    def status_of(self, slot: Slot) -> SlotStatus:
        return self.status.get(slot.name, SlotStatus())

    # Groups, for the machine

    async def facts(self) -> Facts:
        """What the machine must know at start.  Never raises: a sick bootloader has no primary."""
        installed = {root: self._installed(group) for root, group in self._groups.items()}
        primary = await self._primary_group()
        by_argument = bool(self.reboot_argument)
        return Facts(self.boot_id, self.booted_group, primary, installed, by_argument=by_argument)

    async def mark_group(self, group: str, *, good: bool) -> None:
        """Tell the bootloader about the root slot `group`; one without a bootname has no state.

        Raises DeviceError.
        """
        bootname = self._groups[group][0].bootname if group in self._groups else None
        if bootname is None:
            return
        # Also what counts as good: for U-Boot that is a group with any attempts left.
        await self.bootloader.set_state(bootname, good)
        mark = events.marked_good if good else events.marked_bad
        event = mark(group, bootname, by="updated")
        log.info("marked %s as %s", group, "good" if good else "bad", extra={"event": event})

    async def prevent_late_fallback(self) -> None:
        """prevent-late-fallback=true: once what runs is good, no other slot of its class is started any more.

        To be called after the booted group was marked good.  Not while another one is to start next: that is
        an update which waits for its reboot.  What is bad already is not written.  Locked counters are the
        bootloader's own business.  Raises DeviceError.
        """
        booted = self._groups[self.booted_group][0] if self.booted_group else None
        if self.config.system.prevent_late_fallback != "mark-bad" or booted is None or not booted.bootname:
            return
        if await self.bootloader.get_primary() != booted.bootname:
            return
        for root in [group[0] for group in self._groups.values()]:
            if root is booted or root.slot_class != booted.slot_class or not root.bootname:
                continue
            if await self.bootloader.get_state(root.bootname):
                await self.mark_group(root.name, good=False)

    async def other_bootable_group(self, group: str) -> str:
        """Another group that the bootloader would start; "" if there is none, or nobody ever knows (noop).

        Raises DeviceError if the bootloader cannot tell now.
        """
        if self.config.system.bootloader == "noop":
            return ""
        for root in self._groups:
            bootname = self._groups[root][0].bootname
            if root != group and bootname and await self.bootloader.get_state(bootname):
                return root
        return ""

    async def lead_away(self, group: str, other: str) -> None:
        """`group` was marked bad: now `other` starts next.  Some scripts must be told so.

        Raises DeviceError.
        """
        if await self._primary_group() == group:
            await self.activate(self._groups[other][0], by="updated")

    def inactive_hash(self) -> str:
        """Manifest hash of what was last installed to a group that does not run; "" for nothing."""
        found = {
            self.status_of(group[0]).installed_timestamp or "": installed
            for root, group in self._groups.items()
            if root != self.booted_group and (installed := self._installed(group))
        }
        return found[max(found)] if found else ""

    async def bad_groups(self) -> frozenset[str]:
        """Root slots that the bootloader does not start; what it cannot tell is none."""
        roots = [group[0] for group in self._groups.values()]
        return frozenset(
            [root.name for root in roots if root.bootname and await self._boot_status(root.bootname) == "bad"]
        )

    @property
    def reboot_argument(self) -> str:
        """What the reboot into an update must be asked for with; "": nothing special.

        Never for another reboot: the firmware would look for a trial that is not there.
        """
        return REBOOT_ARGUMENT if self.config.system.bootloader == "tryboot" else ""

    @property
    def running_version(self) -> str:
        """That of the bundle which brought what runs, else what that says of itself; "": nobody knows."""
        return self.booted_bundle().bundle_version or self.image_version

    def booted_bundle(self) -> SlotStatus:
        """The status of what runs; empty if nothing is known."""
        return self.status.get(self.booted_group, SlotStatus())

    def _group_of(self, slot: Slot) -> str:
        return next(root for root, members in self._groups.items() if slot in members)

    async def _primary_group(self) -> str:
        try:
            bootname = await self.bootloader.get_primary()
        except UpdatedError as error:
            log.warning("Failed getting primary slot: %s", error)
            return ""
        return next((root for root, group in self._groups.items() if group[0].bootname == bootname), "")

    def _installed(self, group: tuple[Slot, ...]) -> str | None:
        """Manifest hash of what was last installed to `group`, if it is completely there."""
        known = [self.status[slot.name] for slot in group if slot.name in self.status]
        if not known or any(status.status in ("pending", "failed") for status in known):
            return None
        return max(known, key=lambda status: status.installed_timestamp or "").bundle_hash

    # What RAUC's clients ask

    async def mark(self, state: str, identifier: str) -> tuple[str, str]:
        """RAUC's Mark (src/mark.c): (slot names, message).  Raises UpdatedError with RAUC's texts."""
        slots = resolve_identifier(self.slots, self.booted, identifier)
        if state not in ("good", "bad", "active"):
            raise Refused(f"unknown subcommand {state}", rule="mark")
        if len(slots) > 1 and state == "good":
            raise Refused("cannot mark multiple slots as good", rule="mark")
        if len(slots) > 1 and state == "active":
            raise Refused("cannot activate multiple slots", rule="mark")
        for slot in slots:
            await self._mark_one(slot, state)
        if state == "good" and identifier == "booted":
            await self.prevent_late_fallback()
        names = " ".join(slot.name for slot in slots)
        return names, f"marked slot(s) {names} as {state}"

    async def _mark_one(self, slot: Slot, state: str) -> None:
        assert slot.bootname is not None  # resolve_identifier sees to it
        try:
            if state == "active":
                await self.activate(slot, by="request")
                return
            await self.bootloader.set_state(slot.bootname, state == "good")
        except UpdatedError as error:
            what = f"failed to activate slot {slot.name}: "
            if state != "active":
                what = f"Failed marking slot {slot.name} as {state}:  "
            raise DeviceError(f"{what}{error}", hint=error.hint) from error
        mark = events.marked_good if state == "good" else events.marked_bad
        tell(log, mark(slot.name, slot.bootname, by="request"))

    async def activate(self, slot: Slot, *, by: str) -> None:
        """Make a bootable slot primary, and note it.  `by`: who wants it.  Raises DeviceError."""
        assert slot.bootname is not None
        await self.bootloader.set_primary(slot.bootname)
        held = self.status_of(slot).bundle_hash or ""
        event = events.marked_active(slot.name, slot.bootname, bundle_hash=held, by=by)
        log.info("marked %s as active", slot.name, extra={"event": event})
        try:
            await self.save_status(slot, slot_status.activated(self.status_of(slot), now=clock.now()))
        except DeviceError as error:
            log.warning("%s", error)  # the bootloader has it, and only that counts

    async def primary(self) -> str:
        """Name of the slot the bootloader starts next.  Raises DeviceError."""
        bootname = await self.bootloader.get_primary()
        for slot in self.slots:
            if bootname is not None and slot.bootname == bootname:
                return slot.name
        raise DeviceError(
            "No bootable slot found" if bootname is None else f"Bootname '{bootname}' is no slot's"
        )

    async def reports(self) -> list[SlotReport]:
        """All slots.  Raises DeviceError if the booted slot is not known."""
        states = self.states()
        mounts = await asyncio.to_thread(
            lambda: {slot.name: find_mountpoint(slot.device) for slot in self.slots}
        )
        return [
            SlotReport(
                slot,
                states[slot.name],
                self.status_of(slot),
                await self._boot_status(slot.bootname) if slot.bootname else None,
                mounts[slot.name],
            )
            for slot in self.slots
        ]

    async def _boot_status(self, bootname: str) -> BootStatus:
        try:
            return "good" if await self.bootloader.get_state(bootname) else "bad"
        except UpdatedError as error:
            log.warning("Failed to get state of %s: %s", bootname, error)
            return "unknown"


async def open_device(
    config: SystemConfig,
    *,
    tryboot: agent_tables.Tryboot = agent_tables.Tryboot(),  # noqa: B008 - immutable
    efi: agent_tables.Efi = agent_tables.Efi(),  # noqa: B008 - immutable
    chosen: Path = CHOSEN,
    cmdline: Path = proc.CMDLINE,
    boot_id: Path = proc.BOOT_ID,
    override_boot_slot: str | None = None,
    mount_folder: Path | None = None,
) -> Device:
    """Find out what runs.  `mount_folder`: where slots are mounted for a moment.

    `tryboot`, `efi`: those tables of updated.toml; `chosen`: what the firmware says, in the device tree.
    Raises ConfigError; a booted slot that is not found is told by `Device.booted`.
    """
    bootloader = open_bootloader(config, tryboot, efi, chosen=chosen, mount_folder=mount_folder)
    boot_slot = override_boot_slot or await _boot_slot(cmdline, bootloader)
    resolve = await asyncio.to_thread(identities, [boot_slot, *(slot.device for slot in config.slots)])
    booted: Slot | DeviceError | None
    try:
        booted = find_booted(config.slots, boot_slot, resolve)
    except DeviceError as error:
        log.warning("%s", error)
        booted = error
    device = Device(
        config,
        bootloader,
        _status_store(config, mount_folder),
        boot_slot=boot_slot,
        booted=booted,
        boot_id=await asyncio.to_thread(proc.boot_id, boot_id),
        variant=await asyncio.to_thread(_variant, config),
        image_version=await asyncio.to_thread(identity.image_version),
    )
    await device.load_status()
    return device


def _status_store(config: SystemConfig, mount_folder: Path | None) -> StatusStore:
    statusfile = config.system.statusfile
    return CentralStore(statusfile) if statusfile else PerSlotStore(config.slots, mount_folder=mount_folder)


async def _boot_slot(cmdline: Path, bootloader: Bootloader) -> str:
    hint = proc.boot_slot_from_cmdline(await asyncio.to_thread(proc.read_cmdline, cmdline))
    current = None
    if hint.explicit is None:
        try:
            current = await bootloader.get_current()
        except UpdatedError as error:  # a script from before there was get-current
            log.info("the bootloader does not tell what runs: %s", error)
    return proc.boot_slot(hint, current)


def _variant(config: SystemConfig) -> str:
    """The variant of this device, "" if it has none (RAUC reference, "Board Variants").  Blocks."""
    system = config.system
    path = DEVICE_TREE if system.variant_dtb else system.variant_file
    if path is None:
        return system.variant_name or ""
    try:
        with Path(path).open("rb") as file:
            text = file.read(MAX_VARIANT)
    except OSError as error:
        log.warning("variant file %s cannot be read: %s", path, error.strerror)
        return ""
    return text.partition(b"\0")[0].decode(errors="replace").strip()
