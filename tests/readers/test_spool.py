"""Bundles on disk before they are read: whole, broken off, swapped, too large, and among foreign files."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import re
import stat
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx

from updated.core.model import Expected
from updated.errors import DeviceError, SourceError, UpdatedError
from updated.readers.spool import Body, SpoolReader, spool, sweep
from updated.readers.spool_part import SYNC, Part

MIB = 1 << 20
URL = "https://user:secret@server/bundle.raucb"
OTHER = "https://server/other.raucb"
DATA = random.Random(5).randbytes(3 * MIB + 4321)
LONG = random.Random(7).randbytes(SYNC + MIB + 1)
STEM = hashlib.sha256(URL.encode()).hexdigest()[:16]


@dataclass
class Sent:
    """A `Body`."""

    start: int
    size: int
    etag: str
    chunks: AsyncIterator[bytes]

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self.chunks


@dataclass
class Server:
    """One object, as `open_body` finds it."""

    data: bytes = DATA
    etag: str = '"1"'
    ranges: bool = True
    says_size: bool = True
    stops_at: int = -1  # after so many bytes of an answer it fails with `error`
    error: BaseException = field(default_factory=lambda: SourceError("connection lost"))
    chunk: int = 100_000
    asked: list[tuple[int, str]] = field(default_factory=list)
    open: int = 0

    def __call__(self, start: int, etag: str) -> AbstractAsyncContextManager[Body]:
        return self._answer(start, etag)

    @asynccontextmanager
    async def _answer(self, start: int, etag: str) -> AsyncIterator[Body]:
        self.asked.append((start, etag))
        if not self.ranges or etag != self.etag:
            start = 0
        self.open += 1
        size = len(self.data) if self.says_size else 0
        try:
            yield Sent(start, size, self.etag, self._chunks(start))
        finally:
            self.open -= 1

    async def _chunks(self, start: int) -> AsyncIterator[bytes]:
        sent = 0
        for offset in range(start, len(self.data), self.chunk):
            if 0 <= self.stops_at <= sent:
                raise self.error
            await asyncio.sleep(0)
            yield self.data[offset : offset + self.chunk]
            sent += self.chunk


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / "spool"


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def fetch(folder: Path, server: Server, **options: object) -> SpoolReader:
    settings = {"folder": folder, "reserve": 0, "etag": server.etag, **options}
    return await spool(URL, server, **settings)  # type: ignore[arg-type]


async def content(reader: SpoolReader) -> bytes:
    return b"".join([await reader.read(at, min(MIB, reader.size - at)) for at in range(0, reader.size, MIB)])


def whole(folder: Path, server: Server, **options: object) -> tuple[bytes, int]:
    """(content, bytes that came over the network) of a download that succeeds, and leaves nothing."""

    async def main() -> tuple[bytes, int]:
        reader = await fetch(folder, server, **options)
        try:
            return await content(reader), reader.fetched
        finally:
            await reader.close()

    found = asyncio.run(main())
    assert files(folder) == []
    assert server.open == 0
    return found


def broken_off(folder: Path, server: Server, **options: object) -> UpdatedError:
    with pytest.raises(UpdatedError) as caught:
        asyncio.run(fetch(folder, server, **options))
    assert server.open == 0
    return caught.value


def test_a_whole_download(folder: Path) -> None:
    async def main() -> None:
        moved = 0

        def on_progress() -> None:
            nonlocal moved
            moved += 1

        reader = await fetch(folder, Server(), name="https://server/bundle.raucb", on_progress=on_progress)
        assert (reader.size, reader.fetched) == (len(DATA), len(DATA))
        assert not reader.remote
        assert reader.name == "https://server/bundle.raucb"
        assert await reader.read(2 * MIB, 1000) == DATA[2 * MIB : 2 * MIB + 1000]
        assert await content(reader) == DATA
        assert reader.fetched == len(DATA)
        assert moved >= len(DATA) // 100_000
        modes = await asyncio.to_thread(lambda: {path.name: path.stat().st_mode for path in folder.iterdir()})
        assert sorted(modes) == [f"{STEM}.json", f"{STEM}.part"]
        assert stat.S_IMODE(modes[f"{STEM}.part"]) == 0o600
        await reader.close()
        await reader.close()

    with blockbuster_ctx():
        asyncio.run(main())
    assert files(folder) == []
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("size", [0, 1, MIB, MIB + 1])
def test_sizes(folder: Path, size: int) -> None:
    for says_size in (True, False):
        assert whole(folder, Server(DATA[:size], says_size=says_size)) == (DATA[:size], size)


def test_what_was_broken_off_goes_on(folder: Path) -> None:
    server = Server(stops_at=5 * MIB // 2)
    assert str(broken_off(folder, server)) == "connection lost"
    assert files(folder) == [f"{STEM}.json", f"{STEM}.part"]
    server.stops_at = -1
    found, fetched = whole(folder, server)
    assert found == DATA
    assert server.asked[0] == (0, "")
    start, etag = server.asked[1]
    assert (start >= 2 * MIB, etag) == (True, '"1"')
    assert fetched == len(DATA) - start


def test_a_server_that_is_not_there_costs_nothing_of_what_is(folder: Path) -> None:
    server = Server(stops_at=5 * MIB // 2)
    broken_off(folder, server)
    for _ in range(2):
        server.stops_at = 0
        broken_off(folder, server)

    server.etag, server.stops_at = '"2"', 0  # a new object, whose first byte does not come
    broken_off(folder, server, etag='"1"')
    server.etag = '"1"'

    def refuse(start: int, etag: str) -> AbstractAsyncContextManager[Body]:
        raise SourceError("no route")

    with pytest.raises(SourceError, match="no route"):
        asyncio.run(spool(URL, refuse, folder=folder, reserve=0, etag='"1"'))
    server.stops_at = -1
    assert whole(folder, server)[0] == DATA
    assert server.asked[-1][0] >= 2 * MIB


def test_a_cancelled_download_goes_on(folder: Path) -> None:
    server = Server()

    async def main() -> None:
        half = asyncio.Event()

        def on_progress() -> None:
            part = folder / f"{STEM}.part"
            if part.exists() and part.stat().st_size >= 2 * MIB:
                half.set()

        downloading = asyncio.create_task(fetch(folder, server, on_progress=on_progress))
        await half.wait()
        downloading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await downloading

    asyncio.run(main())
    assert whole(folder, server)[0] == DATA
    assert server.asked[1][0] >= 2 * MIB


def test_a_server_that_cannot_do_ranges_starts_anew(folder: Path) -> None:
    server = Server(stops_at=5 * MIB // 2, ranges=False)
    broken_off(folder, server)
    server.stops_at = -1
    assert whole(folder, server) == (DATA, len(DATA))


def test_another_object_at_the_url_starts_anew(folder: Path) -> None:
    broken_off(folder, Server(stops_at=5 * MIB // 2))
    new = random.Random(6).randbytes(len(DATA))
    server = Server(new, etag='"2"')
    assert whole(folder, server) == (new, len(new))
    assert server.asked == [(0, "")]


def test_an_object_that_is_replaced_between_the_question_and_the_download(folder: Path) -> None:
    broken_off(folder, Server(stops_at=5 * MIB // 2))
    new = random.Random(6).randbytes(len(DATA) - 100)
    server = Server(new, etag='"2"', stops_at=3 * MIB // 2)
    broken_off(folder, server, etag='"1"')  # what the caller saw a moment before
    server.stops_at = -1
    assert whole(folder, server)[0] == new
    assert server.asked[0][0] >= 2 * MIB
    assert 0 < server.asked[1][0] < 2 * MIB


@pytest.mark.parametrize("etag", ["", 'W/"1"'])
def test_nothing_is_kept_of_what_could_not_be_told_apart(folder: Path, etag: str) -> None:
    server = Server(etag=etag, stops_at=5 * MIB // 2)
    broken_off(folder, server)
    assert files(folder) == []


def test_only_what_was_synced_counts_after_a_power_cut(folder: Path) -> None:
    broken_off(folder, Server(stops_at=5 * MIB // 2))
    note = json.loads((folder / f"{STEM}.json").read_text())
    part = folder / f"{STEM}.part"
    assert note["synced"] == part.stat().st_size
    # The file grew, and its length reached the disk; its bytes did not.
    (folder / f"{STEM}.json").write_text(json.dumps({**note, "synced": MIB}))
    with part.open("r+b") as file:
        file.seek(MIB)
        file.write(bytes(2 * MIB))
    server = Server()
    assert whole(folder, server)[0] == DATA
    assert server.asked == [(MIB, '"1"')]


def test_a_download_notes_its_progress_while_it_runs(folder: Path) -> None:
    """The process dies: nobody is told."""
    notes: list[int] = []

    def look() -> None:
        note = folder / f"{STEM}.json"
        if note.exists() and (text := note.read_text()):
            notes.append(json.loads(text)["synced"])

    whole(folder, Server(LONG), on_progress=look)
    assert 0 in notes
    assert any(SYNC <= synced < len(LONG) for synced in notes)


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"url": 5}', '{"synced": -1}', "\0\0"])
def test_a_note_that_is_torn(folder: Path, text: str) -> None:
    broken_off(folder, Server(stops_at=5 * MIB // 2))
    (folder / f"{STEM}.json").write_text(text)
    server = Server()

    async def main() -> bytes:
        reader = await fetch(folder, server)
        found = await content(reader)
        await reader.close()
        return found

    assert asyncio.run(main()) == DATA
    assert server.asked == [(0, "")]


@pytest.mark.parametrize("change", [{"synced": 10**12}, {"synced": -5}, {"url": OTHER}, {"etag": '"0"'}])
def test_a_note_of_something_else(folder: Path, change: dict[str, object]) -> None:
    broken_off(folder, Server(stops_at=5 * MIB // 2))
    path = folder / f"{STEM}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    server = Server()
    assert whole(folder, server)[0] == DATA
    assert server.asked == [(0, "")]


def test_what_is_kept_for_a_retry_is_not_fetched_again(folder: Path) -> None:
    server = Server()

    async def main() -> None:
        reader = await fetch(folder, server)
        reader.keep_for_retry()
        await reader.close()
        assert files(folder) == [f"{STEM}.json", f"{STEM}.part"]
        reader = await fetch(folder, server)
        assert (await content(reader), reader.fetched) == (DATA, 0)
        await reader.close()

    asyncio.run(main())
    assert len(server.asked) == 1
    assert files(folder) == []


def test_a_kept_file_without_a_strong_etag_goes_all_the_same(folder: Path) -> None:
    async def main() -> None:
        reader = await fetch(folder, Server(etag=""))
        reader.keep_for_retry()
        await reader.close()

    asyncio.run(main())
    assert files(folder) == []


def test_what_the_index_says_must_be_true(folder: Path) -> None:
    digest = hashlib.sha256(DATA).hexdigest()
    assert whole(folder, Server(), expected=Expected(size=len(DATA), sha256=digest))[0] == DATA
    server = Server(stops_at=5 * MIB // 2)
    broken_off(folder, server)
    server.stops_at = -1
    assert whole(folder, server, expected=Expected(sha256=digest))[0] == DATA  # the kept part is hashed, too
    for says_size in (True, False):
        for expected, text in (
            (Expected(sha256="00" * 32), f"has the SHA-256 {digest}, expected 0000"),
            (Expected(size=len(DATA) + 1), f"has {len(DATA)} bytes, expected {len(DATA) + 1}"),
            (Expected(size=MIB), "bytes, expected 1048576|has more than 1048576 bytes"),
        ):
            error = broken_off(folder, Server(says_size=says_size), expected=expected)
            assert isinstance(error, SourceError)
            assert re.search(text, str(error))
            assert files(folder) == []


def test_a_server_that_lies_about_the_size(folder: Path) -> None:
    @dataclass
    class Liar(Server):
        says: int = 0

        @asynccontextmanager
        async def _answer(self, start: int, etag: str) -> AsyncIterator[Body]:
            async with super()._answer(start, etag) as body:
                assert isinstance(body, Sent)
                body.size = self.says
                yield body

    for says, text in (
        (len(DATA) + 5, "ended early"),
        (len(DATA) - 5, "has more than"),
        (5, "has more than"),
    ):
        error = broken_off(folder, Liar(says=says))
        assert isinstance(error, SourceError)
        assert text in str(error)


def test_an_answer_that_begins_elsewhere(folder: Path) -> None:
    @dataclass
    class Elsewhere(Server):
        @asynccontextmanager
        async def _answer(self, start: int, etag: str) -> AsyncIterator[Body]:
            yield Sent(7, len(DATA), self.etag, self._chunks(7))

    assert "from 7 on, expected from 0" in str(broken_off(folder, Elsewhere()))


# Room


def test_no_room_is_said_before_anything_is_fetched(folder: Path) -> None:
    status = os.statvfs(folder.parent.parent)
    free = status.f_bavail * status.f_frsize
    server = Server()
    error = broken_off(folder, server, reserve=free - 1 * MIB)
    assert isinstance(error, DeviceError)
    assert f"{len(DATA)} more bytes of {len(DATA)} are needed" in str(error)
    assert "spool-reserve" in error.hint
    assert files(folder) == []


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    mounted = tmp_path / "small"
    mounted.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(mounted)], check=True)
    yield mounted
    subprocess.run(["umount", str(mounted)], check=True)


def free_bytes(path: Path) -> int:
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


@pytest.mark.root
@pytest.mark.parametrize("reserve", [0, MIB])
def test_room_that_runs_out(small: Path, reserve: int) -> None:
    before = free_bytes(small)
    server = Server(says_size=False)
    error = broken_off(small / "spool", server, reserve=reserve)
    assert isinstance(error, DeviceError)
    assert "No space to spool the bundle in" in str(error)
    assert files(small / "spool") == []
    assert free_bytes(small) >= before - 65536  # a folder


@pytest.mark.root
def test_a_disk_that_is_full_all_the_same(small: Path) -> None:
    """Somebody else was faster than the check."""
    part = Part(small / "spool", URL, 0)
    part.begin(0, '"1"', len(DATA))
    with pytest.raises(DeviceError, match="No space to spool the bundle in") as caught:
        part.append(DATA)
    assert f"{len(DATA)} more bytes of {len(DATA)} are needed" in str(caught.value)
    part.close(keep=False)
    assert files(small / "spool") == []


@pytest.mark.root
def test_what_was_kept_counts_as_room(small: Path) -> None:
    data = DATA[: 3 * MIB // 2]
    server = Server(data, stops_at=5 * MIB // 4)
    broken_off(small / "spool", server)
    server.stops_at = -1
    assert whole(small / "spool", server)[0] == data


@pytest.mark.root
def test_a_read_only_data_directory(small: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
    error = broken_off(small / "spool", Server())
    assert isinstance(error, DeviceError)
    assert "Read-only file system" in str(error)


# Foreign things


def test_links_and_strangers_in_the_folder_are_not_followed(folder: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    makers: list[Callable[[Path], None]] = [
        lambda path: path.symlink_to(victim),
        lambda path: path.hardlink_to(victim),
        lambda path: path.symlink_to(tmp_path / "nowhere"),
        os.mkfifo,
    ]
    for name in (f"{STEM}.part", f"{STEM}.json"):
        for make in makers:
            folder.mkdir(parents=True, exist_ok=True)
            make(folder / name)
            assert whole(folder, Server(b"bundle")) == (b"bundle", 6)
            assert victim.read_bytes() == b"precious"
            assert not (tmp_path / "nowhere").exists()


def test_a_folder_in_the_way(folder: Path) -> None:
    (folder / f"{STEM}.part").mkdir(parents=True)
    assert isinstance(broken_off(folder, Server()), DeviceError)


@pytest.mark.parametrize("kind", ["link", "file"])
def test_a_spool_folder_that_is_none(tmp_path: Path, kind: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "file").touch()
    folder = tmp_path / "spool"
    if kind == "link":
        folder.symlink_to(elsewhere)
    else:
        folder.touch()
    assert isinstance(broken_off(folder, Server()), DeviceError)
    sweep(folder)
    assert files(elsewhere) == ["file"]


def test_a_folder_that_others_may_read_is_closed(folder: Path) -> None:
    folder.mkdir(parents=True, mode=0o755)
    whole(folder, Server())
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_two_at_once(folder: Path) -> None:
    async def main() -> None:
        reader = await fetch(folder, Server())
        with pytest.raises(SourceError, match="being downloaded already"):
            await fetch(folder, Server())
        await asyncio.to_thread(sweep, folder)
        assert await content(reader) == DATA
        assert files(folder) == [f"{STEM}.json", f"{STEM}.part"]
        await reader.close()

    asyncio.run(main())


# Leftovers


def test_sweeping(folder: Path) -> None:
    sweep(folder)  # there is none yet
    broken_off(folder, Server(stops_at=MIB))
    (folder / "0123456789abcdef.part").touch()
    (folder / f".{STEM}.json.x1.tmp").touch()
    (folder / "stray").symlink_to("/etc/passwd")
    sweep(folder, URL)
    assert files(folder) == [f".{STEM}.json.x1.tmp", f"{STEM}.json", f"{STEM}.part"]
    sweep(folder, OTHER)
    assert files(folder) == []
    assert Path("/etc/passwd").exists()


def test_a_new_download_sweeps_those_of_others(folder: Path) -> None:
    broken_off(folder, Server(stops_at=MIB))

    async def main() -> None:
        reader = await spool(OTHER, Server(), folder=folder, reserve=0)
        assert not (folder / f"{STEM}.part").exists()
        await reader.close()

    asyncio.run(main())
    assert files(folder) == []
