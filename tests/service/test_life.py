"""Reboots by the service itself, a new system that is not healthy, and a second service."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from virtual_device import AGENT_CONF

from tests.service.conftest import MakeDevice
from tests.service.rig import Device, Saboteur, Vendor, eventually, install, until
from updated.api.client import Client

REBOOTS = '\n[reboot]\nwhen = "immediately"\ncommand = ["{program}", "{{root}}/rebooted"]\n'


def reboots(device: Device) -> bool:
    return (device.root / "rebooted").exists()


def test_reboots_when_it_is_installed(devices: MakeDevice, vendor: Vendor) -> None:
    device = devices(agent_conf=AGENT_CONF + REBOOTS.format(program="touch"))
    shutil.copy(vendor.bundle(), device.root / "drop")
    until("the reboot", lambda: reboots(device))
    assert device.primary() == "B"
    assert device.saved("journal.json")["state"] == "reboot-pending"
    assert device.reboot() == ["B"]
    device.wait_said("confirmed:")
    # Also when the service died between the switch and the reboot.
    (device.root / "rebooted").unlink()
    assert device.install(vendor.bundle("3.0.0")) == ""
    until("the reboot", lambda: reboots(device))
    (device.root / "rebooted").unlink()
    device.stop_service(kill=True)
    device.start()
    until("the reboot", lambda: reboots(device))


def test_a_reboot_that_fails(devices: MakeDevice, vendor: Vendor) -> None:
    """Said; the device waits for somebody else to reboot it."""
    device = devices(agent_conf=AGENT_CONF + REBOOTS.format(program="false"))
    assert device.install(vendor.bundle()) == ""
    device.wait_said("false failed with exit code 1")
    assert device.status().state == "reboot-pending"
    assert device.reboot() == ["B"]
    device.wait_said("confirmed:")


def stutter(device: Device) -> None:
    """A service that does not get the processor for longer than a healthy one may."""
    assert device.service is not None
    until("the judging", lambda: device.status().state == "confirming")
    device.service.send_signal(signal.SIGSTOP)
    time.sleep(3.6)  # three seconds too late is not healthy, and its timer may be due in 0.4 s
    device.service.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("way_back", [True, False])
def test_not_healthy(devices: MakeDevice, vendor: Vendor, way_back: bool) -> None:
    """Back to the old system; where there is none any more, better a sick one that can be reached."""
    conf = AGENT_CONF.replace("{stable_for}", "1.5\ndeadline = 2") + REBOOTS.format(program="touch")
    device = devices(agent_conf=conf, start=False)
    device.start()
    device.wait_said("marked rootfs.0 as good")
    assert device.install(vendor.bundle()) == ""
    until("the reboot", lambda: reboots(device))
    (device.root / "rebooted").unlink()
    device.stop_service()
    assert device.power_on() == ["B"]
    if not way_back:
        device.write_env({**device.read_env(), "A_OK": "0"})
    device.start()
    stutter(device)
    if not way_back:
        device.wait_said("there is no other group to go back to")
        device.wait_state("idle")
        assert not reboots(device)
        assert device.read_env()["B_OK"] == "1"
        return
    until("the reboot", lambda: reboots(device))
    assert device.read_env()["B_OK"] == "0"
    assert device.reboot() == ["A"]
    device.wait_said("marked rootfs.0 as good")
    assert [entry["version"] for entry in device.saved("quarantine.json")] == ["2.0.0"]
    assert device.status().state == "idle"


def second(device: Device, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "updated", "service", *device.options(), *options]
    env = {**os.environ, **device.env}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=20)


@pytest.mark.parametrize("own_runtime", [False, True])
def test_a_second_service(devices: MakeDevice, vendor: Vendor, saboteur: Saboteur, own_runtime: bool) -> None:
    """It ends with an error and has changed nothing, least of all in the middle of an install."""
    device = devices(env=saboteur.env)
    options = [f"--runtime-directory={device.root}/run2"] if own_runtime else []

    async def run(client: Client) -> str:
        saboteur.hold(Saboteur.WRITE, 2, "rootfs.1.img")
        running = asyncio.create_task(install(client, vendor.bundle()))
        try:
            await eventually("a write", lambda: saboteur.acted)
            before = sorted(
                (path.name, path.read_bytes()) for path in (device.root / "data").rglob("*") if path.is_file()
            )
            ended = await asyncio.to_thread(second, device, *options)
            assert (ended.returncode, "Another update service runs" in ended.stderr) == (
                1,
                True,
            )
            after = sorted(
                (path.name, path.read_bytes()) for path in (device.root / "data").rglob("*") if path.is_file()
            )
            assert after == before
        finally:
            saboteur.release()
        return await running

    assert device.call(run) == ""
    assert device.primary() == "B"
