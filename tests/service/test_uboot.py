"""The main job with U-Boot: RAUC's boot script on an environment that the real fw_setenv writes."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from pathlib import Path

import pytest
from virtual_device import AGENT_CONF, SYSTEM_CONF

from tests.service.clock import Clock
from tests.service.conftest import MakeDevice
from tests.service.rig import Device, Vendor, until

UBOOT_CONF = SYSTEM_CONF.replace("bootloader=grub\ngrubenv={root}/boot/grubenv", "bootloader=uboot")
FOREIGN = {"bootcmd": "run a; echo 'x=y'", "ethaddr": "00:11:22:33:44:55"}
ATTEMPTS = "3"
REBOOTS = '\n[reboot]\nwhen = "immediately"\ncommand = ["touch", "{root}/rebooted"]\n'


class Uboot:
    """The environment, and the boot script of RAUC's documentation."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        config, self.bin = folder / "fw_env.config", folder / "bin"
        config.write_text(f"{folder}/env 0x0 0x2000\n")
        (folder / "env").write_bytes(b"\xff" * 0x2000)
        self.bin.mkdir()
        for name in ("fw_printenv", "fw_setenv"):
            tool = shutil.which(name)
            (self.bin / name).write_text(f'#!/bin/sh\nexec {tool} -c {config} "$@"\n')
            (self.bin / name).chmod(0o755)
        (folder / "defaults").write_text("")
        self._defaults = folder / "defaults"
        self.set(BOOT_ORDER="A B", BOOT_A_LEFT=ATTEMPTS, BOOT_B_LEFT="0", **FOREIGN)

    def set(self, **variables: str) -> None:
        for name, value in variables.items():
            argv: list[str | Path] = [self.bin / "fw_setenv", "-f", self._defaults, name, value]
            subprocess.run(argv, check=True, capture_output=True)

    def env(self) -> dict[str, str]:
        text = subprocess.run([self.bin / "fw_printenv"], check=True, capture_output=True, text=True).stdout
        return dict(line.split("=", 1) for line in text.splitlines())

    def boot(self, device: Device, *, healthy: str) -> str:
        """Start the first group with attempts left that comes up; each try takes one."""
        if device.service is not None:
            device.stop_service()
        for name in self.env()["BOOT_ORDER"].split():
            while (left := int(self.env()[f"BOOT_{name}_LEFT"])) > 0:
                self.set(**{f"BOOT_{name}_LEFT": str(left - 1)})
                if name in healthy:
                    (device.root / "run/cmdline").write_text(f"rauc.slot={name}\n")
                    (device.root / "run/boot-id").write_text(f"{uuid.uuid4()}\n")
                    device.start()
                    return name
        raise AssertionError("no group can be started")


@pytest.fixture
def uboot(tmp_path: Path) -> Uboot:
    return Uboot(tmp_path / "uboot")


@pytest.fixture
def device(devices: MakeDevice, uboot: Uboot) -> Device:
    return devices(start=False, system_conf=UBOOT_CONF, env={"PATH": f"{uboot.bin}:{os.environ['PATH']}"})


def test_ordinary_boots_use_no_attempts_up(device: Device, uboot: Uboot) -> None:
    """U-Boot counts every start; what is left is given back once the system is healthy."""
    for _ in range(int(ATTEMPTS) + 1):
        assert uboot.boot(device, healthy="AB") == "A"
        device.wait_said("marked rootfs.0 as good")
        assert uboot.env()["BOOT_A_LEFT"] == ATTEMPTS


def test_confirmed(device: Device, vendor: Vendor, uboot: Uboot) -> None:
    uboot.boot(device, healthy="AB")
    device.wait_said("marked rootfs.0 as good")
    assert device.install(vendor.bundle()) == ""
    assert uboot.env()["BOOT_ORDER"] == "B A"
    assert uboot.boot(device, healthy="AB") == "B"
    device.wait_said("confirmed:")
    found = uboot.env()
    assert found == {"BOOT_ORDER": "B A", "BOOT_A_LEFT": ATTEMPTS, "BOOT_B_LEFT": ATTEMPTS, **FOREIGN}


def test_fallback(device: Device, vendor: Vendor, uboot: Uboot) -> None:
    uboot.boot(device, healthy="A")
    device.wait_said("marked rootfs.0 as good")
    assert device.install(vendor.bundle()) == ""
    assert uboot.boot(device, healthy="A") == "A"
    device.wait_said("marked rootfs.0 as good")
    assert device.history()[-1] == "fallback"
    assert uboot.env()["BOOT_B_LEFT"] == "0"


def test_not_healthy(devices: MakeDevice, vendor: Vendor, uboot: Uboot, tmp_path: Path) -> None:
    """It comes up, but is not well in time: it goes back by itself, and U-Boot does not try it again."""
    clock = Clock(tmp_path)
    env = {"PATH": f"{uboot.bin}:{os.environ['PATH']}", **clock.env}
    device = devices(start=False, system_conf=UBOOT_CONF, agent_conf=AGENT_CONF + REBOOTS, env=env)
    rebooted, conf = device.root / "rebooted", device.root / "etc/updated.toml"
    uboot.boot(device, healthy="AB")
    device.wait_said("marked rootfs.0 as good")
    assert device.install(vendor.bundle()) == ""
    until("the reboot", rebooted.exists)
    rebooted.unlink()
    device.stop_service()
    conf.write_text(conf.read_text().replace("= 0.05", "= 40\ndeadline = 50"))
    assert uboot.boot(device, healthy="AB") == "B"
    device.wait_state("confirming")
    clock.jump(90)  # as if it had been blocked for so long
    until("the reboot", rebooted.exists)
    assert uboot.env()["BOOT_B_LEFT"] == "0"
    assert uboot.boot(device, healthy="AB") == "A"
    device.wait_said("fallback: The bootloader fell back to rootfs.0. Cause: watchdog: not healthy for 40 s")
    assert [entry["version"] for entry in device.saved("quarantine.json")] == ["2.0.0"]
    shutil.copy(vendor.bundle(), device.root / "drop")
    conf.write_text(conf.read_text().replace("= 40", "= 0.05"))
    device.stop_service()
    device.start()
    device.wait_said("is not installed: Quarantined: watchdog: not healthy")
    assert uboot.env()["BOOT_ORDER"] == "A"
