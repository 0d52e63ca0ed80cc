"""The main job with a bootloader script (`bootloader=custom`) that keeps everything in files."""

from __future__ import annotations

import asyncio
import shutil
import uuid
from pathlib import Path

import pytest

from tests.service.clock import Clock
from tests.service.conftest import MakeDevice
from tests.service.rig import CUSTOM_CONF, WAIT, Device, Vendor, eventually, install
from updated.api.client import Client
from updated.boot.custom import DEFAULT_TIMEOUT

STARTS = 3  # without being marked good, then a group is given up
BACKEND = f"""\
#!/bin/sh
# `order`: bootnames; `left-<bootname>`: starts that are left, 0 is bad; `current`: who runs.
set -e
cd "$(dirname "$0")"
[ ! -e "before-$1" ] || . "./before-$1"  # a fault
case "$1" in
    get-primary)
        for name in $(cat order); do
            if [ "$(cat "left-$name")" -gt 0 ]; then echo "$name"; exit 0; fi
        done
        echo "no group can be started" >&2
        exit 1 ;;
    set-primary)
        others=$(tr ' ' '\\n' < order | grep -vx "$2" | tr '\\n' ' ')
        echo {STARTS} > "left-$2"
        echo "$2 $others" > order ;;
    get-state) if [ "$(cat "left-$2")" -gt 0 ]; then echo good; else echo bad; fi ;;
    set-state) if [ "$3" = good ]; then echo {STARTS}; else echo 0; fi > "left-$2" ;;
    get-current) cat current ;;
    *) echo "unknown: $1" >&2; exit 2 ;;
esac
[ ! -e "after-$1" ] || . "./after-$1"  # a fault, too late to undo what was done
"""


class Firmware:
    """What reads the script's files at power on."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.files = device.root / "boot"
        (self.files / "backend").write_text(BACKEND)
        (self.files / "backend").chmod(0o755)
        self.write(**{"order": "A B", "left-A": str(STARTS), "left-B": "0"})

    def write(self, **files: str) -> None:
        for name, text in files.items():
            (self.files / name).write_text(f"{text}\n")

    def read(self, name: str) -> list[str]:
        return (self.files / name).read_text().split()

    def boot(self) -> list[str]:
        """Off and on; returns the groups that were tried.  What runs tells the script, not the kernel."""
        if self.device.service is not None:
            self.device.stop_service()
        tried = []
        for name in self.read("order"):
            while left := int(self.read(f"left-{name}")[0]):
                self.write(**{f"left-{name}": str(left - 1)})
                tried.append(name)
                if self.device.comes_up(name):
                    self.write(current=name)
                    (self.device.root / "run/cmdline").write_text("quiet\n")
                    (self.device.root / "run/boot-id").write_text(f"{uuid.uuid4()}\n")
                    self.device.start()
                    return tried
        raise AssertionError("no group can be started")


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path)


@pytest.fixture
def firmware(devices: MakeDevice, clock: Clock) -> Firmware:
    """A device that has booted A, and knows it to be good."""
    firmware = Firmware(devices(start=False, system_conf=CUSTOM_CONF, env=clock.env))
    assert firmware.boot() == ["A"]
    firmware.device.wait_said("marked rootfs.0 as good")
    assert firmware.read("left-A") == [str(STARTS)]
    return firmware


def test_there_and_back_again(firmware: Firmware, vendor: Vendor) -> None:
    device = firmware.device
    for version, old, new in (("2.0.0", "A", "B"), ("3.0.0", "B", "A")):
        running = device.content(old)
        assert device.install(vendor.bundle(version)) == ""
        assert (device.content(new), device.content(old)) == (vendor.system(version), running)
        assert firmware.read("order") == [new, old]
        assert firmware.boot() == [new]
        device.wait_said(f"confirmed: Version {version} is confirmed.")
        assert firmware.read(f"left-{new}") == [str(STARTS)]
        assert device.slot(f"rootfs.{'AB'.index(new)}")["state"] == "booted"
    assert device.history() == ["installed", "confirmed"] * 2


def test_fallback_quarantines(firmware: Firmware, vendor: Vendor) -> None:
    """The script's files are all that the old system knows of the new one's end."""
    device = firmware.device
    bad = vendor.bundle("2.0.0", images={"rootfs.ext4": vendor.system("2.0.0", healthy=False)})
    assert device.install(bad) == ""
    assert firmware.boot() == ["B"] * STARTS + ["A"]
    device.wait_said("fallback: The bootloader fell back to rootfs.0.")
    assert firmware.read("left-B") == ["0"]
    shutil.copy(bad, device.root / "drop")
    device.wait_said("is not installed: Quarantined: the bootloader fell back")
    assert device.history() == ["installed", "fallback"]
    assert [entry["version"] for entry in device.saved("quarantine.json")] == ["2.0.0"]


def check_failed(firmware: Firmware, vendor: Vendor, error: str, expected: str) -> None:
    """Told, nothing of the target starts, and the next try with a sound script succeeds."""
    assert "Installation error: Failed marking slot rootfs.1 bootable" in error
    assert f"{firmware.files}/backend {expected}" in error
    assert firmware.device.wait_state("idle").last_result["code"] == "failed"
    assert firmware.read("left-B") == ["0"]
    for hook in firmware.files.glob("*-set-primary"):
        hook.unlink()
    assert firmware.boot() == ["A"]
    assert firmware.device.install(vendor.bundle()) == ""
    assert firmware.boot() == ["B"]
    firmware.device.wait_said("confirmed:")


@pytest.mark.parametrize("when", ["before", "after"])
def test_set_primary_fails(firmware: Firmware, vendor: Vendor, when: str) -> None:
    """A script that did its work and failed then has not succeeded: its work is taken back."""
    firmware.write(**{f"{when}-set-primary": "echo 'flash is worn out' >&2; exit 7"})
    error = firmware.device.install(vendor.bundle())
    check_failed(firmware, vendor, error, "failed with exit code 7: flash is worn out")


def test_set_primary_hangs(firmware: Firmware, vendor: Vendor, clock: Clock) -> None:
    """It is ended by a deadline."""
    firmware.write(**{"before-set-primary": "echo $$ > pid.new; mv pid.new pid; exec sleep 1000"})
    pid = firmware.files / "pid"

    async def run(client: Client) -> str:
        running = asyncio.create_task(install(client, vendor.bundle()))
        await eventually("the script", pid.exists)
        clock.jump(int(DEFAULT_TIMEOUT) + 1)
        await client.status()  # wakes it up
        async with asyncio.timeout(WAIT):
            return await running

    error = str(firmware.device.call(run))
    assert not Path("/proc", pid.read_text().strip()).exists()
    check_failed(firmware, vendor, error, f"did not finish within {DEFAULT_TIMEOUT:g} s")
