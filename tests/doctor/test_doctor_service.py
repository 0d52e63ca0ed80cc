"""What systemd says, in the words of a real systemctl 252; and D-Bus' policies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.doctor.conftest import Scene
from updated.doctor.finding import Finding, Level
from updated.doctor.service import unit_findings, watchdog_findings

UNITS = Path(__file__).parents[2] / "units"
GOOD = {
    "Id": "updated.service",
    "LoadState": "loaded",
    "ActiveState": "active",
    "SubState": "running",
    "UnitFileState": "enabled",
    "WatchdogUSec": "1min",
    "Restart": "always",
    "FailureAction": "reboot",
    "StartLimitAction": "none",
    "StartLimitBurst": "10",
    "StartLimitIntervalUSec": "5min",
}
RAUC = {"Id": "rauc.service", "LoadState": "loaded"}


def problems(findings: list[Finding]) -> dict[str, Level]:
    return {each.check: each.level for each in findings if each.level is not Level.OK}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {}),
        ({"FailureAction": "none", "StartLimitAction": "reboot"}, {}),
        ({"FailureAction": "none"}, {"service.failure": Level.WARNING}),
        ({"WatchdogUSec": "0"}, {"service.watchdog": Level.WARNING}),
        ({"WatchdogUSec": "infinity"}, {"service.watchdog": Level.WARNING}),
        ({"Restart": "no"}, {"service.restart": Level.WARNING}),
        ({"UnitFileState": "disabled"}, {"service.enabled": Level.ERROR}),
        ({"ActiveState": "failed", "SubState": "failed"}, {"service.running": Level.ERROR}),
        ({"LoadState": "masked"}, {"service.unit": Level.ERROR}),
    ],
)
def test_the_unit(changes: dict[str, str], expected: dict[str, Level]) -> None:
    assert problems(list(unit_findings({**GOOD, **changes}, GOOD, {}))) == expected


def test_nothing_is_known_of_it() -> None:
    assert problems(list(unit_findings({}, {}, {}))) == {"service.unit": Level.ERROR}


def test_rauc_s_own_service_beside_it() -> None:
    assert problems(list(unit_findings(GOOD, RAUC, {}))) == {"service.rauc": Level.ERROR}
    assert problems(list(unit_findings(GOOD, {**RAUC, "LoadState": "not-found"}, {}))) == {}


@pytest.mark.parametrize(("state", "found"), [("enabled", True), ("masked", False), ("disabled", False)])
def test_nobody_else_confirms(state: str, found: bool) -> None:
    findings = problems(list(unit_findings(GOOD, {}, {"UnitFileState": state})))
    assert findings == ({"service.mark-good": Level.WARNING} if found else {})


@pytest.mark.parametrize(
    ("runtime", "reboot", "present", "expected"),
    [
        ("20s", "5min", True, {}),
        ("0", "10min", True, {"service.hardware-watchdog": Level.WARNING}),
        ("infinity", "0", True, dict.fromkeys(("service.hardware-watchdog", "service.reboot-watchdog"), 3)),
        ("0", "10min", False, {"service.hardware-watchdog": Level.WARNING}),
    ],
)
def test_the_board_s_watchdog(runtime: str, reboot: str, present: bool, expected: dict[str, int]) -> None:
    manager = {"RuntimeWatchdogUSec": runtime, "RebootWatchdogUSec": reboot}
    assert problems(list(watchdog_findings(manager, present=present))) == expected


def in_place(scene: Scene) -> list[Finding]:
    return [each for each in scene.examine() if each.group == "service"]


def test_the_policies(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "bus").touch()
    policies = (tmp_path / "nothing-here", UNITS)
    places = replace(scene.places, bus=tmp_path / "bus", dbus_policies=policies)
    assert problems(in_place(replace(scene, places=places))) == {"service.systemd": Level.NOTE}
    places = replace(places, dbus_policies=policies[:1])
    assert problems(in_place(replace(scene, places=places)))["service.policy"] is Level.ERROR


@pytest.fixture
def systemctl(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Scene]:
    """A program of that name, and a system that systemd has booted."""
    tool = scene.folder / "bin" / "systemctl"
    tool.parent.mkdir()
    monkeypatch.setenv("PATH", str(tool.parent), prepend=":")
    (scene.folder / "systemd").mkdir()

    def make(script: str) -> Scene:
        tool.write_text(f"#!/bin/sh\n{script}\n")
        tool.chmod(0o755)
        return replace(scene, places=replace(scene.places, systemd=scene.folder / "systemd"))

    return make


def test_systemctl_is_asked(systemctl: Callable[[str], Scene]) -> None:
    lines = "\n".join(f"{name}={value}" for name, value in GOOD.items())
    scene = systemctl(
        f'case "$*" in\n*RuntimeWatchdogUSec*) echo RuntimeWatchdogUSec=20s; echo RebootWatchdogUSec=5min;;\n'
        f'*" rauc-mark-good.service") cat <<END\n{lines}\n\n{lines}\nEND\n;;\nesac'
    )
    assert problems(in_place(scene)) == {"service.bus": Level.NOTE}


def test_a_systemctl_that_fails_or_hangs(systemctl: Callable[[str], Scene]) -> None:
    fails = systemctl("echo 'System has not been booted' >&2; exit 1")
    assert problems(in_place(fails))["service.systemd"] is Level.UNKNOWN
    hangs = systemctl("exec sleep 60").examine(limit=1)
    assert problems(hangs)["service.unfinished"] is Level.UNKNOWN
