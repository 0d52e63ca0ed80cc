"""Where the Raspberry Pi's files are: a partition that is mounted for a moment, is full, or is not there."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from updated.boot import fat
from updated.boot.base import make_bootloader
from updated.boot.fat import Folder, KernelMounter, Partition
from updated.boot.tryboot import Settings
from updated.boot.tryboot_firmware import Firmware
from updated.errors import DeviceError

AUTOBOOT = b"[all]\ntryboot_a_b=1\nboot_partition=2\n[tryboot]\nboot_partition=3\n"


@dataclass
class FakeMounter:
    """Mounts a folder instead of a device."""

    medium: Path
    error: int = 0
    calls: list[str] = field(default_factory=list)

    def mount(self, device: str, point: Path, *, readonly: bool) -> None:
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        self.calls.append(f"{'ro' if readonly else 'rw'} {device}")
        point.rmdir()
        point.symlink_to(self.medium)

    def unmount(self, point: Path) -> None:
        self.calls.append("unmount")
        point.unlink()
        point.mkdir()


@pytest.fixture
def medium(tmp_path: Path) -> Path:
    folder = tmp_path / "medium"
    folder.mkdir()
    (folder / "autoboot.txt").write_bytes(AUTOBOOT)
    return folder


def settings(place: fat.Place, tmp_path: Path) -> Settings:
    node = tmp_path / "chosen/bootloader"
    node.mkdir(parents=True, exist_ok=True)
    (node / "tryboot").write_bytes(bytes(4))
    (node / "partition").write_bytes(b"\0\0\0\2")
    return Settings(place, Firmware(tmp_path / "chosen"), partitions={"A": 2, "B": 3})


def test_a_partition_is_mounted_for_a_moment(medium: Path, tmp_path: Path) -> None:
    runtime = tmp_path / "run"
    runtime.mkdir()
    mounter = FakeMounter(medium)
    place = Partition("/dev/boot", runtime, mounter, lambda _: None)
    tryboot = make_bootloader("tryboot", ["A", "B"], tryboot=settings(place, tmp_path))
    assert asyncio.run(tryboot.get_primary()) == "A"
    assert mounter.calls == ["ro /dev/boot", "unmount"]
    asyncio.run(tryboot.set_state("A", good=True))
    assert "rw /dev/boot" not in mounter.calls  # every start does that
    asyncio.run(tryboot.set_primary("B"))
    assert mounter.calls.count("rw /dev/boot") == 1
    (medium / "autoboot.txt").write_bytes(b"?")
    with pytest.raises(DeviceError, match="not understood"):
        asyncio.run(tryboot.get_primary())
    assert mounter.calls.count("unmount") * 2 == len(mounter.calls)
    assert list(runtime.iterdir()) == []


def test_what_is_mounted_already_is_used(medium: Path, tmp_path: Path) -> None:
    mounter = FakeMounter(medium, errno.EBUSY)
    place = Partition(
        "/dev/boot", tmp_path, mounter, lambda device: str(medium) if device == "/dev/boot" else None
    )
    tryboot = make_bootloader("tryboot", ["A", "B"], tryboot=settings(place, tmp_path))
    asyncio.run(tryboot.set_primary("B"))
    assert asyncio.run(tryboot.get_primary()) == "B"


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.ENOENT, "no such partition"),
        (errno.EINVAL, "no FAT file system"),
        (errno.ENODEV, "no driver for FAT"),
        (errno.ENOTBLK, "Expected a partition"),
        (errno.EIO, ""),
    ],
)
def test_a_partition_that_cannot_be_mounted(number: int, hint: str, medium: Path, tmp_path: Path) -> None:
    runtime = tmp_path / "run"
    runtime.mkdir()
    place = Partition("/dev/boot", runtime, FakeMounter(medium, number), lambda _: None)
    with (
        pytest.raises(DeviceError, match=f"Cannot mount /dev/boot: {os.strerror(number)}") as caught,
        place.opened(writable=True),
    ):
        pytest.fail("it is not mounted")
    assert hint in caught.value.hint
    assert list(runtime.iterdir()) == []
    with (
        pytest.raises(DeviceError, match="Cannot mount /dev/boot: No such file"),
        Partition("/dev/boot", tmp_path / "none", FakeMounter(medium), lambda _: None).opened(writable=False),
    ):
        pytest.fail("it is not mounted")


@pytest.mark.root
def test_the_kernel_says_why_not(tmp_path: Path) -> None:
    with (
        pytest.raises(DeviceError, match="Cannot mount /dev/null"),
        Partition("/dev/null", tmp_path).opened(writable=False),
    ):
        pytest.fail("it is not mounted")
    with pytest.raises(OSError, match="Invalid argument"):
        KernelMounter().unmount(tmp_path)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A real file system with two pages for data."""
    point = tmp_path / "small"
    point.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "none", point], check=True)
    yield point
    subprocess.run(["umount", point], check=True)


@pytest.mark.root
def test_a_full_partition(small: Path, tmp_path: Path) -> None:
    (small / "autoboot.txt").write_bytes(AUTOBOOT)
    (small / "config.txt").write_bytes(b"old")
    with pytest.raises(DeviceError, match=r"Failed to write .*config.txt: No space left") as caught:
        fat.replace(small / "config.txt", b"new" * 1000)
    assert "full" in caught.value.hint
    assert (small / "config.txt").read_bytes() == b"old"
    tryboot = make_bootloader("tryboot", ["A", "B"], tryboot=settings(Folder(small), tmp_path))
    asyncio.run(tryboot.set_primary("B"))  # in place: no room is needed
    assert asyncio.run(tryboot.get_primary()) == "B"


@pytest.mark.root
def test_a_read_only_partition(small: Path, tmp_path: Path) -> None:
    (small / "autoboot.txt").write_bytes(AUTOBOOT)
    subprocess.run(["mount", "-o", "remount,ro", small], check=True)
    tryboot = make_bootloader("tryboot", ["A", "B"], tryboot=settings(Folder(small), tmp_path))
    asyncio.run(tryboot.set_state("A", good=True))
    with pytest.raises(DeviceError, match=r"Failed to write .*autoboot.txt: Read-only file system") as caught:
        asyncio.run(tryboot.set_primary("B"))
    assert "remount,rw" in caught.value.hint
    with pytest.raises(DeviceError, match=r"Failed to write .*: Read-only file system"):
        fat.replace(small / "x", b"")
    with pytest.raises(DeviceError, match=r"Failed to remove .*: Read-only file system"):
        fat.remove(small / "autoboot.txt")


def test_overwrite_only_what_was_read(tmp_path: Path) -> None:
    file = tmp_path / "autoboot.txt"
    file.write_bytes(b"other")
    with pytest.raises(DeviceError, match="changed by somebody else"):
        fat.overwrite(file, b"mine", b"new!!")
    assert file.read_bytes() == b"other"


def test_files_come_and_go(tmp_path: Path) -> None:
    (tmp_path / fat.TEMPORARY).write_bytes(b"what a power cut left")
    file = tmp_path / ".good"
    fat.touch(file)
    fat.touch(file)
    assert list(tmp_path.iterdir()) == [file]
    fat.remove(file)
    fat.remove(file)
    assert list(tmp_path.iterdir()) == []
    os.mkfifo(file)
    with pytest.raises(DeviceError, match="not a regular file"):
        fat.read(file, 10)
    with pytest.raises(DeviceError, match="not a regular file"):
        fat.replace(file, b"")
