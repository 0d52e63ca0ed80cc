"""Adaptive installs, on bundles of the real mksquashfs, with ext4 of the real mke2fs: what is fetched?"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import shutil
import subprocess
import threading
from collections.abc import Awaitable, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import pytest
from blockbuster import blockbuster_ctx

from updated.authoring.bundle import create
from updated.bundle.block_index import CHUNK, METHOD, digests_of
from updated.bundle.manifest import Image
from updated.bundle.trust import Keyring, KeyringPolicy
from updated.core.model import Slot, SlotStatus
from updated.errors import Refused, SourceError
from updated.install.adaptive import Adaptive, Saving, open_adaptive
from updated.install.adaptive_parts import Stats
from updated.install.checkpoint import open_checkpoints
from updated.install.opened import OpenedBundle, open_bundle
from updated.slots.raw import open_slot

T = TypeVar("T")
NOW = datetime(2026, 12, 1, tzinfo=UTC)
MIB = 1 << 20
DICE = random.Random(7)
NOISE = DICE.randbytes(4 * MIB)
FAST = ("-comp", "gzip", "-Xcompression-level", "1")


@dataclass
class Wire:
    """A `Reader` of a bundle in memory that counts what it gives out."""

    data: bytes
    remote: bool = True
    fetched: int = 0
    fail_after: int | None = None  # bytes
    name: str = "https://example.com/bundle.raucb"

    @property
    def size(self) -> int:
        return len(self.data)

    def expect(self, ranges: Iterable[tuple[int, int]]) -> None:
        pass

    def forget(self, offset: int, length: int) -> None:
        pass

    async def read(self, offset: int, length: int) -> bytes:
        await asyncio.sleep(0)
        if self.fail_after is not None and self.fetched + length > self.fail_after:
            raise SourceError("the link is down")
        self.fetched += length
        return self.data[offset : offset + length]

    async def close(self) -> None:
        pass


@dataclass
class Board:
    """A device with two slots in files: 0 runs, 1 is the target."""

    folder: Path
    keyring: Keyring
    status: dict[str, SlotStatus] = field(default_factory=dict)
    adaptive: Adaptive | None = None

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def path(self, number: int) -> Path:
        return self.folder / f"slot-{number}"

    def slot(self, number: int) -> Slot:
        return Slot(f"rootfs.{number}", "rootfs", number, str(self.path(number)))

    def hold(self, number: int, image: bytes, *, indexed: bool = True, size: int = 0) -> None:
        """Slot `number` holds `image`; `indexed`: as an adaptive install would have left it."""
        self.path(number).write_bytes(image)
        os.truncate(self.path(number), size or len(image))
        digest = hashlib.sha256(image).hexdigest()
        self.status[f"rootfs.{number}"] = SlotStatus(status="ok", sha256=digest, size=len(image))
        if indexed:
            self.index(number, digest).parent.mkdir(parents=True)
            self.index(number, digest).write_bytes(digests_of(image))

    def index(self, number: int, digest: str) -> Path:
        return self.data / f"slot.rootfs.{number}" / f"hash-{digest}" / "block-hash-index"

    def run(self, wire: Wire, use: Callable[[OpenedBundle, Image], Awaitable[T]]) -> T:
        async def main() -> T:
            opened = await open_bundle(wire, keyring=self.keyring, formats=("plain", "verity"), now=NOW)
            return await use(opened, opened.manifest.images[0])

        return asyncio.run(main())

    async def open(self, opened: OpenedBundle, image: Image, **more: object) -> Adaptive | None:
        settings = {
            "image": image,
            "opened": opened,
            "slot": self.slot(1),
            "active": self.slot(0),
            "status": self.status,
            "data": self.data,
            **more,
        }
        return await open_adaptive(**settings)  # type: ignore[arg-type]

    async def write(
        self, adaptive: Adaptive, opened: OpenedBundle, image: Image, start: int = 0, limit: int = 1 << 40
    ) -> int:
        """Write the parts from `start` to slot 1, until there are more than `limit`; where that ended."""
        layout = await opened.image_layout(image)
        writer = open_slot(self.slot(1), image_size=image.size)
        try:
            async with aclosing(adaptive.parts_from(layout, start)) as parts:
                async for part in parts:
                    if start + len(part) > limit:
                        break
                    await asyncio.to_thread(writer.write, start, part)
                    start += len(part)
        finally:
            writer.close()
        return start

    def install(self, wire: Wire, **more: object) -> Adaptive:
        """The whole way; what is written must be the image."""

        async def use(opened: OpenedBundle, image: Image) -> Adaptive:
            adaptive = await self.open(opened, image, **more)
            assert adaptive is not None
            await self.write(adaptive, opened, image)
            written = self.path(1).read_bytes()[: image.size]
            assert hashlib.sha256(written).hexdigest() == image.sha256
            await adaptive.keep()
            assert self.index(1, str(image.sha256)).read_bytes() == digests_of(written)
            return adaptive

        return self.run(wire, use)


@pytest.fixture(scope="module")
def keyring(signer: tuple[Path, Path]) -> Keyring:
    return Keyring.load([signer[0].read_bytes()], KeyringPolicy())


@pytest.fixture
def board(tmp_path: Path, keyring: Keyring) -> Board:
    (tmp_path / "data").mkdir()
    found = Board(tmp_path, keyring)
    found.path(1).write_bytes(b"")
    return found


Bundle = Callable[..., Wire]


@pytest.fixture(scope="module")
def made() -> dict[tuple[object, ...], bytes]:
    """Bundles by what is in them: many tests want the same."""
    return {}


@pytest.fixture
def bundle(tmp_path: Path, signer: tuple[Path, Path], made: dict[tuple[object, ...], bytes]) -> Bundle:
    """`bundle(image, *mksquashfs_args, adaptive=True, maker="updated", files={})`, and room in the target."""

    def make(
        image: bytes,
        *args: str,
        adaptive: bool = True,
        maker: str = "updated",
        files: dict[str, bytes] | None = None,
    ) -> Wire:
        files = files or {}
        key = (image, args, adaptive, maker, *files.items())
        if key not in made:
            method = f"adaptive={METHOD}\n" if adaptive else ""
            content = {"rootfs.img": image, **files}
            made[key] = pack(tmp_path, signer, content, method=method, args=args or FAST, maker=maker)
        if (tmp_path / "slot-1").stat().st_size < len(image):
            os.truncate(tmp_path / "slot-1", len(image))
        return Wire(made[key])

    return make


def pack(
    folder: Path,
    signer: tuple[Path, Path],
    files: dict[str, bytes],
    *,
    method: str,
    args: tuple[str, ...],
    maker: str,
) -> bytes:
    content, path = folder / "content", folder / "bundle.raucb"
    content.mkdir()
    for name, data in files.items():
        (content / name).write_bytes(data)
    (content / "manifest.raucm").write_text(
        "[update]\ncompatible=Test\nversion=1\n[bundle]\nformat=verity\n"
        f"[image.rootfs]\nfilename=rootfs.img\n{method}"
    )
    cert, key = signer
    if maker == "rauc":
        options = [f"--cert={cert}", f"--key={key}", f"--mksquashfs-args={' '.join(args)}"]
        subprocess.run(["rauc", "bundle", *options, content, path], check=True, capture_output=True)
    else:
        pem, private = cert.read_bytes(), key.read_bytes()
        create(content, path, certificate=pem, key=private, mksquashfs_args=args)
    shutil.rmtree(content)
    return path.read_bytes()


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


# ext4, as it is in the field


def file_system(folder: Path, name: str, changed: bool) -> bytes:
    """An ext4 image of a tree with some hundred files; `changed`: one package of it is newer."""
    tree = folder / name
    for package in range(30):
        for number in range(6):
            path = tree / "usr" / f"lib{package % 5}" / f"package{package}" / f"file{number}"
            path.parent.mkdir(parents=True, exist_ok=True)
            newer = changed and package == 23
            size = 20_000 + 1_000 * (package * 37 % 89) + newer * 3_000 * number
            path.write_bytes(noise(size, package * 10 + number + newer * 10_000))
            os.utime(path, (1_700_000_000 + newer, 1_700_000_000 + newer))
    image = folder / f"{name}.ext4"
    settings = (
        "-U",
        "6d5e0e5c-0000-4000-8000-000000000001",
        "-E",
        "hash_seed=6d5e0e5c-0000-4000-8000-000000000002",
    )
    # Blocks of 4096 bytes, which mke2fs takes by itself from 512 MiB on: smaller ones do not fill a chunk.
    command = ["mke2fs", "-q", "-t", "ext4", "-b", "4096", *settings, "-d", str(tree), str(image), "24M"]
    subprocess.run(
        command, check=True, env={**os.environ, "E2FSPROGS_FAKE_TIME": str(1_700_000_000 + changed)}
    )
    return image.read_bytes()


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return file_system(tmp_path_factory.mktemp("old"), "tree", changed=False)


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return file_system(tmp_path_factory.mktemp("new"), "tree", changed=True)


@pytest.mark.parametrize("remote", [True, False], ids=["server", "file"])
def test_one_package_changed(board: Board, bundle: Bundle, old: bytes, new: bytes, remote: bool) -> None:
    board.hold(0, old)
    wire = bundle(new)
    wire.remote = remote
    adaptive = board.install(wire)
    print(f"{wire.fetched} of {wire.size} bytes fetched: {wire.fetched / wire.size:.2%}, {adaptive.stats}")
    assert wire.fetched < wire.size / 10
    assert adaptive.stats.late == 0
    assert adaptive.survey.saved > 0.9


def test_nothing_changed(board: Board, bundle: Bundle, new: bytes) -> None:
    """The index is known from the active slot, and neither fetched."""
    board.hold(0, new)
    wire = bundle(new)
    adaptive = board.install(wire)
    print(f"{wire.fetched} of {wire.size} bytes fetched: {wire.fetched / wire.size:.2%}")
    assert wire.fetched < wire.size / 50
    assert (adaptive.stats.fetched, adaptive.stats.saved, adaptive.survey.to_fetch) == (0, 1, 0)


def test_a_factory_image_has_no_index_and_is_hashed(
    board: Board, bundle: Bundle, old: bytes, new: bytes
) -> None:
    board.path(0).write_bytes(old)
    wire = bundle(new, maker="rauc")
    steps: list[None] = []
    board.install(wire, moved=lambda: steps.append(None))
    assert wire.fetched < wire.size / 10
    assert len(steps) > len(old) // (8 * MIB)
    assert not (board.data / "slot.rootfs.0").exists()  # nothing would tell when it is out of date


# Shapes of images and changes


@pytest.mark.parametrize("chunks", [1, 32, 33])
def test_everything_shifted(chunks: int, board: Board, bundle: Bundle) -> None:
    board.hold(0, NOISE)
    image = noise(chunks * CHUNK) + NOISE[: -chunks * CHUNK]
    wire = bundle(image)
    adaptive = board.install(wire)
    blocks = -(-chunks // 32)
    assert adaptive.stats.fetched == blocks * 32 * CHUNK
    assert adaptive.stats.seeds == len(image) - blocks * 32 * CHUNK


def test_all_different(board: Board, bundle: Bundle) -> None:
    board.hold(0, NOISE)
    image = noise(len(NOISE))
    wire = bundle(image)
    adaptive = board.install(wire)
    assert adaptive.stats.fetched == len(image) and adaptive.survey.saved == 0
    assert wire.fetched < wire.size + 128 * 1024


def test_zeros_are_read_from_nowhere(board: Board, bundle: Bundle) -> None:
    image = bytes(2 * MIB) + noise(MIB) + bytes(64 * CHUNK) + noise(CHUNK, 2) + bytes(63 * CHUNK)
    os.truncate(board.path(1), len(image))
    board.path(1).write_bytes(noise(len(image), 3))
    adaptive = board.install(bundle(image), active=None)
    assert adaptive.stats.zeros == 2 * MIB + 96 * CHUNK
    assert adaptive.stats.fetched == MIB + 32 * CHUNK and adaptive.stats.seeds == 0


@pytest.mark.parametrize("remote", [True, False], ids=["server", "file"])
def test_what_the_target_held_is_used_until_it_is_written_over(
    remote: bool, board: Board, bundle: Bundle
) -> None:
    """The first half is from behind, still there; the second from the front, gone."""
    board.hold(1, NOISE)
    half = len(NOISE) // 2
    wire = bundle(NOISE[half:] + NOISE[:half])
    wire.remote = remote
    adaptive = board.install(wire, active=None)
    assert adaptive.stats.seeds == half and adaptive.stats.fetched == half
    assert adaptive.stats.late == 0


def test_what_is_written_already_is_used_again(board: Board, bundle: Bundle) -> None:
    image = NOISE + NOISE[MIB:] + NOISE[:MIB]
    adaptive = board.install(bundle(image), active=None)
    assert adaptive.stats.fetched == len(NOISE) and adaptive.stats.late == 0


def test_copies_that_are_too_near_are_fetched(board: Board, bundle: Bundle) -> None:
    image = NOISE[: 32 * CHUNK] * 3
    adaptive = board.install(bundle(image), active=None)
    assert adaptive.stats.fetched == len(image)


@pytest.mark.parametrize(
    "args",
    [
        ("-comp", "gzip", "-Xcompression-level", "1"),
        ("-comp", "zstd", "-Xcompression-level", "1"),
        ("-comp", "xz"),
        ("-comp", "lz4"),
        ("-noI", "-noD", "-noF", "-noX"),
        (*FAST, "-b", "4K"),
        (*FAST, "-b", "1M"),
        (*FAST, "-always-use-fragments"),
        (*FAST, "-always-use-fragments", "-b", "1M"),
    ],
    ids=" ".join,
)
def test_shapes_of_squashfs(args: tuple[str, ...], board: Board, bundle: Bundle) -> None:
    """Changes here and there, chunks from elsewhere, zeros, and a tail that is no whole block."""
    seen = noise(2 * MIB + 100 * CHUNK)
    board.hold(0, seen)
    image = bytearray(seen + bytes(40 * CHUNK) + b"text" * CHUNK + seen[CHUNK : 12 * CHUNK])
    for position in (0, 17, 40, 150, 512, 513):
        image[position * CHUNK + 5] ^= 1
    wire = bundle(bytes(image), *args)
    wire.remote = len(args) % 2 == 0  # runs of both sizes
    adaptive = board.install(wire)
    assert adaptive.stats.fetched < len(image) and adaptive.stats.late == 0


def test_a_changed_tail_is_fetched_alone(board: Board, bundle: Bundle) -> None:
    board.hold(0, NOISE[: 35 * CHUNK])
    image = NOISE[: 34 * CHUNK] + b"x" * CHUNK
    adaptive = board.install(bundle(image, *FAST, "-always-use-fragments"))
    assert adaptive.stats.fetched == 3 * CHUNK


def test_a_small_image(board: Board, bundle: Bundle) -> None:
    board.hold(0, NOISE[:CHUNK])
    adaptive = board.install(bundle(NOISE[:CHUNK], files={"more": NOISE[:8192]}))
    assert adaptive.stats.seeds == CHUNK


def shuffled(data: bytes, dice: random.Random) -> bytes:
    """`data` with stretches of chunks moved, copied, changed, emptied, added and removed."""
    chunks = [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)]
    for _ in range(dice.randrange(1, 12)):
        at, count = dice.randrange(len(chunks)), dice.randrange(1, 200)
        some = chunks[at : at + count]
        match dice.randrange(5):
            case 0:
                chunks[at : at + count] = [bytes(CHUNK)] * len(some)
            case 1:
                chunks[at : at + count] = [dice.randbytes(CHUNK) for _ in some]
            case 2:
                del chunks[at : at + count // 4]
            case _:
                to = dice.randrange(len(chunks))
                chunks[to:to] = some
    return b"".join(chunks or [bytes(CHUNK)])


@pytest.mark.parametrize("seed", range(8))
def test_any_change(seed: int, board: Board, bundle: Bundle) -> None:
    """Whatever is where, whoever knows: what is written is the image, which `install` checks."""
    dice = random.Random(seed)
    start = noise(2 * MIB, seed)
    active, target = shuffled(start, dice), shuffled(start, dice)
    board.hold(0, active, indexed=dice.random() < 0.7)
    board.hold(1, target, indexed=dice.random() < 0.7)
    if dice.random() < 0.5:
        board.path(0).write_bytes(shuffled(active, dice))  # its index is out of date
    wire = bundle(shuffled(active, dice), *FAST, "-b", dice.choice(["4K", "64K", "128K", "1M"]))
    wire.remote = dice.random() < 0.5
    board.install(wire)


# Seeds that are not what they seem


def test_an_active_slot_that_is_shorter_than_its_index_says(board: Board, bundle: Bundle) -> None:
    board.hold(0, NOISE, size=MIB + 100)
    adaptive = board.install(bundle(NOISE))
    assert adaptive.stats.seeds == MIB and adaptive.stats.late == 0


@pytest.mark.parametrize("remote", [True, False], ids=["server", "file"])
def test_an_active_slot_that_changed_since_its_index_was_made(
    remote: bool, board: Board, bundle: Bundle
) -> None:
    """As a file system does that is mounted for writing."""
    board.hold(0, NOISE)
    with board.path(0).open("r+b") as file:
        for position in (0, 70 * CHUNK, 71 * CHUNK, 1000 * CHUNK):
            file.seek(position)
            file.write(b"changed")
    wire = bundle(NOISE)
    wire.remote = remote
    adaptive = board.install(wire)
    assert adaptive.stats.late == adaptive.stats.fetched == 3 * 32 * CHUNK


@pytest.mark.parametrize("remote", [True, False], ids=["server", "file"])
def test_an_active_slot_that_holds_something_else(remote: bool, board: Board, bundle: Bundle) -> None:
    """Over a network it is hashed anew: better than to ask for each missing block by itself."""
    board.hold(0, noise(len(NOISE)))
    board.path(0).write_bytes(NOISE[CHUNK:])
    digest = str(board.status["rootfs.0"].sha256)
    wire = bundle(NOISE)
    wire.remote = remote
    adaptive = board.install(wire)
    assert adaptive.stats.late == 0
    assert adaptive.stats.fetched == (32 * CHUNK if remote else len(NOISE))
    assert board.index(0, digest).exists()


def test_what_one_seed_lost_another_has(board: Board, bundle: Bundle) -> None:
    board.hold(0, NOISE)
    board.hold(1, noise(MIB) + NOISE[MIB:])
    with board.path(0).open("r+b") as file:
        file.seek(2 * MIB)
        file.write(bytes(MIB))
    adaptive = board.install(bundle(NOISE))
    assert adaptive.stats.seeds == len(NOISE)


def test_a_seed_that_changes_while_it_is_read(board: Board, bundle: Bundle) -> None:
    board.hold(0, NOISE)

    async def use(opened: OpenedBundle, image: Image) -> Adaptive:
        adaptive = await board.open(opened, image)
        assert adaptive is not None and adaptive.survey.to_fetch == 0
        board.path(0).write_bytes(bytes(2 * MIB) + NOISE[2 * MIB :])
        await board.write(adaptive, opened, image)
        await adaptive.drop()
        return adaptive

    adaptive = board.run(bundle(NOISE), use)
    assert board.path(1).read_bytes() == NOISE
    assert adaptive.stats.late == 2 * MIB


def test_an_active_slot_that_is_not_there(board: Board, bundle: Bundle) -> None:
    adaptive = board.install(bundle(NOISE))
    assert adaptive.stats.fetched == len(NOISE)


@pytest.mark.parametrize("bad", ["of another image", "empty", "torn", "a folder", "a link"])
def test_a_cached_index_of_a_seed_that_is_wrong(bad: str, board: Board, bundle: Bundle) -> None:
    board.hold(0, NOISE)
    digest = hashlib.sha256(NOISE).hexdigest()
    index = board.index(0, digest)
    good = index.read_bytes()
    index.unlink()
    if bad == "a folder":
        index.mkdir()
    elif bad == "a link":
        index.symlink_to("/dev/zero")
    else:
        index.write_bytes({"of another image": good[::-1], "empty": b"", "torn": good[:1000]}[bad])
    image = NOISE[: -64 * CHUNK] + bytes(64 * CHUNK)
    adaptive = board.install(bundle(image))
    assert adaptive.stats.late == 0


def test_a_cached_index_of_the_image_that_lies(board: Board, bundle: Bundle) -> None:
    """What is written then is what it says; the SHA-256 decides, and the next time the bundle's is taken."""
    board.hold(0, NOISE[::-1])
    image = bytes(reversed(NOISE[CHUNK:])) + bytes(CHUNK)
    digest = hashlib.sha256(image).hexdigest()
    lie = board.index(0, digest)
    lie.parent.mkdir(parents=True)
    lie.write_bytes(digests_of(NOISE[::-1]))
    wire = bundle(image)

    async def use(opened: OpenedBundle, found: Image) -> None:
        adaptive = await board.open(opened, found)
        assert adaptive is not None
        await board.write(adaptive, opened, found)
        assert board.path(1).read_bytes() == NOISE[::-1]
        await board.write(adaptive, opened, found)  # asked again, it trusts nobody
        assert board.path(1).read_bytes() == image
        await adaptive.drop(distrust=True)

    board.run(wire, use)
    assert not lie.exists()
    board.install(wire)


@pytest.mark.parametrize("digest", ["", "../../..", "*", "0" * 63 + "*", "A" * 64])
def test_a_status_with_a_digest_that_is_none(digest: str, board: Board, bundle: Bundle) -> None:
    board.hold(0, NOISE)
    board.status["rootfs.0"] = SlotStatus(status="ok", sha256=digest)
    board.status["rootfs.1"] = SlotStatus(status="ok", sha256=digest)
    adaptive = board.install(bundle(NOISE))
    assert adaptive.stats.seeds == len(NOISE)  # it was hashed


# Interrupted


@pytest.mark.parametrize("hinted", [True, False], ids=["with a hint", "without"])
def test_an_interrupted_install_goes_on(hinted: bool, board: Board, bundle: Bundle) -> None:
    """Its index is not fetched again, and what is on the target is a seed."""
    image = NOISE + NOISE[: MIB // 2]
    wire = bundle(image)

    async def first(opened: OpenedBundle, found: Image) -> int:
        adaptive = await board.open(opened, found)
        assert adaptive is not None
        reached = await board.write(adaptive, opened, found, limit=2 * MIB)
        await adaptive.drop()
        return reached

    async def second(opened: OpenedBundle, found: Image) -> Adaptive:
        adaptive = await board.open(opened, found, start=reached if hinted else 0)
        assert adaptive is not None
        await board.write(adaptive, opened, found, start=reached)
        await adaptive.drop()
        return adaptive

    reached = board.run(wire, first)
    assert reached == 2 * MIB
    board.status["rootfs.1"] = SlotStatus(status="pending")
    wire.fetched = 0
    adaptive = board.run(wire, second)
    assert board.path(1).read_bytes() == image
    assert adaptive.stats.fetched == 2 * MIB
    assert adaptive.stats.seeds == MIB // 2
    assert wire.fetched < 2 * MIB + 112 * 1024  # with the index it were more


def test_what_an_interrupted_install_wrote_is_found_without_knowing_how_much(
    board: Board, bundle: Bundle
) -> None:
    board.path(1).write_bytes(NOISE[: 3 * MIB] + bytes(MIB))
    board.status["rootfs.1"] = SlotStatus(status="pending")
    adaptive = board.install(bundle(NOISE))
    assert adaptive.stats.fetched == MIB


def test_what_is_left_of_the_old_content_after_an_interrupted_install(board: Board, bundle: Bundle) -> None:
    """A file is read again quickly, so the slot is not hashed: what the index says turns out to be wrong."""
    board.path(1).write_bytes(noise(MIB) + NOISE[MIB:])
    board.status["rootfs.1"] = SlotStatus(status="pending")
    index = board.data / "slot.rootfs.1" / "hash-unknown" / "block-hash-index"
    index.parent.mkdir(parents=True)
    index.write_bytes(digests_of(NOISE))
    wire = bundle(NOISE)
    wire.remote = False
    adaptive = board.install(wire, active=None)
    assert adaptive.stats.fetched == adaptive.stats.late == MIB
    assert not index.exists()


def test_with_checkpoints_the_engine_goes_on(board: Board, bundle: Bundle) -> None:
    """What was written and read back before the link broke is not fetched again, nor is the index."""
    board.hold(0, NOISE[: 2 * MIB])
    image = NOISE + noise(3 * MIB)
    wire = bundle(image)
    reached = []

    async def attempt(opened: OpenedBundle, found: Image) -> None:
        checkpoints = await open_checkpoints(board.folder, board.slot(1), found)
        reached.append(checkpoints.reached)
        adaptive = await board.open(opened, found, start=checkpoints.reached)
        assert adaptive is not None
        writer = open_slot(board.slot(1), image_size=found.size)
        try:
            await opened.write_image(found, writer, checkpoints=checkpoints, parts_from=adaptive.parts_from)
            await adaptive.keep()
        finally:
            writer.close()
            await adaptive.drop()

    wire.fail_after = 3 * MIB
    with pytest.raises(SourceError, match="the link is down"):
        board.run(wire, attempt)
    board.status["rootfs.1"] = SlotStatus(status="pending")
    again = replace(wire, fetched=0, fail_after=None)
    board.run(again, attempt)
    assert board.path(1).read_bytes() == image
    assert reached[0] == 0 and reached[1] >= 3 * MIB
    assert again.fetched < len(image) - reached[1] + 128 * 1024


def test_the_sums_of_two_images() -> None:
    both = Stats(seeds=1, zeros=2, fetched=3, late=1) + Stats(seeds=10, zeros=20, fetched=24, late=0)
    assert both == Stats(seeds=11, zeros=22, fetched=27, late=1)
    assert both.saved == 0.55 and Stats().saved == 1


def test_the_cache_cannot_be_kept(board: Board, bundle: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    """The install is good all the same."""

    async def use(opened: OpenedBundle, image: Image) -> None:
        adaptive = await board.open(opened, image)
        assert adaptive is not None
        await board.write(adaptive, opened, image)
        shutil.rmtree(board.data)
        board.data.touch()
        await adaptive.keep()

    board.run(bundle(NOISE), use)
    assert board.path(1).read_bytes() == NOISE
    assert "Continuing after failure to write new hash index: " in caplog.text


def test_a_link_that_breaks(board: Board, bundle: Bundle) -> None:
    wire = bundle(NOISE)
    wire.fail_after = 2 * MIB
    with pytest.raises(SourceError, match="the link is down"):
        board.install(wire)
    wire.fail_after = 100_000  # before the index is there
    with pytest.raises(SourceError, match="the link is down"):
        board.run(replace(wire, fetched=90_000), board.open)


def handles() -> list[str]:
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())


@pytest.mark.parametrize("limit", [0, MIB])
def test_stopped_early_it_leaves_no_thread_and_no_file(limit: int, board: Board, bundle: Bundle) -> None:
    board.hold(0, NOISE[: 2 * MIB])
    wire = bundle(NOISE)
    before = handles()

    async def use(opened: OpenedBundle, image: Image) -> None:
        running = threading.active_count()
        adaptive = await board.open(opened, image)
        assert adaptive is not None
        with blockbuster_ctx():
            layout = await opened.image_layout(image)
            async with aclosing(adaptive.parts_from(layout, 0)) as parts:
                done = 0
                async for part in parts:
                    done += len(part)
                    if done > limit:
                        break
        await adaptive.drop()
        for thread in threading.enumerate():
            if thread.name.startswith(("seeds", "unpack")):
                thread.join(5)
        assert not [t for t in threading.enumerate() if t.name.startswith(("seeds", "unpack"))], running

    board.run(wire, use)
    assert handles() == before


def test_cancelled_while_it_opens(board: Board, bundle: Bundle) -> None:
    board.path(0).write_bytes(NOISE)
    wire = bundle(NOISE)
    before = handles()

    async def use(opened: OpenedBundle, image: Image) -> None:
        for steps in range(1, 60, 3):
            task = asyncio.create_task(board.open(opened, image))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    board.run(wire, use)
    assert handles() == before


# When all of it is written as usual


def test_without_the_method_or_a_data_directory(
    board: Board, bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    wire = bundle(NOISE[:MIB], adaptive=False)

    async def use(opened: OpenedBundle, image: Image) -> None:
        assert await board.open(opened, image) is None
        assert await board.open(opened, replace(image, adaptive=("new-method",))) is None
        assert not caplog.messages
        assert await board.open(opened, replace(image, adaptive=(METHOD,)), data=None) is None

    board.run(wire, use)
    assert caplog.messages == ["Ignoring adaptive method since 'data-directory' is not configured"]


@pytest.mark.parametrize(
    ("size", "index", "text"),
    [
        (MIB, None, "File 'rootfs.img.block-hash-index' not found in bundle"),
        (MIB, bytes(8160), "File 'rootfs.img.block-hash-index' has 8160 bytes, expected 8192"),
        (MIB + 1, bytes(8192), "image/partition size (1048577) is not a multiple of 4096 bytes"),
    ],
)
def test_an_index_that_does_not_fit(
    board: Board,
    bundle: Bundle,
    caplog: pytest.LogCaptureFixture,
    *,
    size: int,
    index: bytes | None,
    text: str,
) -> None:
    files = {} if index is None else {f"rootfs.img.{METHOD}": index}
    wire = bundle(NOISE[:size], adaptive=False, files=files)

    async def use(opened: OpenedBundle, image: Image) -> None:
        image = replace(image, adaptive=(METHOD,))
        assert await board.open(opened, image) is None
        with pytest.raises(Refused, match=r"Only 0\.0% of 'rootfs\.img' would be saved"):
            await board.open(opened, image, saving=Saving(0.5, "stop-if-metered", metered=True))

    board.run(wire, use)
    assert caplog.messages == [f"Continuing after adaptive mode error: {text}"] * 2


def test_a_data_directory_that_cannot_be_written(
    board: Board, bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    (board.folder / "file").touch()
    wire = bundle(NOISE[:MIB])

    async def use(opened: OpenedBundle, image: Image) -> None:
        assert await board.open(opened, image, data=board.folder / "file" / "data") is None

    board.run(wire, use)
    assert "Continuing after adaptive mode error: " in caplog.text


@pytest.mark.parametrize(
    ("saving", "refused"),
    [
        (Saving(0.9, "stop-if-metered", metered=True), True),
        (Saving(0.9, "stop-if-metered", metered=False), False),
        (Saving(0.9, "fetch", metered=True), False),
        (Saving(0.4, "stop-if-metered", metered=True), False),
    ],
)
def test_a_metered_link(saving: Saving, refused: bool, board: Board, bundle: Bundle) -> None:
    board.hold(0, NOISE[: 2 * MIB])
    board.hold(1, NOISE[: 2 * MIB])
    wire = bundle(NOISE)
    before = handles()

    async def use(opened: OpenedBundle, image: Image) -> Adaptive | None:
        return await board.open(opened, image, saving=saving)

    if not refused:
        adaptive = board.run(wire, use)
        assert adaptive is not None
        asyncio.run(adaptive.drop())
    else:
        with pytest.raises(Refused) as caught:
            board.run(wire, use)
        assert caught.value.rule == "metered"
        assert str(caught.value).startswith(
            "Only 50.0% of 'rootfs.img' would be saved, expected at least 90.0%: "
        )
        assert board.index(1, str(board.status["rootfs.1"].sha256)).exists()  # nothing was begun
    assert handles() == before
