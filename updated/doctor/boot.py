"""The boot environment: readable, and every group's way of being started."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from updated import command
from updated.boot import envblock, order
from updated.config.system_conf import SystemConfig
from updated.core.model import Slot, slot_groups
from updated.core.states import Install, RebootPending
from updated.doctor.finding import Finding, error, note, ok, unknown, warning
from updated.doctor.subject import Subject
from updated.errors import DeviceError, NotSupportedError, UpdatedError
from updated.install.device import Device

MAX_CONFIG: Final = 64 * 1024  # bytes of fw_env.config that are looked at
NO_WAY_BACK: Final = "A new system that fails has nothing to go back to."
_HEX: Final = re.compile(r"(?:0[xX])?([0-9a-fA-F]{1,16})")


@dataclass(frozen=True, slots=True)
class Environment:
    """What the bootloader's variables say, where we can read them."""

    order: tuple[str, ...] | None = None  # bootnames; None: this bootloader has no such variable
    counters: Mapping[str, str] = field(default_factory=dict)  # bootname -> for a person
    left: Mapping[str, int] = field(default_factory=dict)  # bootname -> starts left


async def check(subject: Subject) -> AsyncIterator[Finding]:
    system, device = subject.system, subject.device
    if system is None or device is None:
        return
    yield _booted(subject, device)
    if system.system.bootloader == "noop":
        yield note("boot.environment", "", "bootloader=noop: nobody counts starts, nothing is fallen back to")
        return
    try:
        primary = await device.bootloader.get_primary()
    except NotSupportedError as problem:
        yield warning("boot.environment", system.system.bootloader, str(problem), hint=problem.hint)
        return
    except UpdatedError as problem:
        yield subject.failed("boot.environment", system.system.bootloader, problem)
        return
    yield ok("boot.environment", system.system.bootloader, "readable")
    environment = await _read(system)
    yield _primary(subject, device, primary)
    for root in _roots(system):
        yield await _group(subject, device, root, environment)
    for finding in _order(environment.order, _bootnames(system)):
        yield finding
    if system.system.bootloader == "uboot":
        yield await asyncio.to_thread(_copies, subject)


def _roots(system: SystemConfig) -> list[Slot]:
    return [group[0] for group in slot_groups(system.slots).values() if group[0].bootname]


def _bootnames(system: SystemConfig) -> list[str]:
    return [root.bootname for root in _roots(system) if root.bootname]


def _booted(subject: Subject, device: Device) -> Finding:
    try:
        slot = device.booted
    except DeviceError as problem:
        return subject.failed("boot.booted", "", problem)
    if slot is None:
        return note("boot.booted", "", "booted from elsewhere: all slots may be written, none is confirmed")
    return ok("boot.booted", slot.name, "runs")


def _primary(subject: Subject, device: Device, primary: str | None) -> Finding:
    if primary is None:
        return error(
            "boot.primary",
            "",
            "no group can be started: the next boot ends in the bootloader",
            hint="`updated mark-active booted` gives the running one its attempts back.",
        )
    assert subject.system is not None
    name = next((root.name for root in _roots(subject.system) if root.bootname == primary), primary)
    running = device.booted_group
    if not running or name == running:
        return ok("boot.primary", name, "is started next")
    if subject.store is not None and isinstance(subject.store.saved_state(), RebootPending):
        return note("boot.primary", name, "is started next: an update waits for its reboot")
    return warning(
        "boot.primary",
        name,
        "is started next, and another group runs",
        expected=running,
        got=name,
        hint="Somebody marked it, or the bootloader fell back. `updated mark-active booted` keeps this one.",
    )


async def _group(subject: Subject, device: Device, root: Slot, environment: Environment) -> Finding:
    assert root.bootname is not None
    assert subject.system is not None
    counters = environment.counters.get(root.bootname, "")
    try:
        good = await device.bootloader.get_state(root.bootname)
    except UpdatedError as problem:
        return subject.failed("boot.group", root.name, problem)
    left = environment.left.get(root.bootname)
    if root.name == device.booted_group:
        used_up = left is not None and left < subject.system.system.boot_attempts
        return _running(root, counters) if not good or used_up else _good(root, counters)
    return _good(root, counters) if good else _bad(subject, root, counters)


def _good(root: Slot, counters: str) -> Finding:
    return ok("boot.group", root.name, f"good{f' ({counters})' if counters else ''}")


def _running(root: Slot, counters: str) -> Finding:
    return warning(
        "boot.group",
        root.name,
        "runs and is not confirmed: after some more starts it is given up",
        expected="good, with all attempts",
        got=counters or "bad",
        hint="`updated status` says what it waits for; `updated confirm` takes the decision.",
    )


def _bad(subject: Subject, root: Slot, counters: str) -> Finding:
    assert subject.system is not None
    state = subject.store.saved_state() if subject.store else None
    if isinstance(state, Install) and state.update.target == root.name:
        return note("boot.group", root.name, "not started: an install writes it, or was interrupted")
    if subject.system.system.prevent_late_fallback != "no":
        return note("boot.group", root.name, "not started: prevent-late-fallback")
    return warning(
        "boot.group",
        root.name,
        f"would not be started. {NO_WAY_BACK}",
        expected="good",
        got=counters or "bad",
        hint="Install again; or, if it is known to work, `updated mark-good` it.",
    )


def _order(names: Sequence[str] | None, bootnames: Sequence[str]) -> Iterator[Finding]:
    if names is None:
        return
    strangers = [name for name in names if name not in bootnames]
    if not strangers:
        yield ok("boot.order", "", " ".join(names))
        return
    first = names[0] in strangers
    yield (warning if first else note)(
        "boot.order",
        "",
        f"the boot order names {', '.join(strangers)}, which no slot has as its bootname"
        + (": it comes first" if first else ""),
        hint=f"system.conf has {', '.join(bootnames)}.",
    )


async def _read(system: SystemConfig) -> Environment:
    """Of a valid environment.  What cannot be read is left out: it was readable just before."""
    try:
        match system.system.bootloader:
            case "grub":
                return await asyncio.to_thread(_grub, system.system.grubenv, _bootnames(system))
            case "uboot":
                return await _uboot(_bootnames(system))
            case "barebox":
                return await _barebox(system, _bootnames(system))
    except (UpdatedError, OSError):
        pass
    return Environment()


def _grub(path: Path, bootnames: Sequence[str]) -> Environment:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(handle, "rb") as file:
        block = envblock.parse(file.read(envblock.MAX_SIZE))
    counters = {name: f"OK={block.get(f'{name}_OK')} TRY={block.get(f'{name}_TRY')}" for name in bootnames}
    return Environment(tuple(order.parse(block.get("ORDER") or "")), counters)


async def _uboot(bootnames: Sequence[str]) -> Environment:
    variables = {name: f"BOOT_{name}_LEFT" for name in bootnames}
    result = await command.run(["fw_printenv", "BOOT_ORDER", *variables.values()])
    values = dict(line.split("=", 1) for line in result.stdout.splitlines() if "=" in line)
    left = {name: _number(values.get(variable, "")) for name, variable in variables.items()}
    return Environment(tuple(order.parse(values.get("BOOT_ORDER", ""))), _in_words(left), left)


async def _barebox(system: SystemConfig, bootnames: Sequence[str]) -> Environment:
    name, tree = system.system.barebox_statename, system.system.barebox_dtbpath
    options = [*(["-n", name] if name else []), *(["-i", tree] if tree else [])]
    asked = [word for each in bootnames for word in ("-g", f"bootstate.{each}.remaining_attempts")]
    lines = (await command.check(["barebox-state", *options, *asked])).split()
    left = {each: int(text) for each, text in zip(bootnames, lines, strict=False) if text.isdecimal()}
    return Environment(None, _in_words(left), left)


def _in_words(left: Mapping[str, int]) -> dict[str, str]:
    return {name: f"{count} attempt{'' if count == 1 else 's'} left" for name, count in left.items()}


def _number(text: str) -> int:
    found = _HEX.match(text.strip())
    return int(found[1], 16) if found else 0


def _copies(subject: Subject) -> Finding:
    """fw_env.config has a line for each copy (U-Boot tools/env/fw_env.config).  Blocks."""
    path = subject.places.fw_env_config
    try:
        with path.open("rb") as file:
            lines = file.read(MAX_CONFIG).decode(errors="replace").splitlines()
    except OSError as problem:
        return unknown("boot.copies", str(path), f"cannot be read: {problem.strerror}")
    places = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if len(places) > 1:
        return ok("boot.copies", str(path), f"{len(places)} copies of the environment")
    return warning(
        "boot.copies",
        str(path),
        "one copy of the environment: a power cut while it is written loses it",
        expected="two copies",
        got=str(len(places)),
        hint="Build U-Boot with CONFIG_SYS_REDUNDAND_ENVIRONMENT and name both places.",
    )
