"""Which slot runs, where the bootloader does not pass rauc.slot= but only what the kernel itself needs."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

import pytest
from virtual_device import SYSTEM_CONF

from tests.service.conftest import MakeDevice
from tests.service.rig import Device, Vendor

LINKS_CONF = SYSTEM_CONF.replace("/slots/rootfs.", "/by-name/rootfs.")


def links(device: Device) -> Path:
    """Names for the slots, as udev makes them."""
    folder = device.root / "by-name"
    folder.mkdir()
    for slot in (device.root / "slots").iterdir():
        (folder / slot.name).symlink_to(slot)
    return folder


def boot(device: Device, cmdline: str) -> str:
    """Off and on; returns the bootname of what was really started."""
    if device.service is not None:
        device.stop_service()
    device.power_on()
    (device.root / "run/cmdline").write_text(f"quiet {cmdline} rw\n")
    device.start()
    return device.booted


@pytest.mark.parametrize(
    ("conf", "root"),
    [
        (SYSTEM_CONF, "root=/dev/ram0 root={slots}"),  # the last one counts, as for the kernel
        (LINKS_CONF, "root={slots}"),
        (SYSTEM_CONF, "root= systemd.verity_root_data={links}"),
    ],
)
def test_device(devices: MakeDevice, vendor: Vendor, conf: str, root: str) -> None:
    device = devices(start=False, system_conf=conf)
    root = root.format(slots=device.root / "slots/rootfs.", links=links(device) / "rootfs.")
    assert boot(device, f"{root}0.img") == "A"
    device.wait_said("marked rootfs.0 as good")
    running = device.content("A")
    assert device.install(vendor.bundle()) == ""
    assert (device.content("A"), device.content("B")) == (running, vendor.system("2.0.0"))
    assert boot(device, f"{root}1.img") == "B"
    device.wait_said("confirmed: Version 2.0.0")
    assert [device.slot(f"rootfs.{index}")["state"] for index in (0, 1)] == ["inactive", "booted"]


def boot_elsewhere(device: Device, cmdline: str) -> None:
    """Off and on, but the firmware starts none of the groups."""
    if device.service is not None:
        device.stop_service()
    (device.root / "run/cmdline").write_text(f"quiet {cmdline} rw\n")
    (device.root / "run/boot-id").write_text(f"{uuid.uuid4()}\n")
    device.start()


def test_external(devices: MakeDevice, vendor: Vendor) -> None:
    """A rescue system: it updates what is not primary, judges nothing, and is no fallback."""
    device = devices(start=False)
    device.write_env({**device.read_env(), "A_TRY": "0"})
    cmdline = f"rauc.external root={device.root}/slots/rootfs.0.img"
    running = device.content("A")
    boot_elsewhere(device, cmdline)
    shutil.copy(vendor.bundle(), device.root / "drop")  # taken once there is nothing to judge any more
    device.wait_said("installed: Installed to rootfs.")
    assert (device.content("A"), device.content("B")) == (running, vendor.system("2.0.0"))
    assert [device.slot(f"rootfs.{index}")["state"] for index in (0, 1)] == ["inactive"] * 2
    boot_elsewhere(device, cmdline)
    device.wait_state("reboot-pending")
    assert (device.primary(), device.history()) == ("B", ["installed"])
    assert "as good" not in device.log()
    assert boot(device, "rauc.slot=B") == "B"
    device.wait_said("confirmed: Version 2.0.0")
    assert "marked rootfs.1 as good" in device.said()


def test_unknown(devices: MakeDevice, vendor: Vendor) -> None:
    """Nothing is written where the running slot might be."""
    device = devices(start=False)
    boot(device, "root=/dev/mmcblk7p9")
    before = device.untouched()
    assert "Did not find booted slot (matching '/dev/mmcblk7p9')" in device.install(vendor.bundle())
    assert device.untouched() == before
    assert device.status().state == "idle"
