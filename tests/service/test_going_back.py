"""The way back: by the service, by a person, by the bootloader; and where there is none."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.clock import Clock
from tests.service.conftest import MakeDevice
from tests.service.rig import Device, Vendor, until, updated
from updated.errors import UpdatedError

CONF = """
[folder]
path = "{root}/drop"

[confirm]
stable-for = 0
deadline = 1

[reboot]
command = ["touch", "{root}/rebooted"]
"""
SICK_IN_B = """
[[confirm.checks]]
type = "command"
name = "shop"
command = ["sh", "-c", "! grep slot=B {root}/run/cmdline"]
period = 0.1
"""
WELL = """
[[confirm.checks]]
type = "command"
name = "well"
command = ["cat", "{root}/well"]
period = 0.1
"""


def asked_to_reboot(device: Device) -> bool:
    return (device.root / "rebooted").exists()


def refusal(device: Device, *words: str | Path) -> str:
    """What a command is refused with."""
    done = updated(device.address, *words)
    assert done.returncode != 0, done.stdout
    return done.stderr


@contextlib.contextmanager
def sick_bootloader(device: Device) -> Iterator[None]:
    """A boot environment that cannot be read."""
    env, aside = device.root / "boot/grubenv", device.root / "boot/aside"
    env.rename(aside)
    env.mkdir()
    yield
    env.rmdir()
    aside.rename(env)


class Systemd:
    """What the service tells systemd."""

    def __init__(self, path: Path, *, watchdog: float) -> None:
        """`watchdog`: seconds, as in WatchdogSec=."""
        self.pings = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        self.env = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": str(int(watchdog * 1e6))}

    def wait_pings(self) -> None:
        """Some more."""
        before = self.pings
        until("pings", lambda: self.pings > before + 2)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _read(self) -> None:
        while message := self._socket.recv(4096):
            self.pings += message == b"WATCHDOG=1"


@pytest.fixture
def systemd() -> Iterator[Systemd]:
    """Its path must be short."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        here = Systemd(Path(folder) / "notify", watchdog=0.2)
        yield here
        here.close()


def test_no_pings_while_the_way_back_cannot_be_gone(
    devices: MakeDevice, vendor: Vendor, systemd: Systemd, tmp_path: Path
) -> None:
    """systemd is to end it then; nothing else is decided, and once it can be gone, it is."""
    clock = Clock(tmp_path)
    device = devices(agent_conf=CONF + SICK_IN_B, env={**systemd.env, **clock.env})
    assert device.install(vendor.bundle()) == ""
    assert device.reboot() == ["B"]
    device.wait_state("confirming")
    systemd.wait_pings()
    with sick_bootloader(device):
        device.wait_said("no watchdog ping: shop: not healthy for 0 s within 1 s")
        before = systemd.pings
        device.wait_said("no watchdog ping", times=5)
        assert systemd.pings == before
        assert (device.status().state, device.history()) == ("confirming", ["installed"])
        assert not asked_to_reboot(device)
    clock.jump(11)
    device.status()  # wakes it up
    until("the reboot", lambda: asked_to_reboot(device))
    assert device.read_env()["B_OK"] == "0"
    systemd.wait_pings()  # nothing to be ended for any more
    assert device.reboot() == ["A"]
    device.wait_said("fallback: The bootloader fell back to rootfs.0. Cause: shop: not healthy")


def test_degraded(devices: MakeDevice, vendor: Vendor, systemd: Systemd) -> None:
    """Not healthy, and no other group: it stays up, pings, says so, and lets updates in by themselves."""
    device = devices(agent_conf=CONF + SICK_IN_B, env=systemd.env)
    assert device.install(vendor.bundle()) == ""
    device.stop_service()
    assert device.power_on() == ["B"]
    device.write_env({**device.read_env(), "A_OK": "0"})
    device.start()
    device.wait_rest("failed")
    status = device.wait_state("idle")
    assert status.detail.startswith("Degraded: rootfs.1 runs, and is not healthy (shop: not healthy for")
    assert "there is no other group to go back to" in status.last_result["text"]
    assert device.read_env()["B_OK"] == "1"
    assert not asked_to_reboot(device)
    assert "Degraded: rootfs.1" in device.why()
    systemd.wait_pings()
    assert "no other group" in refusal(device, "rollback")
    shutil.copy(vendor.bundle("3.0.0"), device.root / "drop")
    device.wait_rest("installed")
    assert device.reboot() == ["A"]
    device.wait_said("confirmed: Version 3.0.0")


def test_an_ordinary_boot_that_is_not_healthy(
    devices: MakeDevice, vendor: Vendor, systemd: Systemd, tmp_path: Path
) -> None:
    """Always pinged, never left; updates wait, but a person may install; what gets well is good."""
    clock = Clock(tmp_path)
    device = devices(agent_conf=CONF + WELL, env={**systemd.env, **clock.env}, start=False)
    device.write_env({**device.read_env(), "B_OK": "1"})
    device.start()
    device.wait_said("The system in rootfs.0 is not healthy: well: not healthy for 0 s within 1 s")
    shutil.copy(vendor.bundle(), device.root / "drop")
    assert device.status().detail.startswith("Degraded: rootfs.0 runs, and is not healthy (well:")
    assert "automatic sources wait for that" in device.why()
    systemd.wait_pings()
    assert (device.history(), device.read_env()["A_TRY"]) == ([], "1")
    (device.root / "well").touch()
    clock.jump(61)
    device.status()
    device.wait_said("marked rootfs.0 as good")
    assert device.read_env()["A_TRY"] == "0"
    device.wait_rest("installed")
    assert not asked_to_reboot(device)


def test_a_person_installs_on_a_sick_system(devices: MakeDevice, vendor: Vendor) -> None:
    device = devices(agent_conf=CONF + WELL, start=False)
    device.write_env({**device.read_env(), "B_OK": "1"})
    device.start()
    device.wait_said("is not healthy")
    assert device.install(vendor.bundle()) == ""
    (device.root / "well").touch()
    assert device.reboot() == ["B"]
    device.wait_said("confirmed: Version 2.0.0")


# By a person


def test_from_a_confirmed_system(devices: MakeDevice, vendor: Vendor) -> None:
    """A group that was good for long: given up, started from the other one, and told there."""
    device = devices(agent_conf=CONF)
    assert "no other group" in refusal(device, "rollback")
    assert "Nothing waits for a reboot" in refusal(device, "reboot")
    assert device.install(vendor.bundle()) == ""
    assert device.reboot() == ["B"]
    device.wait_said("confirmed: Version 2.0.0")
    done = updated(device.address, "rollback")
    assert done.stdout == "The last update is taken back; rootfs.0 starts next.\n"
    status = device.status()
    assert status.state == "confirming"
    assert "Version 2.0.0 was given up; rootfs.0 starts next." in status.detail
    assert "given up" in refusal(device, "install", vendor.bundle("3.0.0"))
    assert not asked_to_reboot(device)  # when = "manual"
    assert updated(device.address, "rollback").returncode == 0  # twice is as once
    assert updated(device.address, "reboot").stdout == "The reboot was asked for.\n"
    until("the reboot", lambda: asked_to_reboot(device))
    assert device.reboot() == ["A"]
    device.wait_said("marked rootfs.0 as good")
    assert device.history() == ["installed", "confirmed", "fallback"]
    assert device.outcomes()[0]["text"] == (
        "The bootloader fell back to rootfs.0. Cause: rolled back by a person."
    )
    (kept,) = device.call(lambda client: client.quarantine())
    assert (kept["version"], kept["reason"]) == ("2.0.0", "rolled back by a person")


def test_from_a_confirmed_system_at_once(devices: MakeDevice, vendor: Vendor) -> None:
    """when = "immediately" holds for the way back, too; a service that is killed then asks again."""
    device = devices(agent_conf=CONF + 'when = "immediately"\n')
    assert device.install(vendor.bundle()) == ""
    until("the reboot", lambda: asked_to_reboot(device))
    (device.root / "rebooted").unlink()
    assert device.reboot() == ["B"]
    device.wait_said("confirmed: Version 2.0.0")
    assert updated(device.address, "rollback").returncode == 0
    until("the reboot", lambda: asked_to_reboot(device))
    (device.root / "rebooted").unlink()
    device.stop_service(kill=True)
    device.start()
    until("the reboot again", lambda: asked_to_reboot(device))
    assert device.reboot() == ["A"]


def test_before_the_reboot(devices: MakeDevice, vendor: Vendor) -> None:
    """What never ran is taken back: over at once, and there is nothing more to take back."""
    device = devices(agent_conf=CONF)
    assert device.install(vendor.bundle()) == ""
    assert updated(device.address, "rollback").stdout.endswith("rootfs.0 starts next.\n")
    device.wait_rest("rollback")
    assert (device.status().state, device.primary(), device.read_env()["B_OK"]) == ("idle", "A", "0")
    assert "no other group" in refusal(device, "rollback")
    assert "Nothing waits" in refusal(device, "reboot")
    assert device.reboot() == ["A"]
    device.wait_said("marked rootfs.0 as good")
    assert device.history() == ["installed", "rollback"]
    assert "Version 2.0.0 is quarantined: rolled back by a person" in device.why()


def test_while_it_is_judged(devices: MakeDevice, vendor: Vendor) -> None:
    """And a person who changes his mind: good again, and the update confirmed."""
    device = devices(agent_conf=(CONF + WELL).replace("deadline = 1", "deadline = 60"), start=False)
    (device.root / "well").touch()
    device.start()
    device.wait_said("marked rootfs.0 as good")
    assert device.install(vendor.bundle()) == ""
    (device.root / "well").unlink()
    assert device.reboot() == ["B"]
    device.wait_state("confirming")
    assert "not confirmed yet" in refusal(device, "install", vendor.bundle("3.0.0"))
    assert "Nothing waits" in refusal(device, "reboot")
    assert updated(device.address, "rollback").returncode == 0
    assert device.read_env()["B_OK"] == "0"
    (device.root / "well").touch()  # nobody asks any more
    device.stop_service(kill=True)
    device.start()
    until("what comes next", lambda: "rootfs.0 starts next" in device.status().detail)
    assert device.read_env()["B_OK"] == "0"
    assert updated(device.address, "status", "mark-good").returncode == 0
    device.wait_rest("confirmed")
    assert (device.status().state, device.read_env()["B_OK"]) == ("idle", "1")
    assert device.call(lambda client: client.quarantine()) == []
    assert device.status().health["state"] == "good"
    assert device.reboot() == ["B"]
    device.wait_said("marked rootfs.1 as good")


def test_a_sick_bootloader_refuses_the_way_back(devices: MakeDevice, vendor: Vendor) -> None:
    """Told to who asks; nothing of it has begun."""
    device = devices(agent_conf=CONF)
    assert device.install(vendor.bundle()) == ""
    assert device.reboot() == ["B"]
    device.wait_said("confirmed: Version 2.0.0")
    with sick_bootloader(device):
        assert "GRUB environment" in refusal(device, "rollback")
        assert device.status().state == "idle"
    assert device.call(lambda client: client.quarantine()) == []
    assert device.saved("journal.json")["state"] == "idle"
    assert device.reboot() == ["B"]
    device.wait_said("marked rootfs.1 as good")


def test_the_bootloader_cannot_write(devices: MakeDevice, vendor: Vendor) -> None:
    """It can be read, but not written: the running version is not quarantined for nothing."""
    device = devices(agent_conf=CONF)
    assert device.install(vendor.bundle()) == ""
    assert device.reboot() == ["B"]
    device.wait_said("confirmed: Version 2.0.0")
    boot = device.root / "boot"
    subprocess.run(["mount", "--bind", boot, boot], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", boot], check=True)
        assert refusal(device, "rollback")
        assert device.status().state == "idle"
        assert device.call(lambda client: client.quarantine()) == []
        assert device.saved("journal.json")["state"] == "idle"
    finally:
        subprocess.run(["umount", boot], check=True)


# Somebody else meddles


def test_marked_good_by_somebody_else(devices: MakeDevice, vendor: Vendor) -> None:
    """As scripts for RAUC do: that is a confirmation, whatever the checks say."""
    device = devices(agent_conf=(CONF + SICK_IN_B).replace("deadline = 1", "deadline = 60"))
    assert device.install(vendor.bundle()) == ""
    assert device.reboot() == ["B"]
    device.wait_state("confirming")
    assert device.call(lambda client: client.mark("good", "booted"))[0] == "rootfs.1"
    device.wait_rest("confirmed")
    assert device.status().health["text"] == "A person said so."
    # Behind the service's back it is none: the checks decide.
    assert device.install(vendor.bundle("3.0.0")) == ""
    assert device.reboot() == ["A"]
    device.wait_said("confirmed: Version 3.0.0")


def test_marked_good_behind_its_back(devices: MakeDevice, vendor: Vendor) -> None:
    """A tool has written the boot environment: the checks decide all the same."""
    device = devices(agent_conf=CONF + SICK_IN_B)
    assert device.install(vendor.bundle()) == ""
    device.stop_service()
    assert device.power_on() == ["B"]
    device.write_env({**device.read_env(), "B_TRY": "0"})
    device.start()
    until("the reboot", lambda: asked_to_reboot(device))
    assert device.reboot() == ["A"]
    device.wait_said("fallback:")


@pytest.mark.parametrize("in_between", ["before the trial", "while it is judged"])
def test_a_boot_order_that_changes(devices: MakeDevice, vendor: Vendor, in_between: str) -> None:
    device = devices(agent_conf=CONF)
    assert device.install(vendor.bundle()) == ""
    if in_between == "before the trial":
        device.write_env({**device.read_env(), "ORDER": "A B"})
        assert device.reboot() == ["A"]
        device.wait_rest("fallback")  # it did not start
        device.wait_said("marked rootfs.0 as good")
        assert (device.read_env()["ORDER"], device.primary()) == ("A B", "A")
        return
    device.stop_service()
    assert device.power_on() == ["B"]
    device.write_env({**device.read_env(), "ORDER": "A B"})
    device.start()
    device.wait_said("confirmed: Version 2.0.0")
    assert device.read_env()["ORDER"] == "A B"  # somebody wants it so


def test_all_attempts_are_spent(devices: MakeDevice, vendor: Vendor) -> None:
    """Both groups have no attempt left, and one of them runs all the same (a rescue shell started it)."""
    device = devices(agent_conf=CONF + SICK_IN_B)
    assert device.install(vendor.bundle()) == ""
    device.stop_service()
    assert device.power_on() == ["B"]
    device.write_env({**device.read_env(), "A_OK": "0", "A_TRY": "3", "B_OK": "0", "B_TRY": "3"})
    device.start()
    device.wait_rest("failed")
    until("degraded", lambda: device.status().detail.startswith("Degraded: rootfs.1"))
    assert not asked_to_reboot(device)


def test_a_boot_environment_that_is_torn(devices: MakeDevice, vendor: Vendor, tmp_path: Path) -> None:
    """Nothing is written over it; it is tried again, until somebody has mended it."""
    clock = Clock(tmp_path)
    device = devices(agent_conf=CONF, env=clock.env)
    assert device.install(vendor.bundle()) == ""
    device.stop_service()
    assert device.power_on() == ["B"]
    env = device.root / "boot/grubenv"
    whole = env.read_bytes()
    env.write_bytes(whole[:100])
    device.start()
    device.wait_said("The system in rootfs.1 is healthy")
    until("the refusal", lambda: "grubenv" in device.status().detail or "GRUB" in device.status().detail)
    assert device.status().state == "confirming"
    assert env.read_bytes() == whole[:100]
    env.write_bytes(whole)
    clock.jump(11)
    device.status()
    device.wait_said("confirmed: Version 2.0.0")
    assert device.read_env()["B_TRY"] == "0"


# RAUC's keys


def test_no_late_fallback(devices: MakeDevice, vendor: Vendor) -> None:
    """prevent-late-fallback=true: once the new system is good, there is no way back, and no other group."""
    from virtual_device import SYSTEM_CONF

    conf = SYSTEM_CONF.replace("bootloader=grub\n", "bootloader=grub\nprevent-late-fallback=true\n")
    device = devices(agent_conf=CONF, system_conf=conf)
    assert device.install(vendor.bundle()) == ""
    assert device.read_env()["A_OK"] == "1"
    assert device.reboot() == ["B"]
    assert device.read_env()["B_OK"] == "1"
    device.wait_said("marked rootfs.0 as bad")
    device.wait_rest("confirmed")
    assert device.read_env()["A_OK"] == "0"
    assert "no other group" in refusal(device, "rollback")
    assert device.install(vendor.bundle("3.0.0")) == ""
    assert device.reboot() == ["A"]
    device.wait_said("confirmed: Version 3.0.0")
    assert (device.read_env()["A_OK"], device.read_env()["B_OK"]) == ("1", "0")


def test_not_activated(devices: MakeDevice, vendor: Vendor) -> None:
    """activate-installed=false: written, and left to whoever activates it; then it is no trial of ours."""
    from virtual_device import SYSTEM_CONF

    conf = SYSTEM_CONF.replace("bootloader=grub\n", "bootloader=grub\nactivate-installed=false\n")
    device = devices(agent_conf=CONF + 'when = "immediately"\n', system_conf=conf)
    assert device.install(vendor.bundle()) == ""
    assert (device.status().state, device.primary()) == ("idle", "A")
    assert not asked_to_reboot(device)
    with pytest.raises(UpdatedError, match="Nothing waits"):
        device.call(lambda client: client.reboot())
    device.call(lambda client: client.mark("active", "other"))
    assert device.reboot() == ["B"]
    device.wait_said("marked rootfs.1 as good")
    assert device.history() == ["installed"]
