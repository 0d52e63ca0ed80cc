"""What tells this device from others."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

MACHINE_ID: Final = Path("/etc/machine-id")  # machine-id(5)
SERIAL: Final = Path("/sys/firmware/devicetree/base/serial-number")  # Devicetree specification, "Root node"
MAX_TEXT: Final = 256  # bytes


def machine_id(path: Path = MACHINE_ID) -> str:
    """32 hex digits; "" if there is none.  Blocks."""
    text = _read(path)
    return text if len(text) == 32 and text.isalnum() else ""


def serial(path: Path = SERIAL) -> str:
    """What the board says; "" if it says nothing.  Blocks."""
    return _read(path)


def architecture() -> str:
    """As `uname -m`."""
    return os.uname().machine


def uptime() -> str:
    """Seconds since the boot, time asleep included."""
    return str(int(time.clock_gettime(time.CLOCK_BOOTTIME)))


def _read(path: Path) -> str:
    with suppress(OSError), path.open("rb") as file:
        return file.read(MAX_TEXT).partition(b"\0")[0].decode(errors="replace").strip()
    return ""
