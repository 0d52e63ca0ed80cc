"""Growing and mounting a slot's file system with the real tools."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from updated.core.model import Slot
from updated.errors import DeviceError
from updated.slots.filesystem import grow_ext4, mounted

MIB = 1 << 20

Image = Callable[[int], Path]


def ext4(path: Path, size: int) -> None:
    subprocess.run(["mkfs.ext4", "-q", "-b", "4096", path, str(size // 4096)], check=True)


def size_of(path: Path | str) -> int:
    text = subprocess.run(["dumpe2fs", "-h", path], check=True, capture_output=True, text=True).stdout
    return next(4096 * int(line.split()[-1]) for line in text.splitlines() if line.startswith("Block count:"))


def options_of(point: Path) -> set[str]:
    lines = Path("/proc/mounts").read_text().splitlines()
    return next(set(line.split()[3].split(",")) for line in lines if line.split()[1] == str(point))


@pytest.mark.root
def test_a_file_system_grows_to_its_slot(image: Image, attach: Callable[..., str], tmp_path: Path) -> None:
    path = image(16 * MIB)
    ext4(path, 8 * MIB)
    device = attach(path)
    (tmp_path / "point").mkdir()
    subprocess.run(["mount", device, tmp_path / "point"], check=True)  # from now on it needs a check before
    subprocess.run(["umount", tmp_path / "point"], check=True)
    subprocess.run(["tune2fs", "-T", "20200101", device], check=True, capture_output=True)
    assert size_of(device) == 8 * MIB
    asyncio.run(grow_ext4(device))
    assert size_of(device) == 16 * MIB


def test_a_file_system_that_cannot_be_repaired_is_an_error(image: Image) -> None:
    path = image(8 * MIB)
    with pytest.raises(DeviceError, match=f"e2fsck of {path} failed with exit code 8"):
        asyncio.run(grow_ext4(str(path)))


def test_a_missing_tool_is_named_with_its_package(image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(DeviceError, match="Failed to execute e2fsck") as caught:
        asyncio.run(grow_ext4(str(image(MIB))))
    assert "e2fsprogs" in caught.value.hint


@pytest.mark.root
def test_a_mount_is_private_and_gone_afterwards(image: Image, tmp_path: Path) -> None:
    path = image(8 * MIB)
    ext4(path, 8 * MIB)
    slot = Slot(
        name="rootfs.0",
        slot_class="rootfs",
        index=0,
        device=str(path),
        type="ext4",
        extra_mount_opts="noatime",
    )

    async def scenario() -> Path:
        async with mounted(slot, folder=tmp_path) as point:
            assert {"rw", "nosuid", "nodev", "noexec", "noatime"} <= options_of(point)
            (point / "kept").write_text("x")
        async with mounted(slot, readonly=True, folder=tmp_path) as point:
            assert (point / "kept").read_text() == "x"
            with pytest.raises(OSError, match="Read-only file system"):
                (point / "more").write_text("x")
        return point

    assert not os.path.lexists(asyncio.run(scenario()))
    assert str(tmp_path) not in Path("/proc/mounts").read_text()


@pytest.mark.root
def test_a_mount_is_gone_after_a_failure_and_a_cancellation(image: Image, tmp_path: Path) -> None:
    path = image(8 * MIB)
    ext4(path, 8 * MIB)
    slot = Slot(name="rootfs.0", slot_class="rootfs", index=0, device=str(path), type="ext4")

    async def fail() -> None:
        async with mounted(slot, folder=tmp_path):
            raise RuntimeError

    async def hang() -> None:
        async with mounted(slot, folder=tmp_path), asyncio.timeout(0.05):
            await asyncio.sleep(60)

    with pytest.raises(RuntimeError):
        asyncio.run(fail())
    with pytest.raises(TimeoutError):
        asyncio.run(hang())
    assert [entry.name for entry in tmp_path.iterdir()] == ["slot.img"]


@pytest.mark.root
def test_unmounting_waits_for_who_is_about_to_finish(image: Image, tmp_path: Path) -> None:
    path = image(8 * MIB)
    ext4(path, 8 * MIB)
    slot = Slot(name="rootfs.0", slot_class="rootfs", index=0, device=str(path), type="ext4")

    async def scenario() -> None:
        async with mounted(slot, folder=tmp_path) as point:
            handle = os.open(point, os.O_RDONLY)
            asyncio.get_running_loop().call_later(0.15, os.close, handle)

    asyncio.run(scenario())
    assert [entry.name for entry in tmp_path.iterdir()] == ["slot.img"]


def test_what_holds_no_file_system_is_not_mounted(image: Image, tmp_path: Path) -> None:
    path = image(MIB)
    raw = Slot(name="boot.0", slot_class="boot", index=0, device=str(path))
    empty = Slot(name="boot.0", slot_class="boot", index=0, device=str(path), type="ext4")

    async def mount(slot: Slot) -> None:
        async with mounted(slot, folder=tmp_path):
            raise AssertionError

    with pytest.raises(DeviceError, match="Mounting slots of type 'raw' is not possible"):
        asyncio.run(mount(raw))
    with pytest.raises(DeviceError, match="mount failed with exit code"):
        asyncio.run(mount(empty))
    assert [entry.name for entry in tmp_path.iterdir()] == ["slot.img"]
