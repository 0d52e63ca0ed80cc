"""Sticks on a real machine: a real kernel's USB and file systems, a real udev, our unit as installed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system import sticks
from tests.system.conftest import Bundle, Signer, noise_bundle
from tests.system.guest import Guest
from tests.system.guest_device import Device
from tests.system.guest_image import make_guest_image

pytestmark = [pytest.mark.root, pytest.mark.slow]

SLOT = 192 << 20  # bytes
MIB = 1 << 20
RESULT_FILE = 'result-file = "updated.txt"'
# As in docs/install.md and docs/usb.md.
DROP_INS = """\
ReadWritePaths=-/sys/class/leds/input0::capslock
DeviceAllow=char-alsa rw
"""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """Booted once for all tests."""
    folder = tmp_path_factory.mktemp("guest")
    slots = [folder / "a.img", folder / "b.img"]
    for slot in slots:
        with slot.open("wb") as file:
            file.truncate(SLOT)
    image = make_guest_image(folder, "rauc.slot=A")
    with Guest(image, folder, disks=slots) as guest:
        print("\nguest:", guest.run("systemd-analyze | head -1").strip())
        yield guest


@pytest.fixture
def device(machine: Guest, signer: Signer) -> Device:
    return Device(machine, signer.cert.read_bytes(), machine.folder / "b.img")


def test_pulled_in_the_middle_and_plugged_in_again(device: Device, medium: Bundle, tmp_path: Path) -> None:
    """It goes on where it stopped, also in another port."""
    stick = sticks.fat(tmp_path / "stick.img", {"system.raucb": medium.path}, megabytes=120)
    watch = "busctl --json=short --match=\"type='signal',member='Completed'\" monitor"
    device.run(f"systemd-run --quiet --unit=witness {watch}")
    device.start()
    device.guest.plug(stick, rate=12 * MIB)
    device.wait("half of it", lambda: device.guest.read_of() > 50 * MIB)
    first = device.guest.read_of()
    device.guest.pull()
    device.wait_for_file("/run/hooks", "failure failed")
    device.wait_for_journal("USB stick sda1 was pulled")
    assert device.history() == ["failed"]
    assert '"payload":{"type":"i","data":[1]}' in device.run("journalctl --output=cat --unit=witness")
    assert not device.is_good("B")
    device.wait_for_unmounted()

    device.guest.plug(stick, "again", port=3)
    device.wait_for_installed()
    second = device.guest.read_of("again")
    print(f"\nread of {medium.path.stat().st_size} bytes: {first}, then {second}")
    assert second < 0.8 * medium.path.stat().st_size
    assert device.holds(medium.image)
    assert device.is_good("B")
    device.wait_for_file("/run/hooks", "success 4")
    device.wait_for_unmounted()


def test_what_lies_on_sticks(
    device: Device, small: Bundle, signer: Signer, stranger: Signer, tmp_path: Path
) -> None:
    """No partitions, a Mac's leftovers, something broken, a stranger's bundle; of ours the higher version."""
    junk = tmp_path / "junk"
    junk.write_bytes(os.urandom(4096))
    higher = noise_bundle(_folder(tmp_path, "higher"), signer, "5", megabytes=8)
    strange = noise_bundle(_folder(tmp_path, "strange"), stranger, "9", megabytes=4)
    files = {
        "._system.raucb": junk,
        "broken.raucb": junk,
        "strange.raucb": strange.path,
        "a.raucb": small.path,
        "b.raucb": higher.path,
    }
    stick = sticks.fat(tmp_path / "stick.img", files, megabytes=40, table=False)
    device.configure(RESULT_FILE)
    device.start()
    device.guest.plug(stick)
    device.wait_for_installed()
    assert device.holds(higher.image)
    device.wait_for_unmounted()
    journal = device.journal()
    assert "strange.raucb is not installed: signature verification failed" in journal
    assert "broken.raucb is not installed: Invalid bundle format" in journal
    assert "._system" not in journal
    assert "Cannot mount sda (vfat): Read-only file system (Its write protection is on" in journal
    assert device.history() == ["installed"]


def test_left_in_at_start_with_an_answer_on_the_stick(device: Device, small: Bundle, tmp_path: Path) -> None:
    stick = sticks.fat(tmp_path / "stick.img", {"system.raucb": small.path}, megabytes=40)
    device.configure(RESULT_FILE)
    device.guest.plug(stick, writable=True)
    device.guest.wait_for("test -b /dev/sda1")
    device.start()
    device.wait_for_installed()
    device.wait_for_unmounted()
    answer = sticks.text_on(stick, "updated.txt")
    assert answer.startswith("The update was installed.")
    assert "Bundle:  system.raucb\nVersion: 2\n" in answer
    assert sticks.is_clean(stick)
    # As after the reboot into the new system: that there is nothing new is no news.
    device.run("systemctl restart updated")
    device.wait_for_journal("USB stick sda1 (vfat) is plugged in", 2)
    device.wait_for_unmounted()
    assert sticks.text_on(stick, "updated.txt") == answer


def test_other_file_systems(device: Device, small: Bundle, signer: Signer, tmp_path: Path) -> None:
    """What the kernel has no driver for is said, and harms nobody."""
    higher = noise_bundle(_folder(tmp_path, "higher"), signer, "5", megabytes=4)
    highest = noise_bundle(_folder(tmp_path, "highest"), signer, "6", megabytes=4)
    _put_on_exfat(device, small, tmp_path)
    device.start()
    device.guest.plug(tmp_path / "exfat.img")
    device.wait_for_installed()
    assert device.holds(small.image)
    _take_back(device)

    device.guest.plug(sticks.ntfs(tmp_path / "ntfs.img", {"system.raucb": higher.path}, megabytes=20))
    if "filename" in device.run("modinfo ntfs3", check=False):
        device.wait_for_installed(2)
        assert device.holds(higher.image)
        _take_back(device)
    else:
        device.wait_for_journal("Cannot mount sda: the kernel has no ntfs3")
        device.guest.pull()

    folder = _folder(tmp_path, "ext4")
    (folder / "system.raucb").symlink_to("/etc/shadow")
    (folder / "new.raucb").write_bytes(highest.path.read_bytes())
    device.guest.plug(sticks.ext4(tmp_path / "ext4.img", folder, megabytes=20))
    device.wait("the install", lambda: device.holds(highest.image) and device.is_good("B"))
    device.wait_for_unmounted()
    assert "/system.raucb" not in device.journal().partition("(ext4) is plugged in")[2]


def test_sticks_that_lie_and_die(device: Device, signer: Signer, tmp_path: Path) -> None:
    """One that is smaller than it says, one with a place that cannot be read; the next one is fine."""
    bundle = noise_bundle(_folder(tmp_path, "bundle"), signer, "5", megabytes=8)
    shorter, worn, good = (
        sticks.fat(tmp_path / f"{name}.img", {"system.raucb": bundle.path}, megabytes=40)
        for name in ("shorter", "worn", "good")
    )
    os.truncate(shorter, 4 * MIB)
    bad = sticks.sector_of(worn, bundle.path.read_bytes()[5 * MIB : 5 * MIB + 4096])
    device.configure(RESULT_FILE)
    device.start()

    device.guest.plug(shorter)
    device.guest.wait_for("dmesg | grep 'updated: attempt to access beyond end of device'")
    device.wait_for_journal("system.raucb is not installed: ")  # whoever brought it shall know
    device.wait_for_unmounted()
    device.guest.pull()

    before = device.journal().count("trying again")
    device.guest.plug(worn, writable=True, bad_sector=bad)
    device.wait_for_journal("failed: Installation error")
    device.wait_for_unmounted()
    assert device.journal().count("trying again") - before == 3
    assert "The update FAILED." in sticks.text_on(worn, "updated.txt")
    assert "medium error" in sticks.text_on(worn, "updated.txt")
    device.guest.pull()

    device.guest.plug(good)
    device.wait_for_installed()
    assert device.holds(bundle.image)
    assert device.run("systemctl show -P NRestarts updated").strip() == "0"


def test_turned_on_by_a_reload_with_a_light_and_a_sound(
    device: Device, small: Bundle, tmp_path: Path
) -> None:
    """The light is a real one of the kernel's, and both need a hole in the sandbox."""
    stick = sticks.fat(tmp_path / "stick.img", {"system.raucb": small.path}, megabytes=40)
    light = "/sys/class/leds/input0::capslock"
    device.run("modprobe --all ledtrig-timer snd-dummy")
    device.override(DROP_INS)
    device.configure(enable=False)
    device.guest.plug(stick)
    device.guest.wait_for("test -b /dev/sda1")
    device.start()
    sound = "exec 3>/dev/snd/pcmC0D0p && echo a sound >>/run/hooks"
    light_and_sound = f'led = "input0::capslock"\non-success = ["/bin/sh", "-c", "{sound}"]'
    device.configure(hooks=light_and_sound)
    device.reload()
    device.wait_for_installed()
    assert device.run("cat /run/hooks") == "a sound\n"
    assert "[none]" in device.run(f"cat {light}/trigger")
    assert device.run(f"cat {light}/brightness") == "1\n"

    device.configure(enable=False)
    device.reload()
    assert device.run(f"cat {light}/brightness") == "0\n"
    assert "/run/updated/usb" not in device.mounts()


def _folder(parent: Path, name: str) -> Path:
    (parent / name).mkdir()
    return parent / name


def _take_back(device: Device) -> None:
    """Nothing more is installed by itself before the reboot."""
    device.guest.pull()
    device.run("updated rollback")


def _put_on_exfat(device: Device, bundle: Bundle, folder: Path) -> None:
    """Makes exfat.img in `folder`: only the guest's kernel can write to it."""
    source = sticks.fat(folder / "source.img", {"system.raucb": bundle.path}, megabytes=40, table=False)
    target = sticks.exfat(folder / "exfat.img", megabytes=20)
    device.guest.plug(source, "source")
    device.guest.plug(target, "target", writable=True)
    disk = "/dev/disk/by-id/usb-QEMU_QEMU_HARDDISK"
    device.guest.wait_for(f"test -b {disk}_source-0:0 -a -b {disk}_target-0:0")
    device.run(f"mkdir -p /run/source && mount {disk}_source-0:0 /run/source && mount {disk}_target-0:0 /mnt")
    device.run("cp /run/source/system.raucb /mnt && umount /run/source /mnt")
    device.guest.pull("source")
    device.guest.pull("target")
