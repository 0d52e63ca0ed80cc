"""Bundles on USB sticks.

What is plugged in is a level that udev tells; a stick is mounted while something on it is of interest, in
the service's own mount namespace.  A plugged stick is a new one each time: it has a mount point of its own,
so what was found on it before is `gone`, and what is found now is offered again.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from updated.core.model import TIMESTAMP, Outcome
from updated.core.source import Item
from updated.errors import ConfigError, SourceError, UpdatedError
from updated.finish import to_its_end
from updated.sources.folder import SUFFIX
from updated.sources.usb_answer import LEDS, Hooks, Led
from updated.sources.usb_devices import Hotplug, Volume, select
from updated.sources.usb_mount import KernelMounter, Mounter
from updated.sources.usb_stick import PATIENCE, Stick
from updated.sources.usb_text import Passed, Tried, result_text

log = logging.getLogger(__name__)

RETRY: Final = 600.0  # seconds until udev is looked for again: it either comes with the system or never
WAIT: Final = 5.0
"""Seconds that a look waits for sticks to be mounted.  A slow one is not forgotten: it calls `changed`."""
BOOTING: Final = 90.0  # seconds: a slow board has found its USB devices by then


@dataclass(frozen=True, slots=True)
class UsbOptions:
    """`[usb]`; "" and () are off."""

    runtime_directory: Path  # sticks are mounted in its folder `usb`
    file_systems: tuple[str, ...] = ("vfat", "exfat", "ext4", "ntfs3")
    folder: str = ""
    result_file: str = ""
    led: str = ""
    on_start: tuple[str, ...] = ()
    on_success: tuple[str, ...] = ()
    on_failure: tuple[str, ...] = ()
    hook_timeout: float = 10.0  # seconds


class _Plugged:
    """A stick, and what its owner is to be told."""

    def __init__(self, stick: Stick, *, at_start: bool) -> None:
        self.stick = stick
        self.at_start = at_start  # it was in when the service started: perhaps it had its answer already
        self.tried: Tried | None = None
        self.passed: dict[str, Passed] = {}
        self.news = False
        self.in_use = False
        self.opening: asyncio.Task[None] | None = None
        self.late = False  # somebody got tired of waiting for `opening`

    def name_of(self, item: Item) -> str:
        return str(Path(item.location).relative_to(self.stick.place))


class UsbSource:
    """All sticks, as a `Source`.  When `watch` is cancelled everything is unmounted."""

    name = "usb"

    def __init__(
        self,
        options: UsbOptions,
        *,
        compatible: str,
        protected: Callable[[], Collection[int]],
        mounter: Mounter | None = None,
        leds: Path = LEDS,
        retry: float = RETRY,
        patience: float = PATIENCE,
        booting: float = BOOTING,
        wait: float = WAIT,
    ) -> None:
        """`protected`: device numbers of slots and of what the system has mounted; called in a thread.

        `compatible`: this device's, for the result file.  `retry`: seconds until udev is looked for again.
        `patience`: seconds after which a stick is given up.  `booting`: seconds from the kernel's start in
        which sticks turn up that were left in.  `wait`: seconds that a look waits for mounts.
        Raises ConfigError.
        """
        _check(options)
        self._options = options
        self._compatible = compatible
        self._protected = protected
        self._mounter = mounter or KernelMounter()
        self._retry = retry
        self._patience = patience
        self._booting = booting
        self._wait = wait
        self._led = Led(options.led, leds)
        programs = {
            "on-start": options.on_start,
            "on-success": options.on_success,
            "on-failure": options.on_failure,
        }
        self._hooks = Hooks(programs, options.hook_timeout)
        self._plugged: list[_Plugged] = []
        self._looked = False
        self._numbers = itertools.count(1)
        self._changed: Callable[[], None] = lambda: None
        self._background: set[asyncio.Task[None]] = set()

    # What is plugged in

    async def watch(self, changed: Callable[[], None]) -> None:
        """Call `changed` whenever a stick comes or goes, for ever.  Without udev: a warning, and silence."""
        self._changed = changed
        complained = False
        try:
            while True:
                try:
                    await self._watch_udev()
                except (UpdatedError, OSError) as error:
                    text = error.with_hint() if isinstance(error, UpdatedError) else str(error)
                    log.log(logging.DEBUG if complained else logging.WARNING, "no USB sticks: %s", text)
                    complained = True
                await asyncio.sleep(self._retry)
        finally:
            await to_its_end(self._let_go())

    async def _watch_udev(self) -> None:
        udev = await asyncio.to_thread(Hotplug)
        while True:
            removed, volumes = await asyncio.to_thread(self._look, udev)
            early = time.clock_gettime(time.CLOCK_BOOTTIME) < self._booting
            if self._update(removed, volumes, at_start=early or not self._looked):
                self._changed()
            self._looked = True
            await _readable(udev.fileno())

    def _look(self, udev: Hotplug) -> tuple[set[tuple[str, str]], list[Volume]]:
        """In a thread."""
        removed = udev.drain()
        ours = {plugged.stick.volume.number for plugged in self._plugged}  # mounted, but by us
        protected = set(self._protected()) - ours
        return removed, select(udev.devices(), self._options.file_systems, protected)

    def _update(self, removed: set[tuple[str, str]], volumes: list[Volume], *, at_start: bool) -> bool:
        """True: something came or went."""
        there = set(volumes)
        stay: list[_Plugged] = []
        out: list[_Plugged] = []
        for plugged in self._plugged:
            volume = plugged.stick.volume
            pulled = volume.plug in removed or volume not in there
            (out if pulled else stay).append(plugged)
        known = {plugged.stick.volume for plugged in stay}
        new = [self._plug(volume, at_start) for volume in volumes if volume not in known]
        self._plugged = [*stay, *new]
        for plugged in out:
            log.info("USB stick %s was pulled", plugged.stick.volume.name)
            self._spawn(plugged.stick.pull())
        if out and not self._plugged:
            self._spawn(self._led.show("off"))
        return bool(new or out)

    def _plug(self, volume: Volume, at_start: bool) -> _Plugged:
        log.info("USB stick %s (%s) is plugged in", volume.name, volume.driver)
        place = self._options.runtime_directory / "usb" / f"{volume.name}-{next(self._numbers)}"
        stick = Stick(volume, place, self._mounter, folder=self._options.folder, patience=self._patience)
        return _Plugged(stick, at_start=at_start)

    # Source

    async def scan(self, known: Callable[[Item], bool] = lambda _: False) -> Sequence[Item]:
        """Bundles on all sticks, by plugging and name; only sticks with such are mounted then."""

        def interesting(stick: Stick) -> bool:
            return stick.items is None or not all(map(known, stick.items))

        wanted = [plugged for plugged in self._plugged if not (plugged.stick.given_up or plugged.late)]
        opening = {self._open(plugged): plugged for plugged in wanted if interesting(plugged.stick)}
        if not opening:
            return []
        _, late = await asyncio.wait(opening, timeout=self._wait)
        for task in late:
            self._call_when_open(opening.pop(task), task)
        found = []
        for plugged in opening.values():
            items = plugged.stick.items or ()
            fresh = [item for item in items if plugged.stick.mounted and not known(item)]
            found += fresh
            if not fresh and not plugged.in_use:
                self._spawn(plugged.stick.close())
        return found

    async def gone(self, location: str) -> bool:
        """True once its stick was pulled, also if it was plugged in again."""
        return self._of(location) is None

    async def refused(self, item: Item, reason: str) -> None:
        """Told on the stick when all is over."""
        if (plugged := self._of(item.location)) is None:
            return
        passed = Passed(plugged.name_of(item), reason)
        plugged.news |= plugged.passed.get(item.location) != passed
        plugged.passed[item.location] = passed

    async def started(self, item: Item) -> None:
        """The light blinks, the program for the start runs by itself."""
        plugged = self._of(item.location)
        if plugged:
            plugged.in_use = True
            plugged.passed.pop(item.location, None)
        await self._led.show("slow")
        self._spawn(self._hooks.call("on-start", bundle=item.location, result="started", text=""))

    async def ended(self, item: Item, outcome: Outcome, *, again: bool) -> None:
        """Tell it at once: the device may restart now."""
        good = outcome.code == "installed"
        plugged = self._of(item.location)
        if plugged:
            plugged.in_use = False
            plugged.tried = Tried(plugged.name_of(item), outcome, again)
            plugged.news = True
            await self._write(plugged)
        await self._led.show("on" if good else "fast")
        await self._hooks.call(
            "on-success" if good else "on-failure",
            bundle=item.location,
            result=outcome.code,
            text=outcome.text,
            version=outcome.version,
        )

    async def settled(self) -> None:
        """Tell about sticks of which nothing was wanted, and unmount all."""
        idle = [plugged for plugged in self._plugged if not plugged.in_use]
        for plugged in idle:
            if plugged.news and not plugged.tried and not plugged.at_start:
                await self._nothing_wanted(plugged)
            await self._write(plugged)
        closing = [asyncio.create_task(plugged.stick.close()) for plugged in idle if plugged.stick.mounted]
        if closing:
            _, late = await asyncio.wait(closing, timeout=self._wait)
            self._background |= late

    def nudge(self) -> None:
        """Nothing forbids it to look."""

    # How it ended

    async def _nothing_wanted(self, plugged: _Plugged) -> None:
        reasons = "; ".join(f"{one.bundle}: {one.reason}" for one in plugged.passed.values())
        location = next(iter(plugged.passed))
        await self._led.show("fast")
        self._spawn(self._hooks.call("on-failure", bundle=location, result="refused", text=reasons))

    async def _write(self, plugged: _Plugged) -> None:
        """The result file, if there is anything new to tell."""
        name = self._options.result_file
        told, plugged.news = plugged.news, False
        if not name or not told or plugged.stick.given_up:
            return
        text = result_text(
            compatible=self._compatible,
            time=time.strftime(TIMESTAMP, time.gmtime()),
            tried=plugged.tried,
            passed=tuple(plugged.passed.values()),
        )
        # After the restart the stick is still in, and has nothing that the device does not run already.
        replace = plugged.tried is not None or not plugged.at_start
        try:
            await plugged.stick.leave(name, text, replace=replace)
        except SourceError as error:
            log.warning("%s", error.with_hint())

    # Helpers

    def _of(self, location: str) -> _Plugged | None:
        return next((plugged for plugged in self._plugged if plugged.stick.holds(location)), None)

    def _open(self, plugged: _Plugged) -> asyncio.Task[None]:
        """Done: it is mounted and looked at, or given up."""
        if plugged.opening is None or plugged.opening.done():
            plugged.opening = asyncio.create_task(self._open_or_say(plugged))
            self._keep(plugged.opening)
        return plugged.opening

    async def _open_or_say(self, plugged: _Plugged) -> None:
        try:
            await plugged.stick.open()
        except SourceError as error:
            if plugged in self._plugged:
                log.warning("%s", error.with_hint())

    def _call_when_open(self, plugged: _Plugged, opening: asyncio.Task[None]) -> None:
        """It is not waited for a second time."""

        def opened(_: asyncio.Task[None]) -> None:
            plugged.late = False
            self._changed()

        if not plugged.late:
            plugged.late = True
            opening.add_done_callback(opened)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._keep(asyncio.create_task(work))

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _let_go(self) -> None:
        background = tuple(self._background)
        for task in background:
            task.cancel()
        sticks = [plugged.stick for plugged in self._plugged]
        self._plugged = []
        await asyncio.gather(*(stick.pull() for stick in sticks), *background, return_exceptions=True)
        await self._led.show("off")


async def _readable(handle: int) -> None:
    """Wait until there is something to read; nobody is called while it is not read."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def call() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(handle, call)
    try:
        await ready
    finally:
        loop.remove_reader(handle)


def _check(options: UsbOptions) -> None:
    parts = PurePosixPath(options.folder).parts
    if ".." in parts or options.folder.startswith("/"):
        raise ConfigError(f"[usb] folder: {options.folder!r} is not a folder on the stick")
    name = options.result_file
    if "/" in name or name in (".", "..") or name.endswith(SUFFIX) or len(name) > 200:
        raise ConfigError(f"[usb] result-file: {name!r} is not a plain file name")
    if "/" in options.led or options.led in (".", ".."):
        raise ConfigError(f"[usb] led: {options.led!r} is not the name of a light")
