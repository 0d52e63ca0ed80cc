"""Does the network cost by volume?  NetworkManager knows, or guesses (its D-Bus reference, NMMetered)."""

from __future__ import annotations

from typing import Final

from updated.host.timing import ANSWER_TIMEOUT

SERVICE: Final = "org.freedesktop.NetworkManager"
PATH: Final = "/org/freedesktop/NetworkManager"

_METERED = {1: True, 2: False, 3: True, 4: False}  # yes, no, guess-yes, guess-no; 0: unknown


async def metered(address: str | None = None, timeout: float = ANSWER_TIMEOUT) -> bool | None:
    """None: nobody answers, or it is not known.  `address`: of the bus, instead of the system's."""
    from dbus_fast import Message, Variant

    from updated.host.bus import question

    call = Message(
        SERVICE, PATH, "org.freedesktop.DBus.Properties", "Get", signature="ss", body=[SERVICE, "Metered"]
    )
    reply = await question(address, call, timeout)
    match reply.body if reply else []:
        case [Variant(signature="u", value=int(value))]:
            return _METERED.get(value)
    return None
