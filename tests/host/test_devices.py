"""Mounts, device identity and capacity: on real loop devices and on made-up sysfs trees."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from updated.devices import (
    Mount,
    capacity,
    declared_mountpoint,
    find_mountpoint,
    identities,
    identity,
    parse_mountinfo,
    read_mounts,
)
from updated.errors import DeviceError

SIZE = 4 * 1024 * 1024


def run(*argv: str | Path) -> str:
    return subprocess.run([str(part) for part in argv], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def image(tmp_path: Path) -> Path:
    file = tmp_path / "slot.img"
    run("truncate", "-s", str(SIZE), file)
    run("mkfs.ext4", "-q", file)
    return file


@pytest.fixture
def loop(image: Path) -> Iterator[str]:
    device = run("losetup", "--find", "--show", image).strip()
    yield device
    run("losetup", "--detach", device)


@pytest.fixture
def mounted(tmp_path: Path, loop: str) -> Iterator[Path]:
    place = tmp_path / "a place\twith\\things"
    place.mkdir()
    run("mount", loop, place)
    yield place
    run("umount", place)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            b"36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue",
            Mount("98:0", "/mnt2", "/dev/root", "ext3"),
        ),
        (
            rb"1 2 0:5 / /with\040blank\011tab\134back rw - tmpfs none rw",
            Mount("0:5", "/with blank\ttab\\back", "none", "tmpfs"),
        ),
        (
            b"1 2 0:5 / / rw shared:1 master:2 propagate_from:3 - overlay over lay",
            Mount("0:5", "/", "over", "overlay"),
        ),
        (b"1 2 0:5 / /\xff rw - tmpfs none rw", Mount("0:5", "/\udcff", "none", "tmpfs")),
    ],
)
def test_mountinfo(line: bytes, expected: Mount) -> None:
    assert parse_mountinfo(line + b"\n") == (expected,)


@pytest.mark.parametrize(
    "line", [b"", b"1 2 0:5 / / rw", b"1 2 0:5 / / rw -", b"1 2 0:5 / / rw - ext4", b"x"]
)
def test_what_is_no_mount_is_left_out(line: bytes) -> None:
    assert parse_mountinfo(line) == ()


@given(st.binary())
def test_any_bytes_are_mounts_or_none(data: bytes) -> None:
    """Invariant: a tuple of mounts, and never an exception."""
    assert len(parse_mountinfo(data)) <= data.count(b"\n") + data.count(b"\r") + 1


def test_the_real_mounts(tmp_path: Path) -> None:
    assert any(mount.mountpoint == "/proc" and mount.fstype == "proc" for mount in read_mounts())
    with pytest.raises(DeviceError, match="No such file or directory"):
        read_mounts(tmp_path / "mountinfo")


def test_identity(tmp_path: Path, image: Path, loop: str) -> None:
    link = tmp_path / "by-partlabel"
    link.symlink_to(loop)
    hard = tmp_path / "hard.img"
    hard.hardlink_to(image)
    number = Path(f"/sys/block/{Path(loop).name}/dev").read_text().strip()
    assert identity(loop) == identity(str(link)) == f"block:{number}"
    assert identity(str(image)) == identity(str(hard))
    assert identity(str(image)).startswith("file:")
    assert identity(str(image)) != identity(loop)
    assert identity("/dev/not-there") == "/dev/not-there"
    assert identity("a\0b") == "a\0b"
    assert identity("/dev/null") == "char:1:3"
    assert identities([loop, str(link)]) == {loop: f"block:{number}", str(link): f"block:{number}"}


def test_capacity(tmp_path: Path, image: Path, loop: str) -> None:
    assert capacity(loop) == SIZE
    assert capacity(str(image)) == SIZE
    with pytest.raises(DeviceError, match="No such file or directory"):
        capacity(str(tmp_path / "none"))
    with pytest.raises(DeviceError, match="neither a block device nor a regular file"):
        capacity("/dev/null")
    with pytest.raises(DeviceError, match="neither a block device nor a regular file"):
        capacity(str(tmp_path))


def test_a_block_device_is_mounted(tmp_path: Path, loop: str, mounted: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(loop)
    assert find_mountpoint(loop) == str(mounted)
    assert find_mountpoint(str(link)) == str(mounted)


def test_a_file_is_mounted_through_its_loop_device(image: Path, mounted: Path) -> None:
    assert find_mountpoint(str(image)) == str(mounted)


def test_a_device_is_mounted_through_a_loop_device_over_it(tmp_path: Path, loop: str) -> None:
    upper = run("losetup", "--find", "--show", loop).strip()
    place = tmp_path / "upper"
    place.mkdir()
    try:
        run("mount", upper, place)
        try:
            assert find_mountpoint(loop) == str(place)
        finally:
            run("umount", place)
    finally:
        run("losetup", "--detach", upper)


def test_not_mounted(tmp_path: Path, image: Path, loop: str) -> None:
    assert find_mountpoint(loop) is None
    assert find_mountpoint(str(image)) is None
    assert find_mountpoint(str(tmp_path / "none")) is None


def fake_sysfs(root: Path, loop: str, holders: dict[str, str]) -> None:
    """A sysfs in which block devices (numbers) stand on each other."""
    for below, above in holders.items():
        folder = root / "dev" / "block" / below / "holders" / above.replace(":", "-")
        folder.mkdir(parents=True)
        (folder / "dev").write_text(f"{above}\n")
    (root / "block" / Path(loop).name).mkdir(parents=True)


def test_mounted_through_device_mapper(tmp_path: Path, loop: str) -> None:
    number = identity(loop).removeprefix("block:")
    fake_sysfs(tmp_path / "sys", loop, {number: "254:0", "254:0": "254:1"})
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text("1 2 254:1 / / ro - ext4 /dev/mapper/root ro\n")
    assert find_mountpoint(loop, mountinfo=mountinfo, sysfs=tmp_path / "sys") == "/"
    mountinfo.write_text("1 2 254:2 / / ro - ext4 /dev/mapper/root ro\n")
    assert find_mountpoint(loop, mountinfo=mountinfo, sysfs=tmp_path / "sys") is None


def test_a_circle_in_sysfs_ends(tmp_path: Path, loop: str) -> None:
    number = identity(loop).removeprefix("block:")
    fake_sysfs(tmp_path / "sys", loop, {number: "254:0", "254:0": number})
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text("")
    assert find_mountpoint(loop, mountinfo=mountinfo, sysfs=tmp_path / "sys") is None


def test_a_file_system_with_its_own_number_is_found_by_its_source(tmp_path: Path, loop: str) -> None:
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(f"1 2 0:42 / /data rw - btrfs {loop} rw\n")
    assert find_mountpoint(loop, mountinfo=mountinfo) == "/data"


@pytest.mark.parametrize(
    ("folder", "point"),
    [
        ("/data/updated", "/data"),
        ("/data", "/data"),
        ("/data/big disk/updated", "/data/big disk"),
        ("/database", ""),
        ("/var/lib/updated", ""),  # on the root
        ("/media/stick/updated", ""),  # nobody mounts it at start
    ],
)
def test_where_fstab_wants_a_folder(tmp_path: Path, folder: str, point: str) -> None:
    fstab = tmp_path / "fstab"
    fstab.write_bytes(
        b"# device dir type options\n/dev/root / ext4 ro 0 1\n\nLABEL=data /data/ ext4 rw,nofail 0 2\n"
        b"/dev/sdb1\t/data/big\\040disk ext4 defaults 0 2\n/dev/sdc1 /media/stick vfat noauto,user 0 0\n"
        b"/dev/sda3 none swap sw 0 0\n\xff\xfe broken\n"
    )
    assert declared_mountpoint(Path(folder), fstab) == point


def test_without_fstab_nobody_says(tmp_path: Path) -> None:
    assert declared_mountpoint(tmp_path, tmp_path / "none") == ""
    assert declared_mountpoint(tmp_path, tmp_path) == ""
