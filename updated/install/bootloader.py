"""The bootloader that system.conf and updated.toml describe."""

from __future__ import annotations

from pathlib import Path

from updated.boot.base import make_bootloader
from updated.boot.efi import EfiLoader
from updated.boot.fat import Folder, Partition, Place
from updated.boot.tryboot import Settings as TrybootSettings
from updated.boot.tryboot_firmware import Firmware
from updated.config import agent_tables
from updated.config.system_conf import SystemConfig
from updated.core.model import Bootloader
from updated.errors import ConfigError


def open_bootloader(
    config: SystemConfig,
    tryboot: agent_tables.Tryboot,
    efi: agent_tables.Efi,
    *,
    chosen: Path,
    mount_folder: Path | None,
) -> Bootloader:
    """`tryboot`, `efi`: those tables of updated.toml; `chosen`: what the firmware says, in the device tree;
    `mount_folder`: where its partition is mounted for a moment.  Raises ConfigError.
    """
    system = config.system
    backend = config.handlers.bootloader_custom_backend
    return make_bootloader(
        system.bootloader,
        [slot.bootname for slot in config.slots if slot.bootname],
        grubenv=system.grubenv,
        attempts=system.boot_attempts,
        attempts_primary=system.boot_attempts_primary,
        custom_backend=str(backend) if backend else None,
        statename=system.barebox_statename,
        dtbpath=system.barebox_dtbpath,
        lock_counter=system.prevent_late_fallback == "lock-counter",
        use_bootnext=system.efi_use_bootnext,
        efi_loaders=_efi_loaders(config, efi),
        tryboot=_tryboot_settings(tryboot, chosen, mount_folder),
    )


def _tryboot_settings(
    table: agent_tables.Tryboot, chosen: Path, mount_folder: Path | None
) -> TrybootSettings | None:
    place: Place
    if table.device is not None:
        place = Partition(table.device, mount_folder)
    elif table.folder is not None:
        place = Folder(Path(table.folder))
    else:
        return None
    return TrybootSettings(place, Firmware(chosen, table.min_firmware), table.partitions, table.roots)


def _efi_loaders(config: SystemConfig, table: agent_tables.Efi) -> dict[str, EfiLoader]:
    """Bootname -> how its boot entry is made.  Raises ConfigError for a bootname that no slot has."""
    bootnames = {slot.bootname: slot for slot in config.slots if slot.bootname}
    for name in table.entries:
        if name not in bootnames:
            raise ConfigError(
                f"efi.entries.{name} of updated.toml is no slot's bootname",
                hint=f"Configured: {', '.join(bootnames)}.",
            )
    of_slots = {
        name: EfiLoader(slot.device, slot.efi_loader, slot.efi_cmdline or "")
        for name, slot in bootnames.items()
        if slot.efi_loader
    }
    return of_slots | {
        name: EfiLoader(entry.partition, entry.loader, entry.arguments)
        for name, entry in table.entries.items()
    }
