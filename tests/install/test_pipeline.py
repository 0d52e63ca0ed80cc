"""The streaming engine on images of the real mksquashfs: all compressors, shapes of files, faults."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx

from updated.bundle.plan import Range, run_on_bytes
from updated.bundle.squashfs import FileLayout, open_image
from updated.core.model import Reader, SlotWriter
from updated.errors import BundleError, DeviceError, SourceError, UpdatedError
from updated.install.pipeline import AHEAD, RUN, stream_image, unpack
from updated.install.readback import STRETCH

GRANULE = 4096
WORKERS = 2
MIB = 1 << 20


class FlatDigests:
    """A `Verifier` whose digests lie behind the payload in one row; remembers who checked in which thread."""

    granule = GRANULE

    def __init__(self, payload: bytes) -> None:
        self.data_size = len(payload)
        self.proof = b"".join(_digests(payload))
        self.threads: set[str] = set()

    def digests(self, offset: int, length: int) -> Range:
        assert offset % GRANULE == 0
        assert length % GRANULE == 0 or offset + length == self.data_size
        return Range(self.data_size + offset // GRANULE * 32, -(-length // GRANULE) * 32)

    def check(self, offset: int, data: bytes | memoryview, digests: bytes) -> None:
        self.threads.add(threading.current_thread().name)
        if list(_digests(data)) != [digests[i : i + 32] for i in range(0, len(digests), 32)]:
            raise BundleError("bundle payload is corrupted")


def _digests(data: bytes | memoryview) -> Iterable[bytes]:
    return (hashlib.sha256(data[i : i + GRANULE]).digest() for i in range(0, len(data), GRANULE))


@dataclass
class Bytes:
    """A `Reader` of bytes in memory that can fail at an offset and counts what it gave out."""

    data: bytes
    fail_at: int | None = None
    given: int = 0
    name: str = "memory.raucb"
    remote: bool = False
    expected: list[tuple[int, int]] = field(default_factory=list)
    wanted: list[tuple[int, int]] = field(default_factory=list)
    forgotten: list[tuple[int, int]] = field(default_factory=list)

    @property
    def size(self) -> int:
        return len(self.data)

    async def read(self, offset: int, length: int) -> bytes:
        await asyncio.sleep(0)
        self.wanted.append((offset, length))
        if self.fail_at is not None and offset + length > self.fail_at:
            raise SourceError(f"Failed to read at {offset}: Input/output error")
        self.given += length
        return self.data[offset : offset + length]

    @property
    def fetched(self) -> int:
        return self.given

    def expect(self, ranges: Iterable[tuple[int, int]]) -> None:
        self.expected += ranges

    def forget(self, offset: int, length: int) -> None:
        self.forgotten.append((offset, length))

    async def close(self) -> None:
        pass


@dataclass
class Slot:
    """A `SlotWriter` into memory that can fail, wear out, or wait."""

    capacity: int = 1 << 40
    fail_at: int | None = None  # EIO from this offset on
    worn_at: int | None = None  # this byte never takes what is written
    before_write: Callable[[int], None] = lambda _: None
    data: bytearray = field(default_factory=bytearray)
    syncs: int = 0
    synced: int = 0
    inside: int = 0

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        assert offset == len(self.data), "written out of order"
        self.inside += 1
        try:
            self.before_write(offset)
            if self.fail_at is not None and offset + len(data) > self.fail_at:
                raise DeviceError("Failed to write: Input/output error")
            self.data += data
        finally:
            self.inside -= 1

    def holds(self, content: bytes) -> bool:
        return self.data == content

    def sync(self) -> None:
        self.syncs += 1
        self.synced = len(self.data)

    def read_back(self, offset: int, length: int) -> bytes:
        assert offset + length <= self.synced, "read back before it was synced"
        found = bytearray(self.data[offset : offset + length])
        if self.worn_at is not None and offset <= self.worn_at < offset + length:
            found[self.worn_at - offset] ^= 1
        return bytes(found)

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class Image:
    """A file in a SquashFS image."""

    content: bytes
    layout: FileLayout
    payload: bytes

    @property
    def verifier(self) -> FlatDigests:
        return FlatDigests(self.payload)

    def stream(
        self, reader: Reader | None = None, slot: SlotWriter | None = None, **options: object
    ) -> bytes:
        verifier = self.verifier
        reader = reader or Bytes(self.payload + verifier.proof)

        async def main() -> bytes:
            parts = unpack(self.layout, verifier, reader, workers=WORKERS)
            return await stream_image(parts, slot or Slot(), **options)  # type: ignore[arg-type]

        return asyncio.run(main())


Squash = Callable[..., Image]


@pytest.fixture
def squash(tmp_path: Path) -> Squash:
    """Packs `content` as `image` (and other files beside it) with the real mksquashfs."""

    def pack(content: bytes, *options: str, beside: dict[str, bytes] | None = None) -> Image:
        tree = tmp_path / "tree"
        tree.mkdir()
        for name, data in {"image": content, **(beside or {})}.items():
            (tree / name).write_bytes(data)
        packed = tmp_path / "packed"
        command = [
            "mksquashfs",
            str(tree),
            str(packed),
            "-noappend",
            "-quiet",
            "-no-progress",
            "-all-root",
            *options,
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        payload = packed.read_bytes()
        squashfs = run_on_bytes(open_image(len(payload)), payload)
        inode = run_on_bytes(squashfs.lookup("image"), payload)
        return Image(content, run_on_bytes(squashfs.file(inode), payload), payload)

    return pack


def mixed(size: int, seed: int = 1) -> bytes:
    """Like a file system: stretches that compress, that do not, and of zeros."""
    source = random.Random(seed)
    parts: list[bytes] = []
    while (left := size - sum(map(len, parts))) > 0:
        length = min(left, source.choice((4096, 50_000, 300_000)))
        parts.append(
            source.choice((bytes(length), source.randbytes(length), b"text " * (length // 5 + 1)))[:length]
        )
    return b"".join(parts)


def no_threads_left() -> bool:
    ours = [t for t in threading.enumerate() if t.name.startswith(("slot", "unpack"))]
    for thread in ours:
        thread.join(timeout=5)
    return not any(thread.is_alive() for thread in ours)


@pytest.mark.parametrize("block_size", [4096, 131072, 1048576])
@pytest.mark.parametrize("compressor", ["gzip", "xz", "zstd", "lz4"])
def test_every_compressor_and_block_size(squash: Squash, compressor: str, block_size: int) -> None:
    image = squash(mixed(3 * MIB + 12345), "-comp", compressor, "-b", str(block_size))
    slot = Slot()
    assert image.stream(slot=slot) == hashlib.sha256(image.content).digest()
    assert slot.holds(image.content)
    assert no_threads_left()


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 131071, 131072, 131073, MIB, MIB + 1])
@pytest.mark.parametrize("option", ["-no-fragments", "-always-use-fragments"])
def test_every_size_and_a_tail_in_a_fragment(squash: Squash, size: int, option: str) -> None:
    image = squash(mixed(size), option, beside={"aaa": b"neighbour" * 99, "zzz": b"other" * 99})
    slot = Slot()
    assert image.stream(slot=slot) == hashlib.sha256(image.content).digest()
    assert slot.holds(image.content)


def test_blocks_that_are_stored_as_they_are(squash: Squash) -> None:
    image = squash(mixed(2 * MIB + 99), "-noD", "-noF", "-always-use-fragments")
    slot = Slot()
    image.stream(slot=slot)
    assert slot.holds(image.content)


def test_zeros_are_written_without_reading_anything(squash: Squash) -> None:
    image = squash(bytes(5 * MIB + 4096))
    reader, slot = Bytes(image.payload), Slot()
    assert image.stream(reader, slot) == hashlib.sha256(image.content).digest()
    assert reader.given == 0
    assert slot.holds(image.content)


def test_progress_comes_about_once_per_mib_and_ends_at_the_size(squash: Squash) -> None:
    image = squash(mixed(4 * MIB + 5), "-comp", "lz4", "-b", "4096")
    seen: list[int] = []
    image.stream(on_bytes=seen.append)
    assert seen == [MIB, 2 * MIB, 3 * MIB, 4 * MIB, 4 * MIB + 5]


def test_checking_and_unpacking_run_in_the_workers_only(squash: Squash) -> None:
    image = squash(mixed(4 * MIB))
    verifier = image.verifier
    reader = Bytes(image.payload + verifier.proof)

    async def main() -> None:
        await stream_image(unpack(image.layout, verifier, reader, workers=WORKERS), Slot())

    asyncio.run(main())
    assert verifier.threads
    assert all(name.startswith("unpack") for name in verifier.threads)


def test_the_loop_is_never_blocked(squash: Squash) -> None:
    image = squash(mixed(3 * MIB))
    reader = Bytes(image.payload + image.verifier.proof)
    slot = Slot(before_write=lambda _: time.sleep(0.001))
    longest = 0.0

    async def main() -> None:
        nonlocal longest
        stream = asyncio.create_task(
            stream_image(unpack(image.layout, image.verifier, reader, workers=WORKERS), slot)
        )
        while not stream.done():
            start = time.monotonic()
            await asyncio.sleep(0)
            longest = max(longest, time.monotonic() - start)
        await stream

    with blockbuster_ctx():
        asyncio.run(main())
    assert longest < 0.5
    assert slot.holds(image.content)


def test_the_window_is_bounded_while_the_slot_is_slow(squash: Squash) -> None:
    image = squash(random.Random(1).randbytes(16 * MIB), "-noD")
    reader = Bytes(image.payload + image.verifier.proof)
    most = 0

    def look(offset: int) -> None:
        nonlocal most
        time.sleep(0.005)  # the reader is much faster than this
        most = max(most, reader.given - offset)

    image.stream(reader, Slot(before_write=look))
    digests_and_borders = 64 * 1024
    assert 2 * RUN < most <= (WORKERS + AHEAD) * (RUN + digests_and_borders)


def test_a_corrupted_block_ends_it_and_nothing_behind_it_is_written(squash: Squash) -> None:
    image = squash(random.Random(2).randbytes(6 * MIB))
    bad = bytearray(image.payload + image.verifier.proof)
    bad[image.layout.start + 3 * MIB + GRANULE] ^= 1
    slot = Slot()
    reader = Bytes(bytes(bad))
    with pytest.raises(SourceError, match=r"bundle payload is corrupted: bytes \d+ to \d+ of memory.raucb"):
        image.stream(reader, slot)
    assert slot.holds(image.content[: 3 * MIB])
    assert no_threads_left()


def test_a_block_that_is_signed_but_malformed_is_a_bad_bundle(squash: Squash) -> None:
    image = squash(b"text " * MIB)
    payload = bytearray(image.payload)
    payload[image.layout.start + 20 : image.layout.start + 60] = bytes(40)
    broken = Image(image.content, image.layout, bytes(payload))
    with pytest.raises(BundleError, match="Invalid squashfs"):
        broken.stream()


def test_a_layout_outside_of_the_payload_is_a_bad_bundle(squash: Squash) -> None:
    image = squash(random.Random(2).randbytes(2 * MIB))
    short = Image(image.content, image.layout, image.payload[:MIB])
    with pytest.raises(BundleError, match="Bundle payload has 1048576 bytes"):
        short.stream()


def test_a_reader_that_fails(squash: Squash) -> None:
    image = squash(random.Random(3).randbytes(5 * MIB))
    reader = Bytes(image.payload + image.verifier.proof, fail_at=image.layout.start + 3 * MIB)
    slot = Slot()
    with pytest.raises(SourceError, match="Input/output error"):
        image.stream(reader, slot)
    assert image.content.startswith(bytes(slot.data))
    assert len(slot.data) < 3 * MIB
    assert no_threads_left()


def test_a_slot_that_fails(squash: Squash) -> None:
    image = squash(mixed(5 * MIB))
    slot = Slot(fail_at=2 * MIB + 1)
    with pytest.raises(DeviceError, match="Input/output error"):
        image.stream(slot=slot)
    assert slot.holds(image.content[: 2 * MIB])
    assert no_threads_left()


@pytest.mark.parametrize("worn_at", [0, 1000, STRETCH + 5, STRETCH + 2 * MIB])
def test_a_worn_out_slot_is_found_by_reading_back(squash: Squash, worn_at: int) -> None:
    image = squash(bytes(STRETCH) + mixed(2 * MIB + 1))
    found = image.stream(slot=Slot(worn_at=worn_at))
    held = bytearray(image.content)
    held[worn_at] ^= 1
    assert found == hashlib.sha256(held).digest()


def test_the_medium_is_kept_busy_by_syncs_on_the_way(squash: Squash) -> None:
    image = squash(bytes(3 * STRETCH + 4096))
    slot = Slot()
    image.stream(slot=slot)
    assert slot.syncs == 4
    assert slot.synced == len(image.content)


@pytest.mark.parametrize("at", [0, 1, 3])
def test_cancelled_it_leaves_promptly_and_no_thread_is_in_the_writer(squash: Squash, at: int) -> None:
    image = squash(random.Random(4).randbytes(8 * MIB))
    reader = Bytes(image.payload + image.verifier.proof)
    reached, go_on = threading.Event(), threading.Event()

    def wait(offset: int) -> None:
        if offset == at * MIB:
            reached.set()
            assert go_on.wait(10)

    slot = Slot(before_write=wait)

    async def main() -> None:
        stream = asyncio.create_task(
            stream_image(unpack(image.layout, image.verifier, reader, workers=WORKERS), slot)
        )
        await asyncio.to_thread(reached.wait)
        stream.cancel()
        await asyncio.sleep(0.02)
        assert not stream.done(), "left while a thread was writing"
        stream.cancel()  # impatience does not help
        await asyncio.sleep(0.02)
        assert not stream.done()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await stream
        assert slot.inside == 0
        assert len(slot.data) == (at + 1) * MIB

    asyncio.run(main())
    assert no_threads_left()


def test_cancelled_during_a_read_it_goes_at_once(squash: Squash) -> None:
    image = squash(random.Random(5).randbytes(2 * MIB))

    class Hanging(Bytes):
        async def read(self, offset: int, length: int) -> bytes:
            await asyncio.Event().wait()
            raise AssertionError

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                reader = Hanging(image.payload)
                await stream_image(unpack(image.layout, image.verifier, reader, workers=WORKERS), Slot())

    asyncio.run(main())
    assert no_threads_left()


def test_many_faults_at_once_are_one_error(squash: Squash) -> None:
    image = squash(random.Random(6).randbytes(8 * MIB))
    bad = bytearray(image.payload + image.verifier.proof)
    for offset in range(image.layout.start, image.layout.start + 8 * MIB, 100_000):
        bad[offset] ^= 1
    slot = Slot(fail_at=0)
    with pytest.raises(UpdatedError) as caught:
        image.stream(Bytes(bytes(bad)), slot)
    assert isinstance(caught.value, SourceError)
    assert slot.data == b""


def test_memory_is_that_of_the_window_not_of_the_image(squash: Squash) -> None:
    def peak() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

    class Nowhere(Slot):
        def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
            self.capacity = max(self.capacity, offset + len(data))

        def read_back(self, offset: int, length: int) -> bytes:
            return bytes(length)

    image = squash(bytes(200 * MIB))
    os.sync()
    Path("/proc/self/clear_refs").write_text("5")
    before = peak()
    image.stream(slot=Nowhere())
    assert peak() - before < 24 * 1024
