"""Whatever lies in the data directory, the service starts, is reached, and installs the next bundle."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.service.conftest import MakeDevice
from tests.service.rig import Device, Vendor, until

FILES = (
    "journal.json",
    "quarantine.json",
    "attempts.json",
    "floor.json",
    "history.json",
    "left.json",
    "central.raucs",
)
NO_FOLDER = "[confirm]\nstable-for = {stable_for}\n"


def slow(*values: object) -> list[object]:
    """More of the same, when there is time."""
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]


def torn(path: Path) -> None:
    data = path.read_bytes() if path.exists() else b'{"state": "install", "upd'
    path.write_bytes(data[: max(len(data) * 2 // 3, 1)])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def zeros(path: Path) -> None:
    """What XFS and ext4 show of a file whose data never arrived."""
    path.write_bytes(bytes(512))


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


def deep(path: Path) -> None:
    path.write_bytes(b"[" * 500_000)


def foreign(path: Path) -> None:
    path.write_text('{"state": 7, "update": [], "version": {"a": 1}, "boot_id": null}')


def latin1(path: Path) -> None:
    path.write_bytes(b'{"version": "\xe4\xf6"}\n[slot.rootfs.1]\nstatus=\xe4\n')


def numbers(path: Path) -> None:
    path.write_bytes(b'{"a": 1e999, "b": 99999999999999999999999999999999999, "attempt": -1}')


def link_to_nowhere(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("/nonexistent/file")


def link_to_zeros(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


def link_loop(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(path.name)


def folder(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()
    (path / "file").touch()


def fifo(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


DAMAGES = (
    *(torn, zeros, huge, link_to_zeros, folder, fifo),
    *slow(empty, deep, foreign, latin1, numbers, link_to_nowhere, link_loop),
)


@pytest.fixture(scope="module")
def used(module_devices: MakeDevice) -> Device:
    return module_devices(agent_conf=NO_FOLDER)


def reset(device: Device) -> None:
    """Back to group A, with nothing remembered."""
    if device.service is not None:
        device.stop_service(kill=True)
    shutil.rmtree(device.root / "data")
    (device.root / "data").mkdir()
    device.write_env({"ORDER": "A B", "A_OK": "1", "A_TRY": "0", "B_OK": "0", "B_TRY": "0"})
    device.power_on()


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damaged(used: Device, vendor: Vendor, damage: Callable[[Path], None]) -> None:
    """All files at once, after an install and before the reboot: the bootloader knows enough."""
    reset(used)
    used.start()
    assert used.install(vendor.bundle()) == ""
    used.wait_rest("installed")
    used.stop_service(kill=True)
    for name in FILES:
        damage(used.root / "data" / name)
    assert used.power_on() == ["B"]
    used.start()
    used.wait_said("marked rootfs.1 as good")
    assert "bug" not in used.said()
    assert used.status().state == "idle"
    assert used.install(vendor.bundle("3.0.0")) == ""
    used.wait_rest("installed")
    assert used.content("A") == vendor.system("3.0.0")
    assert used.reboot() == ["A"]
    used.wait_said("confirmed: Version 3.0.0")
    assert used.history() == ["installed", "confirmed"]


LIES = {
    "a target that is no slot": ("rootfs.1", "nonsense.7"),
    "a target that runs": ("rootfs.1", "rootfs.0"),
    "another bundle": ('"manifest_hash": "', '"manifest_hash": "ff'),
    "no bundle": ('"version": "2.0.0"', '"version": ""'),
    "text from hell": ('"version": "2.0.0"', '"version": "\\u0000\\ud83d\\ude00\\u001b[31m\\n"'),
    "another boot": ('"boot_id": "', '"boot_id": "x'),
    "an install": ('"reboot-pending"', '"install"'),
    "an install for the hundredth time": (
        '"reboot-pending",\n "update"',
        '"install", "attempt": 9223372036854775807, "update"',
    ),
}


@pytest.mark.parametrize("lie", [*list(LIES)[:4], *slow(*list(LIES)[4:])])
def test_a_journal_that_lies(used: Device, vendor: Vendor, lie: str) -> None:
    """Well-formed, but not what this device wrote: the bootloader wins, and nothing is lost for ever."""
    reset(used)
    used.start()
    assert used.install(vendor.bundle()) == ""
    used.wait_rest("installed")
    used.stop_service(kill=True)
    journal = used.root / "data/journal.json"
    text = journal.read_text()
    assert LIES[lie][0] in text
    journal.write_text(text.replace(*LIES[lie]))
    used.start()
    until("rest", lambda: used.status().state in ("idle", "reboot-pending"))
    assert "bug" not in used.said()
    assert used.read_env()["A_OK"] == "1"
    assert used.history()[0] == "installed"
    assert used.install(vendor.bundle("3.0.0")) == ""
    assert used.primary() == "B"
