"""Is the clock synchronised?  Asked of the kernel, and where that is forbidden of systemd-timedated."""

from __future__ import annotations

import asyncio
import ctypes
import subprocess
import sys

import pytest

from tests.api.conftest import Daemon
from tests.fakes.systemd import fake_systemd
from updated.errors import DeviceError
from updated.host.ntp import kernel_synchronised, synchronised

FORBIDDEN = """\
import ctypes, errno
class Filter(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint)
    )
class Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.POINTER(Filter)))
numbers = {"x86_64": (159, 305), "aarch64": (171, 266)}[__import__("os").uname().machine]
rules = [Filter(0x20, 0, 0, 0)]
for number in numbers:  # adjtimex, clock_adjtime
    rules += [Filter(0x15, 0, 1, number), Filter(0x06, 0, 0, 0x00050000 | errno.EPERM)]
rules.append(Filter(0x06, 0, 0, 0x7FFF0000))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
program = Program(len(rules), (Filter * len(rules))(*rules))
assert libc.prctl(22, 2, ctypes.byref(program), 0, 0) == 0, ctypes.get_errno()
from updated.host.ntp import kernel_synchronised
print(kernel_synchronised())
"""


def test_the_kernel_is_read_right() -> None:
    """On machines of 64 bits maxerror is the fourth word."""
    words = (ctypes.c_long * 64)()
    assert ctypes.CDLL(None).adjtimex(ctypes.byref(words)) >= 0
    assert kernel_synchronised() is (words[3] < 16_000_000)


def test_a_sandbox_that_forbids_to_look() -> None:
    """As ProtectClock= does."""
    done = subprocess.run([sys.executable, "-c", FORBIDDEN], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("None\n", "")


@pytest.mark.parametrize("known", [True, False])
def test_the_kernel_is_asked_first(known: bool) -> None:
    assert asyncio.run(synchronised("unix:path=/none", kernel=lambda: known)) is known


@pytest.mark.parametrize("known", [True, False])
def test_timedated_is_asked_then(daemon: Daemon, known: bool) -> None:
    async def scene() -> bool:
        async with fake_systemd(daemon.address) as here:
            here.synchronised = known
            return await synchronised(daemon.address, kernel=lambda: None)

    assert asyncio.run(scene()) is known


def test_nobody_can_tell(daemon: Daemon) -> None:
    async def scene() -> None:
        with pytest.raises(DeviceError, match="nobody can tell whether the clock is synchronised"):
            await synchronised(daemon.address, kernel=lambda: None)
        async with fake_systemd(daemon.address):
            with pytest.raises(DeviceError, match="systemd-timedated does not answer"):
                await synchronised(daemon.address, kernel=lambda: None)

    asyncio.run(scene())
