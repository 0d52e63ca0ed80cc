"""NetworkManager and logind as the agent sees them: a real service on a real bus, with made-up answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from dbus_fast import Message, MessageType, Variant
from dbus_fast.aio import MessageBus

NETWORK_MANAGER = "org.freedesktop.NetworkManager"
LOGIND = "org.freedesktop.login1"

Inhibitors = list[list[Any]]  # what, who, why, mode, uid, pid


class Neighbours:
    """Change `metered` and `inhibitors` as you like."""

    def __init__(self) -> None:
        self.metered: Variant | None = Variant("u", 0)  # None: an error
        self.inhibitors: Inhibitors = []
        self.hangs = False  # takes calls, and never answers
        self.asked: list[str] = []  # members
        self.called = asyncio.Event()

    def _answer(self, message: Message) -> Message | bool | None:
        if message.message_type is not MessageType.METHOD_CALL or message.interface is None:
            return None
        if not message.interface.startswith(("org.freedesktop.DBus.Prop", LOGIND)):
            return None
        self.asked.append(message.member or "")
        self.called.set()
        if self.hangs:
            return True  # taken care of
        asked = (message.path, message.interface, message.member, *message.body)
        match asked:
            case (
                "/org/freedesktop/NetworkManager",
                "org.freedesktop.DBus.Properties",
                "Get",
                "org.freedesktop.NetworkManager",
                "Metered",
            ) if self.metered is not None:
                return Message.new_method_return(message, "v", [self.metered])
            case ("/org/freedesktop/login1", "org.freedesktop.login1.Manager", "ListInhibitors"):
                return Message.new_method_return(message, "a(ssssuu)", [self.inhibitors])
        return Message.new_error(message, "org.freedesktop.DBus.Error.UnknownMethod", "no")


@asynccontextmanager
async def neighbours(address: str) -> AsyncIterator[Neighbours]:
    """Both on the bus at `address`."""
    bus = await MessageBus(bus_address=address).connect()
    here = Neighbours()
    bus.add_message_handler(here._answer)
    for name in (NETWORK_MANAGER, LOGIND):
        await bus.request_name(name)
    try:
        yield here
    finally:
        bus.disconnect()
        await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]
