"""HTTP installs that are interrupted: power cuts, servers that die, cancel, pause, resume, full disks."""

from __future__ import annotations

import os
import random
import re
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from tests.fakes.web import Fault, Server, serving
from tests.service.clock import Clock
from tests.service.conftest import MakeDevice
from tests.service.rig import Device, Vendor, until, updated
from updated.api.client import Client
from updated.errors import UpdatedError

ALONE = "[confirm]\nstable-for = {stable_for}\n"
BIG, SLOT = 28 << 20, 32 << 20  # bytes
MIDDLE = 12 << 20  # bytes
AGAIN = 8 << 20  # bytes that each interruption may cost
RATE = 24 << 20  # bytes per second: slow enough to hit a point
URL = "/b.raucb"


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(rate=RATE) as web:
        yield web


def noise(vendor: Vendor, size: int, bundle_format: str = "verity") -> Path:
    return vendor.bundle("3.0.0", images={"rootfs.ext4": vendor.noise(size)}, bundle_format=bundle_format)


def wait_done(device: Device, count: int) -> None:
    """Until the running install has put so many bytes into the slot, or found them there."""
    until(
        f"{count} bytes",
        lambda: device.status().progress.get("bytes-done", 0) >= count,
        lambda: f"\n{device.log()}",
    )


def wait_spooled(device: Device, count: int) -> None:
    """Until the spool has so many bytes."""
    until(f"{count} bytes", lambda: max(device.data_files().values(), default=0) >= count)


def test_power_cuts(devices: MakeDevice, server: Server, vendor: Vendor) -> None:
    """Three in one install: what was written is not fetched again, and nothing else gets into the slot."""
    device = devices(agent_conf=ALONE)
    device.grow("B", SLOT)
    bundle = noise(vendor, BIG)
    server.files = {URL: bundle}
    cuts = (1 << 20, 9 << 20, 20 << 20)
    for count in cuts:
        with device.installing(server.url(URL)) as running:
            wait_done(device, count)
            assert device.reboot(kill=True) == ["A"]
            assert "ended during the install" in running.result()
        device.wait_said("marked rootfs.0 as good")
        assert device.read_env()["B_OK"] == "0"
    assert device.install(server.url(URL)) == ""
    assert device.content("B", BIG) == vendor.noise(BIG)
    assert device.primary() == "B"
    assert server.sent[URL] <= bundle.stat().st_size + AGAIN * len(cuts)
    assert [name for name in device.data_files() if name.startswith("resume/")] == []


@pytest.mark.slow
def test_power_cuts_while_spooling(devices: MakeDevice, server: Server, vendor: Vendor) -> None:
    """A plain bundle goes on from what was on the disk for sure; what is too old to be of use is removed."""
    device = devices(agent_conf=ALONE)
    bundle = noise(vendor, 2 * MIDDLE, "plain")
    device.grow("B", SLOT)
    server.files = {URL: bundle}
    for count in (12 << 20, 20 << 20):
        with device.installing(server.url(URL)) as running:
            wait_spooled(device, count)
            device.reboot(kill=True)
            assert "ended during the install" in running.result()
        device.wait_said("marked rootfs.0 as good")
    spooled = [device.root / "data" / name for name in device.data_files() if name.startswith("spool/")]
    assert len(spooled) == 2
    assert device.install(server.url(URL)) == ""
    assert device.content("B", 2 * MIDDLE) == vendor.noise(2 * MIDDLE)
    assert server.sent[URL] <= bundle.stat().st_size + 2 * (AGAIN + (2 << 20))
    assert not [name for name in device.data_files() if name.startswith("spool/")]

    for path in spooled:
        path.write_bytes(b"old")
        os.utime(path, (1_700_000_000, 1_700_000_000))
    device.reboot()
    assert not [name for name in device.data_files() if name.startswith("spool/")]


@pytest.mark.slow
def test_power_cuts_while_nobody_asks(
    devices: MakeDevice, server: Server, vendor: Vendor, tmp_path: Path
) -> None:
    """The channel's bundle is installed by itself in the end."""
    clock = Clock(tmp_path, boottime_factor=100)
    bundle = noise(vendor, BIG)
    entry = f'{{"version": "3.0.0", "compatible": "Virtual Device", "bundle_url": "{URL}"}}'
    server.files = {"/index.json": b'{"channels": {"stable": %b}}' % entry.encode(), URL: bundle}
    conf = f'{ALONE}[ota]\nindex = "{server.url("/index.json")}"\ninterval = 60\n'
    device = devices(agent_conf=conf, env=clock.env, start=False)
    device.grow("B", SLOT)
    device.start()
    for count in (6 << 20, 17 << 20):
        wait_done(device, count)
        assert device.reboot(kill=True) == ["A"]
    device.wait_said("installed: Installed to rootfs.1.")
    assert device.content("B", BIG) == vendor.noise(BIG)
    assert server.sent[URL] <= bundle.stat().st_size + AGAIN * 2
    assert device.history() == ["failed", "failed", "installed"]  # a power cut is told, too


@pytest.mark.slow
def test_a_server_that_never_comes_back(devices: MakeDevice, server: Server, vendor: Vendor) -> None:
    """The reader is patient for some seconds; the next request goes on where the slot has it."""
    device = devices(agent_conf=ALONE)
    bundle = noise(vendor, MIDDLE)
    server.files, server.faults = {URL: bundle}, {URL: [Fault(cut=7 << 20, how="reset")]}
    with device.installing(server.url(URL)) as running:
        until("the stream", lambda: server.sent[URL] >= 7 << 20)
        server.faults = {URL: [Fault(cut=0, how="reset")]}
        said = running.result()
    assert "tries brought nothing" in said
    assert device.primary() == "A"
    assert device.read_env()["B_OK"] == "0"
    assert "Check the network" in device.outcomes()[0]["text"]
    server.faults = {}
    before = server.sent[URL]
    assert device.install(server.url(URL)) == ""
    assert device.content("B", MIDDLE) == vendor.noise(MIDDLE)
    assert server.sent[URL] <= bundle.stat().st_size + AGAIN
    assert server.sent[URL] - before < bundle.stat().st_size - (2 << 20)


async def refused(work: Awaitable[object]) -> str:
    try:
        await work
    except UpdatedError as error:
        return str(error)
    raise AssertionError("it was not refused")


class Systemd:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, folder: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(folder / "notify"))
        self._socket.settimeout(20)
        self.env = {"NOTIFY_SOCKET": str(folder / "notify"), "WATCHDOG_USEC": "200000"}

    def drain(self) -> None:
        """Forget what was told so far."""
        self._socket.setblocking(False)
        try:
            while True:
                self._socket.recv(4096)
        except BlockingIOError:
            self._socket.settimeout(20)

    def wait_pings(self, count: int) -> None:
        while count:
            count -= self._socket.recv(4096).count(b"WATCHDOG=1")

    def close(self) -> None:
        self._socket.close()


def test_pause(devices: MakeDevice, server: Server, vendor: Vendor, tmp_path: Path) -> None:
    """A person lets the stream rest, for longer than anything may stand still, and the server hangs up."""
    with ExitStack() as stack:
        systemd = Systemd(tmp_path)
        stack.callback(systemd.close)
        device = devices(agent_conf=f"{ALONE}[install]\nstall-timeout = 1\n", env=systemd.env)
        assert device.service is not None
        server.files = {URL: noise(vendor, MIDDLE)}
        server.faults = {URL: [Fault(cut=4 << 20, how="close")]}

        async def nothing(client: Client) -> tuple[str, str]:
            return await refused(client.pause()), await refused(client.resume())

        assert device.call(nothing) == ("No installation is running", "Nothing is paused")
        running = stack.enter_context(device.installing(server.url(URL)))
        wait_done(device, 2 << 20)
        assert device.call(nothing_paused) == "Nothing is paused"
        told = updated(device.address, "pause")
        assert (told.returncode, told.stdout) == (0, "The install rests; `updated resume` lets it go on.\n")
        device.call(lambda client: client.pause())  # twice is no fault
        status = device.status()
        assert status.paused
        assert status.state == "install"
        assert status.detail == "Paused: Installing version 3.0.0 to rootfs.1."
        assert "The install is paused; `updated resume` lets it go on." in device.why()
        systemd.drain()
        until("the server to hang up", lambda: server.sent[URL] >= 4 << 20)
        until("what was read to be written", lambda: at_rest(lambda: device.status().progress["bytes-done"]))
        systemd.drain()
        resting = device.status().progress["bytes-done"]
        systemd.wait_pings(14)  # 1.4 s, of which 1 s would be too much for an install that goes on
        assert "no watchdog ping" not in device.said()
        assert device.status().progress["bytes-done"] == resting < MIDDLE
        assert not running.done()
        shown = updated(device.address, "status").stdout
        assert "paused (`updated resume` lets it go on)" in shown
        assert updated(device.address, "resume").returncode == 0
        assert not device.status().paused
        assert running.result() == ""
        assert device.content("B", MIDDLE) == vendor.noise(MIDDLE)
        assert server.sent[URL] <= server.files[URL].stat().st_size + AGAIN  # type: ignore[union-attr]


async def nothing_paused(client: Client) -> str:
    return await refused(client.resume())


def test_pause_of_what_is_spooled(devices: MakeDevice, server: Server, vendor: Vendor) -> None:
    """Nothing more is taken, but for what the kernel holds."""
    device = devices(agent_conf=ALONE)
    bundle = noise(vendor, MIDDLE, "plain")
    server.files = {URL: bundle}
    with device.installing(server.url(URL)) as running:
        wait_spooled(device, 2 << 20)
        device.call(lambda client: client.pause())
        until("the pause", lambda: at_rest(lambda: max(device.data_files().values())))
        assert max(device.data_files().values()) < MIDDLE
        assert not running.done()
        device.call(lambda client: client.resume())
        assert running.result() == ""
    assert device.content("B", MIDDLE) == vendor.noise(MIDDLE)


def at_rest(count: Callable[[], int]) -> bool:
    """It does not grow in a moment in which it would grow much."""
    before = count()
    time.sleep(0.5)
    return count() == before


def test_at_random_moments(devices: MakeDevice, server: Server, vendor: Vendor) -> None:
    """Cancelled, paused and resumed, paused and cancelled: what is told is right, and the end is, too."""
    device = devices(agent_conf=ALONE)
    server.files, server.rate = {URL: noise(vendor, MIDDLE)}, RATE // 2
    draw = random.Random(7)
    for plan in (
        "cancel",
        "pause resume",
        "pause cancel",
        "pause resume cancel",
        "pause pause resume resume",
    ):
        with device.installing(server.url(URL)) as running:
            until("the beginning", lambda: device.status().state != "idle" or running.done())
            for action in plan.split():
                time.sleep(draw.uniform(0, 0.1))
                device.call(partial(tolerant, action))
            said = running.result()
        if "cancel" in plan:
            assert said == "Installation cancelled"
            assert device.history()[-1] == "cancelled"
        else:
            assert said == ""
            assert device.content("B", MIDDLE) == vendor.noise(MIDDLE)
        assert not device.status().paused
        assert device.status().state in ("idle", "reboot-pending")
    assert "a bug" not in device.said()


async def tolerant(action: str, client: Client) -> None:
    """It may be too early or too late for it."""
    try:
        await getattr(client, action)()
    except UpdatedError as error:
        assert str(error) in ("Nothing is paused", "No installation is running")


@pytest.mark.root
def test_a_full_disk(devices: MakeDevice, server: Server, vendor: Vendor) -> None:
    """A data directory of 4 MiB; at last a server that tells no size, so that only the full disk ends it."""
    device = devices(start=False, agent_conf=f"{ALONE}[install]\nspool-reserve = 0\n")
    data = device.root / "data"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4M", "none", data], check=True)
    try:
        device.start()
        device.wait_said("marked rootfs.0 as good")
        server.files = {URL: noise(vendor, MIDDLE)}
        for fault in (Fault(ranges=False), Fault(ranges=False, chunked=True)):
            server.faults = {URL: [fault]}
            said = device.install(server.url(URL))
            assert "No space to spool the bundle in" in said
            assert sum(device.data_files().values()) < 256 << 10
        server.faults = {}
        assert device.install(server.url(URL)) == ""
        assert device.content("B", MIDDLE) == vendor.noise(MIDDLE)
        device.stop_service()
    finally:
        subprocess.run(["umount", "--lazy", data], check=True)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_bundle(devices: MakeDevice, server: Server, vendor: Vendor) -> None:
    """Peak of the process over an HTTP install of 20 and of 200 MiB."""
    server.rate = 0
    peaks = {}
    for size in (20 << 20, 200 << 20):
        device = devices(agent_conf=ALONE)
        device.grow("B", 208 << 20)
        server.files = {URL: noise(vendor, size)}
        assert device.install(server.url(URL)) == ""
        assert device.service is not None
        lines = Path(f"/proc/{device.service.pid}/status").read_text()
        peaks[size] = int(re.findall(r"VmHWM:\s+(\d+)", lines)[0]) / 1024
        device.stop_service()
    print(
        f"peak: {peaks[20 << 20]:.1f} MiB for 20 MiB, {peaks[200 << 20]:.1f} MiB for 200 MiB", file=sys.stderr
    )
    assert peaks[200 << 20] - peaks[20 << 20] < 12
