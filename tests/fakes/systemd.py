"""org.freedesktop.systemd1 as checks see it: a real service on a real bus, with made-up units.

What a real systemd answers was looked up with busctl (252); tests/system shows that a real one is understood.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase

from dbus_fast import Message, MessageType, Variant
from dbus_fast.aio import MessageBus

NAME = "org.freedesktop.systemd1"
TIMEDATE = "org.freedesktop.timedate1"
NOBODY = "org.freedesktop.DBus.Error.UnknownObject"


@dataclass
class FakeUnit:
    load: str = "loaded"
    active: str = "active"
    sub: str = "running"
    result: str = "success"
    restarts: int = 0
    invocation: bytes = b"1" * 16


class FakeSystemd:
    """Change what you like."""

    def __init__(self) -> None:
        self.units: dict[str, FakeUnit] = {}
        self.synchronised: bool | None = None  # None: an error
        self.hangs = False
        self.refuses = ""  # with this text
        self.asked: list[str] = []
        self.called = asyncio.Event()
        self.senders: set[str] = set()

    def _answer(self, message: Message) -> Message | bool | None:
        if message.message_type is not MessageType.METHOD_CALL or message.path is None:
            return None
        if not message.path.startswith(("/org/freedesktop/systemd1", "/org/freedesktop/timedate1")):
            return None
        self.asked.append(message.member or "")
        self.senders.add(message.sender or "")
        self.called.set()
        if self.hangs:
            return True
        if self.refuses:
            return Message.new_error(message, "org.freedesktop.DBus.Error.AccessDenied", self.refuses)
        match message.member, message.body:
            case "ListUnitsByNames", [[*names]]:
                return self._list(message, {name: self.units.get(name) for name in names})
            case "ListUnitsByPatterns", [[*states], [*patterns]]:
                fits = {
                    name: unit
                    for name, unit in self.units.items()
                    if unit.active in states and any(fnmatchcase(name, pattern) for pattern in patterns)
                }
                return self._list(message, fits)
            case "Get", [interface, name]:
                return self._get(message, interface, name)
        return Message.new_error(message, "org.freedesktop.DBus.Error.UnknownMethod", "no such method")

    def _list(self, message: Message, units: dict[str, FakeUnit] | dict[str, FakeUnit | None]) -> Message:
        none = FakeUnit("not-found", "inactive", "dead")
        rows = []
        for name, unit in units.items():
            known = unit or none
            path = f"/org/freedesktop/systemd1/unit/{name.encode().hex()}"
            row = [name, name, known.load, known.active, known.sub, "", path, 0, "", "/"]
            rows.append(row)
        return Message.new_method_return(message, "a(ssssssouso)", [rows])

    def _get(self, message: Message, interface: str, name: str) -> Message:
        if interface == TIMEDATE and self.synchronised is not None:
            return Message.new_method_return(message, "v", [Variant("b", self.synchronised)])
        assert message.path
        unit = self.units.get(bytes.fromhex(message.path.rpartition("/")[2]).decode())
        values = {
            (f"{NAME}.Unit", "InvocationID"): ("ay", unit.invocation if unit else b""),
            (f"{NAME}.Service", "Result"): ("s", unit.result if unit else "success"),
            (f"{NAME}.Service", "NRestarts"): ("u", unit.restarts if unit else 0),
        }
        if (interface, name) not in values:
            return Message.new_error(message, NOBODY, f"no {interface}.{name}")
        return Message.new_method_return(message, "v", [Variant(*values[interface, name])])


@asynccontextmanager
async def fake_systemd(address: str) -> AsyncIterator[FakeSystemd]:
    """systemd and systemd-timedated on the bus at `address`."""
    bus = await MessageBus(bus_address=address).connect()
    here = FakeSystemd()
    bus.add_message_handler(here._answer)
    for name in (NAME, TIMEDATE):
        await bus.request_name(name)
    try:
        yield here
    finally:
        bus.disconnect()
        await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]
