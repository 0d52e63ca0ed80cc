"""How long the host may take to answer, and what time it is there."""

from __future__ import annotations

import io
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from updated.host.clock import now

ANSWER_TIMEOUT: Final = 5.0  # seconds; services answer in milliseconds, a hung one must not stall updates
LOCALTIME: Final = Path("/etc/localtime")
RELEASED: Final = datetime(2026, 1, 1, tzinfo=UTC)  # it is later, whatever the clock says

_MAX_ZONE = 1024 * 1024  # bytes; the largest of tzdata has 4 KiB


def boottime() -> float:
    """Seconds since the kernel started, sleep included; no clock that is set changes it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def earliest() -> datetime:
    """It is later than this: we were built, and put on this device.  Blocks."""
    import updated

    try:
        installed = datetime.fromtimestamp(Path(updated.__file__).stat().st_mtime, UTC)
    except (OSError, OverflowError, ValueError):
        return RELEASED
    return max(installed, RELEASED)


def local_zone(name: str | None = None, localtime: Path = LOCALTIME) -> tzinfo:
    """The zone `name`, or that of the system (localtime(5)), which is UTC if it cannot be read.  Blocks.

    `name` was checked when the configuration was read.
    """
    if name is not None:
        return ZoneInfo(name)
    try:
        with localtime.open("rb") as file:
            zone = ZoneInfo.from_file(_Whole(file.read(_MAX_ZONE)))
        datetime.now(zone)  # a torn file may only show when it is used
    except (OSError, ValueError, OverflowError, AssertionError, struct.error):
        return UTC
    return zone


class _Whole(io.BytesIO):
    """Python's reader of zones looks for the end of a torn file for ever."""

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if size is not None and len(data) < size:
            raise ValueError("cut short")
        return data


@dataclass(frozen=True, slots=True)
class Clocks:
    """What time it is on this device."""

    boot_id: str
    boottime: Callable[[], float] = boottime  # seconds
    wall: Callable[[], datetime] = now
    zone: Callable[[str | None], tzinfo] = local_zone  # blocks
    earliest: Callable[[], datetime] = earliest  # blocks; before it, the clock is not set
