"""Programs that this configuration needs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Final

from updated.command import PACKAGES
from updated.config.agent_toml import AgentConfig
from updated.config.system_conf import SystemConfig
from updated.doctor.finding import Finding, error, ok
from updated.doctor.subject import Subject

SERVICE_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""systemd's for services (systemd.exec(5)); a user's own has no sbin."""

BOOTLOADERS: Final = {
    "uboot": ("fw_printenv", "fw_setenv"),
    "barebox": ("barebox-state",),
    "efi": ("efibootmgr",),
}


def check(subject: Subject) -> Iterator[Finding]:
    needed = _own(subject.agent)
    if subject.system is not None:
        needed = {**_of_device(subject.system), **needed}
    missing = {tool: what for tool, what in needed.items() if _where(tool) is None}
    for tool, what in missing.items():
        package = PACKAGES.get(tool)
        hint = f"On Debian it is in the package {package}." if package else "Is it executable, and in PATH?"
        yield error("tools.missing", tool, f"not found, and needed for {what}", hint=hint)
    if not missing:
        yield ok("tools.missing", "", f"all there: {', '.join(needed)}" if needed else "none needed")


def _of_device(system: SystemConfig) -> dict[str, str]:
    """Tool -> what for."""
    kind = system.system.bootloader
    needed = dict.fromkeys(BOOTLOADERS.get(kind, ()), f"bootloader={kind}")
    if system.handlers.bootloader_custom_backend is not None:
        needed[str(system.handlers.bootloader_custom_backend)] = "bootloader=custom"
    if system.system.statusfile is None and system.slots:
        needed |= dict.fromkeys(("mount", "umount"), "slot status inside the slots")
    if any(slot.resize for slot in system.slots):
        needed |= dict.fromkeys(("e2fsck", "resize2fs"), "resize=true")
    return needed


def _own(agent: AgentConfig) -> dict[str, str]:
    hooks = {
        "[usb] on-start": agent.usb.on_start,
        "[usb] on-success": agent.usb.on_success,
        "[usb] on-failure": agent.usb.on_failure,
        "[hooks] on-installed": agent.hooks.on_installed,
        "[hooks] on-confirmed": agent.hooks.on_confirmed,
        "[hooks] on-fallback": agent.hooks.on_fallback,
        "[reboot] command": agent.reboot.command,
    }
    return {words[0]: key for key, words in hooks.items() if words}


def _where(tool: str) -> str | None:
    return shutil.which(tool, path=f"{os.environ.get('PATH', '')}:{SERVICE_PATH}")
