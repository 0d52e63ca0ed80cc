"""The raw slot writer on files and loop devices, and every way a device says no."""

from __future__ import annotations

import os
import random
import resource
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from updated.core.model import Slot, SlotWriter
from updated.errors import DeviceError, NotSupportedError
from updated.slots.raw import ALIGNMENT, READ_SIZE, RawSlot, open_slot

MIB = 1 << 20

Attach = Callable[..., str]
Mount = Callable[..., Path]
Image = Callable[[int], Path]


def slot(device: str | Path, **settings: Any) -> Slot:
    return Slot(name="rootfs.1", slot_class="rootfs", index=1, device=str(device), **settings)


def fill(writer: SlotWriter, data: bytes, step: int = MIB) -> None:
    for offset in range(0, len(data), step):
        writer.write(offset, data[offset : offset + step])
    writer.sync()


def test_a_file_keeps_its_size_and_its_rest(image: Image) -> None:
    path = image(3 * MIB)
    path.write_bytes(b"\xaa" * 3 * MIB)
    data = random.Random(1).randbytes(2 * MIB + 777)
    writer = open_slot(slot(path), image_size=len(data))
    assert writer.capacity == 3 * MIB
    fill(writer, data)
    assert writer.read_back(0, len(data)) == data
    writer.close()
    writer.close()
    assert path.read_bytes() == data + b"\xaa" * (3 * MIB - len(data))


@pytest.mark.root
def test_a_block_device_is_written_and_read_back(image: Image, attach: Attach, tmp_path: Path) -> None:
    path = image(12 * MIB)
    device = attach(path)
    link = tmp_path / "by-label"
    link.symlink_to(device)
    data = random.Random(2).randbytes(9 * MIB + 4097)
    writer = open_slot(slot(link), image_size=len(data))
    assert writer.capacity == 12 * MIB
    for offset in range(0, len(data), MIB):
        writer.write(offset, memoryview(data)[offset : offset + MIB])
        if offset < 4 * MIB:
            writer.flush_hint(offset, MIB)
    writer.sync()
    assert path.read_bytes()[: len(data)] == data  # on the medium, before any reading or closing flushes it
    assert writer.read_back(0, len(data)) == data
    writer.close()


@pytest.mark.parametrize(
    ("offset", "length"),
    [
        (0, 0),
        (0, 1),
        (1, 1),
        (ALIGNMENT - 1, 2),
        (5, READ_SIZE),
        (READ_SIZE - 3, READ_SIZE + 9),
        (0, 9 * MIB + 5),
    ],
)
def test_any_range_can_be_read_back(image: Image, offset: int, length: int) -> None:
    size = 9 * MIB + 5
    path = image(size)
    data = random.Random(3).randbytes(size)
    path.write_bytes(data)
    writer = open_slot(slot(path), image_size=size)
    assert writer.read_back(offset, length) == data[offset : offset + length]
    writer.close()


@pytest.mark.root
def test_reading_back_does_not_believe_the_page_cache(image: Image, attach: Attach) -> None:
    """The medium is changed under the loop device, whose own page cache still holds what was written."""
    path = image(MIB)
    device = attach(path)
    writer = open_slot(slot(device), image_size=MIB)
    writer.write(0, b"\x01" * MIB)
    writer.sync()
    with path.open("r+b") as file:
        file.seek(5000)
        file.write(b"\x02")
    cached = os.open(device, os.O_RDONLY)
    assert os.pread(cached, 1, 5000) == b"\x01"
    os.close(cached)
    assert writer.read_back(5000, 2) == b"\x02\x01"
    writer.close()


@pytest.mark.root
def test_a_file_system_without_direct_reads_is_read_all_the_same(mount: Mount, tmp_path: Path) -> None:
    folder = mount(tmp_path / "ram", "-t", "ramfs", "ramfs")
    data = random.Random(4).randbytes(MIB + 3)
    (folder / "slot").write_bytes(bytes(2 * MIB))
    writer = open_slot(slot(folder / "slot"), image_size=len(data))
    fill(writer, data)
    assert writer.read_back(0, len(data)) == data
    assert writer.read_back(MIB, 3) == data[MIB:]
    writer.close()


def test_several_threads_may_write(image: Image) -> None:
    data = random.Random(5).randbytes(4 * MIB)
    path = image(4 * MIB)
    writer = open_slot(slot(path), image_size=len(data))
    quarters = [(n * MIB, data[n * MIB : (n + 1) * MIB]) for n in range(4)]
    threads = [threading.Thread(target=writer.write, args=quarter) for quarter in quarters]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.sync()
    assert writer.read_back(0, len(data)) == data
    writer.close()


def test_an_image_that_is_too_large_is_refused_before_anything_is_written(image: Image) -> None:
    path = image(MIB)
    with pytest.raises(
        DeviceError, match=f"too small for the image: {MIB + 1} bytes needed, {MIB} available"
    ):
        open_slot(slot(path), image_size=MIB + 1)
    with pytest.raises(DeviceError, match="4097 bytes needed, 4096 available"):
        open_slot(slot(path, size_limit=4096), image_size=4097)
    assert path.read_bytes() == bytes(MIB)
    open_slot(slot(path), image_size=MIB).close()


@pytest.mark.parametrize(("offset", "length"), [(100, 1), (99, 2), (-1, 1), (0, 101)])
def test_nothing_is_written_outside_of_the_image(image: Image, offset: int, length: int) -> None:
    path = image(MIB)
    writer = open_slot(slot(path), image_size=100)
    with pytest.raises(DeviceError, match="Outside of the image"):
        writer.write(offset, b"x" * length)
    with pytest.raises(DeviceError, match="Outside of the image"):
        writer.read_back(offset, length)
    writer.close()
    assert path.read_bytes() == bytes(MIB)


def test_what_cannot_be_a_slot_is_refused(tmp_path: Path, image: Image) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(DeviceError, match=f"^Destination device '{missing}' for slot 'rootfs.1' not found$"):
        open_slot(slot(missing), image_size=1)
    for device in (tmp_path, "/dev/null"):
        with pytest.raises(DeviceError, match="neither a block device nor a regular file"):
            open_slot(slot(device), image_size=1)
    path = image(MIB)
    with pytest.raises(NotSupportedError, match="type 'nand'"):
        open_slot(slot(path, type="nand"), image_size=1)
    with pytest.raises(NotSupportedError, match="region-start"):
        open_slot(slot(path, region_start=4096, region_size=4096), image_size=1)
    with pytest.raises(DeviceError, match="configured as read-only"):
        open_slot(slot(path, readonly=True), image_size=1)


@pytest.mark.root
def test_a_mounted_device_is_refused_and_its_mount_point_named(
    image: Image, attach: Attach, mount: Mount, tmp_path: Path
) -> None:
    path = image(4 * MIB)
    subprocess.run(["mkfs.ext4", "-q", path], check=True)
    device = attach(path)
    point = mount(tmp_path / "mount point", device)
    with pytest.raises(DeviceError) as caught:
        open_slot(slot(device), image_size=1)
    assert str(caught.value) == f"Destination device '{device}' already mounted (mounted at {point})"
    with pytest.raises(DeviceError) as caught:
        open_slot(slot(path), image_size=1)
    assert str(caught.value) == f"Destination device '{path}' already mounted (mounted at {point})"


@pytest.mark.root
def test_a_disk_with_a_mounted_partition_is_refused(
    image: Image, attach: Attach, mount: Mount, tmp_path: Path
) -> None:
    path = image(8 * MIB)
    disk = attach(path, "--partscan")
    subprocess.run(["addpart", disk, "1", "2048", "14336"], check=True)  # sectors; no partition table needed
    name = f"{Path(disk).name}p1"
    number = Path(f"/sys/class/block/{name}/dev").read_text().strip().split(":")
    partition = Path(f"/dev/{name}")
    made = not partition.exists()  # without udev or devtmpfs nobody else makes it
    if made:
        os.mknod(partition, 0o600 | stat.S_IFBLK, os.makedev(int(number[0]), int(number[1])))
    try:
        subprocess.run(["mkfs.ext4", "-q", partition], check=True)
        point = mount(tmp_path / "point", str(partition))
        with pytest.raises(DeviceError, match=f"'{disk}' is busy \\(its partitions {name} are mounted\\)"):
            open_slot(slot(disk), image_size=1)
        with pytest.raises(DeviceError, match=f"already mounted \\(mounted at {point}\\)"):
            open_slot(slot(partition), image_size=1)
    finally:
        if made:
            partition.unlink()


@pytest.mark.root
def test_a_claimed_device_is_refused(image: Image, attach: Attach) -> None:
    device = attach(image(MIB))
    first = open_slot(slot(device), image_size=1)
    with pytest.raises(DeviceError, match=f"Destination device '{device}' already mounted"):
        open_slot(slot(device), image_size=1)
    first.close()
    open_slot(slot(device), image_size=1).close()


@pytest.mark.root
def test_a_read_only_device_is_refused(image: Image, attach: Attach, mount: Mount, tmp_path: Path) -> None:
    path = image(MIB)
    device = attach(path, "--read-only")
    with pytest.raises(DeviceError, match=f"Destination device '{device}' is read-only") as caught:
        open_slot(slot(device), image_size=1)
    assert "blockdev" in caught.value.hint
    folder = mount(tmp_path / "bind", "--bind", "-o", "ro", str(tmp_path))
    with pytest.raises(DeviceError, match="is read-only"):
        open_slot(slot(folder / path.name), image_size=1)


@pytest.mark.root
def test_a_medium_that_fails_half_way_is_an_error(mount: Mount, attach: Attach, tmp_path: Path) -> None:
    """A sparse file in a tmpfs that is too small for it: the loop device on it answers with EIO."""
    folder = mount(tmp_path / "small", "-t", "tmpfs", "-o", "size=1M", "tmpfs")
    with (folder / "slot").open("wb") as file:
        file.truncate(4 * MIB)
    writer = open_slot(slot(attach(folder / "slot")), image_size=4 * MIB)
    with pytest.raises(DeviceError, match=r"Failed to .*: (Input/output error|No space left on device)"):
        fill(writer, b"\x01" * 4 * MIB)
    writer.close()


@pytest.mark.root
def test_a_full_file_system_is_an_error(mount: Mount, tmp_path: Path) -> None:
    folder = mount(tmp_path / "small", "-t", "tmpfs", "-o", "size=1M", "tmpfs")
    with (folder / "slot").open("wb") as file:
        file.truncate(4 * MIB)
    writer = open_slot(slot(folder / "slot"), image_size=4 * MIB)
    with pytest.raises(DeviceError, match=r"Failed to write .*: No space left on device"):
        fill(writer, b"\x01" * 4 * MIB)
    writer.close()


def test_a_short_write_is_continued_and_its_error_reported(image: Image) -> None:
    """With a limit on file sizes the kernel writes up to it, then answers EFBIG; in a process of its own."""
    path = image(MIB)
    code = (
        "import resource, signal, sys\n"
        "from updated.core.model import Slot\n"
        "from updated.slots.raw import open_slot\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "writer = open_slot(Slot('a.0', 'a', 0, sys.argv[1]), image_size=1 << 20)\n"
        "try: writer.write(0, b'x' * (1 << 20))\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True)
    rest = MIB - 100_000
    assert done.stdout == f"DeviceError Failed to write {rest} bytes at 100000 of '{path}': File too large\n"
    assert path.read_bytes() == b"x" * 100_000 + bytes(rest)


def test_a_slot_that_shrank_is_noticed(image: Image) -> None:
    path = image(MIB)
    writer = open_slot(slot(path), image_size=MIB)
    os.truncate(path, MIB // 2)
    with pytest.raises(DeviceError, match="shorter than what was written"):
        writer.read_back(0, MIB)
    writer.close()


def test_a_failed_open_leaks_nothing(image: Image) -> None:
    before = sorted(Path("/proc/self/fd").iterdir())
    for _ in range(3):
        with pytest.raises(DeviceError):
            open_slot(slot(image(10)), image_size=11)
    writer = open_slot(slot(image(10)), image_size=10)
    writer.read_back(0, 10)
    writer.close()
    assert sorted(Path("/proc/self/fd").iterdir()) == before


def test_reading_back_takes_no_memory_that_grows(image: Image) -> None:
    size = 64 * MIB
    writer: RawSlot = open_slot(slot(image(size)), image_size=size)
    writer.read_back(0, READ_SIZE)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for offset in range(0, size, READ_SIZE):
        assert len(writer.read_back(offset, READ_SIZE)) == READ_SIZE
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 * 1024  # KiB
    writer.close()
