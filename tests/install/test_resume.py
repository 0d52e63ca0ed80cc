"""Images of real bundles on their way into a slot, interrupted anywhere, and how much comes twice."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest

from tests.fakes.interrupted import Medium, Server, VolatileSlot
from updated.bundle.trust import Keyring, KeyringPolicy
from updated.core.model import Reader, Slot, SlotWriter
from updated.errors import BundleError, DeviceError, SourceError
from updated.install.checkpoint import open_checkpoints
from updated.install.opened import OpenedBundle, PartsFrom, open_bundle
from updated.install.pipeline import runs, unpack
from updated.readers.file import open_file
from updated.slots.raw import open_slot

MakeBundle = Callable[..., Path]
NOW = datetime(2026, 12, 1, tzinfo=UTC)
FORMATS = ("plain", "verity")
MIB = 1 << 20
TWICE = 8 * MIB  # the promise for each interruption
TARGET = Slot("rootfs.1", "rootfs", 1, "/dev/disk/by-partlabel/rootfs-b")
ROOTFS = random.Random(1).randbytes(16 * MIB + 5000)  # incompressible, with a tail
ZSTD = "-comp zstd -Xcompression-level 1"
SQUASHFS = {
    "128K": f"{ZSTD} -b 131072",
    "1M": f"{ZSTD} -b 1048576",
    "4K": f"{ZSTD} -b 4096 -always-use-fragments",
}


@dataclass
class Scene:
    """A bundle, a slot and a data directory; attempts to bring them together."""

    bundle: Path
    keyring: Keyring
    folder: Path
    medium: Medium

    async def opened(self, reader: Reader) -> OpenedBundle:
        return await open_bundle(reader, keyring=self.keyring, formats=FORMATS, now=NOW)

    async def write(
        self,
        reader: Reader,
        slot: SlotWriter,
        *,
        workers: int = 4,
        opened: OpenedBundle | None = None,
        parts_from: PartsFrom | None = None,
        on_bytes: Callable[[int], None] = lambda _: None,
    ) -> None:
        bundle = opened or await self.opened(reader)
        (image,) = (image for image in bundle.manifest.images if image.filename == "rootfs.img")
        checkpoints = await open_checkpoints(self.folder, TARGET, image)
        await bundle.write_image(
            image, slot, workers=workers, checkpoints=checkpoints, parts_from=parts_from, on_bytes=on_bytes
        )

    def attempt(
        self, *, dies_after: int | None = None, workers: int = 4, sync_time: float = 0.0
    ) -> tuple[bool, Server, VolatileSlot]:
        """One that ends with the server's death, and then with a power cut; was it complete?"""
        server, slot = self.server(dies_after=dies_after), VolatileSlot(self.medium, sync_time)
        try:
            asyncio.run(self.write(server, slot, workers=workers))
        except SourceError:
            return False, server, slot
        return True, server, slot

    def server(self, *, dies_after: int | None = None) -> Server:
        return Server(self.bundle.read_bytes(), dies_after=dies_after)

    @property
    def log(self) -> Path:
        return self.folder / "rootfs.1.log"

    @property
    def holds(self) -> bytes:
        return bytes(self.medium.data)


Setting = Callable[..., Scene]


@pytest.fixture
def scene(make_bundle: MakeBundle, signer: tuple[Path, Path], tmp_path: Path) -> Setting:
    def make(
        bundle_format: str = "verity", content: bytes = ROOTFS, squashfs: str = SQUASHFS["128K"]
    ) -> Scene:
        bundle = make_bundle(bundle_format, {"rootfs.img": content, "boot.img": ROOTFS[:9999]}, "", squashfs)
        keyring = Keyring.load([signer[0].read_bytes()], KeyringPolicy())
        return Scene(bundle, keyring, tmp_path / "resume", Medium(bytearray(len(content))))

    return make


@pytest.mark.parametrize(
    ("squashfs", "sync_time"), [("128K", 0.0), ("128K", 0.02), ("1M", 0.02), ("4K", 0.02)]
)
def test_at_most_8_mib_come_twice_for_each_interruption(
    scene: Setting, squashfs: str, sync_time: float
) -> None:
    there = scene("verity", squashfs=SQUASHFS[squashfs])
    source = random.Random(5)
    begun = fetched = interruptions = 0  # where the last attempt began, what it fetched
    complete = False
    while not complete:
        dies_after = source.randrange(6 * MIB, 9 * MIB)
        complete, server, slot = there.attempt(
            dies_after=dies_after, sync_time=sync_time, workers=source.choice((1, 4))
        )
        gone_on = slot.written[0][0]
        assert fetched - (gone_on - begun) < TWICE  # what is stored is as long as what it holds
        interruptions += not complete
        begun, fetched = gone_on, server.fetched
    assert interruptions >= 2
    assert there.holds == ROOTFS


@pytest.mark.parametrize("share", [0.85, 0.5])
def test_blocks_of_1_mib_that_compress_badly_keep_the_promise(scene: Setting, share: float) -> None:
    source = random.Random(6)
    length = int(4096 * share)
    content = b"".join(source.randbytes(length) + bytes(4096 - length) for _ in range(16 * MIB // 4096))
    there = scene("verity", content, SQUASHFS["1M"])
    stored = there.bundle.stat().st_size
    first = there.attempt(dies_after=stored * 2 // 3, sync_time=0.02)
    second = there.attempt()
    assert (first[0], second[0]) == (False, True)
    assert first[1].fetched + second[1].fetched - stored < TWICE
    assert there.holds == content


@pytest.mark.parametrize("bundle_format", FORMATS)
def test_what_is_announced_is_what_is_read_each_byte_once(scene: Setting, bundle_format: str) -> None:
    there = scene(bundle_format)
    server = there.server()

    async def main() -> None:
        bundle = await there.opened(server)
        (image,) = (image for image in bundle.manifest.images if image.filename == "rootfs.img")
        await bundle.image_layout(image)
        server.reads.clear()
        server.announced.clear()
        server.surprises.clear()
        await there.write(server, VolatileSlot(there.medium), opened=bundle)

    asyncio.run(main())
    assert server.reads == server.announced
    assert server.surprises == []
    assert server.coming == []
    ranges = sorted(server.reads)
    assert all(offset + length <= behind for (offset, length), (behind, _) in pairwise(ranges))
    assert there.holds == ROOTFS


@pytest.mark.parametrize("bundle_format", FORMATS)
def test_cut_at_every_record_and_never_written_twice(scene: Setting, bundle_format: str) -> None:
    content = random.Random(2).randbytes(10 * MIB + 77)
    there = scene(bundle_format, content)
    assert there.attempt()[0]
    log = there.log.read_bytes()
    start = log.index(b"\n") + 1
    offsets = [int.from_bytes(log[at : at + 8], "little") for at in range(start, len(log) - 47, 48)]
    offsets = offsets[: offsets.index(len(content)) + 1]
    assert len(offsets) >= 6
    for count, offset in enumerate([0, *offsets]):
        there.log.write_bytes(log[: start + 48 * count])
        there.medium.data[offset:] = bytes(len(content) - offset)  # the power was cut here
        complete, _, slot = there.attempt(workers=1 + count % 4)
        assert complete
        assert there.holds == content
        assert slot.written == [] if offset == len(content) else slot.written[0][0] == offset
        assert sum(length for _, length in slot.written) == len(content) - offset


def test_a_complete_image_is_only_hashed_again(scene: Setting) -> None:
    there = scene()
    there.attempt()
    complete, server, slot = there.attempt()
    assert complete
    assert slot.written == []
    assert server.fetched < 200_000  # tail, hash tree and directory
    assert server.announced == []


def test_a_log_that_lies_leads_to_a_new_beginning_not_to_blame(
    scene: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    there = scene()
    there.attempt(dies_after=12 * MIB)
    log = bytearray(there.log.read_bytes())
    start = log.index(b"\n") + 1
    there.medium.data[5] ^= 1  # and somebody made the records fit
    for at in range(start, len(log) - 47, 48):
        offset = int.from_bytes(log[at : at + 8], "little")
        if not offset:
            break
        body = bytes(log[at : at + 8]) + hashlib.sha256(there.medium.data[:offset]).digest()
        log[at : at + 48] = body + hashlib.sha256(body).digest()[:8]
    there.log.write_bytes(log)
    with caplog.at_level(logging.WARNING):
        complete, _, slot = there.attempt()
    assert complete
    assert there.holds == ROOTFS
    assert slot.written[0][0] > 0
    assert (0, slot.written[0][1]) in slot.written
    assert "what was here already is not what the image has: beginning anew" in caplog.text
    assert there.attempt()[2].written == []  # the new records are right


def test_a_slot_changed_behind_our_back_is_written_from_there(scene: Setting) -> None:
    there = scene()
    there.attempt(dies_after=14 * MIB)
    there.medium.data[3 * MIB + 5] ^= 1
    complete, _, slot = there.attempt()
    assert complete
    assert there.holds == ROOTFS
    assert 0 < slot.written[0][0] <= 3 * MIB


def test_a_medium_that_wears_out_is_blamed_and_its_log_is_gone(scene: Setting) -> None:
    there = scene(content=ROOTFS[: 3 * MIB])

    class Worn(VolatileSlot):
        def read_back(self, offset: int, length: int) -> bytes:
            found = bytearray(super().read_back(offset, length))
            if offset == 0:
                found[0] ^= 1
            return bytes(found)

    for _ in range(2):
        with pytest.raises(DeviceError, match="Slot holds other bytes than were written to it"):
            asyncio.run(there.write(there.server(), Worn(there.medium)))
        assert not there.log.exists()


@pytest.mark.parametrize(
    ("size", "squashfs"),
    [
        (0, "128K"),
        (1, "4K"),
        (131072, "128K"),
        (300_000, "4K"),
        (300_000, "1M"),
        (MIB, "1M"),
        (MIB + 1, "128K"),
    ],
)
def test_small_images(scene: Setting, size: int, squashfs: str) -> None:
    content = random.Random(3).randbytes(size)
    there = scene(content=content, squashfs=SQUASHFS[squashfs])
    for _ in range(2):
        assert there.attempt()[0]
        assert there.holds == content


def test_zeros_and_a_tail(scene: Setting) -> None:
    content = bytes(40 * MIB) + b"tail"
    there = scene(content=content, squashfs=f"{ZSTD} -always-use-fragments")
    there.attempt()
    log = there.log.read_bytes()
    there.log.write_bytes(log[: log.index(b"\n") + 1 + 48])  # the stretch of 32 MiB
    _, _, slot = there.attempt()
    assert slot.written[0][0] == 32 * MIB
    assert there.holds == content


def test_cancelled_it_goes_on_as_well(scene: Setting) -> None:
    there = scene()

    async def cancelled() -> int:
        slot = VolatileSlot(there.medium)
        task: asyncio.Task[None] | None = None

        def stop(done: int) -> None:
            if done > 10 * MIB and task is not None:
                task.cancel()

        server = there.server()
        task = asyncio.create_task(there.write(server, slot, on_bytes=stop))
        with pytest.raises(asyncio.CancelledError):
            await task
        assert server.coming == []
        return server.fetched

    first = asyncio.run(cancelled())
    complete, server, _ = there.attempt()
    assert complete
    assert there.holds == ROOTFS
    assert first + server.fetched - there.bundle.stat().st_size < TWICE


def test_the_adaptive_engine_has_its_place(scene: Setting) -> None:
    there = scene()
    there.attempt(dies_after=12 * MIB)
    asked: list[int] = []
    server = there.server()

    async def main() -> None:
        bundle = await there.opened(server)

        def parts_from(layout: object, start: int):  # type: ignore[no-untyped-def]
            asked.append(start)
            (image,) = (image for image in bundle.manifest.images if image.filename == "rootfs.img")
            found = bundle.payload._layouts["rootfs.img"]
            assert image.size == found.size and layout is found
            return unpack(found, bundle.payload.verifier, server, runs=runs(found, start))

        slot = VolatileSlot(there.medium)
        await there.write(server, slot, opened=bundle, parts_from=parts_from)
        assert slot.written[0][0] == asked[0]

    asyncio.run(main())
    assert len(asked) == 1 and asked[0] > 0
    assert there.holds == ROOTFS


def test_a_bad_bundle_is_still_a_bad_bundle_after_a_resume(scene: Setting) -> None:
    there = scene(content=ROOTFS[: 4 * MIB])
    there.attempt(dies_after=4 * MIB)

    async def main() -> None:
        server = there.server()
        bundle = await there.opened(server)
        (image,) = (image for image in bundle.manifest.images if image.filename == "rootfs.img")
        checkpoints = await open_checkpoints(there.folder, TARGET, image)
        wrong = type(image)(**{name: getattr(image, name) for name in image.__slots__} | {"sha256": "0" * 64})
        with pytest.raises(BundleError, match="but the manifest says 0000"):
            await bundle.write_image(wrong, VolatileSlot(there.medium), checkpoints=checkpoints)

    asyncio.run(main())
    assert not there.log.exists()


@pytest.mark.root
def test_a_stick_that_is_pulled_and_a_real_slot(scene: Setting, tmp_path: Path) -> None:
    """The stick's loop device loses its content under our hands, the slot is another one."""
    source = random.Random(9)
    content = source.randbytes(2 * MIB) + bytes(64 * MIB) + source.randbytes(14 * MIB)
    there = scene(content=content)
    stick, disk, point, files = (tmp_path / name for name in ("stick", "disk", "point", "files"))
    files.mkdir()
    point.mkdir()
    there.bundle.rename(files / "test.raucb")
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", str(files), str(stick), "32M"], check=True)
    whole = stick.read_bytes()
    disk.write_bytes(bytes(len(content)))
    losetup = ["losetup", "--find", "--show", str(disk)]
    device = subprocess.run(losetup, check=True, capture_output=True, text=True).stdout.strip()
    seen: list[int] = []

    def pull(done: int) -> None:
        if done == 67 * MIB:
            stick.write_bytes(b"")

    async def attempt(on_bytes: Callable[[int], None]) -> int:
        reader = await open_file(str(point / "test.raucb"))
        slot = open_slot(Slot("rootfs.1", "rootfs", 1, device), image_size=len(content))
        try:
            await there.write(reader, slot, on_bytes=on_bytes)
        finally:
            slot.close()
            await reader.close()
        return reader.fetched

    subprocess.run(["mount", "-o", "loop,ro", str(stick), str(point)], check=True)
    try:
        with pytest.raises(SourceError, match="medium error"):
            asyncio.run(attempt(pull))
        stick.write_bytes(whole)
        fetched = asyncio.run(attempt(seen.append))
        assert Path(device).read_bytes() == content
    finally:
        subprocess.run(["umount", str(point)], check=True)
        subprocess.run(["losetup", "--detach", device], check=True)
    assert fetched < 15 * MIB
    assert seen == [MIB * n for n in range(1, 81)]
