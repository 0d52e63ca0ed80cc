"""UEFI's own boot manager as the bootloader: a real firmware (OVMF), a real efivarfs, the real efibootmgr.

One machine for all tests.  Each brings a version of its own into the group that does not run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.system.ab_bundle import BROKEN_INIT, GOOD
from tests.system.ab_factory import Factory
from tests.system.ab_image import HERE, Files
from tests.system.ab_uefi import UefiMachine, started

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.long]

CONF = (HERE / "rootfs/etc/rauc/system.conf").read_text()
BY_ORDER: Files = {
    "/etc/rauc/system.conf": CONF.replace("@BOOTLOADER@", "bootloader=efi\nefi-use-bootnext=false")
}
VARIABLES = "/sys/firmware/efi/efivars"


@pytest.fixture(scope="module")
def machine(factory: Factory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[UefiMachine]:
    """The firmware knows nothing, as after it has lost its variables; it starts A as a removable medium."""
    variations = {"2": GOOD, "3": BROKEN_INIT, "4": BY_ORDER}
    bundles = [factory.bundle("uefi", version, files) for version, files in variations.items()]
    disk = factory.disk("uefi", "update-uefi", *bundles)
    with UefiMachine(disk, tmp_path_factory.mktemp("uefi")) as machine:
        machine.wait_for_idle("A")
        made_by_the_confirmation(machine)
        yield machine


def made_by_the_confirmation(machine: UefiMachine) -> None:
    """No entry has started A; one has been made meanwhile, and stands first.  B gets one with its update."""
    assert started(machine.boots[-1]) == machine.current() == "UEFI Misc Device"
    assert machine.order()[0] == "A"
    assert machine.number("B") == ""
    assert "the firmware had no boot entry for A: made it again" in machine.run("journalctl -b -u updated")
    status = machine.run("updated status")
    assert "Booted from: rootfs.0 (A)" in status
    assert "Activated: rootfs.0 (A)" in status
    assert problems(machine) == [("boot.group", "rootfs.1")]


def test_an_update_runs_and_stays(machine: UefiMachine) -> None:
    boots, target = len(machine.boots), other(machine)
    machine.run("mv /data/bundles/system-2.raucb /data/drop")
    machine.wait_for_idle(target)
    assert (machine.version, machine.current(), machine.next()) == ("2", target, "")
    assert machine.order()[:2] == [target, other(machine)]
    assert machine.history()[0] == "confirmed"
    assert problems(machine) == []

    machine.reboot()
    machine.wait_for_idle(target)
    assert [started(boot) for boot in machine.boots[boots:]] == [target, target]


def test_a_new_primary_is_tried_once(machine: UefiMachine) -> None:
    running, target = machine.slot, other(machine)
    machine.run("updated mark-active other")
    assert (machine.order()[0], machine.next()) == (running, target)
    machine.run("updated mark-active booted")
    assert (machine.order()[0], machine.next()) == (running, "")


def test_a_sandbox_without_the_drop_in(machine: UefiMachine) -> None:
    in_there = "nsenter --mount --target $(systemctl show -P MainPID updated)"
    machine.run(f"{in_there} mount -o remount,bind,ro {VARIABLES}")
    try:
        text = machine.run("updated mark-active other", check=False)
        assert "Read-only file system" in text
        assert ("service.sandbox", VARIABLES) in problems(machine)
        assert machine.next() == ""
    finally:
        machine.run(f"{in_there} mount -o remount,bind,rw {VARIABLES}")


def test_a_system_that_does_not_come_up_is_left(machine: UefiMachine) -> None:
    boots, running, target, version = len(machine.boots), machine.slot, other(machine), machine.version
    machine.run("mv /data/bundles/system-3.raucb /data/drop")
    machine.wait_for("updated history | grep 'fallback *3 '")
    machine.wait_for_idle(running)
    ways = [(started(boot), boot.ended) for boot in machine.boots[boots:]]
    assert ways == [(target, "reset"), (running, "")]
    assert (machine.version, machine.order()[0], machine.next()) == (version, running, "")
    assert target not in machine.order()
    latest = json.loads(machine.run("updated history --output-format=json"))[0]
    assert (latest["code"], latest["version"]) == ("fallback", "3")
    assert "never came as far as the update service" in latest["text"]
    kept = json.loads(machine.run("updated quarantine --output-format=json"))
    assert [one["version"] for one in kept] == ["3"]


def test_an_entry_that_is_gone_is_made_again(machine: UefiMachine) -> None:
    target = other(machine)
    if number := machine.number(target):
        machine.run(f"efibootmgr --quiet --delete-bootnum --bootnum {number}")
    assert machine.number(target) == ""
    machine.run("mv /data/bundles/system-4.raucb /data/drop")
    machine.wait_for_idle(target)
    assert (machine.version, machine.current(), started(machine.boots[-1])) == ("4", target, target)
    old = other(machine)
    assert machine.order()[:2] == [target, old]

    machine.run("updated mark-active other")  # version 4 does without BootNext
    assert (machine.order()[:2], machine.next()) == ([old, target], "")
    machine.run("updated mark-active booted")
    assert (machine.order()[:2], machine.next()) == ([target, old], "")


def other(machine: UefiMachine) -> str:
    return {"A": "B", "B": "A"}[machine.slot]


def problems(machine: UefiMachine) -> list[tuple[str, str]]:
    """What `updated doctor` warns of: check, and what it is about."""
    found: list[dict[str, Any]] = json.loads(machine.run("updated doctor --json", check=False))["findings"]
    return [(one["check"], one["about"]) for one in found if one["level"] in ("warning", "error")]
