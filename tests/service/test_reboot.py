"""The reboot into an update: how it is asked for, what it waits for, and what is done if it does not come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.fakes.neighbours import Neighbours, neighbours
from tests.service.clock import Clock
from tests.service.conftest import MakeDevice
from tests.service.rig import Device, Vendor, install, until, updated
from updated.api.client import Client

CONF = """
[confirm]
stable-for = {stable_for}

[reboot]
when = "immediately"
escalate-after = 10
"""
COMMAND = 'command = ["touch", "{root}/rebooted"]\n'


def asked_systemd(device: Device) -> list[str]:
    """The command lines of systemctl that reboot."""
    path = device.root / "run/asked-systemd"
    lines = path.read_text().splitlines() if path.exists() else []
    return [line for line in lines if "reboot" in line and "show" not in line]


def asked_to_reboot(device: Device) -> bool:
    return (device.root / "rebooted").exists()


def with_logind(device: Device, work: Callable[[Neighbours], None]) -> None:
    """`work` in a thread, beside a logind on the device's bus."""

    async def run() -> None:
        async with neighbours(device.address) as here:
            await asyncio.to_thread(work, here)

    asyncio.run(run())


def test_announced_and_delayed(devices: MakeDevice, vendor: Vendor, bus: str) -> None:
    """By logind, after a time that people at terminals can use; who takes the update back needs none."""
    conf = CONF + 'delay = 600\nmessage = "Back in a minute."\n'
    device = devices(agent_conf=conf, env={"DBUS_SYSTEM_BUS_ADDRESS": bus})

    def work(here: Neighbours) -> None:
        assert device.install(vendor.bundle()) == ""
        until("the reboot", lambda: here.power.scheduled)
        assert here.power.wall == ("Back in a minute.", True)
        assert here.power.scheduled is not None
        kind, when = here.power.scheduled
        assert kind == "reboot"
        assert 0 < when / 1e6 - time.time() <= 600
        status = device.status()
        assert status.state == "reboot-pending"
        assert status.detail.endswith("it starts with the next reboot. The reboot was asked for.")
        assert updated(device.address, "rollback").returncode == 0
        until("the end of it", lambda: here.power.scheduled is None)
        assert device.wait_state("idle").detail == "Running from rootfs.0; waiting for an update."
        assert not here.power.rebooting

    with_logind(device, work)
    assert asked_systemd(device) == []


def test_harder_and_harder(devices: MakeDevice, vendor: Vendor, tmp_path: Path) -> None:
    """Nothing comes of it: the next step, and so on to the last one; a service that dies begins anew."""
    clock = Clock(tmp_path)
    device = devices(agent_conf=CONF, env=clock.env)
    assert device.install(vendor.bundle()) == ""
    steps = [
        "systemctl reboot --message=The system restarts into its update.",
        "systemctl --force reboot",
        "systemctl --force --force reboot",
    ]
    for number in range(1, 4):
        until(f"step {number}", lambda: len(asked_systemd(device)) == number)  # noqa: B023
        assert asked_systemd(device) == steps[:number]
        status = device.status()
        assert status.state == "reboot-pending"
        assert ("The reboot was asked for." if number == 1 else "did not come within 10 s") in status.detail
        clock.jump(11 * number)
        device.status()  # wakes it up
    device.stop_service(kill=True)
    device.start()
    until("the first step again", lambda: len(asked_systemd(device)) == 4)
    assert asked_systemd(device)[3] == steps[0]
    assert device.reboot() == ["B"]
    device.wait_said("confirmed: Version 2.0.0")


def test_a_step_that_is_refused(devices: MakeDevice, vendor: Vendor, tmp_path: Path) -> None:
    """Told, and not the end."""
    clock = Clock(tmp_path)
    device = devices(agent_conf=CONF, env=clock.env)
    stand_in = device.root / "bin/systemctl"
    stand_in.write_text(
        stand_in.read_text() + 'case "$1" in reboot) echo "Access denied" >&2; exit 1;; esac\n'
    )
    assert device.install(vendor.bundle()) == ""
    device.wait_said("The reboot was refused")
    until("the refusal", lambda: "The reboot was refused" in device.status().detail)
    assert "Access denied" in device.said()
    assert device.status().state == "reboot-pending"
    clock.jump(11)
    device.status()
    until("the next step", lambda: "systemctl --force reboot" in asked_systemd(device))


def test_held_by_an_application(devices: MakeDevice, vendor: Vendor) -> None:
    """For as long as it has said, and no longer: it may have crashed."""
    device = devices(agent_conf=CONF + COMMAND)

    async def sell(client: Client) -> None:
        async with client.holding("till", "a sale", 2):
            assert await install(client, vendor.bundle()) == ""
            status = await client.status()
            assert "till" in str(status.hold["text"])
            assert status.state == "reboot-pending"
            assert "waits: " in status.detail
            assert any("till" in reason for reason in await client.why())
            assert not asked_to_reboot(device)
            await asyncio.to_thread(until, "the reboot", lambda: asked_to_reboot(device))

    device.call(sell)
    assert device.reboot() == ["B"]


def test_released_by_an_application(devices: MakeDevice, vendor: Vendor) -> None:
    device = devices(agent_conf=CONF + COMMAND)

    async def sell(client: Client) -> None:
        async with client.holding("till", "a sale", 3600):
            assert await install(client, vendor.bundle()) == ""
            await asyncio.sleep(0.1)
            assert not asked_to_reboot(device)

    device.call(sell)
    until("the reboot", lambda: asked_to_reboot(device))


def test_windows(devices: MakeDevice, vendor: Vendor) -> None:
    """It says when; a person need not wait."""
    later = datetime.now(UTC) + timedelta(hours=12)
    window = f'[policy]\ntime-zone = "UTC"\nreboot-windows = [{{{{start = "{later:%H:%M}", length = 60}}}}]\n'
    device = devices(agent_conf=CONF + COMMAND + window)
    assert device.install(vendor.bundle()) == ""
    until("what it waits for", lambda: device.status().hold.get("rule") == "window")
    status = device.status()
    assert status.state == "reboot-pending"
    assert f"waits for the reboot window; it opens on {later:%a} {later:%H:%M}" in status.detail
    assert "reboot window" in device.why()
    assert not asked_to_reboot(device)
    done = updated(device.address, "reboot")
    assert done.stdout == "The reboot was asked for.\n"
    until("the reboot", lambda: asked_to_reboot(device))
    assert device.saved("journal.json")["asked"] is True
    assert device.status().detail.endswith("The reboot was asked for.")


def test_consent(devices: MakeDevice, vendor: Vendor) -> None:
    device = devices(agent_conf=CONF + COMMAND + "[consent]\nreboot = true\n")
    assert device.install(vendor.bundle()) == ""
    until("the question", lambda: device.status().hold.get("rule") == "consent")
    assert not asked_to_reboot(device)
    assert updated(device.address, "consent", "reboot").returncode == 0
    until("the reboot", lambda: asked_to_reboot(device))


def test_by_hand(devices: MakeDevice, vendor: Vendor) -> None:
    """when = "manual": it says that nobody does it, and does it for a person, as often as he likes."""
    conf = CONF.replace("immediately", "manual") + 'command = ["sh", "-c", "echo >> {root}/rebooted"]\n'
    device = devices(agent_conf=conf)
    assert device.install(vendor.bundle()) == ""
    assert "does not reboot by itself" in device.why()
    assert device.status().detail.endswith("it starts with the next reboot.")
    assert not asked_to_reboot(device)
    for _ in range(2):
        assert updated(device.address, "reboot").returncode == 0
    until("the reboot", lambda: asked_to_reboot(device))
    assert (device.root / "rebooted").read_text() == "\n"  # the first one is still to come
    assert device.reboot() == ["B"]
    device.wait_said("confirmed: Version 2.0.0")
    done = updated(device.address, "reboot")
    assert "Nothing waits for a reboot" in done.stderr
