"""The drop folder: what is complete is found, whatever else is there, and whatever becomes of the folder."""

# ruff: noqa: ASYNC110, ASYNC240 - files on a tmpfs, and a condition that nobody signals

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from updated.core.model import Outcome
from updated.core.source import Item, Source
from updated.sources.folder import MAX_FILES, AutoinstallSource, FolderSource, look, move, remove

SIGNATURE = b"\x30\x82" + bytes(98)
BUNDLE = bytes(4096) + SIGNATURE + len(SIGNATURE).to_bytes(8, "big")


@pytest.fixture
def drop(tmp_path: Path) -> Path:
    folder = tmp_path / "drop"
    folder.mkdir()
    return folder


def names(folder: Path) -> list[str]:
    return [Path(item.location).name for item in asyncio.run(FolderSource(folder).scan())]


def test_identity(drop: Path) -> None:
    path = drop / "a.raucb"
    path.write_bytes(BUNDLE)
    info = path.stat()
    found = look(path)
    assert found == Item(str(path), (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns))
    os.utime(path, ns=(0, 1))
    assert look(path) != found


def test_nothing_that_is_cut_short(drop: Path) -> None:
    """Beginnings of a bundle: a copy that has not finished."""
    for end in (*range(0, 4090, 97), *range(4090, len(BUNDLE))):
        (drop / "a.raucb").write_bytes(BUNDLE[:end])
        assert names(drop) == [], end


@pytest.mark.parametrize(
    "trailer",
    [
        bytes(8),
        b"\xff" * 8,
        (4097 + 100).to_bytes(8, "big"),
        (99).to_bytes(8, "big"),
        len(SIGNATURE).to_bytes(8, "little"),
    ],
)
def test_nothing_with_another_trailer(drop: Path, trailer: bytes) -> None:
    (drop / "a.raucb").write_bytes(BUNDLE[:-8] + trailer)
    assert names(drop) == []


def test_any_bytes(drop: Path) -> None:
    generator = random.Random(1)
    for _ in range(300):
        (drop / "a.raucb").write_bytes(generator.randbytes(generator.randrange(40)))
        look(drop / "a.raucb")


def test_only_plain_files_with_good_names(drop: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.raucb"
    outside.write_bytes(BUNDLE)
    for name in (".hidden.raucb", "a.raucb.part", "a.RAUCB", "raucb", ".raucb", "b.tar"):
        (drop / name).write_bytes(BUNDLE)
    (drop / "folder.raucb").mkdir()
    (drop / "link.raucb").symlink_to(outside)
    (drop / "dangling.raucb").symlink_to(tmp_path / "nowhere")
    (drop / "loop.raucb").symlink_to(drop / "loop.raucb")
    (drop / "zero.raucb").symlink_to("/dev/zero")
    os.mkfifo(drop / "pipe.raucb")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.fsencode(drop / "socket.raucb"))
        assert names(drop) == []
    (drop / "good.raucb").write_bytes(BUNDLE)
    assert names(drop) == ["good.raucb"]


@pytest.mark.parametrize(
    "name", ["new\nline.raucb", "tab\t.raucb", "ü.raucb", "-rf.raucb", "a b.raucb", "%s.raucb"]
)
def test_strange_names(drop: Path, name: str) -> None:
    (drop / name).write_bytes(BUNDLE)
    assert names(drop) == [name]


def test_a_name_that_is_no_text_cannot_be_told(drop: Path) -> None:
    """Neither D-Bus nor the journal could hold it."""
    Path(os.fsdecode(os.fsencode(drop) + b"/\xff.raucb")).write_bytes(BUNDLE)
    assert names(drop) == []


def test_a_name_as_long_as_it_can_be(drop: Path) -> None:
    name = "x" * 249 + ".raucb"
    (drop / name).write_bytes(BUNDLE)
    assert names(drop) == [name]
    assert look(drop / ("x" * 300 + ".raucb")) is None


def test_a_sparse_giant_is_looked_at_at_once(drop: Path) -> None:
    with (drop / "giant.raucb").open("wb") as file:
        file.truncate(1 << 40)
    assert names(drop) == []
    with (drop / "giant.raucb").open("r+b") as file:
        file.seek(-len(BUNDLE), os.SEEK_END)
        file.write(BUNDLE)
    assert names(drop) == ["giant.raucb"]


def test_not_more_than_the_limit(drop: Path) -> None:
    for number in range(MAX_FILES + 20):
        (drop / f"{number:03}.raucb").write_bytes(BUNDLE)
    found = names(drop)
    assert len(found) == MAX_FILES
    assert found == sorted(found)
    rest = asyncio.run(FolderSource(drop).scan(known=lambda item: Path(item.location).name in found))
    assert [Path(item.location).name for item in rest] == [
        f"{n:03}.raucb" for n in range(MAX_FILES, MAX_FILES + 20)
    ]


def test_no_folder(tmp_path: Path) -> None:
    assert names(tmp_path / "nowhere") == []
    (tmp_path / "file").write_bytes(BUNDLE)
    assert names(tmp_path / "file") == []


def test_remove_and_move(drop: Path, tmp_path: Path) -> None:
    path = drop / "a.raucb"
    path.write_bytes(BUNDLE)
    remove(path)
    remove(path)
    path.write_bytes(BUNDLE)
    move(path, tmp_path / "done/deep")
    assert (tmp_path / "done/deep/a.raucb").read_bytes() == BUNDLE
    assert not path.exists()
    with pytest.raises(FileNotFoundError):
        move(path, tmp_path / "done")


# What becomes of a file that was tried


def outcome(code: str) -> Outcome:
    return Outcome("", "folder", "", "", "", "", code, "", "")


def tried(source: Source, code: str, *, again: bool = False, meanwhile: Callable[[], object] = bool) -> None:
    """The first bundle of `source` is tried."""

    async def scenario() -> None:
        item, *_ = await source.scan(lambda _: False)
        await source.started(item)
        meanwhile()
        await source.ended(item, outcome(code), again=again)
        await source.settled()

    asyncio.run(scenario())


@pytest.mark.parametrize("code", ["installed", "failed", "refused"])
def test_after(drop: Path, tmp_path: Path, code: str) -> None:
    path, done = drop / "a.raucb", tmp_path / "done"
    path.write_bytes(BUNDLE)
    tried(FolderSource(drop), code)
    tried(FolderSource(drop, after="move"), code)  # to nowhere
    assert names(drop) == ["a.raucb"]
    tried(FolderSource(drop, after="move", move_to=done), code)
    assert names(drop) == []
    assert names(done) == ["a.raucb"]
    tried(FolderSource(done, after="delete"), code)
    assert names(done) == []


def test_what_will_be_tried_again_stays(drop: Path) -> None:
    (drop / "a.raucb").write_bytes(BUNDLE)
    tried(FolderSource(drop, after="delete"), "failed", again=True)
    tried(FolderSource(drop, after="delete"), "cancelled")
    assert names(drop) == ["a.raucb"]


def test_another_file_of_that_name_stays(drop: Path) -> None:
    path = drop / "a.raucb"
    path.write_bytes(BUNDLE)

    def replace() -> None:
        (drop / "part").write_bytes(BUNDLE)
        (drop / "part").rename(path)

    tried(FolderSource(drop, after="delete"), "installed", meanwhile=replace)
    assert names(drop) == ["a.raucb"]


def test_a_file_that_cannot_be_moved(drop: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (drop / "a.raucb").write_bytes(BUNDLE)
    (tmp_path / "file").touch()
    tried(FolderSource(drop, after="move", move_to=tmp_path / "file/done"), "installed")
    assert "cannot move" in caplog.text


def test_gone(drop: Path) -> None:
    async def scenario() -> None:
        for source in (FolderSource(drop), AutoinstallSource(drop / "a.raucb")):
            (drop / "a.raucb").write_bytes(BUNDLE)
            assert not await source.gone(str(drop / "a.raucb"))
            (drop / "a.raucb").unlink()
            assert await source.gone(str(drop / "a.raucb"))

    asyncio.run(scenario())


def test_autoinstall(drop: Path) -> None:
    async def scenario() -> None:
        source: Source = AutoinstallSource(drop / "a.raucb")
        assert list(await source.scan(lambda _: False)) == []
        (drop / "a.raucb").write_bytes(BUNDLE)
        assert list(await source.scan(lambda _: False)) == [look(drop / "a.raucb")]
        assert list(await source.scan(lambda _: True)) == []
        called = asyncio.Event()
        task = asyncio.create_task(source.watch(called.set))
        await called.wait()
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
    tried(AutoinstallSource(drop / "a.raucb"), "installed")
    assert names(drop) == ["a.raucb"]


# Watching


@dataclass
class Watched:
    """A folder that is watched, and how often it called."""

    folder: FolderSource
    calls: int = 0
    expected: int = 0

    def changed(self) -> None:
        self.calls += 1

    async def until(self, true: Callable[[], object]) -> None:
        async with asyncio.timeout(5):
            while not true():
                await asyncio.sleep(0.002)

    async def called(self) -> None:
        """Wait for one more call."""
        await self.until(lambda: self.calls > self.expected)
        self.expected = self.calls

    async def quiet(self) -> None:
        """Nothing that happened before this is worth a call."""
        (self.folder.path / "marker.raucb").write_bytes(b"")
        await self.until(lambda: self.calls > self.expected)
        assert self.calls == self.expected + 1
        self.expected = self.calls


@contextlib.asynccontextmanager
async def watched(path: Path) -> AsyncIterator[Watched]:
    it = Watched(FolderSource(path, retry=0.02))
    before = len(list(Path("/proc/self/fd").iterdir()))
    task = asyncio.create_task(it.folder.watch(it.changed))
    try:
        await it.called()
        yield it
        assert not task.done()
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(list(Path("/proc/self/fd").iterdir())) <= before


def test_what_was_there_before_is_offered(drop: Path) -> None:
    async def scenario() -> None:
        async with watched(drop):
            pass  # it was called once

    asyncio.run(scenario())


def test_closing_and_renaming_are_seen(drop: Path, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with watched(drop) as it:
            with (drop / "a.raucb").open("wb") as file:
                file.write(BUNDLE)
                file.flush()
                (drop / "note.txt").write_text("of no interest")
                await asyncio.sleep(0.02)
                assert it.calls == it.expected
            await it.called()
            (tmp_path / "b").write_bytes(BUNDLE)
            (tmp_path / "b").rename(drop / "b.raucb")
            await it.called()
            (drop / "c.part").write_bytes(BUNDLE)
            (drop / "c.part").rename(drop / "c.raucb")
            await it.called()
            (drop / "c.raucb").unlink()
            (drop / "b.raucb").read_bytes()
            (drop / "b.raucb").chmod(0o600)
            await it.quiet()

    asyncio.run(scenario())


def test_strange_names_are_seen(drop: Path) -> None:
    async def scenario() -> None:
        async with watched(drop) as it:
            for name in (b"\xff\xfe.raucb", b"new\nline.raucb", b"x" * 249 + b".raucb"):
                Path(os.fsdecode(os.fsencode(drop) + b"/" + name)).write_bytes(BUNDLE)
                await it.called()

    asyncio.run(scenario())


def test_thousands_of_events(drop: Path) -> None:
    """More than the kernel's queue holds: the overflow itself is a reason to look."""
    queue = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())

    async def scenario() -> None:
        async with watched(drop) as it:
            first, second = drop / "first.part", drop / "second.part"
            first.touch()
            for _ in range(queue // 2 + 100):
                first.rename(second)
                second.rename(first)
            (drop / "lost.raucb").write_bytes(BUNDLE)  # there is no room for its event
            await it.called()
            (drop / "next.raucb").write_bytes(BUNDLE)
            await it.called()

    asyncio.run(scenario())


@pytest.mark.parametrize("way", ["removed", "renamed", "replaced by a file", "replaced by a link"])
def test_a_folder_that_goes_away_is_waited_for(drop: Path, tmp_path: Path, way: str) -> None:
    async def scenario() -> None:
        async with watched(drop) as it:
            match way:
                case "removed":
                    shutil.rmtree(drop)
                case "renamed":
                    drop.rename(tmp_path / "elsewhere")
                case "replaced by a file":
                    drop.rmdir()
                    drop.touch()
                    await asyncio.sleep(0.05)  # it cannot be watched
                    drop.unlink()
                case "replaced by a link":
                    (tmp_path / "other").mkdir()
                    drop.rmdir()
                    drop.symlink_to(tmp_path / "other")
            await it.called()  # made again, and looked at
            assert drop.is_dir()
            (drop / "a.raucb").write_bytes(BUNDLE)
            await it.called()

    asyncio.run(scenario())


@pytest.mark.root
def test_unmounted_and_mounted_again(drop: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "tmpfs", str(drop)]
    subprocess.run(mount, check=True)

    async def scenario() -> None:
        async with watched(drop) as it:
            await asyncio.to_thread(lambda: subprocess.run(["umount", drop], check=True))
            await it.called()
            (drop / "a.raucb").write_bytes(BUNDLE)
            await it.called()

    try:
        asyncio.run(scenario())
    finally:
        subprocess.run(["umount", drop], check=False, stderr=subprocess.DEVNULL)


def test_a_folder_is_made(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with watched(tmp_path / "deep/drop"):
            assert (tmp_path / "deep/drop").is_dir()

    asyncio.run(scenario())


def test_cancelled_while_it_waits_for_the_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()

    async def scenario() -> None:
        folder = FolderSource(tmp_path / "file/drop", retry=60)
        task = asyncio.create_task(folder.watch(lambda: None))
        async with asyncio.timeout(5):
            while not caplog.records:
                await asyncio.sleep(0.002)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
    assert "cannot watch the drop folder" in caplog.text
