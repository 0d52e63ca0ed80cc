"""Raspberry Pi tryboot without a script: `bootloader=tryboot` of system.conf, `[tryboot]` of updated.toml.

The firmware has no counter of attempts.  It has one flag, which the reboot sets and the next start uses up:
with it the firmware starts the system on trial, without it the one that is committed.  So whatever ends a
trial (a panic, a watchdog, the power) leads back, and only "good" commits.  In terms of a boot order:

- primary: the system on trial while a trial is prepared, else the committed one;
- good: the firmware starts it, with the flag or without;
- marking what runs as good: the commit.

Two layouts: a boot partition for each system (`tryboot_autoboot`), and both systems in one boot partition,
each with a prefix of its own, as in Home Assistant OS (`tryboot_prefix`).
Source: Raspberry Pi documentation, "autoboot.txt" and "Fail-safe OS updates (tryboot)".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from updated.boot.fat import Place
from updated.boot.tryboot_autoboot import TrybootPartitions
from updated.boot.tryboot_firmware import Firmware
from updated.boot.tryboot_prefix import TrybootPrefixes
from updated.core.model import Bootloader
from updated.errors import ConfigError

REBOOT_ARGUMENT: Final = "0 tryboot"
"""Argument of reboot(2), LINUX_REBOOT_CMD_RESTART2, for the reboot into a trial, and for no other: 0 is "no
partition in particular", the second word sets the flag.  Needs the kernel of Raspberry Pi: mainline's driver
of the firmware pays no attention to it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the firmware's files are, and what of them belongs to which bootname."""

    place: Place
    firmware: Firmware
    partitions: Mapping[str, int] = field(default_factory=dict)  # bootname -> number of its boot partition
    roots: Mapping[str, str] = field(default_factory=dict)  # bootname -> its `root=`; for one with prefixes


def make_tryboot(bootnames: Sequence[str], settings: Settings | None) -> Bootloader:
    """The backend for the layout that `settings` describe.  Raises ConfigError."""
    if settings is None:
        raise ConfigError(
            "bootloader=tryboot needs [tryboot] in updated.toml",
            hint="docs/tryboot.md has what to write there.",
        )
    if len(set(bootnames)) != 2:
        raise ConfigError(
            f"bootloader=tryboot needs two slots with a bootname, got {len(set(bootnames))}:"
            " the firmware knows one system that is committed and one on trial"
        )
    if settings.partitions:
        _check("partitions", settings.partitions, bootnames)
        return TrybootPartitions(settings.place, settings.partitions, settings.firmware)
    _check("roots", settings.roots, bootnames)
    return TrybootPrefixes(settings.place, settings.roots, settings.firmware)


def _check(key: str, given: Collection[str], bootnames: Sequence[str]) -> None:
    if set(given) != set(bootnames):
        raise ConfigError(
            f"tryboot.{key} is for {_list(given)}, and the bootnames of system.conf are {_list(bootnames)}"
        )


def _list(names: Collection[str]) -> str:
    return ", ".join(sorted(names)) or "none"
