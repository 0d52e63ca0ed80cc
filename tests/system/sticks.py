"""Media of USB sticks: raw images with a file system and files on it.  No root is needed."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

Files = Mapping[str, Path]  # name on the stick -> what is copied there
START = 1 << 20  # bytes: where partitions begin
SECTOR = 512  # bytes


def fat(path: Path, files: Files, *, megabytes: int, table: bool = True) -> Path:
    """FAT32 in a partition of `megabytes`, or FAT16 on the whole of the stick."""
    start = START if table else 0
    _blank(path, start + (megabytes << 20))
    if table:
        _run("sfdisk", "-q", str(path), text="label: dos\nstart=2048, type=c\n")
    kind = ["-F", "32", "-s", "1", f"--offset={start // SECTOR}"] if table else ["-F", "16"]
    _run("mkfs.vfat", *kind, "-n", "UPDATE", str(path), str(megabytes << 10))
    for name, source in files.items():
        _run("mcopy", "-i", f"{path}@@{start}", str(source), f"::{name}")
    return path


def ntfs(path: Path, files: Files, *, megabytes: int) -> Path:
    """NTFS on the whole of the stick."""
    _run("mkfs.ntfs", "-F", "-Q", "-q", str(_blank(path, megabytes << 20)))
    for name, source in files.items():
        _run("ntfscp", "-f", "-q", str(path), str(source), name)
    return path


def exfat(path: Path, *, megabytes: int) -> Path:
    """exFAT on the whole of the stick, empty: only a kernel can put files there."""
    _run("mkfs.exfat", str(_blank(path, megabytes << 20)))
    return path


def ext4(path: Path, folder: Path, *, megabytes: int) -> Path:
    """ext4 on the whole of the stick, with what is in `folder`."""
    _run("mkfs.ext4", "-q", "-F", "-d", str(folder), str(_blank(path, megabytes << 20)))
    return path


def text_on(stick: Path, name: str) -> str:
    """A text file on a stick that `fat` made with a table; "" if it is not there."""
    command = ["mtype", "-i", f"{stick}@@{START}", f"::{name}"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def is_clean(stick: Path) -> bool:
    """Whether fsck finds nothing to mend on a stick that `fat` made with a table."""
    part = stick.with_suffix(".part")
    part.write_bytes(stick.read_bytes()[START:])
    return subprocess.run(["fsck.vfat", "-n", str(part)], capture_output=True, check=False).returncode == 0


def sector_of(stick: Path, piece: bytes) -> int:
    """Number of the sector where `piece` lies.  A file on a fresh file system is in one piece."""
    position = stick.read_bytes().find(piece)
    assert position >= 0
    return position // SECTOR


def _blank(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


def _run(*command: str, text: str = "") -> None:
    result = subprocess.run(
        command, input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if result.returncode:
        raise RuntimeError(f"{command} ended with {result.returncode}:\n{result.stdout}")
