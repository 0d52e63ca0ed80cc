"""The file reader against real files, FIFOs, links, a disk that fails and files that change."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from updated.core.model import Reader
from updated.errors import BundleError, SourceError
from updated.readers.file import FileReader, open_file

T = TypeVar("T")
DATA = bytes(range(256)) * 64


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / "test.raucb"
    path.write_bytes(DATA)
    return path


def with_reader(path: Path, use: Callable[[FileReader], Awaitable[T]], *, follow: bool = True) -> T:
    async def main() -> T:
        reader = await open_file(str(path), follow_symlinks=follow)
        try:
            return await use(reader)
        finally:
            await reader.close()

    return asyncio.run(main())


def test_is_a_reader_with_size_and_name(bundle: Path) -> None:
    async def use(reader: Reader) -> tuple[int, str]:
        return reader.size, reader.name

    assert with_reader(bundle, use) == (len(DATA), str(bundle))


@pytest.mark.parametrize(("offset", "length"), [(0, 1), (0, len(DATA)), (100, 1000), (len(DATA), 0)])
def test_reads_exactly_what_is_asked(bundle: Path, offset: int, length: int) -> None:
    assert with_reader(bundle, lambda r: r.read(offset, length)) == DATA[offset : offset + length]


@pytest.mark.parametrize(
    ("offset", "length"), [(-1, 1), (0, -1), (0, len(DATA) + 1), (len(DATA), 1), (2**70, 1)]
)
def test_a_range_outside_of_the_file_is_a_bad_bundle(bundle: Path, offset: int, length: int) -> None:
    with pytest.raises(BundleError, match="cut short"):
        with_reader(bundle, lambda r: r.read(offset, length))


def test_missing_file_has_raucs_text(tmp_path: Path) -> None:
    path = tmp_path / "none.raucb"
    with pytest.raises(SourceError) as caught:
        asyncio.run(open_file(str(path)))
    assert str(caught.value) == (
        "Invalid bundle format: Failed to open bundle for reading:"
        f" Error opening file {path}: No such file or directory"
    )


def test_folder_fifo_and_impossible_names_are_refused_at_once(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path, reason in (
        (str(tmp_path), "Is a directory"),
        (str(fifo), "Not a regular file"),
        ("a\0b", "file name"),
        ("/proc/self/mem", "Invalid argument"),
    ):
        with pytest.raises(SourceError, match=reason):
            asyncio.run(open_file(path))


def test_link_is_followed_only_when_allowed(bundle: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.raucb"
    link.symlink_to(bundle)
    assert with_reader(link, lambda r: r.read(0, 4)) == DATA[:4]
    with pytest.raises(SourceError, match="symbolic links"):
        asyncio.run(open_file(str(link), follow_symlinks=False))


@pytest.mark.parametrize("new_size", [100, len(DATA) + 1])
def test_file_that_changes_its_size_is_noticed(bundle: Path, new_size: int) -> None:
    async def use(reader: Reader) -> bytes:
        os.truncate(bundle, new_size)
        return await reader.read(0, 4096)

    with pytest.raises(SourceError, match=f"it had {len(DATA)} bytes, now {new_size}"):
        with_reader(bundle, use)


def test_failing_medium_says_what_and_where(tmp_path: Path) -> None:
    async def main() -> bytes:
        handle = os.open("/proc/self/mem", os.O_RDONLY | os.O_CLOEXEC)  # reading its first page is EIO
        reader = FileReader(handle, "/media/stick/a.raucb", 8192)
        try:
            return await reader.read(0, 4096)
        finally:
            await reader.close()

    with pytest.raises(
        SourceError,
        match=r"4096 bytes at 0 of /media/stick/a.raucb: Input/output error \(medium error\)$",
    ) as caught:
        asyncio.run(main())
    assert caught.value.hint


class Repair(logging.Handler):
    """Gives a loop device the end of its file back as soon as the reader says that it is missing."""

    def __init__(self, file: Path, content: bytes) -> None:
        super().__init__()
        self.file, self.content = file, content
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())
        self.file.write_bytes(self.content)


@pytest.mark.root
def test_a_medium_that_stumbles_is_read_again(tmp_path: Path) -> None:
    content = os.urandom(4 << 20)
    file = tmp_path / "stick"
    file.write_bytes(content)
    losetup = ["losetup", "--find", "--show", "--read-only", str(file)]
    device = subprocess.run(losetup, check=True, capture_output=True, text=True).stdout.strip()
    repair = Repair(file, content)
    logger = logging.getLogger("updated.readers.file")
    logger.addHandler(repair)
    try:
        os.truncate(file, 1 << 20)  # what lies behind is EIO now
        assert with_reader(Path(device), lambda r: r.read(2 << 20, 100_000)) == content[2 << 20 :][:100_000]
    finally:
        logger.removeHandler(repair)
        subprocess.run(["losetup", "--detach", device], check=True)
    assert repair.said == [
        f"medium error: 100000 bytes at 2097152 of {device} cannot be read, trying again (3 tries left)"
    ]


@pytest.mark.root
def test_what_is_to_be_forgotten_comes_from_the_medium(tmp_path: Path) -> None:
    file = tmp_path / "stick"
    file.write_bytes(b"old" * 4096)
    losetup = ["losetup", "--find", "--show", "--read-only", str(file)]
    device = subprocess.run(losetup, check=True, capture_output=True, text=True).stdout.strip()

    async def use(reader: FileReader) -> list[bytes]:
        found = [await reader.read(0, 3)]
        file.write_bytes(b"new" * 4096)
        found.append(await reader.read(0, 3))
        reader.forget(0, 4096)
        return [*found, await reader.read(0, 3)]

    try:
        assert with_reader(Path(device), use) == [b"old", b"old", b"new"]
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def test_close_leaves_neither_thread_nor_descriptor(bundle: Path) -> None:
    async def main() -> None:
        reader = await open_file(str(bundle))
        await asyncio.gather(*(reader.read(i, 10) for i in range(20)))
        await reader.close()
        await reader.close()

    before = len(list(Path("/proc/self/fd").iterdir()))
    asyncio.run(main())
    for thread in threading.enumerate():
        if thread.name.startswith("reader"):
            thread.join(timeout=5)
    assert not [t for t in threading.enumerate() if t.name.startswith("reader")]
    deadline = time.monotonic() + 5  # other tests' threads may still be closing theirs
    while len(list(Path("/proc/self/fd").iterdir())) > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before
