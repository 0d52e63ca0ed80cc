"""NetworkManager and logind as the agent sees them: a real service on a real bus, with made-up answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from dbus_fast import Message, MessageType, Variant
from dbus_fast.aio import MessageBus

NETWORK_MANAGER = "org.freedesktop.NetworkManager"
LOGIND = "org.freedesktop.login1"

Inhibitors = list[list[Any]]  # what, who, why, mode, uid, pid


@dataclass
class Power:
    """What logind was asked for of a shutdown, and what it refuses (org.freedesktop.login1(5))."""

    refused: dict[str, tuple[str, str]] = field(default_factory=dict)  # member -> error name, text
    parameter: str = ""  # SetRebootParameter
    wall: tuple[str, bool] | None = None  # SetWallMessage
    scheduled: tuple[str, int] | None = None  # type and microseconds since 1970; None: nothing is
    rebooting: bool = False

    def answer(self, member: str, body: list[Any]) -> tuple[str, list[Any]] | None:
        """Signature and body of the reply.  None: there is no such method."""
        match member, body:
            case "SetRebootParameter", [str(argument)]:
                self.parameter = argument
                return "", []
            case "SetWallMessage", [str(text), bool(enable)]:
                self.wall = (text, enable)
                return "", []
            case "ScheduleShutdown", [str(kind), int(when)]:
                self.scheduled = (kind, when)
                return "", []
            case "CancelScheduledShutdown", []:
                cancelled, self.scheduled = self.scheduled is not None, None
                return "b", [cancelled]
            case "Reboot", [bool()]:
                self.rebooting, self.scheduled = True, None
                return "", []
        return None


SHUTDOWN = {
    "SetRebootParameter": "s",
    "SetWallMessage": "sb",
    "ScheduleShutdown": "st",
    "CancelScheduledShutdown": "",
    "Reboot": "b",
}  # member -> signature


class Neighbours:
    """Change `metered`, `inhibitors` and `power` as you like."""

    def __init__(self) -> None:
        self.power = Power()
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
        return self._shutdown(message)

    def _shutdown(self, message: Message) -> Message:
        member = message.member or ""
        if member in self.power.refused:
            return Message.new_error(message, *self.power.refused[member])
        right = message.path == "/org/freedesktop/login1" and SHUTDOWN.get(member) == message.signature
        answer = self.power.answer(member, message.body) if right else None
        if answer is None:
            return Message.new_error(message, "org.freedesktop.DBus.Error.UnknownMethod", "no")
        return Message.new_method_return(message, *answer)


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
