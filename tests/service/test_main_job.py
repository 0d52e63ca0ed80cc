"""The main job on the real service: a bundle becomes the running system, or the device is as before."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from virtual_device import AGENT_CONF, SYSTEM_CONF

from tests.service.conftest import MakeDevice
from tests.service.rig import Device, Vendor, rauc, updated
from updated.core.model import InstallArgs

AUTOINSTALL = SYSTEM_CONF + "\n[autoinstall]\npath={root}/auto.raucb\n"


def by_folder(device: Device, bundle: Path) -> None:
    shutil.copy(bundle, device.root / "drop" / bundle.name)


def by_autoinstall(device: Device, bundle: Path) -> None:
    """Looked at when the service starts, as in RAUC."""
    shutil.copy(bundle, device.root / "auto.raucb")
    device.stop_service()
    device.start()


def by_rauc(device: Device, bundle: Path) -> None:
    done = rauc(device.address, "install", bundle)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, f"Installing `{bundle}` succeeded"), done


def by_updated(device: Device, bundle: Path) -> None:
    done = updated(device.address, "install", bundle)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, f"Installing `{bundle}` succeeded"), done


def rauc_status(device: Device) -> dict[str, Any]:
    done = rauc(device.address, "status", "--detailed", "--output-format=json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    found["slots"] = {name: slot for entry in found["slots"] for name, slot in entry.items()}
    return found


@pytest.mark.parametrize(
    ("offer", "made", "source"),
    [
        (by_folder, ("rauc", "verity"), "folder"),
        (by_autoinstall, ("updated", "verity"), "autoinstall"),
        (by_rauc, ("rauc", "plain"), "request"),
        (by_updated, ("updated", "plain"), "request"),
    ],
)
def test_there_and_back_again(
    devices: MakeDevice,
    vendor: Vendor,
    offer: Callable[[Device, Path], None],
    made: tuple[str, str],
    source: str,
) -> None:
    """Two updates, so that each group is written once; status after each step, told by both clients."""
    maker, bundle_format = made
    device = devices(system_conf=AUTOINSTALL)
    for version, old, new in (("2.0.0", "A", "B"), ("3.0.0", "B", "A")):
        bundle = vendor.bundle(version, maker=maker, bundle_format=bundle_format)
        before = device.content(old)
        target = f"rootfs.{'AB'.index(new)}"
        offer(device, bundle)
        device.wait_said(f"installed: Installed to {target}.")
        assert device.content(new) == vendor.system(version)
        assert device.content(old) == before
        status = device.status()
        assert (status.state, status.transaction["version"], status.transaction["target"]) == (
            "reboot-pending",
            version,
            target,
        )
        seen = rauc_status(device)
        assert (seen["booted"], seen["boot_primary"]) == (old, target)
        assert seen["slots"][target]["slot_status"]["bundle"]["version"] == version

        assert device.reboot() == [new]
        device.wait_said(f"confirmed: Version {version} is confirmed.")
        status = device.wait_state("idle")
        assert (status.state, status.last_result["code"], status.last_result["source"]) == (
            "idle",
            "confirmed",
            source,
        )
        seen = rauc_status(device)
        assert (seen["booted"], seen["boot_primary"]) == (new, target)
        assert seen["slots"][target]["boot_status"] == "good"
        assert device.read_env()[f"{new}_TRY"] == "0"
        shown = updated(device.address, "status").stdout
        assert "State:       idle" in shown
        assert f"Version:   {version}" in shown
    assert device.history() == ["installed", "confirmed"] * 2
    shown = updated(device.address, "history").stdout
    assert [line.split()[1:3] for line in shown.splitlines()] == [
        ["confirmed", "3.0.0"],
        ["installed", "3.0.0"],
        ["confirmed", "2.0.0"],
        ["installed", "2.0.0"],
    ]


def test_fallback_quarantines(devices: MakeDevice, vendor: Vendor) -> None:
    """A system that never comes up: the old one runs, says so, and does not try again by itself."""
    device = devices()
    bad = vendor.bundle("2.0.0", images={"rootfs.ext4": vendor.system("2.0.0", healthy=False)})
    by_folder(device, bad)
    device.wait_said("installed: Installed to rootfs.1.")
    assert device.reboot() == ["B", "B", "B", "A"]
    device.wait_said("fallback: The bootloader fell back to rootfs.0.")
    device.wait_said("is not installed: Quarantined: the bootloader fell back")
    assert device.history() == ["installed", "fallback"]
    # Also not under another name, and not after a restart.
    shutil.copy(bad, device.root / "drop/other.raucb")
    device.wait_said("other.raucb is not installed: Quarantined")
    device.reboot()
    device.wait_said("is not installed: Quarantined", times=2)
    assert device.status().state == "idle"
    # A person may, and a better one is taken without being asked.
    assert device.install(bad) == ""
    assert device.reboot()[-1] == "A"
    device.wait_said("fallback:")
    by_folder(device, vendor.bundle("2.1.0"))
    device.wait_said("installed: Installed to rootfs.1.")
    assert device.reboot() == ["B"]
    device.wait_said("confirmed:")
    assert [entry["version"] for entry in device.saved("quarantine.json")] == ["2.0.0"]


def test_power_cut_while_confirming(devices: MakeDevice, vendor: Vendor) -> None:
    """A system that reboots before it is confirmed has used up a try; the third one is the last."""
    device = devices()
    assert device.install(vendor.bundle()) == ""
    device.wait_said("installed: Installed to")
    conf = device.root / "etc/updated.toml"
    conf.write_text(conf.read_text().replace("0.05", "200"))
    for _ in range(3):
        assert device.reboot(kill=True) == ["B"]
        device.wait_state("confirming")
    conf.write_text(conf.read_text().replace("200", "0.05"))
    assert device.reboot(kill=True) == ["A"]
    device.wait_said("fallback:")


def test_service_restarts_are_no_reboots(devices: MakeDevice, vendor: Vendor) -> None:
    device = devices()
    assert device.install(vendor.bundle()) == ""
    device.wait_said("installed: Installed to")
    for kill in (False, True):
        device.stop_service(kill=kill)
        device.start()
        assert device.status().state == "reboot-pending"
    assert device.reboot() == ["B"]
    device.wait_said("confirmed:")
    device.stop_service(kill=True)
    device.start()
    device.wait_state("idle")
    assert device.history() == ["installed", "confirmed"]


def test_version_floor(devices: MakeDevice, vendor: Vendor) -> None:
    """What was confirmed is the least that is taken; a person may go back on purpose."""
    floor = '\n[policy]\nversion-floor = "confirmed"\n'
    device = devices(agent_conf=AGENT_CONF + floor)
    assert device.install(vendor.bundle("2.0.0")) == ""
    device.reboot()
    device.wait_said("confirmed:")
    older = vendor.bundle("1.5.0")
    before = device.untouched()
    assert "Version 2.0.0 was confirmed on this device but bundle manifest has '1.5.0'" in device.install(
        older
    )
    by_folder(device, older)
    device.wait_said("is not installed: Version mismatch")
    assert device.untouched() == before
    assert device.install(older, InstallArgs(ignore_version_limit=True)) == ""
    device.reboot()
    device.wait_said("confirmed: Version 1.5.0")
    assert "was confirmed on this device" in device.install(vendor.bundle("1.7.0"))
    assert device.install(vendor.bundle("2.0.0")) == ""


APPS = (
    SYSTEM_CONF
    + """
[slot.appfs.0]
device={root}/slots/appfs.0.img
parent=rootfs.0

[slot.appfs.1]
device={root}/slots/appfs.1.img
parent=rootfs.1
"""
)


def with_apps(devices: MakeDevice, conf: str = APPS) -> Device:
    device = devices(system_conf=conf, start=False)
    for index in (0, 1):
        (device.root / f"slots/appfs.{index}.img").write_bytes(bytes(1 << 20))
    device.start()
    return device


def test_slot_groups(devices: MakeDevice, vendor: Vendor) -> None:
    """Root file system and applications change together."""
    device = with_apps(devices)
    slots = device.root / "slots"
    for version, active, target in (("2.0.0", 0, 1), ("3.0.0", 1, 0)):
        app = vendor.noise(300_001, seed=int(version[0]))
        before = (slots / f"appfs.{active}.img").read_bytes()
        bundle = vendor.bundle(version, images={"rootfs.ext4": vendor.system(version), "appfs.img": app})
        assert device.install(bundle) == ""
        assert (slots / f"appfs.{target}.img").read_bytes()[: len(app)] == app
        assert (slots / f"appfs.{active}.img").read_bytes() == before
        device.wait_said(f"installed: Installed to rootfs.{target}")
        device.reboot()
        device.wait_said("confirmed:")
    states = {name: slot["state"] for name, slot in rauc_status(device)["slots"].items()}
    assert states == {
        "rootfs.0": "booted",
        "appfs.0": "active",
        "rootfs.1": "inactive",
        "appfs.1": "inactive",
    }


def test_three_groups(devices: MakeDevice, vendor: Vendor) -> None:
    """First what would not start anyway, then what was installed longest ago; never what runs."""
    conf = SYSTEM_CONF + "\n[slot.rootfs.2]\ndevice={root}/slots/rootfs.2.img\ntype=ext4\nbootname=C\n"
    device = devices(system_conf=conf, bootnames="ABC")
    ran = []
    for version in ("2.0.0", "3.0.0", "4.0.0"):
        running = device.content(device.booted)
        booted = device.booted
        assert device.install(vendor.bundle(version)) == ""
        assert device.content(booted) == running
        device.wait_said("installed: Installed to")
        ran += device.reboot()
        device.wait_said("confirmed:")
    assert ran == ["B", "C", "A"]


def test_the_same_image_is_not_written_twice(devices: MakeDevice, vendor: Vendor) -> None:
    """install-same=false spares the medium, unless the slot's content is in doubt."""
    conf = APPS.replace("parent=rootfs.1", "parent=rootfs.1\ninstall-same=false")
    device = with_apps(devices, conf)
    slot = device.root / "slots/appfs.1.img"
    app = vendor.noise(300_001)
    bundle = vendor.bundle("2.0.0", images={"rootfs.ext4": vendor.system("2.0.0"), "appfs.img": app})
    assert device.install(bundle) == ""
    written = slot.stat().st_mtime_ns
    assert (
        device.install(
            vendor.bundle("2.5.0", images={"rootfs.ext4": vendor.system("2.5.0"), "appfs.img": app})
        )
        == ""
    )
    assert slot.stat().st_mtime_ns == written
    assert (device.slot("appfs.1")["bundle.version"], device.slot("appfs.1")["installed.count"]) == (
        "2.5.0",
        2,
    )
    other = vendor.noise(300_001, seed=2)
    assert (
        device.install(
            vendor.bundle("2.6.0", images={"rootfs.ext4": vendor.system("2.6.0"), "appfs.img": other})
        )
        == ""
    )
    assert slot.read_bytes()[: len(other)] == other


def test_resize(devices: MakeDevice, vendor: Vendor, tmp_path: Path) -> None:
    """resize=true: the file system fills its partition, here a loop device; needs root."""
    device = devices(start=False)
    backing = device.slot_of("B")
    loop = subprocess.run(
        ["losetup", "--find", "--show", backing], check=True, capture_output=True, text=True
    ).stdout.strip()
    try:
        conf = device.root / "etc/system.conf"
        conf.write_text(conf.read_text().replace(f"device={backing}\n", f"device={loop}\nresize=true\n"))
        device.start()
        assert device.install(vendor.bundle()) == ""
        seen = subprocess.run(["dumpe2fs", "-h", loop], check=True, capture_output=True, text=True).stdout
        blocks = int(seen.split("Block count:")[1].split()[0]) * int(seen.split("Block size:")[1].split()[0])
        assert blocks == backing.stat().st_size
    finally:
        if device.service is not None:
            device.stop_service()
        subprocess.run(["losetup", "--detach", loop], check=True)
    assert device.reboot() == ["B"]
