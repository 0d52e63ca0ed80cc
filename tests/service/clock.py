"""Clocks that jump or run fast, so that no test waits for a deadline of the service."""

from __future__ import annotations

import struct
import subprocess
import time
from pathlib import Path


class Clock:
    """The clocks of a service that is started with `env`."""

    def __init__(self, folder: Path, *, boottime_factor: int = 1) -> None:
        """CLOCK_BOOTTIME, by which servers are looked at, runs `boottime_factor` times as fast."""
        library = folder / "clock.so"
        source = Path(__file__).with_name("clock.c")
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True)
        self._page = folder / "clock"
        self._page.write_bytes(struct.pack("q", 0))
        self.env = {
            "CLOCK_PAGE": str(self._page),
            "CLOCK_FACTOR": str(boottime_factor),
            "CLOCK_START": str(time.clock_gettime_ns(time.CLOCK_BOOTTIME)),
            "LD_PRELOAD": str(library),
        }

    def jump(self, seconds: int) -> None:
        """The monotonic clock, once; the service sees it when it next wakes up."""
        with self._page.open("r+b") as page:
            page.write(struct.pack("q", seconds))
