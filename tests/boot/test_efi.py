"""UEFI boot entries through the real efibootmgr, on variables in a folder (EFIVARFS_PATH of libefivar)."""

from __future__ import annotations

import asyncio
import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from updated.boot.base import VerifiedBootloader, make_bootloader
from updated.boot.efi import Efi, EfiLoader
from updated.core.model import Bootloader
from updated.errors import DeviceError

GLOBAL = "8be4df61-93ca-11d2-aa0d-00e098032b8c"  # UEFI specification, "Globally Defined Variables"
# In efivarfs a write replaces the value; in a folder of files the rest of a longer one would stay behind it.
SHORTEN = """
/bin/efibootmgr "$@"
code=$?
while [ $# -gt 0 ]; do
    [ "$1" = --bootorder ] && truncate -s $((4 + (${#2} + 1) / 5 * 2)) "$EFIVARFS_PATH"/BootOrder-*
    shift
done
exit $code
"""
DISK, SECOND, SYSTEM0, SYSTEM1 = "0001", "0004", "0002", "0003"


class Firmware:
    """UEFI variables in a folder, as efivarfs shows them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, name: str, data: bytes) -> None:
        (self.folder / f"{name}-{GLOBAL}").write_bytes(struct.pack("<I", 7) + data)

    def numbers(self, name: str, *numbers: str) -> None:
        self.put(name, b"".join(struct.pack("<H", int(number, 16)) for number in numbers))

    def entry(self, number: str, label: str, *, active: bool = True) -> None:
        """EFI_LOAD_OPTION with a partition and a file (UEFI specification, "Load Options")."""
        partition = struct.pack("<BBHIQQ16sBB", 4, 1, 42, 1, 2048, 40960, bytes(range(16)), 2, 2)
        name = "\\EFI\\BOOT\\BOOTX64.EFI\0".encode("utf-16-le")
        path = partition + struct.pack("<BBH", 4, 4, 4 + len(name)) + name + b"\x7f\xff\x04\x00"
        self.put(
            f"Boot{number}", struct.pack("<IH", active, len(path)) + f"{label}\0".encode("utf-16-le") + path
        )

    def forget(self, name: str) -> None:
        (self.folder / f"{name}-{GLOBAL}").unlink()

    def listing(self) -> list[str]:
        """What starts, and the entries, as the real tool lists them."""
        done = subprocess.run(["efibootmgr"], check=True, capture_output=True, text=True)
        return [line for line in done.stdout.splitlines() if not line.startswith(("Timeout", "BootCurrent"))]

    def order(self) -> str:
        return next(line for line in self.listing() if "BootOrder" in line)

    def next(self) -> str | None:
        return next((line for line in self.listing() if line.startswith("BootNext: ")), None)


@pytest.fixture
def firmware(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Firmware:
    folder = tmp_path / "efivars"
    folder.mkdir()
    monkeypatch.setenv("EFIVARFS_PATH", f"{folder}/")
    put_before(tmp_path / "bin", monkeypatch, SHORTEN)
    made = Firmware(folder)
    made.entry(DISK, "UEFI Misc Device")
    made.entry(SYSTEM0, "system0")
    made.entry(SYSTEM1, "system1")
    made.numbers("BootOrder", SYSTEM0, SYSTEM1, DISK)
    made.numbers("BootCurrent", SYSTEM0)
    return made


@pytest.fixture
def efi(firmware: Firmware) -> Bootloader:
    return make_bootloader("efi", ["system0", "system1"])


@pytest.fixture
def by_order(firmware: Firmware) -> Bootloader:
    return make_bootloader("efi", ["system0", "system1"], use_bootnext=False)


def test_bootnext_then_the_first_active_slot_of_the_order(efi: Bootloader, firmware: Firmware) -> None:
    assert asyncio.run(efi.get_primary()) == "system0"
    firmware.numbers("BootNext", SYSTEM1)
    assert asyncio.run(efi.get_primary()) == "system1"
    firmware.numbers("BootNext", DISK)
    firmware.numbers("BootOrder", DISK, SYSTEM1, SYSTEM0)
    assert asyncio.run(efi.get_primary()) == "system1"
    firmware.entry(SYSTEM1, "system1", active=False)
    assert asyncio.run(efi.get_primary()) == "system0"
    assert [asyncio.run(efi.get_state(name)) for name in ("system0", "system1")] == [True, False]
    firmware.forget(f"Boot{SYSTEM0}")
    assert asyncio.run(efi.get_primary()) is None
    assert asyncio.run(efi.get_state("system0")) is False


def test_what_runs_is_what_was_started(efi: Bootloader, firmware: Firmware) -> None:
    assert asyncio.run(efi.get_current()) == "system0"
    firmware.numbers("BootCurrent", DISK)
    assert asyncio.run(efi.get_current()) is None
    firmware.forget("BootCurrent")
    assert asyncio.run(efi.get_current()) is None


def test_an_install_is_tried_once_before_it_stands_first(efi: Bootloader, firmware: Firmware) -> None:
    asyncio.run(efi.set_state("system1", good=False))  # before it is written
    assert (firmware.order(), firmware.next()) == ("BootOrder: 0002,0001", None)
    asyncio.run(efi.set_primary("system1"))
    assert (firmware.order(), firmware.next()) == ("BootOrder: 0002,0001", "BootNext: 0003")
    firmware.forget("BootNext")  # the firmware has started it
    firmware.numbers("BootCurrent", SYSTEM1)
    assert asyncio.run(efi.get_primary()) == "system0"  # where a reset leads to
    asyncio.run(efi.set_state("system1", good=True))
    assert (firmware.order(), firmware.next()) == ("BootOrder: 0003,0002,0001", None)


def test_without_bootnext_it_stands_first_at_once(by_order: Bootloader, firmware: Firmware) -> None:
    firmware.numbers("BootNext", DISK)
    asyncio.run(by_order.set_primary("system1"))
    assert (firmware.order(), firmware.next()) == ("BootOrder: 0003,0002,0001", None)


def test_without_bootnext_what_runs_does_not_get_before_what_starts_next(
    by_order: Bootloader, firmware: Firmware
) -> None:
    """The running system is found good again at each start of the service, also while an update waits."""
    asyncio.run(by_order.set_primary("system1"))
    asyncio.run(by_order.set_state("system0", good=True))
    assert asyncio.run(by_order.get_primary()) == "system1"
    asyncio.run(by_order.set_state("system1", good=True))
    assert (firmware.order(), firmware.next()) == ("BootOrder: 0003,0002,0001", None)
    asyncio.run(by_order.set_state("system0", good=False))
    asyncio.run(by_order.set_state("system0", good=True))
    assert asyncio.run(by_order.get_state("system0"))


@pytest.mark.parametrize("gone", [SYSTEM1, DISK])
def test_back_to_the_first_needs_no_bootnext(efi: Bootloader, firmware: Firmware, gone: str) -> None:
    firmware.numbers("BootNext", gone)
    asyncio.run(efi.set_primary("system0"))
    assert (firmware.order(), firmware.next()) == ("BootOrder: 0002,0003,0001", None)


def test_bad_is_not_started_next_either(efi: Bootloader, firmware: Firmware) -> None:
    firmware.numbers("BootNext", SYSTEM1)
    asyncio.run(efi.set_state("system1", good=False))
    assert (firmware.order(), firmware.next()) == ("BootOrder: 0002,0001", None)
    assert asyncio.run(efi.get_primary()) == "system0"


def test_bootnext_is_turned_away_where_the_tool_cannot_delete_it(efi: Bootloader, firmware: Firmware) -> None:
    firmware.forget(f"Boot{DISK}")  # without a Boot0001 efibootmgr refuses --delete-bootnext
    firmware.numbers("BootNext", SYSTEM1)
    asyncio.run(efi.set_state("system1", good=False))
    assert (firmware.order(), firmware.next()) == ("BootOrder: 0002", "BootNext: 0002")
    assert asyncio.run(efi.get_primary()) == "system0"


def test_a_foreign_first_entry_stays_first_and_is_passed_by(efi: Bootloader, firmware: Firmware) -> None:
    firmware.numbers("BootOrder", DISK, SYSTEM0, SYSTEM1)
    asyncio.run(efi.set_primary("system0"))
    assert (firmware.order(), firmware.next()) == ("BootOrder: 0001,0002,0003", "BootNext: 0002")


def test_an_inactive_entry_is_made_active_when_it_is_good(efi: Bootloader, firmware: Firmware) -> None:
    firmware.entry(SYSTEM1, "system1", active=False)
    assert asyncio.run(efi.get_state("system1")) is False
    asyncio.run(efi.set_state("system1", good=True))
    assert firmware.listing()[0] == "BootOrder: 0003,0002,0001"
    assert any(line.startswith("Boot0003* system1") for line in firmware.listing())


def test_the_last_of_the_order_can_be_bad_and_comes_back(efi: Bootloader, firmware: Firmware) -> None:
    firmware.numbers("BootOrder", SYSTEM0)
    asyncio.run(efi.set_state("system0", good=False))
    assert firmware.order() == "No BootOrder is set; firmware will attempt recovery"
    assert asyncio.run(efi.get_primary()) is None
    asyncio.run(efi.set_state("system1", good=True))
    assert firmware.order() == "BootOrder: 0003"


def test_nothing_is_written_when_nothing_changes(
    efi: Bootloader, by_order: Bootloader, firmware: Firmware, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    firmware.numbers("BootOrder", "0009", SYSTEM0, "000A", SYSTEM1)  # also with entries that are gone
    calls = recorder(tmp_path, monkeypatch)
    for loader in (efi, by_order):
        asyncio.run(loader.set_state("system0", good=True))
        asyncio.run(loader.set_primary("system0"))
    assert set(calls.read_text().splitlines()) == {""}
    firmware.numbers("BootNext", SYSTEM1)
    asyncio.run(efi.set_primary("system1"))
    asyncio.run(efi.set_state("system0", good=True))  # an ordinary boot's mark-good, an update is pending
    assert set(calls.read_text().splitlines()) == {""}


def test_entries_that_are_gone_leave_the_order_when_it_is_written(
    efi: Bootloader, firmware: Firmware
) -> None:
    firmware.numbers("BootOrder", "0009", SYSTEM0, "000A", SYSTEM1)
    asyncio.run(efi.set_state("system1", good=True))
    assert firmware.order() == "BootOrder: 0003,0002"


def test_of_two_entries_with_a_label_the_one_that_was_started_counts(
    efi: Bootloader, firmware: Firmware
) -> None:
    firmware.entry("0000", "system0")
    firmware.entry(SECOND, "system1")
    firmware.numbers("BootOrder", "0000", SYSTEM0, SECOND, SYSTEM1)
    asyncio.run(efi.set_primary("system1"))
    assert firmware.next() == "BootNext: 0004"  # neither runs: the first of the order
    asyncio.run(efi.set_state("system0", good=True))
    assert firmware.order() == "BootOrder: 0002,0000,0004,0003"
    asyncio.run(efi.set_state("system1", good=False))
    assert firmware.order() == "BootOrder: 0002,0000"
    assert asyncio.run(efi.get_state("system1")) is False


def test_a_forgotten_entry_is_explained(efi: Bootloader, firmware: Firmware) -> None:
    firmware.forget(f"Boot{SYSTEM1}")
    asyncio.run(efi.set_state("system1", good=False))  # it is bad enough already
    for coroutine in (efi.set_primary("system1"), efi.set_state("system1", good=True)):
        with pytest.raises(DeviceError) as caught:
            asyncio.run(coroutine)
        assert str(caught.value) == "efi backend: Did not find efi entry for bootname 'system1'!"
        assert "efibootmgr --create-only --disk DISK --part NUMBER --label system1" in caught.value.hint


@pytest.mark.root
@pytest.mark.parametrize("arguments", ["", "root=PARTLABEL=rootfs-B quiet"])
def test_a_forgotten_entry_is_made_again(firmware: Firmware, esp: Path, arguments: str) -> None:
    firmware.forget(f"Boot{SYSTEM1}")
    firmware.numbers("BootOrder", SYSTEM0)
    inner = Efi(
        ["system0", "system1"],
        loaders={"system1": EfiLoader(str(esp), "\\EFI\\BOOT\\BOOTX64.EFI", arguments)},
        block_devices=esp.parent / "class",
    )
    efi = VerifiedBootloader("efi", inner)
    asyncio.run(efi.set_primary("system1"))
    assert (firmware.order(), firmware.next()) == ("BootOrder: 0002", "BootNext: 0000")
    done = subprocess.run(["efibootmgr", "-v", "-u"], check=True, capture_output=True, text=True)
    line = next(line for line in done.stdout.splitlines() if "system1" in line)
    assert line.startswith("Boot0000* system1\tHD(2,GPT,")
    assert line.endswith(f"/File(\\EFI\\BOOT\\BOOTX64.EFI){arguments}")
    asyncio.run(efi.set_state("system1", good=True))
    assert firmware.order() == "BootOrder: 0000,0002"


@pytest.fixture
def esp(tmp_path: Path) -> Iterator[Path]:
    """Second partition of a loop device, and beside it its sysfs folder, which this kernel may not have."""
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(16 << 20)
    table = "label: gpt\nsize=4M, type=U\nsize=4M, type=U\n"
    subprocess.run(["sfdisk", "-q", disk], input=table, text=True, check=True, capture_output=True)
    done = subprocess.run(["losetup", "-f", "--show", disk], check=True, capture_output=True, text=True)
    loop = Path(done.stdout.strip())
    try:
        yield sysfs(tmp_path, loop.name)
    finally:
        subprocess.run(["losetup", "-d", loop], check=True)


def sysfs(folder: Path, disk: str) -> Path:
    partition = folder / "devices" / disk / f"{disk}p2"
    partition.mkdir(parents=True)
    (partition / "partition").write_text("2\n")
    (folder / "class").mkdir()
    (folder / "class" / partition.name).symlink_to(partition)
    (folder / partition.name).touch()
    (folder / "ESP-B").symlink_to(partition.name)  # as in /dev/disk/by-partlabel
    return folder / "ESP-B"


def test_a_loader_on_no_partition_is_an_error(firmware: Firmware, tmp_path: Path) -> None:
    firmware.forget(f"Boot{SYSTEM1}")
    for partition in (tmp_path / "missing", tmp_path):
        efi = Efi(["system1"], loaders={"system1": EfiLoader(str(partition), "\\a.efi")})
        with pytest.raises(
            DeviceError, match=f"Can't resolve device {partition} for EFI boot entry: "
        ) as caught:
            asyncio.run(efi.set_primary("system1"))
        assert "partition" in caught.value.hint


def test_an_entry_that_cannot_be_made_is_an_error(firmware: Firmware, tmp_path: Path) -> None:
    firmware.forget(f"Boot{SYSTEM1}")
    esp = sysfs(tmp_path, "nodisk")
    efi = Efi(
        ["system1"], loaders={"system1": EfiLoader(str(esp), "\\a.efi")}, block_devices=tmp_path / "class"
    )
    with pytest.raises(DeviceError, match=r"^efibootmgr failed with exit code: 5 \(Could not prepare Boot"):
        asyncio.run(efi.set_primary("system1"))


def test_a_write_that_does_not_hold_is_an_error(
    efi: Bootloader, firmware: Firmware, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder(tmp_path, monkeypatch, "[ $# = 0 ] || exit 0")
    with pytest.raises(
        DeviceError, match="did not keep what was written: --bootorder 0003,0002,0001"
    ) as caught:
        asyncio.run(efi.set_state("system1", good=True))
    assert "variable store" in caught.value.hint


def test_a_device_without_efi_is_told_so(efi: Bootloader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EFIVARFS_PATH", "/nonexistent/")
    with pytest.raises(DeviceError, match=r"code: 2 \(EFI variables are not supported on this") as caught:
        asyncio.run(efi.get_primary())
    assert "efivarfs" in caught.value.hint


def test_variables_that_the_sandbox_makes_read_only_are_told_so(
    efi: Bootloader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = "Could not prepare Boot variable: Read-only file system"  # as in the sandbox of our unit
    recorder(tmp_path, monkeypatch, f"[ $# = 0 ] || {{ echo '{message}' >&2; exit 5; }}")
    with pytest.raises(DeviceError, match=r"code: 5 \(Could not .*Read-only file system\)") as caught:
        asyncio.run(efi.set_primary("system1"))
    assert "ReadWritePaths=/sys/firmware/efi/efivars" in caught.value.hint


def test_a_missing_tool_is_named_with_its_package(efi: Bootloader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(DeviceError, match="Failed to execute efibootmgr") as caught:
        asyncio.run(efi.get_primary())
    assert "package efibootmgr" in caught.value.hint


def recorder(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str = "") -> Path:
    """Another efibootmgr in front of all; the answer is the file with a line for each call."""
    calls = folder / "calls"
    behind = folder / "bin/efibootmgr"
    text = f'printf "%s\\n" "$*" >>{calls}\n{body}\nexec {behind} "$@"\n'
    put_before(folder / "recorder", monkeypatch, text)
    return calls


def put_before(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    folder.mkdir()
    script = folder / "efibootmgr"
    script.write_text(f"#!/bin/sh\n{text}")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
