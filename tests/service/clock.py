"""A clock that jumps, so that no test waits for a deadline of the service."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path


class Clock:
    """The monotonic clock of a service that is started with `env`."""

    def __init__(self, folder: Path) -> None:
        library = folder / "clock.so"
        source = Path(__file__).with_name("clock.c")
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True)
        self._page = folder / "clock"
        self._page.write_bytes(struct.pack("q", 0))
        self.env = {"CLOCK_PAGE": str(self._page), "LD_PRELOAD": str(library)}

    def jump(self, seconds: int) -> None:
        """Once; the service sees it when it next wakes up."""
        with self._page.open("r+b") as page:
            page.write(struct.pack("q", seconds))
