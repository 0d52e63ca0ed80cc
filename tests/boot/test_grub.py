"""GRUB's environment block, against the real grub-editenv in both directions."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from updated.boot import envblock
from updated.boot.base import make_bootloader
from updated.boot.grub import Grub
from updated.core.model import Bootloader
from updated.errors import DeviceError


def editenv(path: Path, *arguments: str) -> str:
    done = subprocess.run(["grub-editenv", str(path), *arguments], check=True, capture_output=True, text=True)
    return done.stdout


def make(path: Path, *variables: str) -> Path:
    editenv(path, "create")
    if variables:
        editenv(path, "set", *variables)
    return path


@pytest.fixture
def grubenv(tmp_path: Path) -> Path:
    return make(tmp_path / "grubenv", "ORDER=A B", "A_OK=1", "A_TRY=0", "B_OK=1", "B_TRY=0", "theirs=x y")


@pytest.fixture
def grub(grubenv: Path) -> Bootloader:
    return make_bootloader("grub", ["A", "B"], grubenv=grubenv)


def test_the_first_good_one_of_the_order_is_primary(grub: Bootloader, grubenv: Path) -> None:
    assert asyncio.run(grub.get_primary()) == "A"
    editenv(grubenv, "set", "A_TRY=1")
    assert asyncio.run(grub.get_primary()) == "B"
    editenv(grubenv, "set", "A_TRY=0", "A_OK=0")
    assert asyncio.run(grub.get_primary()) == "B"
    editenv(grubenv, "set", "ORDER=rescue  B")
    assert asyncio.run(grub.get_primary()) == "B"
    editenv(grubenv, "set", "B_OK=0")
    assert asyncio.run(grub.get_primary()) is None


def test_what_we_write_the_real_tool_lists(grub: Bootloader, grubenv: Path) -> None:
    asyncio.run(grub.set_state("B", good=False))
    listed = editenv(grubenv, "list").splitlines()
    assert listed == ["ORDER=A B", "A_OK=1", "A_TRY=0", "B_OK=0", "B_TRY=0", "theirs=x y"]
    assert asyncio.run(grub.get_state("B")) is False
    asyncio.run(grub.set_primary("B"))
    listed = editenv(grubenv, "list").splitlines()
    assert listed == ["ORDER=B A", "A_OK=1", "A_TRY=0", "B_OK=1", "B_TRY=0", "theirs=x y"]


def test_the_block_equals_what_the_real_tool_writes(grubenv: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_bytes(grubenv.read_bytes())
    odd = ["B_OK=0", "new=back\\slash", "lines=one\ntwo", "A_TRY=", "hash=#x#"]
    editenv(theirs, "set", *odd)
    block = envblock.parse(grubenv.read_bytes())
    ours = block.replace(dict(item.split("=", 1) for item in odd)).render()
    assert envblock.parse(ours) == envblock.parse(theirs.read_bytes())
    grubenv.write_bytes(ours)
    assert editenv(grubenv, "list") == editenv(theirs, "list")
    assert sorted(ours) == sorted(theirs.read_bytes())


def test_good_means_ok_and_no_try(grub: Bootloader, grubenv: Path) -> None:
    editenv(grubenv, "set", "A_TRY=2")
    assert asyncio.run(grub.get_state("A")) is False
    asyncio.run(grub.set_state("A", good=True))
    assert asyncio.run(grub.get_state("A")) is True
    assert "A_TRY=0" in editenv(grubenv, "list")


def test_good_but_not_in_the_order_gets_the_last_place(grub: Bootloader, grubenv: Path) -> None:
    editenv(grubenv, "set", "ORDER=A")
    assert asyncio.run(grub.get_state("B")) is False
    asyncio.run(grub.set_state("B", good=True))
    assert asyncio.run(grub.get_state("B")) is True
    assert "ORDER=A B\n" in editenv(grubenv, "list")


def test_foreign_entries_of_the_order_survive_set_primary(grub: Bootloader, grubenv: Path) -> None:
    editenv(grubenv, "set", "ORDER=A rescue")
    asyncio.run(grub.set_primary("B"))
    assert "ORDER=B A rescue\n" in editenv(grubenv, "list")


def test_a_fresh_block_is_set_up_by_the_first_install(tmp_path: Path) -> None:
    grub = make_bootloader("grub", ["A", "B"], grubenv=make(tmp_path / "grubenv"))
    with pytest.raises(DeviceError, match=r"^grub backend: Variable ORDER not set in grub environment$"):
        asyncio.run(grub.get_primary())
    asyncio.run(grub.set_state("B", good=False))
    asyncio.run(grub.set_primary("B"))
    assert asyncio.run(grub.get_primary()) == "B"
    assert editenv(tmp_path / "grubenv", "list").splitlines() == ["B_OK=1", "B_TRY=0", "ORDER=B A"]


def test_a_missing_state_is_named(grub: Bootloader, grubenv: Path) -> None:
    editenv(grubenv, "unset", "A_OK")
    with pytest.raises(DeviceError, match="Variable A_OK not set in grub environment") as caught:
        asyncio.run(grub.get_primary())
    assert "grub-editenv" in caught.value.hint


def test_nothing_is_written_when_nothing_changes(grub: Bootloader, grubenv: Path) -> None:
    os.utime(grubenv, ns=(0, 0))
    asyncio.run(grub.set_state("A", good=True))
    asyncio.run(grub.set_primary("A"))
    assert grubenv.stat().st_mtime_ns == 0
    asyncio.run(grub.set_primary("B"))
    assert grubenv.stat().st_mtime_ns > 0


def test_the_file_is_rewritten_in_place_through_a_link(grubenv: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(grubenv)
    before = grubenv.stat()
    asyncio.run(make_bootloader("grub", ["A", "B"], grubenv=link).set_primary("B"))
    assert link.is_symlink()
    assert (grubenv.stat().st_ino, grubenv.stat().st_size) == (before.st_ino, before.st_size)
    assert list(tmp_path.iterdir()) in ([grubenv, link], [link, grubenv])


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "it is empty"),
        (b"\0" * 1024, "does not start with"),
        (b"A=1\n" * 256, "does not start with"),
        (envblock.SIGNATURE + b"A=1\n" + b"\0" * 995, "zero byte at 29"),
        (envblock.SIGNATURE + b"A=1", "the last line is cut short"),
        (envblock.SIGNATURE + b"A=1\\\n" + b"#" * 994, "the last line is cut short"),
        (envblock.SIGNATURE + b"A=1\n" + b"#" * 20 + b"A", "the last line is cut short"),
        (envblock.SIGNATURE + b"\nA=1\n####", "is not name=value"),
        (envblock.SIGNATURE + b"nonsense\n####", "is not name=value"),
        (envblock.SIGNATURE + b"A=1\nA=2\n####", "variable A is there twice"),
    ],
)
def test_a_damaged_block_is_refused_and_left_alone(data: bytes, text: str, tmp_path: Path) -> None:
    path = tmp_path / "grubenv"
    path.write_bytes(data)
    grub = make_bootloader("grub", ["A", "B"], grubenv=path)
    for call in (grub.get_primary, lambda: grub.set_primary("A"), lambda: grub.set_state("A", good=True)):
        with pytest.raises(DeviceError, match=text) as caught:
            asyncio.run(call())
        assert "grub-editenv" in caught.value.hint
    assert path.read_bytes() == data


def test_every_truncation_is_refused_or_whole(grubenv: Path) -> None:
    data = grubenv.read_bytes()
    text = len(data.rstrip(b"#"))
    for length in range(len(data)):
        if length >= text or (data[:length].endswith(b"\n") and length > len(envblock.SIGNATURE)):
            assert envblock.parse(data[:length]).render() == data[:length]
            continue
        try:
            lines = envblock.parse(data[:length]).lines
        except DeviceError:
            continue
        assert b"".join(lines) == b"", data[:length]  # nothing but the signature and padding


@given(st.binary(max_size=200))
def test_any_bytes_parse_or_raise_our_error(data: bytes) -> None:
    for tried in (data, envblock.SIGNATURE + data):
        try:
            block = envblock.parse(tried)
        except DeviceError:
            continue
        assert block.render() == tried


def test_a_long_line_without_end_is_refused_quickly() -> None:
    started = time.monotonic()
    with pytest.raises(DeviceError):
        envblock.parse(envblock.SIGNATURE + b"\\x" * 32000)
    assert time.monotonic() - started < 0.5


def test_variables_that_do_not_fit_are_refused(grub: Bootloader, grubenv: Path) -> None:
    free = len(grubenv.read_bytes()) - len(grubenv.read_bytes().rstrip(b"#"))
    editenv(grubenv, "unset", "B_OK", "B_TRY", "theirs")
    editenv(grubenv, "set", f"filler={'x' * (free + 10)}")
    before = grubenv.read_bytes()
    with pytest.raises(DeviceError, match="environment block too small"):
        asyncio.run(grub.set_primary("B"))
    assert grubenv.read_bytes() == before


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    for name, text in (
        ("fifo", "not a regular file"),
        ("folder", "not a regular file"),
        ("missing", "No such file"),
    ):
        grub = make_bootloader("grub", ["A"], grubenv=tmp_path / name)
        with pytest.raises(DeviceError, match=text):
            asyncio.run(grub.get_primary())
        with pytest.raises(DeviceError):
            asyncio.run(grub.set_primary("A"))


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "grubenv"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(DeviceError, match="too large"):
        asyncio.run(make_bootloader("grub", ["A"], grubenv=path).get_primary())


@pytest.mark.root
def test_a_read_only_file_system_is_named(tmp_path: Path, grubenv: Path) -> None:
    subprocess.run(["mount", "--bind", "-o", "ro", str(tmp_path), str(tmp_path)], check=True)
    try:
        with pytest.raises(DeviceError, match=r"Failed to write GRUB environment .*: Read-only") as caught:
            asyncio.run(Grub(grubenv, ["A", "B"]).set_primary("B"))
        assert "writable" in caught.value.hint
        assert asyncio.run(Grub(grubenv, ["A", "B"]).get_primary()) == "A"
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.root
def test_a_write_is_on_the_medium_when_it_is_reported(tmp_path: Path) -> None:
    """What lies under the file system has the new block at once, before any unmount or write-back."""
    medium = tmp_path / "medium"
    medium.write_bytes(bytes(8 << 20))
    subprocess.run(["mkfs.ext4", "-q", medium], check=True)
    point = tmp_path / "point"
    point.mkdir()
    subprocess.run(["mount", "-o", "loop", medium, point], check=True)
    try:
        make(point / "grubenv", "ORDER=A B", "A_OK=1", "A_TRY=0", "B_OK=1", "B_TRY=0")
        with (point / "grubenv").open("rb") as file:
            os.fsync(file)
        asyncio.run(Grub(point / "grubenv", ["A", "B"]).set_primary("B"))
        data = medium.read_bytes()
    finally:
        subprocess.run(["umount", point], check=True)
    assert data.count(b"ORDER=B A\n") == 1
    assert b"ORDER=A B\n" not in data


WRITER = """
import asyncio, sys
from pathlib import Path
from updated.boot.grub import Grub
grub = Grub(Path(sys.argv[1]), ["A", "B"])
async def main():
    await grub.set_primary("B")
    print("ready", flush=True)
    while True:
        await grub.set_primary("A")
        await grub.set_primary("B")
asyncio.run(main())
"""


def test_a_killed_writer_leaves_the_old_or_the_new_block(grubenv: Path) -> None:
    """Another process sees the block at any moment whole, in full size, and so does whoever comes after."""
    old = grubenv.read_bytes()
    allowed = {old, old.replace(b"ORDER=A B", b"ORDER=B A")}
    seen: set[bytes] = set()
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            seen.add(grubenv.read_bytes())
            time.sleep(0.0002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for delay in range(5):
            argv = [sys.executable, "-c", WRITER, str(grubenv)]
            with subprocess.Popen(argv, stdout=subprocess.PIPE) as writer:
                assert writer.stdout is not None
                assert writer.stdout.readline() == b"ready\n"
                time.sleep(delay / 250)
                writer.send_signal(signal.SIGKILL)
            assert grubenv.read_bytes() in allowed
            assert grubenv.stat().st_size == len(old)
    finally:
        stop.set()
        watcher.join()
    assert old in seen
    assert seen <= allowed


def test_two_callers_do_not_lose_each_others_change(grub: Bootloader, grubenv: Path) -> None:
    async def scenario() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(5):
                group.create_task(grub.set_state("A", good=False))
                group.create_task(grub.set_state("B", good=False))

    asyncio.run(scenario())
    assert {"A_OK=0", "B_OK=0"} <= set(editenv(grubenv, "list").splitlines())
