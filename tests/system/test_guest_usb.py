"""Sticks on a real machine: a real kernel's USB and FAT, a real udev, the unit as it is installed.

Nobody does anything in the machine but plug and pull.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.system.conftest import Bundle, Signer
from tests.system.guest import Guest
from tests.system.guest_image import GuestImage, make_guest_image

pytestmark = [pytest.mark.root, pytest.mark.slow]

SLOT = 192 << 20  # bytes
WAIT = 120.0  # seconds; under emulation a bundle of 160 MiB takes some 20
SYSTEM_CONF = """\
[system]
compatible=Test
bootloader=grub
grubenv=/boot/grubenv
data-directory=/var/lib/updated

[keyring]
path=/etc/rauc/keyring.pem

[slot.rootfs.0]
device=/dev/vdb
bootname=A

[slot.rootfs.1]
device=/dev/vdc
bootname=B
"""
AGENT_CONF = """\
[usb]
enable = true
result-file = "updated.txt"
on-failure = ["/usr/bin/touch", "/run/failed"]

[confirm]
stable-for = 0.1
"""


class Device:
    """The machine with the service on it; runs from group A."""

    def __init__(self, guest: Guest, keyring: bytes) -> None:
        self.guest = guest
        self.run = guest.run
        guest.write("/etc/rauc/system.conf", SYSTEM_CONF.encode())
        guest.write("/etc/updated/updated.toml", AGENT_CONF.encode())
        guest.write("/etc/rauc/keyring.pem", keyring)
        env = "# GRUB Environment Block\nORDER=A B\nA_OK=1\nA_TRY=0\nB_OK=0\nB_TRY=0\n"
        guest.write("/boot/grubenv", env.ljust(1024, "#").encode())
        guest.run("systemctl start updated")

    def status(self) -> dict[str, str]:
        found: dict[str, str] = json.loads(self.run("updated status --output-format=json"))
        return found

    def wait_for(self, what: Callable[[], bool], text: str) -> None:
        deadline = time.monotonic() + WAIT
        while not what():
            assert time.monotonic() < deadline, f"no {text}:\n{self.run('journalctl -u updated -n 60')}"
            time.sleep(0.3)

    def history(self) -> list[str]:
        return [line.split()[1] for line in self.run("updated history").splitlines() if line[:2] == "20"]

    def mounts(self) -> str:
        return self.run("cat /proc/$(systemctl show -P MainPID updated)/mounts")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> GuestImage:
    return make_guest_image(tmp_path_factory.mktemp("guest"))


@pytest.fixture
def device(image: GuestImage, tmp_path: Path, signer: Signer) -> Iterator[Device]:
    slots = [tmp_path / "a.img", tmp_path / "b.img"]
    for slot in slots:
        with slot.open("wb") as file:
            file.truncate(SLOT)
    with Guest(image, tmp_path, disks=slots, append="root=/dev/vda rauc.slot=A") as guest:
        yield Device(guest, signer.cert.read_bytes())


def make_stick(path: Path, files: dict[str, Path], *, megabytes: int, table: bool = True) -> Path:
    """A medium with a FAT file system, in a partition or on the whole of it."""
    part = path.with_suffix(".part") if table else path
    with part.open("wb") as file:
        file.truncate(megabytes << 20)
    subprocess.run(["mkfs.vfat", "-n", "UPDATE", str(part)], check=True, capture_output=True)
    for name, source in files.items():
        subprocess.run(["mcopy", "-i", str(part), str(source), f"::{name}"], check=True)
    if table:
        with path.open("wb") as file:
            file.truncate((megabytes + 1) << 20)
        subprocess.run(["sfdisk", "-q", str(path)], input=b"label: dos\nstart=2048, type=c\n", check=True)
        subprocess.run(["dd", f"if={part}", f"of={path}", "bs=1M", "seek=1", "conv=notrunc"], check=True)
        part.unlink()
    return path


def test_plugged_pulled_and_plugged_again(device: Device, large: Bundle, tmp_path: Path) -> None:
    stick = make_stick(tmp_path / "stick.img", {"system.raucb": large.path}, megabytes=220)
    device.guest.plug(stick)
    device.wait_for(lambda: "install" in device.run("updated status"), "install")
    device.wait_for(lambda: device.run("stat -c%s /var/lib/updated/resume/*", check=False) > "", "checkpoint")
    time.sleep(2)
    device.guest.pull()
    device.wait_for(lambda: device.history() == ["failed"], "failure")
    assert "/run/updated/usb" not in device.mounts()
    assert device.run("grep -o B_OK=. /boot/grubenv").strip() == "B_OK=0"
    device.wait_for(lambda: device.run("ls /run/failed", check=False).strip() == "/run/failed", "hook")
    # It goes on where it stopped, also in another port.
    device.guest.plug(stick, "again")
    device.wait_for(lambda: device.history()[:1] == ["installed"], "install")
    assert device.run("grep -o B_OK=. /boot/grubenv").strip() == "B_OK=1"
    with large.image.open("rb") as wanted, (tmp_path / "b.img").open("rb") as found:
        while piece := wanted.read(1 << 20):
            assert found.read(len(piece)) == piece
    assert device.run("systemctl is-active updated").strip() == "active"


def test_what_lies_on_sticks(device: Device, small: Bundle, stranger: Signer, tmp_path: Path) -> None:
    """A stick that is one file system as a whole, with a Mac's leftovers, and one that nobody signed for us."""
    junk = tmp_path / "junk"
    junk.write_bytes(os.urandom(4096))
    stick = make_stick(
        tmp_path / "stick.img",
        {"._system.raucb": junk, "broken.raucb": junk, "system.raucb": small.path},
        megabytes=40,
        table=False,
    )
    device.guest.plug(stick)
    device.wait_for(lambda: device.history() == ["installed"], "install")
    device.wait_for(lambda: "/run/updated/usb" not in device.mounts(), "unmount")
