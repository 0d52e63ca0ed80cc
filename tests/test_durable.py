"""Old or new, never a part: after every kind of end."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from updated.durable import sync_folder, write_durably

WRITER = """
import sys
from pathlib import Path
from updated.durable import write_durably
path = Path(sys.argv[1])
number = 0
while True:
    number += 1
    write_durably(path, bytes([number % 251]) * 50_000)
    if number == 1:
        print("begun", flush=True)
"""


def test_replaces(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_durably(path, b"one")
    write_durably(path, b"two", mode=0o600)
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_the_mode_does_not_depend_on_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        write_durably(tmp_path / "file", b"")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    (tmp_path / "link").symlink_to(target)
    write_durably(tmp_path / "link", b"new")
    assert target.read_bytes() == b"precious"
    assert not (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("number", range(6))
def test_killed_at_some_moment(tmp_path: Path, number: int) -> None:
    path = tmp_path / "file"
    with subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        try:
            writer.wait(0.003 * number + 0.001)
        except subprocess.TimeoutExpired:
            writer.send_signal(signal.SIGKILL)
    data = path.read_bytes()
    assert len(data) == 50_000
    assert len(set(data)) == 1


def test_errors_leave_the_old_file(tmp_path: Path) -> None:
    folder = tmp_path / "file"
    folder.mkdir()
    (folder / "inside").touch()
    with pytest.raises(OSError, match="directory"):
        write_durably(folder, b"x")
    with pytest.raises(FileNotFoundError):
        write_durably(tmp_path / "nowhere/file", b"x")
    assert list(tmp_path.iterdir()) == [folder]  # no temporary file either


def test_sync_folder(tmp_path: Path) -> None:
    sync_folder(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        sync_folder(tmp_path / "file")
