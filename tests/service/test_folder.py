"""The drop folder of the real service: what is taken, what is passed over, and what becomes of the files."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.service.conftest import MakeDevice
from tests.service.rig import Device, Vendor, until
from updated.sources.folder import MAX_FILES

AFTER = '[folder]\npath = "{{root}}/drop"\nafter = "{0}"\n{1}\n[confirm]\nstable-for = 0.05\n'


def installed(device: Device) -> list[str]:
    return [line["version"] for line in device.outcomes() if line["code"] == "installed"][::-1]


def foreign(vendor: Vendor) -> Path:
    """A complete bundle that is not for this device."""
    return vendor.bundle("9.0.0", compatible="Another Device")


def test_half_a_file_is_no_bundle(devices: MakeDevice, vendor: Vendor) -> None:
    """Written in pieces, closed before it is complete, and at last complete."""
    device = devices()
    before = device.untouched()
    data = vendor.bundle().read_bytes()
    path = device.root / "drop/system.raucb"
    third = len(data) // 3
    with path.open("wb") as file:
        file.write(data[:third])
        file.flush()
    with path.open("ab") as file:  # some copying programs reopen
        file.write(data[third : 2 * third])
        file.flush()
        # A complete one of somebody else shows that the folder was looked at meanwhile.
        shutil.copy(foreign(vendor), device.root / "drop/foreign.raucb")
        device.wait_said("foreign.raucb is not installed")
        assert device.untouched() == before
        file.write(data[2 * third :])
    device.wait_said("installed: Installed to rootfs.1.")
    assert installed(device) == ["2.0.0"]
    assert "system.raucb is not installed" not in device.said()


def test_renamed_into_the_folder(devices: MakeDevice, vendor: Vendor) -> None:
    """As rsync and careful people do it; the temporary name has a dot or another end."""
    device = devices()
    drop = device.root / "drop"
    before = device.untouched()
    for name in (".system.raucb", "system.raucb.part"):
        shutil.copy(vendor.bundle(), drop / name)
    (drop / "folder.raucb").mkdir()
    (drop / "link.raucb").symlink_to(vendor.bundle())
    os.mkfifo(drop / "pipe.raucb")
    (drop / "empty.raucb").touch()
    (drop / "text.raucb").write_text("no bundle at all\n" * 100)
    shutil.copy(foreign(vendor), drop / "last.raucb")
    device.wait_said("last.raucb is not installed")
    assert device.untouched() == before
    assert device.said().count("is not installed") == 1
    (drop / "system.raucb.part").rename(drop / "system.raucb")
    device.wait_said("installed: Installed to rootfs.1.")
    assert installed(device) == ["2.0.0"]


def test_the_highest_of_several(devices: MakeDevice, vendor: Vendor) -> None:
    """Version numbers, not names or times.  Broken ones do not get in the way of the others: one is
    in the signature, the other in the blocks of the image, where it is found when they are used."""
    device = devices(start=False)
    drop = device.root / "drop"
    for name, version in (("z.raucb", "2.0.0"), ("a.raucb", "10.0.0"), ("b.raucb", "9.0.0")):
        shutil.copy(vendor.bundle(version), drop / name)
    for name, version, place in (("c.raucb", "11.0.0", -1000), ("e.raucb", "11.1.0", 500_000)):
        broken = bytearray(vendor.bundle(version).read_bytes())
        broken[place] ^= 1
        (drop / name).write_bytes(broken)
    shutil.copy(vendor.bundle("12.0.0", compatible="Another Device"), drop / "d.raucb")
    device.start()
    device.wait_said("installed: Installed to rootfs.1.")
    device.reboot()
    device.wait_said("confirmed: Version 10.0.0")
    device.wait_said("a.raucb is not installed: Already installed and running")
    assert installed(device) == ["10.0.0"]
    # Once in each boot, three times in all: it may have been the disk.
    failed = [line["version"] for line in device.outcomes() if line["code"] == "failed"]
    assert set(failed) == {"11.1.0"}
    assert len(failed) <= 2


def test_behind_more_files_than_are_looked_at_in_one_go(devices: MakeDevice, vendor: Vendor) -> None:
    device = devices(start=False)
    drop = device.root / "drop"
    for number in range(MAX_FILES + 50):
        (drop / f"a{number:03}.raucb").write_bytes(
            bytes(5000) + b"\x30" + bytes(99) + (100).to_bytes(8, "big")
        )
    shutil.copy(vendor.bundle(), drop / "z.raucb")
    device.start()
    device.wait_said("installed: Installed to rootfs.1.")
    assert device.said().count("is not installed") == MAX_FILES + 50


def test_no_way_back_by_a_file_that_lies_about(devices: MakeDevice, vendor: Vendor) -> None:
    device = devices()
    drop = device.root / "drop"
    shutil.copy(vendor.bundle("2.0.0"), drop)
    device.wait_said("installed: Installed to")
    device.reboot()
    device.wait_said("confirmed:")
    before = device.untouched()
    shutil.copy(vendor.bundle("2.0.0"), drop / "again.raucb")
    device.wait_said("Already installed and running")
    shutil.copy(vendor.bundle("1.0.0"), drop / "older.raucb")
    device.wait_said("older.raucb is not installed")
    assert (device.untouched(), installed(device)) == (before, ["2.0.0"])
    shutil.copy(vendor.bundle("2.0.1"), drop / "newer.raucb")
    device.wait_said("installed: Installed to")
    assert installed(device) == ["2.0.0", "2.0.1"]


@pytest.mark.parametrize(
    ("after", "more"), [("keep", ""), ("delete", ""), ("move", 'move-to = "{root}/done"')]
)
def test_what_becomes_of_the_file(devices: MakeDevice, vendor: Vendor, after: str, more: str) -> None:
    device = devices(agent_conf=AFTER.format(after, more))
    path = device.root / "drop/system.raucb"
    shutil.copy(vendor.bundle(), path)
    device.wait_said("installed: Installed to rootfs.1.")
    assert path.exists() == (after == "keep")
    assert (device.root / "done/system.raucb").exists() == (after == "move")
    device.stop_service()
    device.start()
    device.wait_state("reboot-pending")
    assert device.history() == ["installed"]


def test_a_changed_file_is_looked_at_again(devices: MakeDevice, vendor: Vendor) -> None:
    """Overwritten in place under the same name."""
    device = devices()
    path = device.root / "drop/system.raucb"
    data = bytearray(vendor.bundle().read_bytes())
    data[-500] ^= 1
    path.write_bytes(data)
    device.wait_said("system.raucb is not installed")
    shutil.copy(vendor.bundle(), path)
    device.wait_said("installed: Installed to")


def test_pulled_away_while_it_is_installed(devices: MakeDevice, vendor: Vendor) -> None:
    """The file is opened once, before anything of it is believed: what has its name later does not matter."""
    device = devices()
    path = device.root / "drop/system.raucb"
    shutil.copy(vendor.bundle(), path)
    until(
        "the install",
        lambda: device.read_env()["ORDER"].startswith("B") or device.status().state == "install",
    )
    path.unlink()
    device.wait_said("installed: Installed to")
    assert device.content("B") == vendor.system("2.0.0")


def test_the_folder_comes_later(devices: MakeDevice, vendor: Vendor) -> None:
    """Missing when the service starts: it is made."""
    device = devices(start=False)
    drop = device.root / "drop"
    drop.rmdir()
    device.start()
    until("the folder", drop.exists)
    copy = device.root / "copy.raucb"
    shutil.copy(vendor.bundle(), copy)
    Path(copy).rename(drop / "system.raucb")
    device.wait_said("installed: Installed to")
