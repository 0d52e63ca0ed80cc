"""Bad systems on machines that really boot: each ends in the old group, and is not tried again.

Each machine gets one bad bundle after the other, and they stay in its folder; in the end a good one with the
same checks is confirmed.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.system.ab_both import LOADERS, Story, with_both
from tests.system.ab_bundle import BROKEN_INIT, GOOD, HANGING_INIT, NEVER_READY, UNHEALTHY, make_bundle
from tests.system.ab_factory import Factory
from tests.system.ab_image import Disk, Files, Loader, System, change, make_disk
from tests.system.ab_machine import Ending, Machine
from tests.system.conftest import Signer

pytestmark = [pytest.mark.root, pytest.mark.slow]

AGENT = """\
data-directory = "/data/updated"

[folder]
path = "/data/drop"
after = "keep"

[confirm]
stable-for = 1
deadline = {deadline}

[[confirm.checks]]
type = "unit"
unit = "app.service"

[[confirm.checks]]
type = "http"
name = "the application's health"
url = "http://127.0.0.1:8080/health"
body = "^OK"
period = 1

[reboot]
when = "immediately"
"""


class Case(NamedTuple):
    version: str
    variation: Files
    reason: str  # regular expression, in the history
    trials: int  # boots of the new system
    ended: Ending  # each of them
    watched: bool  # the service has run: there is a judgement, and a journal


NEVER_CAME = "never came as far as the update service"
CASES: dict[Loader, tuple[Case, ...]] = {
    "grub": (
        Case("2", HANGING_INIT, NEVER_CAME, 1, "watchdog", watched=False),
        Case(
            "3",
            NEVER_READY,
            r"unit app\.service: .*app\.service is (activating|failed)",
            1,
            "reset",
            watched=True,
        ),
    ),
    "uboot": (
        Case("2", BROKEN_INIT, NEVER_CAME, 3, "reset", watched=False),
        Case("3", UNHEALTHY, r"the application's health: .*status 500", 1, "reset", watched=True),
    ),
}


def test_bad_systems(factory: Factory, signer: Signer, tmp_path: Path) -> None:
    disks = {loader: make(factory, loader, signer, tmp_path / loader) for loader in LOADERS}

    def run(loader: Loader) -> None:
        with Machine(disks[loader], tmp_path / loader) as machine, Story(loader, machine) as tell:
            machine.wait_for_idle("A")
            for case in CASES[loader]:
                goes_back(machine, case)
                tell(f"version {case.version}: {latest(machine)['text']}")
            if loader == "uboot":  # which has the shorter way here
                comes_through(machine)
                tell("the good one is confirmed")

    with_both(run)


def goes_back(machine: Machine, case: Case) -> None:
    """Install it, and see how the machine comes back without anybody's help."""
    before = len(machine.boots)
    machine.run(f"mv /data/bundles/system-{case.version}.raucb /data/drop")
    machine.wait_for(f"updated history | grep 'fallback *{case.version} ' && grep slot=A /proc/cmdline")
    machine.wait_for_idle("A")
    trials = [("B", case.ended)] * case.trials
    assert [(boot.slot, boot.ended) for boot in machine.boots[before:]] == [*trials, ("A", "")]
    assert machine.version == "1"
    assert status(machine)["boot_primary"] == "rootfs.0"

    assert latest(machine)["version"] == case.version
    assert re.search(case.reason, latest(machine)["text"])
    known = quarantined(machine, case.version)
    if case.watched:
        assert re.search(case.reason, known["reason"])
        assert len(known["failed-boots"]) == case.trials
        assert any("updated" in line for line in known["journal"])
    stays_away(machine, case.version)


def comes_through(machine: Machine) -> None:
    """A good system with the same checks."""
    machine.run("mv /data/bundles/system-9.raucb /data/drop")
    machine.wait_for_idle("B")
    assert machine.version == "9"
    assert machine.is_good("B")
    assert machine.history()[0] == "confirmed"


def stays_away(machine: Machine, version: str) -> None:
    """It lies in the folder still, and nothing comes of it."""
    machine.run("touch /data/drop/* && systemctl reload updated")
    machine.wait_for_idle("A")
    assert f"system-{version}.raucb" in machine.run("ls /data/drop")
    assert "quarantine" in machine.run("updated why")
    installed = [one for one in history(machine) if (one["code"], one["version"]) == ("installed", version)]
    assert len(installed) == 1


def status(machine: Machine) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(machine.run("updated status --output-format=json"))
    return found


def latest(machine: Machine) -> dict[str, Any]:
    return history(machine)[0]


def history(machine: Machine) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(machine.run("updated history --limit=100 --output-format=json"))
    return found


def quarantined(machine: Machine, version: str) -> dict[str, Any]:
    found = json.loads(machine.run("updated quarantine --output-format=json"))
    return next(one for one in found if one["version"] == version)


def make(factory: Factory, loader: Loader, signer: Signer, folder: Path) -> Disk:
    """A disk with all bundles; the checks of a bad system are over soon."""
    folder.mkdir()
    standard = factory.system(loader)
    patient: Files = {"/etc/updated/updated.toml": AGENT.format(deadline=200)}
    strict: Files = {"/etc/updated/updated.toml": AGENT.format(deadline=20)}
    system = System(loader, change(standard.rootfs, folder / "system.ext4", patient))
    bad = [
        make_bundle(system, folder, signer, case.version, {**case.variation, **strict})
        for case in CASES[loader]
    ]
    return make_disk(system, folder, [*bad, make_bundle(system, folder, signer, "9", GOOD)])
