"""USB sticks from plugging to pulling, with a real udevd and real mounts."""

# ruff: noqa: ASYNC110, ASYNC221, ASYNC230, ASYNC240, PLR0917 - files on a disk, conditions nobody signals,
# and fixtures

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import select
import shutil
import socket
import stat
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import pytest

from updated.core.model import Outcome
from updated.core.source import Item, Source
from updated.errors import ConfigError, DeviceError
from updated.sources.usb import UsbOptions, UsbSource
from updated.sources.usb_devices import Hotplug
from updated.sources.usb_mount import KernelMounter

pytestmark = pytest.mark.root


class World(Protocol):
    process: int

    def run(self, scenario: Callable[[], object]) -> None: ...


class Sticks(Protocol):
    folder: Path

    def make(
        self, name: str, content: Path | None = None, *, size: str = ..., options: tuple[str, ...] = ...
    ) -> Path: ...
    def plug(self, image: Path, *options: str) -> str: ...
    def unplug(self, image: Path) -> None: ...
    def pull(self, image: Path) -> None: ...
    def content(self, image: Path, name: str) -> str: ...


def nothing_known(_: Item) -> bool:
    return False


def mounts() -> dict[str, tuple[set[str], str]]:
    """Mount point below a folder `usb` -> its options, and those of its file system."""
    found = {}
    for line in Path("/proc/thread-self/mountinfo").read_text().splitlines():
        words = line.split()
        if "/usb/" in words[4]:
            found[words[4]] = (set(words[5].split(",")), words[-1])
    return found


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.005)


def settle() -> None:
    """Until udev has heard all that happened."""
    subprocess.run(["udevadm", "settle", "--timeout=20"], check=True)


@dataclass
class Scene:
    """A source that is watched."""

    source: UsbSource
    calls: int = 0
    seen: int = 0

    def changed(self) -> None:
        self.calls += 1

    async def called(self) -> None:
        """Wait for a call after the last that was waited for."""
        await until(lambda: self.calls > self.seen)
        self.seen = self.calls

    async def items(self) -> Sequence[Item]:
        return await self.source.scan(nothing_known)

    async def first(self) -> Item:
        """The bundle of the first stick that has one."""
        found: Sequence[Item] = ()
        async with asyncio.timeout(20):
            while not (found := await self.items()):
                await self.called()
        return found[0]


@contextlib.asynccontextmanager
async def scene(runtime: Path, options: UsbOptions | None = None, **more: object) -> AsyncIterator[Scene]:
    """At the end nothing is mounted, and no mount point is left."""
    given = options or UsbOptions(runtime)
    arguments = {"compatible": "board", "protected": set, "booting": 0.0, **more}
    it = Scene(UsbSource(given, **arguments))  # type: ignore[arg-type]
    task = asyncio.create_task(it.source.watch(it.changed))
    try:
        yield it
        assert not task.done()
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not mounts()
        place = runtime / "usb"
        assert not place.exists() or not list(place.iterdir())


def outcome(code: str, text: str = "All went well.") -> Outcome:
    return Outcome("", "usb", "", "2.0", "", "", code, text, "2026-01-02T03:04:05Z")


# From plugging to pulling


def test_a_stick_that_was_in_before(udev: World, sticks: Sticks, content: Path, tmp_path: Path) -> None:
    name = sticks.plug(sticks.make("stick", content))

    async def scenario() -> None:
        async with scene(tmp_path) as it:
            item = await it.first()
            place = tmp_path / "usb" / f"{name}-1"
            assert item.location == str(place / "update.raucb")
            flags, _ = mounts()[str(place)]
            assert {"ro", "nosuid", "nodev", "noexec", "noatime", "nosymfollow"} <= flags
            assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700
            assert await it.items() == [item]  # as often as somebody asks
            assert len(mounts()) == 1
            await it.source.settled()
            assert not mounts()
            assert list(await it.source.scan(lambda one: one == item)) == []
            assert not mounts()  # what is known needs no mount
            assert await it.items() == [item]  # the same again
            assert mounts()
            assert not await it.source.gone(item.location)

    udev.run(scenario)
    assert not list((tmp_path / "usb").iterdir())


def test_plugged_pulled_and_plugged_again(udev: World, sticks: Sticks, content: Path, tmp_path: Path) -> None:
    image = sticks.make("stick", content)

    async def scenario() -> None:
        async with scene(tmp_path) as it:
            assert list(await it.items()) == []
            sticks.plug(image)
            item = await it.first()
            await it.source.settled()
            sticks.unplug(image)
            await it.called()
            assert await it.source.gone(item.location)
            assert list(await it.items()) == []
            sticks.plug(image)
            again = await it.first()
            assert again.identity == item.identity
            assert again.location != item.location
            assert await it.source.gone(item.location)
            assert not await it.source.gone(again.location)

    udev.run(scenario)


def test_pulled_while_it_is_read(udev: World, sticks: Sticks, content: Path, tmp_path: Path) -> None:
    image = sticks.make("stick", content)
    sticks.plug(image)

    async def scenario() -> None:
        async with scene(tmp_path) as it:
            item = await it.first()
            await it.source.started(item)
            with Path(item.location).open("rb"):
                sticks.pull(image)
                await it.called()
                await until(lambda: not mounts())
            assert await it.source.gone(item.location)
            await it.source.ended(item, outcome("failed"), again=True)
            await it.source.settled()

    udev.run(scenario)


def test_a_stick_of_partitions(udev: World, sticks: Sticks, content: Path, tmp_path: Path) -> None:
    """The kernel at hand reads no partition tables, so it is told of the partitions."""
    image = sticks.folder / "stick"
    subprocess.run(["truncate", "-s", "16M", image], check=True)
    for start in ("1048576", "6291456"):
        mkfs = ["mkfs.ext4", "-q", "-F", "-E", f"offset={start}", "-d", str(content), str(image), "4M"]
        subprocess.run(mkfs, check=True, capture_output=True)

    async def scenario() -> None:
        async with scene(tmp_path) as it:
            disk = sticks.plug(image, "--partscan")
            for number, start in (("2", "12288"), ("1", "2048")):
                subprocess.run(["addpart", f"/dev/{disk}", number, start, "8192"], check=True)
                await it.called()
            places = [tmp_path / "usb" / f"{disk}p{name}" for name in ("2-1", "1-2")]
            assert [item.location for item in await it.items()] == [
                str(place / "update.raucb") for place in places
            ]
            await it.source.settled()
            subprocess.run(["delpart", f"/dev/{disk}", "2"], check=True)
            await it.called()
            assert [Path(item.location).parent for item in await it.items()] == places[1:]
            await it.source.settled()
            subprocess.run(["delpart", f"/dev/{disk}", "1"], check=True)
            await it.called()
            assert list(await it.items()) == []

    udev.run(scenario)


def test_what_the_system_uses_is_left_alone(
    udev: World, sticks: Sticks, content: Path, tmp_path: Path
) -> None:
    slot, stick = (sticks.make(name, content) for name in ("slot", "stick"))
    number = Path("/dev", sticks.plug(slot)).stat().st_rdev
    name = sticks.plug(stick)

    async def scenario() -> None:
        async with scene(tmp_path, protected=lambda: {number}) as it:
            await it.first()
            assert [Path(item.location).parent.name for item in await it.items()] == [f"{name}-1"]

    udev.run(scenario)


def test_nothing_is_touched_while_it_is_not_known_what_is_used(
    udev: World, sticks: Sticks, content: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sticks.plug(sticks.make("stick", content))
    answers = iter([DeviceError("Failed to read the mounts"), None])

    def protected() -> set[int]:
        if error := next(answers, None):
            raise error
        return set()

    async def scenario() -> None:
        settle()
        async with scene(tmp_path, protected=protected, retry=0.01) as it:
            await until(lambda: caplog.records)
            await it.first()

    udev.run(scenario)
    warnings = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert warnings == ["no USB sticks: Failed to read the mounts"]


def test_our_own_mounts_protect_nothing(udev: World, sticks: Sticks, content: Path, tmp_path: Path) -> None:
    stick, other = (sticks.make(name, content) for name in ("stick", "other"))
    number = Path("/dev", sticks.plug(stick)).stat().st_rdev

    async def scenario() -> None:
        async with scene(tmp_path, protected=lambda: {number} if mounts() else set()) as it:
            item = await it.first()
            sticks.plug(other)
            await it.called()
            assert not await it.source.gone(item.location)

    udev.run(scenario)


def test_only_file_systems_that_are_wanted(
    udev: World, sticks: Sticks, content: Path, tmp_path: Path
) -> None:
    sticks.plug(sticks.make("stick", content))
    fat = sticks.folder / "fat"
    subprocess.run(["truncate", "-s", "8M", fat], check=True)
    subprocess.run(["mkfs.vfat", fat], check=True, capture_output=True)

    async def scenario() -> None:
        options = UsbOptions(tmp_path, file_systems=("vfat",))
        async with scene(tmp_path, options) as it:
            assert list(await it.items()) == []
            name = sticks.plug(fat)
            await it.called()  # for the FAT only
            assert list(await it.items()) == []  # it is empty, or the kernel has no vfat
            assert name not in str(mounts())

    udev.run(scenario)


# What is on it


def test_only_bundles_inside_the_stick(udev: World, sticks: Sticks, content: Path, tmp_path: Path) -> None:
    bundle = content / "update.raucb"
    for name in (".hidden.raucb", "._update.raucb", "a.txt"):
        shutil.copy(bundle, content / name)
    (content / "half.raucb").write_bytes(bundle.read_bytes()[:-1])  # whoever copied it shall know
    (content / "folder.raucb").mkdir()
    (content / "outside.raucb").symlink_to("/etc/hostname")
    (content / "inside.raucb").symlink_to("update.raucb")
    os.mkfifo(content / "pipe.raucb")
    shutil.copy(bundle, os.fsdecode(os.fsencode(content) + b"/\xff.raucb"))
    (content / "updates/of").mkdir(parents=True)
    shutil.copy(bundle, content / "updates/of/deep.raucb")
    shutil.copy(bundle, content / "updates/shallow.raucb")
    (content / "away").symlink_to("updates")
    image = sticks.make("stick", content)
    sticks.plug(image)

    async def scenario() -> None:
        for folder, found in {
            "": ["half.raucb", "update.raucb"],
            "updates/of": ["half.raucb", "update.raucb", "updates/of/deep.raucb"],
            "missing": ["half.raucb", "update.raucb"],
            "away": ["half.raucb", "update.raucb"],
            "away/of": ["half.raucb", "update.raucb"],
            "update.raucb": ["half.raucb", "update.raucb"],
        }.items():
            async with scene(tmp_path, UsbOptions(tmp_path, folder=folder)) as it:
                await it.first()
                place = Path((await it.items())[0].location).parent
                names = [str(Path(item.location).relative_to(place)) for item in await it.items()]
                assert names == found, folder

    udev.run(scenario)


def test_a_stick_that_was_pulled_without_care_is_not_written_to(
    udev: World, sticks: Sticks, content: Path, tmp_path: Path
) -> None:
    """Its journal is dirty; and it may want a panic at the first error."""
    image, stick = sticks.make("original", options=("-J", "size=1"), size="16M"), sticks.folder / "stick"
    subprocess.run(["tune2fs", "-e", "panic", image], check=True, capture_output=True)
    place = tmp_path / "place"
    place.mkdir()
    subprocess.run(["mount", "-o", "loop", image, place], check=True)
    try:
        shutil.copy(content / "update.raucb", place)
        subprocess.run(["sync", "-f", place], check=True)
        shutil.copy(image, stick)
    finally:
        subprocess.run(["umount", place], check=True)
    features = subprocess.run(["dumpe2fs", "-h", stick], capture_output=True, text=True, check=True).stdout
    assert "needs_recovery" in features
    before = hashlib.sha256(stick.read_bytes()).digest()

    async def scenario() -> None:
        for option in ("--read-only", "--direct-io=off"):
            sticks.plug(stick, option)
            async with scene(tmp_path) as it:
                item = await it.first()
                ((_, options),) = mounts().values()
                assert "errors=remount-ro" in options
                assert "norecovery" in options or "noload" in options
                assert Path(item.location).read_bytes() == (content / "update.raucb").read_bytes()
            sticks.unplug(stick)

    udev.run(scenario)
    assert hashlib.sha256(stick.read_bytes()).digest() == before


def test_a_broken_stick_is_said_once_and_stops_nobody(
    udev: World, sticks: Sticks, content: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken, good = (sticks.make(name, content) for name in ("broken", "good"))
    name = sticks.plug(broken)

    async def scenario() -> None:
        async with scene(tmp_path) as it:
            await it.called()
            os.truncate(broken, 2048)  # its superblock is in udev's memory: all else fails
            Path("/proc/sys/vm/drop_caches").write_text("3")
            subprocess.run(["blockdev", "--flushbufs", f"/dev/{name}"], check=True)
            sticks.plug(good)
            await it.called()
            for _ in range(3):
                assert [Path(item.location).name for item in await it.items()] == ["update.raucb"]

    udev.run(scenario)
    assert [
        record.getMessage().count(name) for record in caplog.records if record.levelno >= logging.WARNING
    ] == [1]


# Sticks that do not answer


@dataclass
class SlowMounter(KernelMounter):
    """Mounts what is in `held` only when it is released."""

    held: set[str] = field(default_factory=set)
    released: threading.Event = field(default_factory=threading.Event)
    asked: int = 0
    made: int = 0

    def mount(self, node: str, target: Path, driver: str, *, writable: bool) -> None:
        if node.removeprefix("/dev/") in self.held:
            self.asked += 1
            self.released.wait()
            super().mount(node, target, driver, writable=writable)
            self.made += 1
            return
        super().mount(node, target, driver, writable=writable)


def test_a_stick_that_hangs_is_given_up(
    udev: World, sticks: Sticks, content: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dying = sticks.plug(sticks.make("dying", content))
    sticks.plug(sticks.make("good", content))
    mounter = SlowMounter(held={dying})

    async def scenario() -> None:
        settle()
        async with scene(tmp_path, mounter=mounter, patience=1.0) as it:
            await it.called()
            for _ in range(3):
                (item,) = await it.items()
                assert dying not in item.location
            await it.source.settled()
            assert mounter.asked == 1
            mounter.released.set()
            await until(lambda: mounter.made)
            await until(lambda: not mounts())  # the thread came back, and let go

    udev.run(scenario)
    assert f"{dying} does not answer" in caplog.text


def test_a_slow_stick_calls_when_it_is_there(
    udev: World, sticks: Sticks, content: Path, tmp_path: Path
) -> None:
    slow = sticks.plug(sticks.make("slow", content))
    sticks.plug(sticks.make("good", content))
    mounter = SlowMounter(held={slow})

    async def scenario() -> None:
        async with scene(tmp_path, mounter=mounter, wait=0.05) as it:
            assert slow not in (await it.first()).location
            await until(lambda: mounter.asked)
            mounter.released.set()
            while len(await it.items()) < 2:
                await it.called()
            assert mounter.asked == 1

    udev.run(scenario)


def test_pulled_while_it_is_being_mounted(
    udev: World, sticks: Sticks, content: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image = sticks.make("stick", content)
    mounter = SlowMounter(held={sticks.plug(image)})

    async def scenario() -> None:
        async with scene(tmp_path, mounter=mounter) as it:
            await it.called()
            scan = asyncio.create_task(it.items())
            await until(lambda: mounter.asked)
            sticks.pull(image)
            await it.called()
            mounter.released.set()
            assert await scan == []
            await until(lambda: not mounts())

    udev.run(scenario)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_look_that_is_cancelled(udev: World, sticks: Sticks, content: Path, tmp_path: Path) -> None:
    mounter = SlowMounter(held={sticks.plug(sticks.make("stick", content))})

    async def scenario() -> None:
        async with scene(tmp_path, mounter=mounter) as it:
            await it.called()
            scan = asyncio.create_task(it.items())
            await until(lambda: mounter.asked)
            scan.cancel()
            with pytest.raises(asyncio.CancelledError):
                await scan
            mounter.released.set()
            assert len(await it.items()) == 1
            assert mounter.asked == 1

    udev.run(scenario)


# udev


def lost(hotplug: Hotplug) -> int:
    """Messages that the socket had no room for (netlink's table: drops, inode at the end)."""
    inode = str(os.fstat(hotplug.fileno()).st_ino)
    table = [line.split() for line in Path("/proc/thread-self/net/netlink").read_text().splitlines()]
    return next(int(words[8]) for words in table if words[9] == inode)


def test_more_events_than_the_socket_holds(udev: World, sticks: Sticks, content: Path) -> None:
    image = sticks.make("stick", content)

    def happen(*actions: str) -> None:
        for action in actions:
            uevent.write_text(action)
        settle()

    name = sticks.plug(image)
    uevent = Path("/sys/block", name, "uevent")

    async def scenario() -> None:
        hotplug = Hotplug()
        happen("change", "remove", "change")
        ((removed, sequence),) = hotplug.drain()
        assert removed == name
        assert hotplug.drain() == set()
        with socket.socket(fileno=os.dup(hotplug.fileno())) as twin:
            twin.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)  # libudev asks for 128 MiB
        happen(*["remove", "change"] * 30)
        assert lost(hotplug)
        assert hotplug.drain() == {(name, sequence)}
        happen("change")
        assert select.select([hotplug.fileno()], [], [], 20)[0]
        assert hotplug.drain() == set()
        assert not select.select([hotplug.fileno()], [], [], 0)[0]
        (device,) = [device for device in hotplug.devices() if device.name == name]
        assert device.properties["ID_FS_TYPE"] == "ext4"
        assert device.properties.get("DISKSEQ", "") == sequence
        assert device.usb

    udev.run(scenario)


def test_without_udev_there_is_one_warning_and_silence(
    no_udev: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="updated")

    async def scenario() -> None:
        async with scene(tmp_path, retry=0.01) as it:
            await until(lambda: len(caplog.records) > 3)
            assert list(await it.items()) == []
            assert it.calls == 0
            control = Path("/run/udev/control")
            control.parent.mkdir(exist_ok=True)
            control.touch()
            before = len(caplog.records)
            await asyncio.sleep(0.1)
            assert len(caplog.records) <= before + 10  # it has begun to listen

    no_udev.run(scenario)
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert warnings == [
        "no USB sticks: udev does not run (USB sticks are found with it: start systemd-udevd.)"
    ]


# The answer


@dataclass
class Told:
    """What lights and programs told."""

    folder: Path

    @property
    def light(self) -> tuple[str, ...]:
        led = self.folder / "leds/update"
        return tuple((led / name).read_text() for name in ("trigger", "brightness", "delay_on"))

    @property
    def calls(self) -> list[str]:
        log = self.folder / "calls"
        return log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def told(tmp_path: Path) -> Told:
    led = tmp_path / "leds/update"
    led.mkdir(parents=True)
    for name, text in (("trigger", ""), ("brightness", ""), ("max_brightness", "255\n"), ("delay_on", "")):
        (led / name).write_text(text)
    return Told(tmp_path)


@pytest.fixture
def options(tmp_path: Path) -> UsbOptions:
    def hook(occasion: str) -> tuple[str, ...]:
        words = "${UPDATED_BUNDLE##*/}|$UPDATED_RESULT|$UPDATED_VERSION|$UPDATED_TEXT"
        return ("sh", "-c", f'echo "{occasion}|{words}" >> {tmp_path}/calls')

    return UsbOptions(
        tmp_path,
        result_file="result.txt",
        led="update",
        on_start=hook("start"),
        on_success=hook("success"),
        on_failure=hook("failure"),
    )


def test_the_person_learns_of_success(
    udev: World, sticks: Sticks, content: Path, tmp_path: Path, told: Told, options: UsbOptions
) -> None:
    image = sticks.make("stick", content)

    async def scenario() -> None:
        async with scene(tmp_path, options, leds=tmp_path / "leds") as it:
            sticks.plug(image)
            item = await it.first()
            assert told.calls == []
            other = replace(item, location=item.location.replace("update", "old"))
            await it.source.refused(other, "It is too old.")
            await it.source.started(item)
            assert told.light == ("timer", "", "500")
            await until(lambda: told.calls == ["start|update.raucb|started||"])
            await it.source.settled()
            assert mounts()  # it is in use
            await it.source.ended(item, outcome("installed"), again=False)
            assert told.light[:2] == ("none", "255")
            assert told.calls[1:] == ["success|update.raucb|installed|2.0|All went well."]
            assert not mounts()
            await it.source.settled()
            sticks.unplug(image)
            await until(lambda: told.light[:2] == ("none", "0"))

    udev.run(scenario)
    assert len(told.calls) == 2
    assert sticks.content(image, "result.txt").splitlines() == [
        "The update was installed. The device starts it at its next restart.",
        "",
        "Device:  board",
        "Time:    2026-01-02T03:04:05Z",
        "Bundle:  update.raucb",
        "Version: 2.0",
        "Result:  installed",
        "Reason:  All went well.",
        "",
        "Not installed:",
        "- old.raucb: It is too old.",
    ]
    subprocess.run(["e2fsck", "-fn", image], check=True, capture_output=True)


def test_the_person_learns_of_failure(
    udev: World, sticks: Sticks, content: Path, tmp_path: Path, told: Told, options: UsbOptions
) -> None:
    (content / "result.txt").write_text("of another device")
    image = sticks.make("stick", content)
    sticks.plug(image)

    async def scenario() -> None:
        async with scene(tmp_path, options, leds=tmp_path / "leds") as it:
            item = await it.first()
            await it.source.started(item)
            await it.source.ended(item, outcome("failed", "The slot is\nfull."), again=True)
            assert told.light == ("timer", "255" if told.light[1] else "", "100")
            assert told.calls[-1] == "failure|update.raucb|failed|2.0|The slot is full."

    udev.run(scenario)
    text = sticks.content(image, "result.txt")
    assert text.startswith("The update FAILED.")
    assert "Reason:  The slot is full.\n" in text
    assert "tried again" in text


def test_a_stick_with_nothing_for_this_device(
    udev: World, sticks: Sticks, content: Path, tmp_path: Path, told: Told, options: UsbOptions
) -> None:
    image = sticks.make("stick", content)
    sticks.plug(sticks.make("before"))

    async def scenario() -> None:
        async with scene(tmp_path, options, leds=tmp_path / "leds") as it:
            await it.called()  # it watches
            sticks.plug(image)
            item = await it.first()
            for _ in range(3):  # as after every rest
                await it.source.refused(item, "It is for another board.")
                await it.source.settled()
            await until(lambda: told.calls)
            assert told.calls == ["failure|update.raucb|refused||update.raucb: It is for another board."]
            assert told.light[2] == "100"

    udev.run(scenario)
    assert told.calls[1:] == []
    text = sticks.content(image, "result.txt")
    assert text.startswith("No update was installed from this stick.\n")
    assert text.endswith("- update.raucb: It is for another board.\n")


@pytest.mark.parametrize("answered", [True, False])
def test_a_stick_that_stayed_in_over_the_restart_keeps_its_answer(
    udev: World,
    sticks: Sticks,
    content: Path,
    tmp_path: Path,
    told: Told,
    options: UsbOptions,
    answered: bool,
) -> None:
    """What it has runs already: no failure."""
    if answered:
        (content / "result.txt").write_text("installed")
    image = sticks.make("stick", content)
    sticks.plug(image)

    async def scenario() -> None:
        settle()
        async with scene(tmp_path, options, leds=tmp_path / "leds") as it:
            await it.source.refused(await it.first(), "It runs already.")
            await it.source.settled()

    udev.run(scenario)
    assert told.calls == []
    text = sticks.content(image, "result.txt")
    assert text == "installed" if answered else "It runs already." in text


@pytest.mark.parametrize("way", ["write-protected", "full", "no file"])
def test_an_answer_that_cannot_be_written_is_a_warning(
    udev: World,
    sticks: Sticks,
    content: Path,
    tmp_path: Path,
    way: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (content / "result.txt").write_text("before")
    if way == "no file":
        (content / "result.txt").unlink()
        (content / "result.txt/full").mkdir(parents=True)
    image = sticks.make("stick", content, size="256K" if way == "full" else "8M", options=("-m", "0"))
    if way == "full":
        run = subprocess.run(["dumpe2fs", "-h", image], check=True, capture_output=True, text=True).stdout
        free = next(int(line.split()[-1]) for line in run.splitlines() if line.startswith("Free blocks"))
        (tmp_path / "filler").write_bytes(b"x" * 1024 * (free - 2))
        script = f"write {tmp_path}/filler filler\nwrite {tmp_path}/filler rest"
        subprocess.run(
            ["debugfs", "-w", "-f", "-", image], input=script.encode(), check=True, capture_output=True
        )
    sticks.plug(image, *(["--read-only"] if way == "write-protected" else []))

    async def scenario() -> None:
        async with scene(tmp_path, UsbOptions(tmp_path, result_file="result.txt")) as it:
            item = await it.first()
            await it.source.ended(item, outcome("installed"), again=False)
            await it.source.settled()
            assert await it.items() == [item]  # it is still good to read

    udev.run(scenario)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert "Cannot" in warning
    if way != "no file":
        assert sticks.content(image, "result.txt") == "before"


def test_unset_it_is_never_written(udev: World, sticks: Sticks, content: Path, tmp_path: Path) -> None:
    image = sticks.make("stick", content)
    before = hashlib.sha256(image.read_bytes()).digest()
    sticks.plug(image)

    async def scenario() -> None:
        async with scene(tmp_path) as it:
            item = await it.first()
            await it.source.refused(item, "no")
            await it.source.started(item)
            await it.source.ended(item, outcome("installed"), again=False)
            await it.source.settled()

    udev.run(scenario)
    assert hashlib.sha256(image.read_bytes()).digest() == before


# Settings


@pytest.mark.parametrize(
    "wrong",
    [
        {"folder": "/etc"},
        {"folder": "a/../.."},
        {"result_file": "a/b"},
        {"result_file": ".."},
        {"result_file": "a.raucb"},
        {"led": "../x"},
    ],
)
def test_settings_that_lead_away(tmp_path: Path, wrong: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        UsbSource(replace(UsbOptions(tmp_path), **wrong), compatible="", protected=set)  # type: ignore[arg-type]


def test_it_is_a_source(tmp_path: Path) -> None:
    source: Source = UsbSource(UsbOptions(tmp_path), compatible="", protected=set)
    assert source.name == "usb"
