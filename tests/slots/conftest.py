"""Loop devices and mounts for the tests of slots; all gone when the test is over."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Attach = Callable[..., str]
Mount = Callable[..., Path]


@pytest.fixture
def cleanup() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def attach(cleanup: contextlib.ExitStack) -> Attach:
    """A loop device on a file; further arguments go to losetup."""

    def call(file: Path, *arguments: str) -> str:
        argv = ["losetup", "--find", "--show", *arguments, str(file)]
        device = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
        cleanup.callback(subprocess.run, ["losetup", "--detach", device], check=True)
        return device

    return call


@pytest.fixture
def mount(cleanup: contextlib.ExitStack) -> Mount:
    """Mount something at a folder; the arguments are mount's."""

    def call(folder: Path, *arguments: str) -> Path:
        folder.mkdir(exist_ok=True)
        subprocess.run(["mount", *arguments, str(folder)], check=True)
        cleanup.callback(subprocess.run, ["umount", str(folder)], check=True)
        return folder

    return call


@pytest.fixture
def image(tmp_path: Path) -> Callable[[int], Path]:
    """A file of some bytes, all zero."""

    def call(size: int) -> Path:
        path = tmp_path / "slot.img"
        with path.open("wb") as file:
            file.truncate(size)
        return path

    return call
