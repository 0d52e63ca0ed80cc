"""What tells this device from others."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

MACHINE_ID: Final = Path("/etc/machine-id")  # machine-id(5)
SERIAL: Final = Path("/sys/firmware/devicetree/base/serial-number")  # Devicetree specification, "Root node"
OS_RELEASE: Final = (Path("/etc/os-release"), Path("/usr/lib/os-release"))  # os-release(5)
MAX_OS_RELEASE: Final = 64 * 1024  # bytes
MAX_TEXT: Final = 256  # bytes


def machine_id(path: Path = MACHINE_ID) -> str:
    """32 hex digits; "" if there is none.  Blocks."""
    text = _read(path)
    return text if len(text) == 32 and text.isalnum() else ""


def image_version(paths: Sequence[Path] = OS_RELEASE) -> str:
    """IMAGE_VERSION of the running system, as its maker wrote it; "" if he did not.  Blocks."""
    for path in paths:
        with suppress(OSError, ValueError), path.open("rb") as file:
            for line in file.read(MAX_OS_RELEASE).decode().splitlines():
                key, _, value = line.partition("=")
                if key == "IMAGE_VERSION":
                    return "".join(shlex.split(value))[:MAX_TEXT]
            return ""
    return ""


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
