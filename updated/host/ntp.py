"""Is the clock synchronised?  The kernel knows (adjtimex(2)), and systemd-timedated may be asked for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from updated.errors import DeviceError
from updated.host.timing import ANSWER_TIMEOUT

SERVICE: Final = "org.freedesktop.timedate1"
PATH: Final = "/org/freedesktop/timedate1"
MAX_ERROR: Final = 16_000_000  # microseconds; the kernel's word for "unknown", to which it grows without help


def kernel_synchronised() -> bool | None:
    """Whatever keeps it so: NTP, PTP, GPS.  None: it may not be asked (ProtectClock= forbids to look, too).

    As systemd's ntp_synced(): STA_UNSYNC is also set by those who only want the RTC to be left alone.
    """
    import ctypes

    class Timex(ctypes.Structure):
        """The beginning of `struct timex`, with room for the rest (208 bytes)."""

        _fields_ = (
            ("modes", ctypes.c_uint),
            ("offset", ctypes.c_long),
            ("frequency", ctypes.c_long),
            ("max_error", ctypes.c_long),
            ("rest", ctypes.c_byte * 512),
        )

    state = Timex()
    if ctypes.CDLL(None).adjtimex(ctypes.byref(state)) < 0:
        return None
    return bool(state.max_error < MAX_ERROR)


async def synchronised(
    address: str | None = None,
    timeout: float = ANSWER_TIMEOUT,
    kernel: Callable[[], bool | None] = kernel_synchronised,
) -> bool:
    """Raises DeviceError if nobody can tell.  `address`: of the bus, instead of the system's."""
    known = kernel()
    if known is not None:
        return known
    from dbus_fast import Message, Variant

    from updated.host.bus import question

    call = Message(
        SERVICE,
        PATH,
        "org.freedesktop.DBus.Properties",
        "Get",
        signature="ss",
        body=[SERVICE, "NTPSynchronized"],
    )
    reply = await question(address, call, timeout, start=True)
    match reply.body if reply else []:
        case [Variant(signature="b", value=bool(value))]:
            return value
    raise DeviceError("nobody can tell whether the clock is synchronised: systemd-timedated does not answer")
