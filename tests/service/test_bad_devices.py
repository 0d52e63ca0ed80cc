"""Slots and bootloaders that are missing, busy, too small, worn out or lie: said, and the device runs on."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from virtual_device import SYSTEM_CONF

from tests.service.conftest import MakeDevice
from tests.service.rig import CUSTOM_CONF, Device, Saboteur, Vendor

NO_FOLDER = "[confirm]\nstable-for = {stable_for}\n"
READ, WRITE, SYNC = Saboteur.READ, Saboteur.WRITE, Saboteur.SYNC


def refused(device: Device, bundle: Path, *texts: str, untouched: bool = True) -> None:
    before, running = device.read_env(), device.content("A", 1 << 24)
    error = device.install(bundle)
    for text in texts:
        assert text in error
    assert device.status().state == "idle"
    assert device.primary() == "A"
    assert device.content("A", 1 << 24) == running
    assert "a bug" not in device.said()
    if untouched:
        assert device.read_env() == before
    else:
        assert device.read_env()["B_OK"] == "0"


@contextlib.contextmanager
def loop_over(file: Path, *options: str) -> Iterator[str]:
    command = ["losetup", "--find", "--show", *options, str(file)]
    device = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def with_slot(devices: MakeDevice, path: str) -> Device:
    """Group B is the device `path`."""
    conf = SYSTEM_CONF.replace("device={root}/slots/rootfs.1.img", f"device={path}")
    return devices(system_conf=conf, agent_conf=NO_FOLDER)


def test_no_such_device(devices: MakeDevice, vendor: Vendor) -> None:
    device = devices(agent_conf=NO_FOLDER)
    slot = device.slot_of("B")
    slot.rename(slot.with_suffix(".away"))
    refused(device, vendor.bundle(), f"Destination device '{slot}' for slot 'rootfs.1' not found")
    slot.mkdir()
    refused(device, vendor.bundle(), "neither a block device nor a regular file")
    slot.rmdir()
    slot.symlink_to(device.slot_of("A"))  # the running system under another name
    refused(device, vendor.bundle(), "belongs to the running system")
    slot.unlink()
    slot.symlink_to("/dev/full")
    refused(device, vendor.bundle(), "neither a block device nor a regular file")
    slot.unlink()
    slot.with_suffix(".away").rename(slot)
    assert device.install(vendor.bundle()) == ""


def test_too_small(devices: MakeDevice, vendor: Vendor) -> None:
    device = devices(agent_conf=NO_FOLDER)
    slot = device.slot_of("B")
    os.truncate(slot, (4 << 20) - 4096)
    refused(device, vendor.bundle(), "is too small for image (4194304 bytes)")
    os.truncate(slot, 4 << 20)
    assert device.install(vendor.bundle()) == ""
    assert slot.read_bytes() == vendor.system("2.0.0")


def test_read_only_device(devices: MakeDevice, vendor: Vendor, tmp_path: Path) -> None:
    backing = tmp_path / "slot"
    backing.write_bytes(bytes(8 << 20))
    with loop_over(backing, "--read-only") as loop:
        device = with_slot(devices, loop)
        refused(device, vendor.bundle(), f"Destination device '{loop}' is read-only")
        device.stop_service()


def test_mounted(devices: MakeDevice, vendor: Vendor, tmp_path: Path) -> None:
    backing, folder = tmp_path / "slot", tmp_path / "mnt"
    backing.write_bytes(vendor.system("0.1.0"))
    folder.mkdir()
    with loop_over(backing) as loop:
        device = with_slot(devices, loop)
        subprocess.run(["mount", loop, folder], check=True)
        refused(device, vendor.bundle(), f"Destination device '{loop}' already mounted (mounted at {folder})")
        subprocess.run(["umount", folder], check=True)
        assert device.install(vendor.bundle()) == ""
        assert Path(loop).read_bytes() == vendor.system("2.0.0")
        device.stop_service()


def test_full_half_way(devices: MakeDevice, vendor: Vendor, tmp_path: Path) -> None:
    """A thin device that promises more than it has: the error comes with the flush, or with the write."""
    folder = tmp_path / "thin"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder], check=True)
    try:
        with (folder / "slot").open("wb") as file:
            file.truncate(8 << 20)
        with loop_over(folder / "slot") as loop:
            device = with_slot(devices, loop)
            noise = vendor.bundle("2.0.0", images={"rootfs.img": vendor.noise()})
            refused(device, noise, "Installation error: Failed updating slot rootfs.1", untouched=False)
            assert device.slot("rootfs.1")["status"] == "failed"
            subprocess.run(["mount", "-o", "remount,size=12m", folder], check=True)
            assert device.install(noise) == ""
            device.stop_service()
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.parametrize(
    ("kinds", "at", "error"),
    [
        (WRITE, 1, errno.EIO),
        (WRITE, 3, errno.ENOSPC),
        (WRITE, 4, errno.EROFS),
        (SYNC, 1, errno.EIO),
        (READ, 1, errno.EIO),
    ],
)
def test_failing_medium(
    devices: MakeDevice, vendor: Vendor, saboteur: Saboteur, *, kinds: int, at: int, error: int
) -> None:
    device = devices(agent_conf=NO_FOLDER, env=saboteur.env)
    saboteur.fail(error, kinds, at, "rootfs.1.img", always=True)
    refused(device, vendor.bundle(), "rootfs.1", os.strerror(error), untouched=False)
    assert device.slot("rootfs.1")["status"] == "failed"
    saboteur.release()
    assert device.install(vendor.bundle()) == ""
    assert device.content("B") == vendor.system("2.0.0")


@pytest.mark.parametrize("at", [1, 4, 6])
def test_failing_stick(devices: MakeDevice, vendor: Vendor, saboteur: Saboteur, at: int) -> None:
    """The bundle cannot be read any more, before or in the middle of the image."""
    device = devices(agent_conf=NO_FOLDER, env=saboteur.env)
    saboteur.fail(errno.EIO, READ, at, ".raucb", always=True)
    noise = vendor.bundle("2.0.0", images={"rootfs.img": vendor.noise()})
    refused(device, noise, "Failed to read", "Input/output error", untouched=False)
    saboteur.release()
    assert device.install(noise) == ""


def test_a_slot_that_forgets(devices: MakeDevice, vendor: Vendor, saboteur: Saboteur) -> None:
    """A write that went nowhere is found when it is read back."""
    device = devices(agent_conf=NO_FOLDER, env=saboteur.env)
    bundle = vendor.bundle("2.0.0", images={"rootfs.img": vendor.noise()})
    saboteur.forget(WRITE, 3, "rootfs.1.img")
    refused(device, bundle, "Slot holds other bytes than were written to it", untouched=False)
    assert device.slot("rootfs.1")["status"] == "failed"


BACKEND = """\
#!/bin/sh
# A bootloader in a folder: order and states are files.
cd "$(dirname "$0")"
[ -e "fail-$1" ] && { echo "no bootloader today" >&2; exit 1; }
case "$1" in
    get-primary) cat primary ;;
    set-primary) echo "$2" > primary; echo good > "state-$2" ;;
    get-state) cat "state-$2" ;;
    set-state) echo "$3" > "state-$2" ;;
    get-current) exit 1 ;;
esac
"""


def custom(devices: MakeDevice) -> Device:
    """A device with a bootloader script; the grubenv beside it is not used."""
    device = devices(system_conf=CUSTOM_CONF, agent_conf=NO_FOLDER, start=False)
    boot = device.root / "boot"
    (boot / "backend").write_text(BACKEND)
    (boot / "backend").chmod(0o755)
    (boot / "primary").write_text("A\n")
    (boot / "state-A").write_text("good\n")
    (boot / "state-B").write_text("bad\n")
    device.start()
    return device


def test_failing_bootloader_script(devices: MakeDevice, vendor: Vendor) -> None:
    device = custom(devices)
    boot = device.root / "boot"
    empty = device.content("B")
    for action, touched in (("set-state", False), ("set-primary", True)):
        (boot / f"fail-{action}").touch()
        error = device.install(vendor.bundle())
        assert "Installation error: Failed marking slot rootfs.1" in error
        assert "no bootloader today" in error
        assert device.status().state == "idle"
        assert (boot / "primary").read_text() == "A\n"
        assert (boot / "state-B").read_text() == "bad\n"
        assert (device.content("B") == empty) != touched
        (boot / f"fail-{action}").unlink()
    assert device.install(vendor.bundle()) == ""
    assert (boot / "primary").read_text() == "B\n"


def test_bootloader_script_goes_away(devices: MakeDevice, vendor: Vendor) -> None:
    """The service answers, installs nothing, and says why."""
    device = custom(devices)
    script = device.root / "boot/backend"
    script.rename(script.with_suffix(".away"))
    empty = device.content("B")
    assert "Failed to execute" in device.install(vendor.bundle())
    assert device.content("B") == empty
    device.stop_service()
    device.start()
    device.wait_said("Failed to execute")
    assert device.slot("rootfs.0")["state"] == "booted"
    script.with_suffix(".away").rename(script)
    assert device.install(vendor.bundle()) == ""


def test_bootloader_that_does_not_keep_it(devices: MakeDevice, vendor: Vendor) -> None:
    """Exit code 0 is not enough: what was set is read back."""
    device = custom(devices)
    script = device.root / "boot/backend"
    script.write_text(BACKEND.replace('echo "$2" > primary;', ":;"))
    assert "Bootloader did not keep its primary: expected B, got A" in device.install(vendor.bundle())
    assert device.status().state == "idle"


def test_no_fw_setenv(devices: MakeDevice, vendor: Vendor, tmp_path: Path) -> None:
    """U-Boot's tools are not installed."""
    conf = SYSTEM_CONF.replace("bootloader=grub\ngrubenv={root}/boot/grubenv", "bootloader=uboot")
    device = devices(system_conf=conf, agent_conf=NO_FOLDER, start=False, env={"PATH": str(tmp_path)})
    device.start()
    empty = device.content("B")
    error = device.install(vendor.bundle())
    assert "Failed to execute fw_" in error
    assert device.content("B") == empty
    assert device.status().state == "idle"


@pytest.mark.parametrize(
    "damage", [b"", bytes(1024), b"# GRUB Environment Block\n" + b"#" * 999, b"\xff" * 1024, None]
)
def test_damaged_grubenv(devices: MakeDevice, vendor: Vendor, damage: bytes | None) -> None:
    """Nothing is written into what is no environment block; a person repairs it."""
    device = devices(agent_conf=NO_FOLDER)
    path = device.root / "boot/grubenv"
    good, empty = path.read_bytes(), device.content("B")
    path.unlink()
    if damage is not None:
        path.write_bytes(damage)
    blank = damage is not None and damage.endswith(b"#")
    error = device.install(vendor.bundle())
    if blank:  # a block without variables is a block: the first update writes them
        assert (error, device.primary()) == ("", "B")
        return
    assert "grub backend: " in error
    assert device.content("B") == empty
    assert (path.read_bytes() if path.exists() else None) == damage
    device.stop_service()
    device.start()
    assert device.status().state == "idle"
    path.write_bytes(good)
    assert device.install(vendor.bundle()) == ""
