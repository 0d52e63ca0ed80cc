"""SIGKILL before any call that changes a medium: the device starts, and the next install works.

The calls of one install are counted first.  A signal in the middle of a call is no other case for us: the
kernel has done it or not.  What a disk does with what was not flushed yet is the flushes' order, which is
tested where the files are written.
"""

from __future__ import annotations

import random
import shutil
import signal

import pytest

from tests.service.conftest import MakeDevice
from tests.service.rig import Device, Saboteur, Vendor, until

DURABLE, READ = Saboteur.DURABLE, Saboteur.READ
NO_FOLDER = "[confirm]\nstable-for = {stable_for}\n"
SEED = 20_260_101
POINTS = 20


def check_left_behind(device: Device, vendor: Vendor) -> None:
    """After the restart: the old system is as it was, and the other group starts only if it is complete."""
    env = device.read_env()
    assert env["A_OK"] == "1"
    assert not [path.name for path in (device.root / "data").iterdir() if path.suffix in (".broken", ".tmp")]
    status = device.status()
    if device.primary() == "A":
        assert (status.state, env["B_OK"]) == ("idle", "0")
        return
    version = status.transaction["version"]
    assert status.state == "reboot-pending"
    assert device.content("B") == vendor.system(version)
    slot = device.slot("rootfs.1")
    assert (slot["status"], slot["bundle.version"]) == ("ok", version)


def cut_and_go_on(
    device: Device, saboteur: Saboteur, vendor: Vendor, *, kinds: int, at: int, version: str
) -> None:
    """Install, die at the call number `at`, start again, install."""
    running = device.content("A")
    saboteur.send(signal.SIGKILL, kinds, at)
    error = device.install(vendor.bundle(version))
    assert device.service is not None
    if error:
        assert device.service.wait(10) == -signal.SIGKILL
    else:  # the last calls of all come after the end of the install is told
        until("the end", lambda: device.dead or saboteur.seen < at)
    saboteur.release()
    if not device.dead:
        device.stop_service(kill=True)
    device.start()
    until("a look at the booted group", lambda: device.read_env()["A_TRY"] == "0")
    check_left_behind(device, vendor)
    assert device.install(vendor.bundle(version)) == ""
    assert device.content("B") == vendor.system(version)
    assert device.content("A") == running
    device.wait_rest("installed")
    assert device.outcomes()[0]["version"] == version


def calls(device: Device, saboteur: Saboteur, vendor: Vendor, kinds: int) -> int:
    """How many there are in one install, of which the device has seen one already."""
    assert device.install(vendor.bundle("2.0.0")) == ""
    device.wait_rest("installed")
    saboteur.count(kinds)
    assert device.install(vendor.bundle("3.0.0")) == ""
    device.wait_state("reboot-pending")
    until("the history", lambda: len(device.history()) == 2)
    device.stop_service()
    return saboteur.seen


def cut_at(devices: MakeDevice, vendor: Vendor, saboteur: Saboteur, kinds: int, points: list[int]) -> None:
    device = devices(env=saboteur.env, agent_conf=NO_FOLDER)
    for index, at in enumerate(points):
        print(f"call {at} of {points}")
        version = ("2.0.0", "3.0.0")[index % 2]
        cut_and_go_on(device, saboteur, vendor, kinds=kinds, at=at, version=version)
    device.stop_service(kill=True)
    assert device.power_on() == ["B"]
    device.start()
    device.wait_said("confirmed:")
    device.stop_service()


def test_power_cuts(devices: MakeDevice, vendor: Vendor, saboteur: Saboteur) -> None:
    """Some of all calls that change something, other ones each time the list of calls changes."""
    count = calls(devices(env=saboteur.env, agent_conf=NO_FOLDER), saboteur, vendor, DURABLE)
    assert count > POINTS
    dice = random.Random(SEED)
    points = sorted(dice.sample(range(1, count + 1), POINTS))
    cut_at(devices, vendor, saboteur, DURABLE, points)


@pytest.mark.slow
def test_every_power_cut(devices: MakeDevice, vendor: Vendor, saboteur: Saboteur) -> None:
    """All of them, and between the reads, too."""
    count = calls(devices(env=saboteur.env, agent_conf=NO_FOLDER), saboteur, vendor, DURABLE)
    cut_at(devices, vendor, saboteur, DURABLE, list(range(1, count + 1)))
    cut_at(devices, vendor, saboteur, DURABLE | READ, list(range(1, count + 60, 5)))


def test_two_power_cuts(devices: MakeDevice, vendor: Vendor, saboteur: Saboteur) -> None:
    """The second one while the service cleans up after the first."""
    device = devices(env=saboteur.env, agent_conf=NO_FOLDER)
    for first, second in ((9, 1), (9, 2), (12, 3), (12, 4)):
        saboteur.send(signal.SIGKILL, DURABLE, first)
        device.install(vendor.bundle())
        until("the first cut", lambda: device.dead)
        saboteur.send(signal.SIGKILL, DURABLE, second)
        device.start_service(env=device.env)
        until("the second cut", lambda: device.dead or device.said().count("on the bus") > 1)
        saboteur.release()
        if not device.dead:
            device.stop_service(kill=True)
        device.start()
        check_left_behind(device, vendor)
    assert device.install(vendor.bundle("3.0.0")) == ""
    assert device.reboot() == ["B"]
    device.wait_said("confirmed: Version 3.0.0")


@pytest.mark.parametrize("at", [1, 3, 5, *(pytest.param(at, marks=pytest.mark.slow) for at in (2, 4, 6))])
def test_power_cut_at_the_confirmation(
    devices: MakeDevice, vendor: Vendor, saboteur: Saboteur, at: int
) -> None:
    """The new system was judged healthy, and nothing of it was written down yet."""
    device = devices(env=saboteur.env, agent_conf=NO_FOLDER)
    assert device.install(vendor.bundle()) == ""
    device.wait_rest("installed")
    device.stop_service()
    assert device.power_on() == ["B"]
    saboteur.send(signal.SIGKILL, DURABLE, at)
    device.start_service(env=device.env)
    until("the cut", lambda: device.dead)
    saboteur.release()
    assert device.power_on() == ["B"]
    device.start()
    device.wait_state("idle")
    assert (device.read_env()["B_TRY"], device.history()) == ("0", ["installed", "confirmed"])


def test_a_bundle_that_kills_is_given_up(devices: MakeDevice, vendor: Vendor, saboteur: Saboteur) -> None:
    """Three power cuts during the same bundle of a folder: the fourth time the device has learned."""
    device = devices(env=saboteur.env)
    saboteur.send(signal.SIGKILL, Saboteur.WRITE, 2, "rootfs.1.img")
    shutil.copy(vendor.bundle(), device.root / "drop/system.raucb")
    for _ in range(3):
        until("the cut", lambda: device.dead)
        saboteur.send(signal.SIGKILL, Saboteur.WRITE, 2, "rootfs.1.img")
        device.start_service(env=device.env)
        until("the service", lambda: device.dead or "on the bus" in device.said())
    device.wait_said("is not installed: Quarantined: interrupted, attempt 3")
    assert not device.dead
    saboteur.release()
    shutil.copy(vendor.bundle("2.1.0"), device.root / "drop/better.raucb")
    device.wait_said("installed: Installed to")


def test_the_hook_of_an_install_is_not_lost(devices: MakeDevice, vendor: Vendor, saboteur: Saboteur) -> None:
    """The service dies when the new group is primary, and nothing says yet that it waits for its reboot."""
    hook = '[hooks]\non-installed = ["sh", "-c", "echo $UPDATED_VERSION >>{root}/kept"]\n'
    device = devices(env=saboteur.env, agent_conf=NO_FOLDER + hook)
    saboteur.send(signal.SIGKILL, Saboteur.RENAME, 2, "journal.json")
    device.install(vendor.bundle("2.0.0"))
    until("its end", lambda: device.dead)
    saboteur.release()
    (device.root / "kept").unlink(missing_ok=True)
    device.start()
    until("the hook", (device.root / "kept").exists)
    device.wait_rest("hook")
    assert (device.root / "kept").read_text() == "2.0.0\n"
    assert device.status().state == "reboot-pending"
