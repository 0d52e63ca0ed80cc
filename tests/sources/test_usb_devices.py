"""Which block devices are sticks with a file system to look at: the choice alone, no device needed."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from updated.sources.usb_devices import MAX_ALL, MAX_TEXT, MAX_VOLUMES, BlockDevice, Volume, select

KNOWN = ("vfat", "exfat", "ext4", "ntfs3")


def device(
    name: str = "sda1",
    more: Mapping[str, str] | None = None,
    *,
    number: int = 1,
    disk: int = 0,
    usb: bool = True,
    stick: str = "",
) -> BlockDevice:
    properties = {
        "DEVTYPE": "partition",
        "ID_FS_USAGE": "filesystem",
        "ID_FS_TYPE": "vfat",
        "ID_FS_UUID": "1234-ABCD",
        "ID_PART_ENTRY_NUMBER": "1",
        "DISKSEQ": "7",
    }
    return BlockDevice(
        name=name,
        node=f"/dev/{name}",
        number=number,
        disk=disk,
        stick=stick or f"/sys/{disk}",
        usb=usb,
        properties=properties | dict(more or {}),
    )


def names(*devices: BlockDevice, protected: tuple[int, ...] = ()) -> list[str]:
    return [volume.name for volume in select(devices, KNOWN, protected)]


def test_a_volume() -> None:
    assert select([device()], KNOWN, ()) == [
        Volume("sda1", "/dev/sda1", 1, "vfat", "1234-ABCD", 1, "/sys/0", "7")
    ]


@pytest.mark.parametrize(
    "more",
    [
        {"DEVTYPE": "disk", "ID_PART_ENTRY_NUMBER": ""},  # a file system without a partition table
        {"ID_FS_TYPE": "exfat"},
        {"ID_FS_TYPE": "ext4"},
        {"ID_FS_TYPE": "ntfs"},  # the driver's name is another
        {"ID_FS_UUID": "", "ID_SERIAL": "x"},
        {"DISKSEQ": ""},
    ],
)
def test_taken(more: dict[str, str]) -> None:
    assert names(device("sda1", more)) == ["sda1"]


@pytest.mark.parametrize(
    "more",
    [
        {"ID_FS_USAGE": "raid"},
        {"ID_FS_USAGE": "crypto", "ID_FS_TYPE": "crypto_LUKS"},
        {"ID_FS_USAGE": ""},  # udev has not looked yet, or no medium
        {"ID_FS_TYPE": "hfsplus"},
        {"ID_FS_TYPE": "squashfs"},
        {"ID_FS_TYPE": ""},
        {"DEVTYPE": "weird"},
    ],
)
def test_not_taken(more: dict[str, str]) -> None:
    assert names(device("sda1", more)) == []


def test_not_on_usb() -> None:
    assert names(device(usb=False)) == []


def test_the_driver_must_be_wanted() -> None:
    assert [volume.driver for volume in select([device("sda1", {"ID_FS_TYPE": "ntfs"})], KNOWN, ())] == [
        "ntfs3"
    ]
    assert select([device("sda1", {"ID_FS_TYPE": "ntfs"})], ("vfat",), ()) == []


def test_a_disk_with_something_of_the_system_is_no_stick() -> None:
    """A device may have started from USB."""
    disk = device("sda", {"DEVTYPE": "disk", "ID_FS_USAGE": ""}, number=0)
    boot, root = device(number=1), device("sda2", number=2)
    other = device("sdb1", number=17, disk=16)
    assert names(disk, boot, root, other) == ["sda1", "sda2", "sdb1"]
    for protected in (0, 1, 2):
        assert names(disk, boot, root, other, protected=(protected,)) == ["sdb1"]


def test_the_first_partitions_by_number() -> None:
    many = [device(f"sda{n}", {"ID_PART_ENTRY_NUMBER": str(n)}, number=n) for n in range(40, 0, -1)]
    assert names(*many, device("sdb1", disk=16)) == [f"sda{n}" for n in range(1, MAX_VOLUMES + 1)] + ["sdb1"]


def test_hundreds_of_disks_in_one_stick_or_many() -> None:
    assert (
        len(names(*[device(f"sd{n}", number=n, disk=n, stick="/sys/usb") for n in range(300)])) == MAX_VOLUMES
    )
    assert len(names(*[device(f"sd{n}", number=n, disk=n) for n in range(300)])) == MAX_ALL


@pytest.mark.parametrize("number", ["", "x", "-1", "²", "9" * 5000])
def test_a_strange_partition_number(number: str) -> None:
    assert select([device("sda1", {"ID_PART_ENTRY_NUMBER": number})], KNOWN, ())[0].partition == 0


@given(
    st.dictionaries(
        st.sampled_from(["DEVTYPE", "ID_FS_USAGE", "ID_FS_TYPE", "ID_FS_UUID", "PARTN"]), st.text()
    )
)
def test_any_property(more: dict[str, str]) -> None:
    for volume in select([device("sda1", more)], KNOWN, ()):
        assert volume.driver in KNOWN
        assert len(volume.uuid) <= MAX_TEXT


def test_another_medium_is_another_volume() -> None:
    (one,), (two,) = (select([device("sda1", {"DISKSEQ": number})], KNOWN, ()) for number in "78")
    assert one != two
    assert one.plug != two.plug
