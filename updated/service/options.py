"""What the command line tells the service."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """Options of `updated service`.  None: not given, so the configuration or the default decides."""

    conf: Path | None = None  # system.conf; None: RAUC's search order
    overrides: tuple[str, ...] = ()  # `section:key=value`, stronger than system.conf, in the order given
    agent_conf: Path | None = None  # updated.toml; None: /etc/updated/updated.toml
    override_boot_slot: str | None = (
        None  # bootname, slot name or device to believe in instead of the kernel's
    )
    runtime_directory: Path = Path("/run/updated")
    cmdline: Path = Path("/proc/cmdline")  # kernel command line
    boot_id: Path = Path("/proc/sys/kernel/random/boot_id")
    keyring: Path | None = None  # instead of `[keyring] path`
    mount: Path | None = None  # instead of `[system] mountprefix`
    handler_args: str | None = None  # extra arguments for a full custom handler
    debug: bool = False
