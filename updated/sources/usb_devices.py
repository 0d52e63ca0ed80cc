"""Which USB sticks are plugged in: udev's word, level and edge.

Which device is what was found out by udev's own rules (60-block, 60-persistent-storage); none of ours is
needed.  Nothing is opened here.  Sources: libudev(3), systemd's udev-builtin-blkid and usb_id, Linux
Documentation/ABI/stable/sysfs-block (diskseq).
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from updated.errors import SourceError

if TYPE_CHECKING:
    import pyudev

UDEV: Final = Path("/run/udev/control")  # of an udevd that runs
MAX_VOLUMES: Final = 16  # file systems of one stick that are looked at: people make two or three
MAX_ALL: Final = 64  # of all sticks: a device that pretends to be hundreds is no stick
MAX_TEXT: Final = 200  # characters of an identity

# Name in ID_FS_TYPE where it is not the kernel driver's.
DRIVERS: Final = {"ntfs": "ntfs3"}


@dataclass(frozen=True, slots=True)
class BlockDevice:
    """What udev knows of one."""

    name: str  # the kernel's: "sda1"
    node: str  # "/dev/sda1"
    number: int  # st_rdev
    disk: int  # st_rdev of the whole disk
    stick: str  # what is plugged and pulled as one: path in sysfs
    usb: bool
    properties: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Volume:
    """A file system on a stick.  Another one: not equal."""

    name: str  # the kernel's: "sda1"
    node: str  # "/dev/sda1"
    number: int  # st_rdev
    driver: str  # kernel's file system
    uuid: str  # the file system's, else the stick's serial number; a stranger's text
    partition: int  # 0: the whole disk
    stick: str
    sequence: str  # of the medium, by the kernel since 5.15; "" before

    @property
    def plug(self) -> tuple[str, str]:
        """What one plugging is known by."""
        return (self.name, self.sequence)


def select(
    devices: Iterable[BlockDevice], file_systems: Collection[str], protected: Collection[int]
) -> list[Volume]:
    """What may be mounted: known file systems on USB disks that carry nothing `protected` (st_rdev)."""
    devices = tuple(devices)
    busy = {device.disk for device in devices if device.number in protected}
    sticks: dict[str, list[Volume]] = defaultdict(list)
    for device in devices:
        if device.usb and device.disk not in busy and (volume := _volume(device, file_systems)):
            sticks[volume.stick].append(volume)
    chosen = [
        volume
        for volumes in sticks.values()
        for volume in sorted(volumes, key=lambda volume: (volume.partition, volume.name))[:MAX_VOLUMES]
    ]
    return chosen[:MAX_ALL]


def _volume(device: BlockDevice, file_systems: Collection[str]) -> Volume | None:
    properties = device.properties
    if properties.get("ID_FS_USAGE") != "filesystem" or properties.get("DEVTYPE") not in (
        "disk",
        "partition",
    ):
        return None
    kind = properties.get("ID_FS_TYPE", "")
    driver = DRIVERS.get(kind, kind)
    if driver not in file_systems:
        return None
    number = properties.get("ID_PART_ENTRY_NUMBER") or properties.get("PARTN") or "0"
    return Volume(
        name=device.name,
        node=device.node,
        number=device.number,
        driver=driver,
        uuid=(properties.get("ID_FS_UUID") or properties.get("ID_SERIAL", ""))[:MAX_TEXT],
        partition=int(number) if number.isascii() and number.isdigit() and len(number) < 10 else 0,
        stick=device.stick,
        sequence=properties.get("DISKSEQ", ""),
    )


class Hotplug:
    """A connection to udev.  Methods block for milliseconds (sysfs, /run/udev), `fileno` excepted."""

    def __init__(self) -> None:
        """Raises SourceError if there is no udev to talk to."""
        if not UDEV.exists():
            raise SourceError("udev does not run", hint="USB sticks are found with it: start systemd-udevd.")
        try:
            import pyudev

            self._udev = pyudev.Context()
            self._monitor = pyudev.Monitor.from_netlink(self._udev, source="udev")
            self._monitor.filter_by("block")
            self._monitor.start()
        except (ImportError, OSError, ValueError) as error:
            raise SourceError(
                f"Cannot listen to udev: {error}",
                hint="It takes libudev, and AF_NETLINK in the unit's RestrictAddressFamilies=.",
            ) from error

    def fileno(self) -> int:
        """Readable: `drain` has something to say."""
        return int(self._monitor.fileno())

    def drain(self) -> set[tuple[str, str]]:
        """Take all events that wait; says which were pulled (as `Volume.plug`).

        What else they say `devices` tells better, also after some were lost because too many came at once.
        """
        removed: set[tuple[str, str]] = set()
        while True:
            try:
                device = self._monitor.poll(0)
            except OSError:
                self._clear_error()
                continue
            except (ValueError, MemoryError, OverflowError):  # no message that libudev understands
                continue
            if device is None:
                return removed
            if device.action == "remove":
                removed.add((_name(device), _get(device, "DISKSEQ")))

    def devices(self) -> list[BlockDevice]:
        """All block devices there are now."""
        found = (_describe(device) for device in self._udev.list_devices(subsystem="block"))
        return [device for device in found if device]

    def _clear_error(self) -> None:
        """ENOBUFS, or the socket would be readable for ever.  pyudev sees only that there is an error."""
        with socket.socket(fileno=os.dup(self.fileno())) as twin:
            twin.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


# What is read here of properties in `_get`.
_WANTED: Final = (
    "DEVTYPE",
    "DISKSEQ",
    "ID_BUS",
    "ID_FS_TYPE",
    "ID_FS_USAGE",
    "ID_FS_UUID",
    "ID_PART_ENTRY_NUMBER",
    "ID_SERIAL",
    "PARTN",
)


def _describe(device: pyudev.Device) -> BlockDevice | None:
    """None: it is gone already, or has no node."""
    properties = {name: text for name in _WANTED if (text := _get(device, name))}
    with contextlib.suppress(OSError, ValueError, KeyError):
        disk = device if properties.get("DEVTYPE") != "partition" else device.find_parent("block", "disk")
        plugged = device.find_parent("usb", "usb_device")
        if device.device_node is None or disk is None:
            return None
        return BlockDevice(
            name=_name(device),
            node=str(device.device_node),
            number=int(device.device_number),
            disk=int(disk.device_number),
            stick=str((plugged or disk).sys_path),
            usb=properties.get("ID_BUS") == "usb" or device.find_parent("usb") is not None,
            properties=properties,
        )
    return None


def _name(device: pyudev.Device) -> str:
    return str(device.sys_path).rpartition("/")[2]  # sys_name may have slashes in it


def _get(device: pyudev.Device, name: str) -> str:
    """A property; "" without one, or with one that is no text."""
    try:
        return str(device.properties.get(name, ""))
    except (KeyError, ValueError, OSError):
        return ""
