"""Who blocks the shutdown (org.freedesktop.login1(5), ListInhibitors)."""

from __future__ import annotations

from typing import Final

from updated.core.gate import Inhibitor
from updated.host.timing import ANSWER_TIMEOUT

SERVICE: Final = "org.freedesktop.login1"
PATH: Final = "/org/freedesktop/login1"


async def shutdown_inhibitors(
    address: str | None = None, timeout: float = ANSWER_TIMEOUT
) -> tuple[Inhibitor, ...]:
    """Those of mode `block`: `delay` is observed by the shutdown itself, `block-weak` is not for root.

    Empty if nobody answers.  `address`: of the bus, instead of the system's.
    """
    from dbus_fast import Message

    from updated.host.bus import question

    reply = await question(address, Message(SERVICE, PATH, f"{SERVICE}.Manager", "ListInhibitors"), timeout)
    if reply is None or reply.signature != "a(ssssuu)":
        return ()
    return tuple(
        Inhibitor(who, why)
        for what, who, why, mode, _uid, _pid in reply.body[0]
        if mode == "block" and "shutdown" in what.split(":")
    )
