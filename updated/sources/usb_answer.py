"""How the person at the device gets to know: a light, and programs that for example play a sound.

Neither may stop or delay an update for long: what goes wrong here is a warning.
Sources: Linux Documentation/leds/leds-class.rst, Documentation/ABI/testing/sysfs-class-led-trigger-pattern,
drivers/leds/trigger/ledtrig-timer.c.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

from updated.command import run
from updated.errors import DeviceError
from updated.sources.usb_text import plain

log = logging.getLogger(__name__)

LEDS: Final = Path("/sys/class/leds")
SLOW: Final = 500  # ms on, ms off: at work
FAST: Final = 100  # something is wrong

Light = Literal["off", "on", "slow", "fast"]


class Led:
    """One light under /sys/class/leds, or none."""

    def __init__(self, name: str, root: Path = LEDS) -> None:
        """`name`: "" for none."""
        self._folder = root / name if name else None
        self._shows: Light | None = None
        self._complained = False

    async def show(self, light: Light) -> None:
        """Never raises."""
        if self._folder is None or light == self._shows:
            return
        self._shows = light
        try:
            await asyncio.to_thread(self._set, self._folder, light)
        except (OSError, ValueError) as error:
            if not self._complained:
                log.warning("cannot set the light %s: %s", self._folder, error)
            self._complained = True

    def _set(self, folder: Path, light: Light) -> None:
        if light in ("slow", "fast"):
            period = str(SLOW if light == "slow" else FAST)
            (folder / "trigger").write_text("timer")  # delay_on and delay_off are there from now on
            (folder / "delay_on").write_text(period)
            (folder / "delay_off").write_text(period)
            return
        (folder / "trigger").write_text("none")
        full = (folder / "max_brightness").read_text().strip()
        (folder / "brightness").write_text(full if light == "on" else "0")


class Hooks:
    """Programs, one at a time and in order."""

    def __init__(self, programs: Mapping[str, Sequence[str]], timeout: float) -> None:
        """`programs`: occasion -> program and arguments; empty: none.  `timeout`: seconds to live."""
        self._programs = programs
        self._timeout = timeout
        self._turn = asyncio.Lock()

    async def call(self, occasion: str, *, bundle: str, result: str, text: str, version: str = "") -> None:
        """Run the program of `occasion` to its end.  Never raises."""
        program = self._programs.get(occasion)
        if not program:
            return
        words = {
            "UPDATED_BUNDLE": plain(bundle),
            "UPDATED_RESULT": result,
            "UPDATED_TEXT": plain(text),
            "UPDATED_VERSION": plain(version),
        }
        async with self._turn:
            try:
                done = await run(program, timeout=self._timeout, env=words)
            except DeviceError as error:
                log.warning("%s: %s", occasion, error.with_hint())
            else:
                if done.code:
                    log.warning("%s: %s failed with exit code %d", occasion, program[0], done.code)
