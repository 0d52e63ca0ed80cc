"""Waiting by CLOCK_BOOTTIME, which goes on while the device sleeps (timerfd_create(2), Linux 3.15).

`os.timerfd_create` is there from Python 3.13 on only, and asyncio waits by CLOCK_MONOTONIC, which stops in
suspend: a device that sleeps most of the time would hardly ever look.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import Final, Protocol

SLICE: Final = 600.0  # seconds between two looks at the clock where there is no timer to be had

_FLAGS: Final = os.O_NONBLOCK | os.O_CLOEXEC  # TFD_NONBLOCK, TFD_CLOEXEC: sys/timerfd.h
_ABSOLUTE: Final = 1  # TFD_TIMER_ABSTIME
_CANCEL_ON_SET: Final = 2  # TFD_TIMER_CANCEL_ON_SET
_FAR: Final = 2**31 - 1  # seconds since 1970: the last that every kernel takes


class Clock(Protocol):
    """Seconds that count, and the time of day."""

    def boottime(self) -> float:
        """Seconds of CLOCK_BOOTTIME."""
        ...

    def wall(self) -> datetime:
        """With a time zone; may be wrong by decades."""
        ...

    async def until(self, boottime: float) -> None:
        """Wait.  May come back earlier, and does when the time of day was set."""
        ...


class BootClock:
    """The real one."""

    def boottime(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def wall(self) -> datetime:
        return datetime.now(UTC)

    async def until(self, boottime: float) -> None:
        left = boottime - self.boottime()
        if left <= 0:
            return
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        with ExitStack() as timers:
            try:
                timers.enter_context(_timer(time.CLOCK_BOOTTIME, _ABSOLUTE, boottime, over))
                timers.enter_context(_timer(time.CLOCK_REALTIME, _ABSOLUTE | _CANCEL_ON_SET, _FAR, over))
            except OSError:  # no file descriptor left, or a sandbox
                await asyncio.sleep(min(left, SLICE))
                return
            await over


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Timer(ctypes.Structure):
    """struct itimerspec."""

    _fields_ = (("interval", _Timespec), ("value", _Timespec))


@contextmanager
def _timer(clock: int, flags: int, moment: float, over: asyncio.Future[None]) -> Iterator[None]:
    """`over` is done at `moment`, or when the clock is set.  Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    handle = libc.timerfd_create(clock, _FLAGS)
    if handle < 0:
        raise OSError(ctypes.get_errno(), "timerfd_create")
    loop = asyncio.get_running_loop()
    try:
        seconds = int(moment)
        value = _Timespec(seconds, int((moment - seconds) * 1e9) + 1)  # all zero would mean: never
        if libc.timerfd_settime(handle, flags, ctypes.byref(_Timer(_Timespec(), value)), None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")
        loop.add_reader(handle, _done, over)
        try:
            yield
        finally:
            loop.remove_reader(handle)
    finally:
        os.close(handle)


def _done(over: asyncio.Future[None]) -> None:
    if not over.done():
        over.set_result(None)
