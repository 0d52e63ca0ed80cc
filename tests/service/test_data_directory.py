"""A data directory that is missing, full, read-only or something else: said, and nothing half done."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.conftest import MakeDevice
from tests.service.rig import Device, Saboteur, Vendor, eventually, install
from updated.api.client import Client

NO_FOLDER = "[confirm]\nstable-for = {stable_for}\n"


@contextlib.contextmanager
def tmpfs(folder: Path, options: str) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def refuses_and_recovers(device: Device, vendor: Vendor, text: str) -> None:
    """The bootloader and the slots are untouched, or the target is bad."""
    env = device.read_env()
    assert text in device.install(vendor.bundle())
    assert device.read_env() == env
    assert device.content("B", 4096) == bytes(4096)
    assert device.status().state == "idle"


def test_no_data_directory(devices: MakeDevice, vendor: Vendor) -> None:
    device = devices(start=False)
    (device.root / "data").rmdir()
    device.start()
    assert device.install(vendor.bundle()) == ""


def test_a_data_directory_that_is_a_file(devices: MakeDevice, vendor: Vendor) -> None:
    """Nothing can be remembered, so nothing is installed; but the service is there to say it."""
    device = devices(start=False)
    (device.root / "data").rmdir()
    (device.root / "data").touch()
    device.start()
    device.wait_said("marked rootfs.0 as good")
    before = device.untouched()
    assert "Not a directory" in device.install(vendor.bundle())
    assert device.untouched() == before
    (device.root / "data").unlink()
    (device.root / "data").mkdir()
    assert device.install(vendor.bundle()) == ""


@pytest.mark.parametrize("pages", [0, 1, 3, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 4, 5))])
def test_full(devices: MakeDevice, vendor: Vendor, pages: int) -> None:
    """Room for some files, but not for all: whichever is the first that fails, nothing is half done."""
    device = devices(start=False, agent_conf=NO_FOLDER)
    data = device.root / "data"
    with tmpfs(data, "size=96k,mode=700"):
        device.start()
        device.wait_said("marked rootfs.0 as good")
        free = os.statvfs(data).f_bfree  # pages
        (data / "filler").write_bytes(bytes((free - pages) * 4096))
        error = device.install(vendor.bundle())
        primary = device.primary()
        if error:
            assert "No space left on device" in error
            assert (primary, device.read_env()["B_OK"], device.status().state) == ("A", "0", "idle")
        else:
            assert (primary, device.status().state) == ("B", "reboot-pending")
            assert device.content("B") == vendor.system("2.0.0")
        assert "bug" not in device.said()
        (data / "filler").unlink()
        assert device.install(vendor.bundle("3.0.0")) == ""
        assert device.reboot() == ["B"]
        device.wait_said("confirmed: Version 3.0.0")
        device.stop_service()


def test_read_only(devices: MakeDevice, vendor: Vendor) -> None:
    device = devices(start=False, agent_conf=NO_FOLDER)
    data = device.root / "data"
    with tmpfs(data, "size=64k,mode=700,ro"):
        device.start()
        device.wait_said("marked rootfs.0 as good")
        refuses_and_recovers(device, vendor, "Read-only file system")
        subprocess.run(["mount", "-o", "remount,rw", data], check=True)
        assert device.install(vendor.bundle()) == ""
        device.wait_rest("installed")
        # From now on nothing can be written down, but the new system is good all the same.
        device.stop_service()
        subprocess.run(["mount", "-o", "remount,ro", data], check=True)
        assert device.power_on() == ["B"]
        device.start()
        device.wait_said("confirmed: Version 2.0.0")
        device.wait_state("idle")
        assert device.read_env()["B_TRY"] == "0"
        device.stop_service()


@pytest.mark.parametrize("name", ["attempts.json", "journal.json", "central.raucs", "history.json"])
def test_one_file_cannot_be_written(devices: MakeDevice, vendor: Vendor, name: str) -> None:
    """Somebody's folder is in its place."""
    device = devices(agent_conf=NO_FOLDER)
    path = device.root / "data" / name
    path.unlink(missing_ok=True)
    (path / "folder").mkdir(parents=True)
    error = device.install(vendor.bundle())
    if name in ("central.raucs", "history.json", "attempts.json"):
        # The first is set aside, as when the service starts; without the second one can live; the third
        # counts what nobody asked for.
        assert (error, device.status().state) == ("", "reboot-pending")
        return
    assert "directory" in error
    assert (device.primary(), device.status().state) == ("A", "idle")
    assert device.status().last_result["code"] == "failed"
    assert device.reboot() == ["A"]
    assert device.install(vendor.bundle()) == ""


@pytest.mark.parametrize("at", [1, 4])
def test_full_when_it_is_cancelled(devices: MakeDevice, vendor: Vendor, saboteur: Saboteur, at: int) -> None:
    """To forget something needs room, too; the service goes on without."""
    import asyncio

    device = devices(start=False, agent_conf=NO_FOLDER, env=saboteur.env)
    data = device.root / "data"

    async def run(client: Client) -> str:
        saboteur.hold(Saboteur.WRITE, at, "rootfs.1.img")
        running = asyncio.create_task(install(client, vendor.bundle()))
        await eventually("a write", lambda: saboteur.acted)
        with contextlib.suppress(OSError), (data / "filler").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        async with Client(device.address) as other:
            asking = asyncio.create_task(other.cancel())
            await asyncio.sleep(0.05)
            saboteur.release()
            await asking
        return await running

    with tmpfs(data, "size=96k,mode=700"):
        device.start()
        assert device.call(run) == "Installation cancelled"
        assert (device.primary(), device.read_env()["B_OK"], device.status().state) == ("A", "0", "idle")
        assert device.status().last_result["code"] == "cancelled"
        (data / "filler").unlink()
        assert device.install(vendor.bundle()) == ""
        device.stop_service()
