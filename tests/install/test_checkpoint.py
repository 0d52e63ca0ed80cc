"""The log of a slot: what it says is believed only as far as the slot agrees."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import random
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fakes.interrupted import Medium, VolatileSlot
from updated.bundle.manifest import Image
from updated.core.model import Slot
from updated.errors import DeviceError
from updated.install.checkpoint import MAX_LOG, Checkpoints, open_checkpoints
from updated.slots.raw import open_slot

BLOCK = 4096
CONTENT = random.Random(7).randbytes(20 * BLOCK + 100)
IMAGE = Image("rootfs", filename="rootfs.img", sha256=hashlib.sha256(CONTENT).hexdigest(), size=len(CONTENT))
SLOT = Slot("rootfs.1", "rootfs", 1, "/dev/disk/by-partlabel/rootfs-b")
RECORD = 48  # bytes


def digest(offset: int) -> bytes:
    return hashlib.sha256(CONTENT[:offset]).digest()


def opened(folder: Path, slot: Slot = SLOT, image: Image = IMAGE) -> Checkpoints:
    return asyncio.run(open_checkpoints(folder, slot, image))


def written(folder: Path, *blocks: int) -> Path:
    """A log with one more record for each; its path."""
    checkpoints = opened(folder)
    for block in blocks:
        checkpoints.append(block * BLOCK, digest(block * BLOCK))
    return folder / "rootfs.1.log"


def position(checkpoints: Checkpoints, held: bytes = CONTENT, block_size: int = BLOCK) -> int:
    """Where an install goes on."""
    begun = asyncio.run(checkpoints.resume(VolatileSlot(Medium(bytearray(held))), block_size))
    assert begun.digest.digest() == hashlib.sha256(held[: begun.position]).digest()
    return begun.position


def records_at(log: Path) -> int:
    return log.read_bytes().index(b"\n") + 1


@contextmanager
def warnings() -> Iterator[list[str]]:
    said: list[str] = []

    class Listen(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    logger, handler = logging.getLogger("updated.install.checkpoint"), Listen()
    logger.addHandler(handler)
    try:
        yield said
    finally:
        logger.removeHandler(handler)


def test_a_new_log_begins_at_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "resume"
    assert position(opened(folder)) == 0
    assert (folder / "rootfs.1.log").read_text().count("\n") == 1
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("count", range(6))
def test_it_goes_on_behind_the_last_record(tmp_path: Path, count: int) -> None:
    blocks = [1, 2, 5, 9, 20][:count]
    written(tmp_path, *blocks)
    assert position(opened(tmp_path)) == BLOCK * max(blocks, default=0)


def test_signs_of_life_while_the_slot_is_read(tmp_path: Path) -> None:
    content = bytes(5 << 20) + b"end"
    image = Image("rootfs", sha256="", size=len(content))
    checkpoints = opened(tmp_path, image=image)
    for offset in (3 << 20, len(content)):
        checkpoints.append(offset, hashlib.sha256(content[:offset]).digest())
    seen: list[int] = []
    slot = VolatileSlot(Medium(bytearray(content)))
    begun = asyncio.run(opened(tmp_path, image=image).resume(slot, 1 << 20, seen.append))
    assert begun.position == len(content)
    assert seen == [1 << 20, 2 << 20, 3 << 20, 4 << 20, 5 << 20, len(content)]


def test_records_follow_after_a_resume(tmp_path: Path) -> None:
    written(tmp_path, 1, 2)
    checkpoints = opened(tmp_path)
    assert position(checkpoints) == 2 * BLOCK
    checkpoints.append(7 * BLOCK, digest(7 * BLOCK))
    checkpoints.append(len(CONTENT), digest(len(CONTENT)))
    assert position(opened(tmp_path)) == len(CONTENT)


def test_a_slot_that_was_changed_is_believed_up_to_there(tmp_path: Path) -> None:
    log = written(tmp_path, 2, 4, 6, 8)
    held = bytearray(CONTENT)
    held[5 * BLOCK] ^= 1
    assert position(opened(tmp_path), bytes(held)) == 4 * BLOCK
    assert log.stat().st_size == records_at(log) + 2 * RECORD
    assert position(opened(tmp_path)) == 4 * BLOCK  # what came behind is forgotten, right or wrong


def test_torn_anywhere_it_is_believed_up_to_there(tmp_path: Path) -> None:
    log = written(tmp_path, 1, 2, 3)
    data = log.read_bytes()
    start = records_at(log)
    for length in range(start, start + 3 * RECORD + 1, 8):
        log.write_bytes(data[:length])
        assert position(opened(tmp_path)) == (length - start) // RECORD * BLOCK
        log.write_bytes(data[:length] + bytes(200))  # the file was longer already
        assert position(opened(tmp_path)) == (length - start) // RECORD * BLOCK


def test_a_flipped_byte_ends_it(tmp_path: Path) -> None:
    log = written(tmp_path, 1, 2, 3)
    data = bytearray(log.read_bytes())
    for place in range(RECORD):
        data[records_at(log) + RECORD + place] ^= 4
        log.write_bytes(data)
        assert position(opened(tmp_path)) == BLOCK
        data[records_at(log) + RECORD + place] ^= 4
    log.write_bytes(data)
    assert position(opened(tmp_path)) == 3 * BLOCK


@pytest.mark.parametrize(
    ("lies", "believed"),
    [
        ([(BLOCK, b"x" * 32)], 0),
        ([(BLOCK, digest(BLOCK)), (3 * BLOCK, b"x" * 32), (4 * BLOCK, digest(4 * BLOCK))], BLOCK),
        ([(BLOCK, digest(BLOCK)), (2**63, digest(BLOCK))], BLOCK),
        ([(2 * BLOCK, digest(2 * BLOCK)), (len(CONTENT) + 1, digest(len(CONTENT)))], 2 * BLOCK),
        ([(2 * BLOCK, digest(2 * BLOCK)), (BLOCK, digest(BLOCK))], 2 * BLOCK),
        ([(2 * BLOCK, digest(2 * BLOCK)), (2 * BLOCK, digest(2 * BLOCK))], 2 * BLOCK),
        ([(0, digest(0)), (BLOCK, digest(BLOCK))], 0),
        ([(BLOCK, digest(BLOCK)), (BLOCK + 7, digest(BLOCK + 7))], BLOCK),
        ([(7, digest(7)), (3 * BLOCK, digest(3 * BLOCK))], 3 * BLOCK),
    ],
    ids=["hash", "hash, then right", "far", "beyond", "back", "twice", "zero", "no border", "between"],
)
def test_a_log_that_lies(tmp_path: Path, lies: list[tuple[int, bytes]], believed: int) -> None:
    checkpoints = opened(tmp_path)
    for offset, claimed in lies:
        checkpoints.append(offset, claimed)
    assert position(opened(tmp_path)) == believed


def test_blocks_of_another_size_borders_of_both_count(tmp_path: Path) -> None:
    written(tmp_path, 1, 4, 9)
    assert position(opened(tmp_path), block_size=4 * BLOCK) == 4 * BLOCK


@pytest.mark.parametrize(
    "other",
    [
        lambda folder: opened(folder, image=Image("rootfs", sha256="0" * 64, size=len(CONTENT))),
        lambda folder: opened(folder, image=Image("rootfs", sha256=IMAGE.sha256, size=len(CONTENT) + 1)),
        lambda folder: opened(folder, slot=Slot("rootfs.1", "rootfs", 1, "/dev/sda9")),
    ],
    ids=["image", "size", "device"],
)
def test_something_else_begins_a_new_log(tmp_path: Path, other: Callable[[Path], Checkpoints]) -> None:
    log = written(tmp_path, 1, 2)
    assert position(other(tmp_path)) == 0
    assert log.stat().st_size == records_at(log)
    assert position(opened(tmp_path)) == 0


@pytest.mark.parametrize("content", [b"", b"\n", b"[" * 100_000, os.urandom(5000), bytes(5000)])
def test_a_foreign_file_is_replaced(tmp_path: Path, content: bytes) -> None:
    log = tmp_path / "rootfs.1.log"
    log.write_bytes(content)
    assert position(opened(tmp_path)) == 0
    assert position(opened(tmp_path)) == 0
    assert log.stat().st_size < 500


def test_a_huge_file_a_fifo_and_a_link_are_replaced_at_once(tmp_path: Path) -> None:
    log = written(tmp_path, 1)
    os.truncate(log, 1 << 40)
    assert position(opened(tmp_path)) == 0
    log.unlink()
    os.mkfifo(log)
    assert position(opened(tmp_path)) == 0
    assert log.is_file()
    elsewhere = written(tmp_path, 1).rename(tmp_path / "elsewhere")
    log.symlink_to(elsewhere)
    assert position(opened(tmp_path)) == 0
    assert not log.is_symlink()


def test_it_does_not_grow_without_end(tmp_path: Path) -> None:
    image = Image("rootfs", sha256=IMAGE.sha256, size=1 << 40)
    checkpoints = opened(tmp_path, image=image)
    log = tmp_path / "rootfs.1.log"
    checkpoints.append(BLOCK, digest(BLOCK))
    record = log.read_bytes()[records_at(log) :][:RECORD]
    count = MAX_LOG // RECORD  # one more than fit
    with log.open("r+b") as file:
        file.seek(records_at(log))
        for block in range(1, count):
            body = (block * BLOCK).to_bytes(8, "little") + record[8:40]
            file.write(body + hashlib.sha256(body).digest()[:8])
    full = opened(tmp_path, image=image)
    with warnings() as said:
        full.append(1 << 39, digest(BLOCK))
    assert log.stat().st_size < MAX_LOG + (1 << 16)
    assert position(full) == BLOCK
    assert said == []


def test_clear_and_restart(tmp_path: Path) -> None:
    log = written(tmp_path, 1, 2)
    asyncio.run(opened(tmp_path).restart())
    assert log.stat().st_size == records_at(log)
    written(tmp_path, 3)
    asyncio.run(opened(tmp_path).clear())
    assert not log.exists()
    asyncio.run(opened(tmp_path).clear())


def test_a_slot_name_is_no_path(tmp_path: Path) -> None:
    opened(tmp_path / "resume", Slot("../x/y.0", "../x/y", 0, "/dev/null"))
    assert [path.name for path in (tmp_path / "resume").iterdir()] == ["..%2Fx%2Fy.0.log"]
    assert [path.name for path in tmp_path.iterdir()] == ["resume"]


def test_a_folder_that_cannot_be_written_is_said_once_and_does_no_harm(tmp_path: Path) -> None:
    with warnings() as said:
        checkpoints = opened(tmp_path / "missing" / "resume")
        for block in (1, 2):
            checkpoints.append(block * BLOCK, digest(block * BLOCK))
        assert position(checkpoints) == 0
        asyncio.run(checkpoints.restart())
        asyncio.run(checkpoints.clear())
    assert len(said) == 1
    assert said[0].endswith(
        "cannot be written (No such file or directory): an interrupted install begins anew"
    )


@pytest.mark.root
def test_a_full_and_a_read_only_data_directory(tmp_path: Path) -> None:
    point = tmp_path / "data"
    point.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "none", str(point)]
    subprocess.run(mount, check=True)
    try:
        written(point / "resume", 1)
        with (point / "filler").open("wb", buffering=0) as filler, pytest.raises(OSError, match="No space"):
            while True:
                filler.write(bytes(4096))
        with warnings() as said:
            written(point / "resume", 2, 5)  # there is room laid out for them
            assert said == []
            other = opened(point / "resume", Slot("other.0", "other", 0, "/dev/null"))
            other.append(BLOCK, digest(BLOCK))
        assert len(said) == 1
        assert "No space left on device" in said[0]
        subprocess.run(["mount", "-o", "remount,ro", str(point)], check=True)
        with warnings() as said:
            checkpoints = opened(point / "resume")
            assert position(checkpoints) == 5 * BLOCK  # what was written before is still of use
            for _ in range(2):
                checkpoints.append(len(CONTENT), digest(len(CONTENT)))
        assert len(said) == 1
        assert "Read-only file system" in said[0]
    finally:
        subprocess.run(["umount", str(point)], check=True)


def test_a_slot_that_cannot_be_read_is_written_again(tmp_path: Path) -> None:
    written(tmp_path, 1, 2, 3)

    class Worn(VolatileSlot):
        def read_back(self, offset: int, length: int) -> bytes:
            if offset >= 2 * BLOCK:
                raise DeviceError("Failed to read: Input/output error")
            return super().read_back(offset, length)

    begun = asyncio.run(opened(tmp_path).resume(Worn(Medium(bytearray(CONTENT))), BLOCK))
    assert begun.position == 2 * BLOCK


@pytest.mark.root
def test_a_real_slot_is_read_past_the_page_cache(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(CONTENT + bytes(-len(CONTENT) % BLOCK))
    written(tmp_path, 1, 2, 20)
    command = ["losetup", "--find", "--show", str(disk)]
    device = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    try:
        Path(device).read_bytes()  # cached now
        with disk.open("r+b") as file:
            file.seek(10 * BLOCK)
            file.write(b"behind our back")
        slot = open_slot(Slot("rootfs.1", "rootfs", 1, device), image_size=len(CONTENT))
        begun = asyncio.run(opened(tmp_path).resume(slot, BLOCK))
        slot.close()
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)
    assert begun.position == 2 * BLOCK


def test_cancelled_while_it_reads_it_leaves_no_thread_in_the_slot(tmp_path: Path) -> None:
    written(tmp_path, 1, 2, 3)

    async def main() -> int:
        checkpoints = await open_checkpoints(tmp_path, SLOT, IMAGE)
        reading = asyncio.Event()
        loop = asyncio.get_running_loop()

        class Slow(VolatileSlot):
            inside = 0

            def read_back(self, offset: int, length: int) -> bytes:
                self.inside += 1
                loop.call_soon_threadsafe(reading.set)
                found = super().read_back(offset, length)
                self.inside -= 1
                return found

        slot = Slow(Medium(bytearray(CONTENT)))
        task = asyncio.create_task(checkpoints.resume(slot, BLOCK))
        await reading.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return slot.inside

    assert asyncio.run(main()) == 0
    assert position(opened(tmp_path)) == 3 * BLOCK
