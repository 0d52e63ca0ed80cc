"""Power cuts during updates, on machines that really boot, at chosen points and at random ones.

After each cut the disk is looked at from outside: no group that the loader may start is torn.  Then the
machine boots from what the cut has left, and the next attempt goes on; the server counts what it sends.  Each
machine goes from one cut to the next, so that what one has left is what the next one finds.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Final

import pytest

from tests.system.ab_both import LOADERS, Story, with_both
from tests.system.ab_bundle import make_bundle
from tests.system.ab_factory import Factory
from tests.system.ab_forensics import digest, image_digest, left_by
from tests.system.ab_image import BOOTLOADER, HERE, Disk, Files, Loader, System, change, make_disk
from tests.system.ab_machine import HTTP, Machine
from tests.system.ab_server import Server
from tests.system.conftest import Signer

pytestmark = [pytest.mark.root, pytest.mark.slow]

SEED: Final = int(os.environ.get("UPDATED_TEST_SEED") or random.randrange(1 << 32))
MIB = 1 << 20
# What a cut costs: the bundle's end and hash tree (1/128 of it), which each attempt fetches; two stretches of
# 1 MiB that were not noted yet, a window of 2 MiB ahead of them, and what was on its way.
AGAIN: Final = 6 * MIB
# Of a small device: else up to 6 MiB are on their way, which is more than all else together.
BUFFERS: Final = "echo 4096 65536 131072 >/proc/sys/net/ipv4/tcp_rmem"
SLOW: Final = 12  # writes per second: so that a cut comes between two of them
STATES = "type='signal',interface='org.updated.Agent1',member='StateChanged'"
WAIT: Final = 200.0  # seconds


class Device:
    """A machine that goes through one cut after the other."""

    def __init__(
        self, machine: Machine, server: Server, known: dict[str, str], seed: int, tell: Story
    ) -> None:
        """`known`: SHA-256 of a whole root file system -> its version."""
        self.machine, self.server, self.tell = machine, server, tell
        self.random = random.Random(seed)
        self.cuts = 0
        self.version = "1"  # what the last cut was followed by
        self._known = known

    def install(self, version: str) -> None:
        """Ask for it; nobody waits for the end."""
        self.machine.wait_for(f"systemctl is-active updated && {BUFFERS}")
        self.machine.begin(f"updated install {HTTP}/system-{version}.raucb")

    def cut_after(self, least: float, most: float, point: str) -> None:
        """At a random moment from now on, in seconds."""
        seconds = self.random.uniform(least, most)
        time.sleep(seconds)
        self.cut(f"{point} and {seconds:.2f} s")

    def cut(self, point: str) -> None:
        """Now; returns when commands can be run again."""
        self.machine.power_cut()
        self.server.release()
        self.cuts += 1
        left = left_by(self.machine, self.machine.folder)
        found = {slot: self._known.get(sha256, "torn") for slot, sha256 in left.startable.items()}
        self.tell(f"cut {self.cuts} {point}: the loader has {left.order}, and may start {found}")
        assert found
        assert "torn" not in found.values()
        self.machine.power_on()
        slot, self.version = self.machine.boots[-1].slot, self.machine.version
        self.tell(f"{slot} has booted, version {self.version}")
        assert found[slot] == self.version

    def other(self) -> str:
        """The version that does not run, once what runs is confirmed."""
        self.machine.wait_for_idle()
        return {"2": "3", "3": "2"}[self.machine.version]

    def arrives(self, version: str) -> None:
        """All that is still to be done, up to the confirmation."""
        self.machine.wait_for_idle()
        if self.machine.version != version:
            self.install(version)
        self.machine.wait_for(f"grep -x {version} /etc/version", WAIT)
        self.machine.wait_for_idle()
        slot = self.machine.slot
        assert self.machine.version == version
        assert self.machine.is_good(slot)
        self.tell(f"version {version} is confirmed in {slot}")

    def sent(self) -> int:
        """Bytes of all bundles."""
        return sum(map(self.server.sent, ("system-2.raucb", "system-3.raucb")))

    def slow_writes(self, rate: int = SLOW) -> None:
        """From now on, until the power is cut."""
        line = f"block_set_io_throttle disk0 0 0 0 0 0 {rate}"
        assert self.machine.qmp.command("human-monitor-command", command_line=line) == ""

    def watch(self) -> None:
        """The service's states go to the console."""
        self.machine.begin(
            f'busctl --system --json=short --match="{STATES}" monitor 2>&1 |'
            r" sed -un 's/.*\"data\":\[\"\([a-z-]*\)\".*/STATE \1/p; s/^Monitoring/STATES/p' >/dev/ttyS0"
        )
        self.wait_console("STATES")

    def wait_state(self, name: str) -> None:
        self.wait_console(f"STATE {name}")

    def wait_console(self, text: str) -> None:
        deadline = time.monotonic() + WAIT
        while text not in self.machine.boots[-1].console:
            assert time.monotonic() < deadline, f"waited for {text!r} in vain"
            time.sleep(0.01)


def before_the_first_byte(device: Device, version: str, size: int) -> None:
    held = device.server.hold(f"system-{version}.raucb", size - 1)
    device.install(version)
    held.wait()
    device.cut("before the first byte")


def in_the_image(device: Device, version: str, low: int, high: int) -> None:
    offset = device.random.randrange(low, high)
    held = device.server.hold(f"system-{version}.raucb", offset)
    device.install(version)
    held.wait()
    device.cut_after(0, 1.5, f"at byte {offset:,} of the bundle")


def between_last_byte_and_switch(device: Device, version: str, last: int) -> None:
    held = device.server.hold(f"system-{version}.raucb", last)
    device.install(version)
    held.wait()
    device.slow_writes()
    held.release()
    device.cut_after(0, 8, "after the last byte")


def somewhere_by_folder(device: Device, version: str) -> None:
    """It goes on by itself after each start."""
    device.machine.run(f"mv /data/bundles/system-{version}.raucb /data/drop || true")
    device.cut_after(0, 12, "somewhere")


def while_it_comes_up(device: Device) -> None:
    """For the first time: the loader, the kernel and systemd may be under way."""
    if device.version == "3":  # the last cut came after the switch
        device.install(device.other())
    device.machine.qmp.wait_event("SHUTDOWN", lambda _: True, timeout=WAIT)
    device.machine.power_cut()
    device.machine.power_on(wait=False)
    device.wait_console(" slot=")
    device.cut_after(0, 8, "while the new system comes up, after the loader")


def while_the_loader_is_told(device: Device, version: str) -> None:
    """The slot holds the version already: all that is written is who starts next, and that it is so."""
    device.watch()
    device.slow_writes()
    device.install(version)
    device.wait_state("install")
    device.cut_after(0, 6, "while the loader is told")


def while_the_reboot_is_pending(device: Device, version: str) -> None:
    device.watch()
    device.install(version)
    device.wait_state("reboot-pending")
    device.cut_after(0, 0.5, "while the reboot is pending")


def while_it_is_confirmed(device: Device, version: str) -> None:
    device.install(version)
    device.machine.wait_reboot(WAIT)
    device.cut_after(0, 2, "while the new system is confirmed")


def test_power_cuts(factory: Factory, signer: Signer, tmp_path: Path) -> None:
    sys.stdout.write(f"\nUPDATED_TEST_SEED={SEED}\n")
    disks = {loader: make(factory, loader, signer, tmp_path / loader) for loader in LOADERS}
    cuts: Counter[Loader] = Counter()

    def run(loader: Loader) -> None:
        folder = tmp_path / loader
        known = {
            digest(folder / "system.ext4"): "1",
            **{image_digest(folder / f"system-{v}.raucb", signer.cert): v for v in ("2", "3")},
        }
        with (
            Server(folder) as server,
            Machine(disks[loader], folder / "machine", http_port=server.port) as machine,
            Story(loader, machine) as tell,
        ):
            machine.wait_for_idle("A")
            device = Device(machine, server, known, SEED + LOADERS.index(loader), tell)
            cut_through(device, (folder / "system-2.raucb").stat().st_size)
            cuts[loader] = device.cuts

    with_both(run)
    assert cuts.total() >= 20


def make(factory: Factory, loader: Loader, signer: Signer, folder: Path) -> Disk:
    """What a slot holds already is not written once more."""
    folder.mkdir()
    conf = (HERE / "rootfs/etc/rauc/system.conf").read_text().replace("@BOOTLOADER@", BOOTLOADER[loader])
    files: Files = {"/etc/rauc/system.conf": conf.replace("bootname=", "install-same=false\nbootname=")}
    rootfs = change(factory.system(loader).rootfs, folder / "system.ext4", files)
    system = System(loader, rootfs)
    for version in ("2", "3"):
        make_bundle(system, folder, signer, version)
    return make_disk(system, folder, [folder / "system-3.raucb"])


def cut_through(device: Device, size: int) -> None:
    """`size`: of the bundles, in bytes."""
    last = size - size // 64  # of what is streamed; the hash tree follows
    if device.machine.loader == "grub":
        before_the_first_byte(device, "2", size)
    else:
        in_the_image(device, "2", 0, last // 2)
    in_the_image(device, "2", last // 2, last)
    between_last_byte_and_switch(device, "2", last)
    device.arrives("2")
    again = device.server.sent("system-2.raucb") - size
    device.tell(f"{again:,} of {size:,} bytes were fetched twice, in {device.cuts} cuts")
    assert again < device.cuts * AGAIN

    for _ in range(2):
        somewhere_by_folder(device, "3")
    while_it_comes_up(device)

    # From here on both slots hold what is installed: nothing of it need be fetched.
    sent, cuts = device.sent(), device.cuts
    for _ in range(2):
        while_the_loader_is_told(device, device.other())
    while_the_reboot_is_pending(device, device.other())
    while_it_is_confirmed(device, device.other())
    device.arrives(device.other())
    sent, cuts = device.sent() - sent, device.cuts - cuts
    device.tell(f"{sent:,} bytes were fetched of what was here, in {cuts} cuts")
    assert sent < (cuts + 1) * MIB
