"""The configuration: whether it loads, what it asks for in vain, and whether anything looks at the health."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from updated.config.agent_toml import AgentConfig
from updated.config.system_conf import SystemConfig
from updated.doctor.finding import Finding, note, ok, warning
from updated.doctor.subject import Subject
from updated.install.unsupported import unsupported

NO_CHECKS: Final = "Add [[confirm.checks]] to updated.toml: a unit, an URL, a command."


def check(subject: Subject) -> Iterator[Finding]:
    """That it loads is found out before: here is what follows from it."""
    system = subject.system
    if system is None:
        return
    kinds = f"{len(system.slots)} slots, bootloader {system.system.bootloader}"
    yield ok("config.file", str(system.path), f"'{system.system.compatible}', {kinds}")
    for sentence in unsupported(system):
        yield warning("config.unsupported", "system.conf", sentence)
    yield from _groups(system)
    yield _health(subject.agent, system)


def _groups(system: SystemConfig) -> Iterator[Finding]:
    bootable = [slot for slot in system.slots if slot.bootname]
    if len(bootable) < 2 and system.system.bootloader != "noop":
        yield warning(
            "config.groups",
            "system.conf",
            "nothing to fall back to",
            expected="two or more slots with a bootname",
            got=str(len(bootable)),
        )


def _health(agent: AgentConfig, system: SystemConfig) -> Finding:
    checks = len(agent.confirm.checks)
    if checks:
        return ok("config.health", "", f"{checks} health checks decide whether a new system is good")
    automatic = agent.folder.path or agent.usb.enable or agent.ota.index or system.polling.url
    if not automatic:
        return ok("config.health", "", "no health checks; nothing is installed by itself")
    return note(
        "config.health",
        "",
        "updates are installed by themselves, and a new system counts as good once the agent runs in it",
        hint=NO_CHECKS,
    )
