"""The streaming engine on images of the real mksquashfs: all compressors, shapes of files, faults."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import subprocess
import threading
import time
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx
from hypothesis import given, settings
from hypothesis import strategies as st

from updated.bundle.chunks import CHUNK
from updated.bundle.decompress import Compressor
from updated.bundle.plan import Range, run_on_bytes
from updated.bundle.squashfs import FileLayout, open_image
from updated.bundle.squashfs.layout import STORED
from updated.bundle.verity import VerityParams, VerityTree
from updated.core.model import Reader, SlotWriter
from updated.errors import BundleError, DeviceError, SourceError, UpdatedError
from updated.install.fetch import REREADS, Group, in_groups
from updated.install.pipeline import AHEAD, REMOTE_LOAD, RUN, BlockRuns, runs, stream_image, unpack
from updated.install.readback import STRETCH
from updated.install.runs import REMOTE_RUN

GRANULE = 4096
WORKERS = 2
MIB = 1 << 20


class FlatDigests:
    """A `Verifier` whose digests lie behind the payload in one row; remembers who checked in which thread."""

    def __init__(self, payload: bytes, granule: int = GRANULE) -> None:
        self.granule = granule
        self.data_size = len(payload)
        self.proof = b"".join(_digests(payload, granule))
        self.threads: set[str] = set()

    def digests(self, offset: int, length: int) -> Range:
        assert offset % self.granule == 0
        assert length % self.granule == 0 or offset + length == self.data_size
        return Range(self.data_size + offset // self.granule * 32, -(-length // self.granule) * 32)

    def check(self, offset: int, data: bytes | memoryview, digests: bytes) -> None:
        self.threads.add(threading.current_thread().name)
        if list(_digests(data, self.granule)) != [digests[i : i + 32] for i in range(0, len(digests), 32)]:
            raise BundleError("bundle payload is corrupted")


def _digests(data: bytes | memoryview, granule: int) -> Iterable[bytes]:
    return (hashlib.sha256(data[i : i + granule]).digest() for i in range(0, len(data), granule))


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
    ends: int = 0

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
        ranges = list(ranges)
        self.expected += ranges
        self.ends += not ranges

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


def test_what_is_on_its_way_back_is_remembered_when_the_reader_fails(squash: Squash) -> None:
    image = squash(bytes(STRETCH) + random.Random(3).randbytes(MIB))
    failed = threading.Event()

    class Pulled(Bytes):
        async def read(self, offset: int, length: int) -> bytes:
            await asyncio.to_thread(reading.wait)
            failed.set()
            raise SourceError("Failed to read")

    class Slow(Slot):
        def read_back(self, offset: int, length: int) -> bytes:
            reading.set()
            assert failed.wait(10)
            return super().read_back(offset, length)

    reading = threading.Event()
    durable: list[tuple[int, bytes]] = []
    with pytest.raises(SourceError):
        image.stream(Pulled(image.payload), Slow(), on_durable=lambda *record: durable.append(record))
    assert durable == [(STRETCH, hashlib.sha256(bytes(STRETCH)).digest())]
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


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize("option", ["-no-fragments", "-always-use-fragments"])
def test_reads_are_as_they_were_announced_and_each_byte_comes_once(
    squash: Squash, option: str, remote: bool
) -> None:
    image = squash(mixed(9 * MIB + 77), option, beside={"aaa": b"neighbour" * 99})
    reader = Bytes(image.payload + image.verifier.proof, remote=remote)
    slot = Slot()
    image.stream(reader, slot)
    assert slot.holds(image.content)
    assert reader.wanted == reader.expected
    assert reader.ends == 1
    ranges = sorted(reader.wanted)
    overlaps = [sum(one) - other[0] for one, other in pairwise(ranges) if sum(one) > other[0]]
    # The tail's block, and its digests, may share a granule with what lies beside it.
    assert sum(overlaps) <= (2 * GRANULE if option == "-always-use-fragments" else 0)


def test_a_network_has_less_under_way_than_a_file(squash: Squash) -> None:
    image = squash(random.Random(1).randbytes(12 * MIB), "-noD")
    reader = Bytes(image.payload + image.verifier.proof, remote=True)
    most = 0

    def look(offset: int) -> None:
        nonlocal most
        time.sleep(0.002)
        most = max(most, reader.given - offset)

    slot = Slot(before_write=look)
    image.stream(reader, slot)
    assert slot.holds(image.content)
    digests_and_borders = 110_000
    assert REMOTE_RUN < most <= REMOTE_LOAD + digests_and_borders


class Flaky(Bytes):
    """Gives a wrong byte at `at`, the first `bad` times that it is read."""

    bad = 0
    at = 0

    async def read(self, offset: int, length: int) -> bytes:
        data = bytearray(await super().read(offset, length))
        if self.bad and offset <= self.at < offset + length:
            data[self.at - offset] ^= 1
            self.bad -= 1
        return bytes(data)


@pytest.mark.parametrize("bad", [1, 2, 3])
@pytest.mark.parametrize("where", ["data", "border", "digests"])
def test_bad_bytes_are_read_again(squash: Squash, where: str, bad: int) -> None:
    image = squash(random.Random(8).randbytes(5 * MIB))
    start = image.layout.start
    reader = Flaky(image.payload + image.verifier.proof)
    reader.bad = bad
    reader.at = {
        "data": start + 2 * MIB + 100_000,
        "border": start + 2 * MIB,  # of two runs, in one granule
        "digests": len(image.payload) + (start + 2 * MIB + 100_000) // GRANULE * 32,
    }[where]
    slot = Slot()
    assert image.stream(reader, slot) == hashlib.sha256(image.content).digest()
    assert slot.holds(image.content)
    assert reader.bad == 0
    assert any(offset <= reader.at < offset + length for offset, length in reader.forgotten)


def test_bytes_that_stay_bad_are_the_fault_of_where_they_come_from(squash: Squash) -> None:
    image = squash(random.Random(8).randbytes(3 * MIB))
    reader = Flaky(image.payload + image.verifier.proof)
    reader.bad, reader.at = 1 << 30, image.layout.start + MIB + 100_000
    slot = Slot()
    text = r"^bundle payload is corrupted: bytes \d+ to \d+ of memory.raucb are not those that were signed$"
    with pytest.raises(SourceError, match=text):
        image.stream(reader, slot)
    assert (1 << 30) - reader.bad == 1 + REREADS
    assert slot.holds(image.content[:MIB])
    assert reader.ends == 1


def small_layout(words: list[int], start: int, size: int) -> FileLayout:
    return FileLayout(
        size=size,
        block_size=4096,
        compressor=Compressor.GZIP,
        start=start,
        words=array("I", [word | STORED if word else 0 for word in words]),
        stored_bytes=sum(words),
        tail=None,
    )


@settings(max_examples=50)
@given(
    words=st.lists(st.sampled_from([0, 4096]), min_size=1, max_size=60),
    start=st.integers(0, 3 * CHUNK),
    granule=st.sampled_from([4096, CHUNK]),
    many=st.integers(1, 9),
    first=st.integers(0, 60),
    data=st.data(),
)
def test_any_layout_comes_whole_in_order_and_once(
    *, words: list[int], start: int, granule: int, many: int, first: int, data: st.DataObject
) -> None:
    layout = small_layout(words, start, 4096 * len(words))
    behind = data.draw(st.integers(0, 2 * CHUNK))
    payload = random.Random(1).randbytes(start + layout.stored_bytes + behind)
    first = min(first, len(words))
    content, position = b"", start
    for word in words:
        content += payload[position : position + word] or bytes(4096)
        position += word
    verifier = FlatDigests(payload, granule)
    reader = Bytes(payload + verifier.proof, remote=data.draw(st.booleans()))

    async def main() -> bytes:
        wanted = runs(layout, first * 4096, size=many * 4096)
        parts = unpack(layout, verifier, reader, workers=1, runs=wanted)
        return b"".join([bytes(part) async for part in parts])

    assert asyncio.run(main()) == content[first * 4096 :]
    assert reader.wanted == reader.expected
    ranges = sorted(reader.wanted)
    assert all(offset + length <= behind for (offset, length), (behind, _) in pairwise(ranges))


@settings(max_examples=50)
@given(st.lists(st.integers(0, 4096), min_size=1, max_size=300), st.data())
def test_runs_of_any_blocks(words: list[int], data: st.DataObject) -> None:
    size = 4096 * len(words) - data.draw(st.integers(0, 4095))
    layout = small_layout(words, 96, size)
    first = data.draw(st.integers(0, len(words) - 1))
    last = data.draw(st.integers(first + 1, min(len(words), first + 256)))
    run = BlockRuns(layout)(range(first, last))
    assert run.start == 96 + sum(words[:first])
    assert run.stored == sum(words[first:last])
    assert run.size == sum(layout.output(block) for block in range(first, last))
    whole = list(runs(layout, first * 4096))
    assert whole[0].start == run.start
    assert sum(some.size for some in whole) == size - first * 4096
    assert [BlockRuns(layout)(some.blocks) for some in whole] == whole


def test_what_is_no_run() -> None:
    layout = small_layout([4096] * 600, 0, 4096 * 600)
    for blocks in (range(0), range(0, 4, 2), range(590, 601), range(257)):
        with pytest.raises(ValueError, match="not one run"):
            BlockRuns(layout)(blocks)
    with pytest.raises(ValueError, match="no border of blocks: 5"):
        list(runs(layout, 5))
    assert list(runs(layout, 4096 * 600)) == []


@pytest.mark.parametrize("scattered", [False, True])
def test_groups_are_bounded(scattered: bool) -> None:
    tree = VerityTree(VerityParams(b"", b"", 1 << 32), bytes(32 * (1 << 32 >> 19)))
    layout = small_layout([4096] * 100_000, 96, 4096 * 100_000)
    make = BlockRuns(layout)
    some = [make(range(n, n + 1)) for n in range(0, 100_000, 900)] if scattered else list(runs(layout))
    groups: dict[int, Group] = {}
    jobs = []
    for group, job in in_groups(tree, some):
        groups[id(group)] = group
        jobs.append(job)
    assert [job.run for job in jobs] == some
    for group in groups.values():
        assert sum(job.run.stored for job in group.jobs) <= 128 * MIB
        assert sum(proof.length for proof in group.proofs) <= MIB
        assert len(group.jobs) <= 512
    assert len(groups) == (1 if scattered else 4)


def test_a_group_ends_where_the_order_turns_back() -> None:
    layout = small_layout([4096] * 1000, 0, 4096 * 1000)
    make = BlockRuns(layout)
    back = [make(range(500, 600)), make(range(600, 700)), make(range(100, 200))]
    groups = [group for group, _ in in_groups(FlatDigests(bytes(4096 * 1000), 4096), back)]
    assert [id(group) == id(groups[0]) for group in groups] == [True, True, False]
