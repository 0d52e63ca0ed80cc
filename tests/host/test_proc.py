"""Kernel command line and boot id."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from updated.errors import DeviceError
from updated.host.proc import (
    BootSlotHint,
    boot_id,
    boot_slot,
    boot_slot_from_cmdline,
    device_path,
    read_cmdline,
    udev_escape,
)

BY = "/dev/disk/by-"


@pytest.mark.parametrize(
    ("cmdline", "expected"),
    [
        ("quiet root=/dev/mmcblk0p2 rw", BootSlotHint(device="/dev/mmcblk0p2")),
        ("root=PARTUUID=1234abcd-02", BootSlotHint(device=BY + "partuuid/1234abcd-02")),
        ("root=PARTLABEL=rootfs-a", BootSlotHint(device=BY + "partlabel/rootfs-a")),
        ("root=UUID=0c9e-77", BootSlotHint(device=BY + "uuid/0c9e-77")),
        ("root=LABEL=BF_ROOT_A", BootSlotHint(device=BY + "label/BF_ROOT_A")),
        ('root="PARTLABEL=my root"', BootSlotHint(device=BY + "partlabel/my\\x20root")),
        ('root=PARTLABEL="my root"', BootSlotHint(device=BY + "partlabel/my\\x20root")),
        ('"root=PARTLABEL=my root" ro', BootSlotHint(device=BY + "partlabel/my\\x20root")),
        ("rauc.slot=A root=/dev/sda1", BootSlotHint(explicit="A", device="/dev/sda1")),
        ("rauc.slot= root=/dev/sda1", BootSlotHint(device="/dev/sda1")),
        ("rauc.external root=/dev/sda1 rauc.slot=A", BootSlotHint(explicit="_external_")),
        ("root=/dev/nfs nfsroot=/srv", BootSlotHint(explicit="_external_")),
        (
            "bootchooser.active=system0 root=/dev/sda1",
            BootSlotHint(bootchooser="system0", device="/dev/sda1"),
        ),
        ("bootstate.active=system1", BootSlotHint(bootchooser="system1")),
        ("systemd.verity_root_data=PARTUUID=ab-01", BootSlotHint(device=BY + "partuuid/ab-01")),
        ("root=/dev/sda1 systemd.verity_root_data=/dev/sda2", BootSlotHint(device="/dev/sda1")),
        ("root=/dev/sda1 root=/dev/sda2", BootSlotHint(device="/dev/sda2")),
        ("myroot=/dev/sda1 nfsroot=/x rauc.slotted=A", BootSlotHint()),
        ("quiet -- root=/dev/sda1", BootSlotHint()),
        ("", BootSlotHint()),
    ],
)
def test_hints(cmdline: str, expected: BootSlotHint) -> None:
    assert boot_slot_from_cmdline(cmdline) == expected
    assert boot_slot_from_cmdline(cmdline).external == (expected.explicit == "_external_")


@given(st.text())
def test_any_command_line_gives_a_hint(cmdline: str) -> None:
    """Invariant: a hint, and never an exception."""
    hint = boot_slot_from_cmdline(cmdline)
    assert isinstance(boot_slot(hint), str)


@pytest.mark.parametrize(
    ("label", "link"),
    [
        ("rootfs-a", "rootfs-a"),
        ("EFI System", "EFI\\x20System"),
        ("a/b", "a\\x2fb"),
        ("back\\slash", "back\\x5cslash"),
        ("straße", "straße"),
        ("a#b+c.d:e=f@g_h", "a#b+c.d:e=f@g_h"),
        ("q'\"*", "q\\x27\\x22\\x2a"),
        ("", ""),
    ],
)
def test_labels_are_escaped_as_udev_does(label: str, link: str) -> None:
    assert udev_escape(label) == link


def test_order_of_the_answers(tmp_path: Path) -> None:
    device = tmp_path / "sda1"
    device.touch()
    link = tmp_path / "disk" / "by-partlabel" / "a"
    link.parent.mkdir(parents=True)
    link.symlink_to(device)
    hint = boot_slot_from_cmdline("root=PARTLABEL=a", dev=str(tmp_path))
    assert boot_slot(hint) == str(device)
    assert boot_slot(hint, "A") == "A"
    assert boot_slot(BootSlotHint(explicit="B", device=hint.device), "A") == "B"
    assert boot_slot(boot_slot_from_cmdline("root=PARTLABEL=b", dev=str(tmp_path))) == device_path(
        "PARTLABEL=b", dev=str(tmp_path)
    )
    assert boot_slot(BootSlotHint()) == ""


def test_the_real_kernel() -> None:
    assert uuid.UUID(boot_id()) == uuid.UUID(boot_id())
    assert read_cmdline() == Path("/proc/cmdline").read_text().strip()


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="No such file or directory"):
        boot_id(tmp_path / "boot_id")
    with pytest.raises(DeviceError, match="No such file or directory"):
        read_cmdline(tmp_path / "cmdline")
