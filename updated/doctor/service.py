"""The service under systemd: that it runs, who ends it when it hangs, and who resets the board."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Final

from updated import command
from updated.doctor.finding import Finding, error, note, ok, unknown, warning
from updated.doctor.subject import Subject
from updated.errors import DeviceError

UNIT: Final = "updated.service"
RAUC: Final = "rauc.service"
MARK_GOOD: Final = "rauc-mark-good.service"
MANAGER: Final = ("RuntimeWatchdogUSec", "RebootWatchdogUSec")
PROPERTIES: Final = (
    *("Id", "LoadState", "ActiveState", "SubState", "UnitFileState", "MainPID", "WatchdogUSec"),
    *("Restart", "FailureAction", "StartLimitAction", "StartLimitBurst", "StartLimitIntervalUSec"),
)
NEVER: Final = ("", "0", "infinity")
EFI_VARIABLES: Final = Path("/sys/firmware/efi/efivars")
POLICIES: Final = ("de.pengutronix.rauc.conf", "org.updated.Agent1.conf")

Unit = Mapping[str, str]


async def check(subject: Subject) -> AsyncIterator[Finding]:
    for finding in await asyncio.to_thread(lambda: list(_policies(subject))):
        yield finding
    if not await asyncio.to_thread(subject.places.systemd.exists):
        yield note("service.systemd", "", "systemd does not run here: nobody ends a service that hangs")
        return
    try:
        shown = await command.check(
            ["systemctl", "show", f"--property={','.join(PROPERTIES)}", UNIT, RAUC, MARK_GOOD]
        )
        told = await command.check(["systemctl", "show", f"--property={','.join(MANAGER)}"])
    except DeviceError as problem:
        yield unknown("service.systemd", "", str(problem))
        return
    unit, rauc, mark_good = (_properties(text) for text in f"{shown}\n\n\n\n".split("\n\n")[:3])
    for finding in unit_findings(unit, rauc, mark_good):
        yield finding
    sandbox = await asyncio.to_thread(lambda: list(_sandbox(subject, unit)))
    for finding in sandbox:
        yield finding
    present = await asyncio.to_thread(subject.places.watchdog.exists)
    for finding in watchdog_findings(_properties(told), present=present):
        yield finding


def unit_findings(unit: Unit, rauc: Unit, mark_good: Unit) -> Iterator[Finding]:
    """What `systemctl show` says of our unit, of RAUC's name, and of RAUC's unit that marks good."""
    if unit.get("LoadState") != "loaded":
        hint = "`make install-units` puts it there; see docs/install.md."
        got = unit.get("LoadState", "")
        yield error("service.unit", UNIT, "cannot be started", expected="loaded", got=got, hint=hint)
        return
    yield _running(unit)
    yield _enabled(unit)
    if rauc.get("Id") == RAUC and rauc.get("LoadState") == "loaded":
        hint = f"`systemctl disable --now {RAUC}`, and enable {UNIT}, which takes its name."
        yield error("service.rauc", RAUC, "RAUC's own service has the same name on the bus", hint=hint)
    if mark_good.get("UnitFileState") == "enabled":
        hint = f"`systemctl disable {MARK_GOOD}`: the health checks confirm."
        yield warning(
            "service.mark-good", MARK_GOOD, "confirms each system, however sick it may be", hint=hint
        )
    if unit.get("WatchdogUSec") in NEVER:
        hint = "Set WatchdogSec=60 in [Service] of the unit."
        yield warning("service.watchdog", UNIT, "nobody ends the service when it hangs", hint=hint)
    else:
        yield ok("service.watchdog", UNIT, f"pings are expected every {unit['WatchdogUSec']}")
    if unit.get("Restart") in ("", "no", None):
        hint = "Set Restart=always in [Service] of the unit."
        yield warning("service.restart", UNIT, "is not started again after a failure", hint=hint)
    yield _last_resort(unit)


def _running(unit: Unit) -> Finding:
    state = f"{unit.get('ActiveState', '')} ({unit.get('SubState', '')})"
    if unit.get("ActiveState") in ("active", "reloading", "activating"):
        return ok("service.running", UNIT, state)
    hint = f"`systemctl status {UNIT}` says why; `systemctl start {UNIT}`."
    text = "does not run: nothing is confirmed, and nothing is fetched"
    return error("service.running", UNIT, text, expected="active", got=state, hint=hint)


def _enabled(unit: Unit) -> Finding:
    state = unit.get("UnitFileState", "")
    if state.startswith(("enabled", "static", "linked", "generated", "indirect", "alias")):
        return ok("service.enabled", UNIT, state)
    text = "is not started at boot: a new system is confirmed by nobody, and given up"
    return error(
        "service.enabled", UNIT, text, expected="enabled", got=state, hint=f"`systemctl enable {UNIT}`"
    )


def _last_resort(unit: Unit) -> Finding:
    """FailureAction also fires when the start limit is hit; StartLimitAction only then (systemd.unit(5))."""
    limit = f"{unit.get('StartLimitBurst', '?')} starts in {unit.get('StartLimitIntervalUSec', '?')}"
    actions = [unit.get(name, "") for name in ("FailureAction", "StartLimitAction")]
    action = next((each for each in actions if each.startswith(("reboot", "soft-reboot", "kexec"))), "")
    if action:
        return ok("service.failure", UNIT, f"{action} when it fails for good ({limit})")
    return warning(
        "service.failure",
        UNIT,
        f"a new system in which it cannot start is not rebooted by anybody ({limit})",
        expected="StartLimitAction=reboot",
        got=actions[1] or "none",
        hint="Set StartLimitAction=reboot in [Unit]: the bootloader counts, and goes back.",
    )


def watchdog_findings(manager: Unit, *, present: bool) -> Iterator[Finding]:
    """The board's own: `present` if there is a device for it."""
    runtime, reboot = (manager.get(name, "") for name in MANAGER)
    on = runtime not in NEVER
    if not present and not on:
        text = "no hardware watchdog: a kernel that hangs stays so until somebody pulls the plug"
        hint = "Load the driver of the board's watchdog, or softdog."
        yield warning("service.hardware-watchdog", "/dev/watchdog", text, hint=hint)
        return
    if on:
        yield ok("service.hardware-watchdog", "", f"a system that hangs is reset after {runtime}")
    else:
        yield warning(
            "service.hardware-watchdog",
            "",
            "is there, and nobody starts it: a kernel that hangs stays so",
            expected="RuntimeWatchdogSec=20s",
            got=runtime,
            hint="Copy hardware-watchdog.conf to /etc/systemd/system.conf.d/.",
        )
    if reboot in NEVER:
        text = "a reboot that hangs is not cut short"
        hint = "Set RebootWatchdogSec=5min in /etc/systemd/system.conf.d/."
        yield warning("service.reboot-watchdog", "", text, got=reboot, hint=hint)
    else:
        yield ok("service.reboot-watchdog", "", f"a reboot that hangs is cut short after {reboot}")


def _sandbox(subject: Subject, unit: Unit) -> Iterator[Finding]:
    """Whether the running service could write what it has to, from inside its sandbox."""
    pid = unit.get("MainPID", "0")
    if pid in ("", "0") or not subject.root:
        return
    for path in _written(subject):
        inside = Path(f"/proc/{pid}/root{path.absolute()}")
        if path.exists() and not os.access(inside, os.W_OK):
            hint = f"ReadWritePaths={path} in a drop-in of {UNIT}; see docs/install.md."
            yield error("service.sandbox", str(path), "the service cannot write it", hint=hint)


def _written(subject: Subject) -> list[Path]:
    paths = [subject.data]
    if subject.statusfile is not None:
        paths.append(subject.statusfile.parent)
    if subject.system is not None and subject.system.system.bootloader == "grub":
        paths.append(subject.system.system.grubenv)
    if subject.system is not None and subject.system.system.bootloader == "efi":
        paths.append(EFI_VARIABLES)
    return list(dict.fromkeys(paths))


def _policies(subject: Subject) -> Iterator[Finding]:
    if not subject.places.bus.exists():
        text = "no system bus: only folders, sticks and servers bring updates, and nobody can ask"
        yield note("service.bus", str(subject.places.bus), text)
        return
    for name in POLICIES:
        if any((folder / name).exists() for folder in subject.places.dbus_policies):
            yield ok("service.policy", name, "installed")
        else:
            hint = "`make install-units` puts it into /usr/share/dbus-1/system.d; `systemctl reload dbus`."
            text = "not installed: the service gets no name on the bus, and its commands do not work"
            yield error("service.policy", name, text, hint=hint)


def _properties(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
