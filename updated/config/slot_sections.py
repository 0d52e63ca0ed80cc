"""`[slot.<class>.<index>]` of system.conf (RAUC reference, "Slot sections")."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from updated.bundle.keyfile import Consumer, Group, KeyFileError, suggest
from updated.config.sections import resolve
from updated.core.model import Slot
from updated.errors import ConfigError

SLOT_TYPES = (
    "raw",
    "ext4",
    "vfat",
    "nand",
    "nor",
    "ubivol",
    "ubifs",
    "jffs2",
    "boot-emmc",
    "boot-mbr-switch",
    "boot-gpt-switch",
    "boot-raw-fallback",
    "emmc-boot-linked",
)
REGION_TYPES = ("boot-mbr-switch", "boot-gpt-switch", "boot-raw-fallback")
SIZE_UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}  # binary digits
MAX_SIZE = 2**63 - 1  # bytes; what a file offset can hold

_SIZE = re.compile(r"([0-9]{1,19})([kmgt]?)(?:i?b)?", re.IGNORECASE)


def parse_size(text: str, key: str) -> int:
    """Bytes, with a suffix K, M, G or T (powers of 1024).  Raises ConfigError.

    RAUC takes whatever starts with a number and ignores the rest; a size that is not one is refused here.
    """
    found = _SIZE.fullmatch(text)
    size = int(found[1]) << SIZE_UNITS[found[2].lower()] if found else MAX_SIZE + 1
    if size > MAX_SIZE:
        raise ConfigError(
            f"Invalid size '{text}' for key '{key}'",
            hint="Expected bytes, or a number with one of the suffixes K, M, G, T.",
        )
    return size


def parse_slots(groups: Iterable[Group], folder: Path) -> tuple[Slot, ...]:
    """All slots in file order; a parent is always a root slot.  Raises KeyFileError or ConfigError."""
    slots: dict[str, Slot] = {}
    bootnames: set[str] = set()
    for group in groups:
        slot = _parse_slot(group, folder)
        if slot.bootname in bootnames:
            raise ConfigError(f"Bootname '{slot.bootname}' is set on more than one slot")
        if slot.bootname is not None:
            bootnames.add(slot.bootname)
        slots[slot.name] = slot
    for slot in slots.values():
        if slot.parent is not None and slot.parent not in slots:
            raise ConfigError(f"Parent slot '{slot.parent}' not found!", hint=suggest(slot.parent, slots))
        if slot.parent is not None and slot.bootname is not None:
            raise ConfigError(
                f"Child slot '{slot.name}' has bootname set",
                hint=f"The bootname belongs to its parent '{slot.parent}'.",
            )
    return tuple(_with_root_as_parent(slot, slots) for slot in slots.values())


def _with_root_as_parent(slot: Slot, slots: dict[str, Slot]) -> Slot:
    """RAUC discourages a parent's parent, and reads it as one group."""
    seen = {slot.name}
    parent = slot.parent
    while parent is not None and (next_parent := slots[parent].parent) is not None:
        if parent in seen:
            raise ConfigError(f"Slot '{slot.name}' has a parent loop!")
        seen.add(parent)
        parent = next_parent
    return slot if parent == slot.parent else replace(slot, parent=parent)


def _parse_slot(group: Group, folder: Path) -> Slot:
    slot_class, index = _name(group.name)
    name = group.name.removeprefix("slot.")
    section = Consumer(group)
    device = str(resolve(folder, section.string("device")))
    slot_type = section.optional_string("type") or "raw"
    _check_type(group.name, name, slot_type, device)
    has_region = slot_type in REGION_TYPES
    slot = Slot(
        name=name,
        slot_class=slot_class,
        index=index,
        device=device,
        type=slot_type,
        description=section.optional_string("description") or "",
        bootname=_bootname(section, name),
        parent=section.optional_string("parent"),
        readonly=section.optional_boolean("readonly") or False,
        allow_mounted=section.optional_boolean("allow-mounted") or False,
        install_same=_install_same(section),
        resize=section.optional_boolean("resize") or False,
        extra_mkfs_opts=_mkfs_options(section),
        extra_mount_opts=section.optional_string("extra-mount-opts") or "",
        region_start=_region(section, "region-start", slot_type) if has_region else None,
        region_size=_region(section, "region-size", slot_type) if has_region else None,
        size_limit=_size_limit(section) if slot_type == "boot-emmc" else None,
        efi_loader=section.optional_string("efi-loader"),
        efi_cmdline=section.optional_string("efi-cmdline"),
    )
    section.finish()
    return slot


def _name(group: str) -> tuple[str, int]:
    parts = group.split(".")
    if len(parts) != 3 or not parts[1] or not re.fullmatch(r"[0-9]{1,9}", parts[2]):
        raise ConfigError(f"Invalid slot name format: {group}", hint="Expected [slot.<class>.<number>].")
    return parts[1], int(parts[2])


def _check_type(group: str, name: str, slot_type: str, device: str) -> None:
    if slot_type not in SLOT_TYPES:
        raise ConfigError(
            f"Unsupported slot type '{slot_type}' for slot {name} selected in system config",
            hint=suggest(slot_type, SLOT_TYPES) or f"RAUC knows {', '.join(SLOT_TYPES)}.",
        )
    if slot_type == "jffs2" and not device.startswith("/dev/"):
        raise ConfigError(f"{group}: device must be located in /dev/ for jffs2")
    if slot_type == "boot-emmc" and device.endswith(("boot0", "boot1")):
        raise ConfigError(f"{group}: 'device' must refer to the eMMC base device, not the boot partition")


def _bootname(section: Consumer, name: str) -> str | None:
    bootname = section.optional_string("bootname")
    if bootname is not None and ("\t" in bootname or " " in bootname):
        raise ConfigError(
            f"Invalid bootname for slot {name}: "
            f"The value '{bootname}' can not contain tab or whitespace characters"
        )
    return bootname


def _install_same(section: Consumer) -> bool:
    """`install-same`, or one of the two names it had before."""
    values = [
        section.optional_boolean(key) for key in ("install-same", "force-install-same", "ignore-checksum")
    ]
    return next((value for value in values if value is not None), True)


def _mkfs_options(section: Consumer) -> tuple[str, ...]:
    text = section.optional_string("extra-mkfs-opts")
    if text is None:
        return ()
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise ConfigError(f"Failed to parse extra-mkfs-opts: {error}") from error


def _region(section: Consumer, key: str, slot_type: str) -> int:
    try:
        return parse_size(section.string(key), key)
    except KeyFileError as error:
        raise ConfigError(f"mandatory for {slot_type}: {error}") from error


def _size_limit(section: Consumer) -> int | None:
    text = section.optional_string("size-limit")
    return None if text is None else parse_size(text, "size-limit") or None
