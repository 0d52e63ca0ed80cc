"""The signals of one install, and the end of the service, seen from a client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from dbus_fast import Message, MessageType, Variant
from dbus_fast.aio import MessageBus

from updated.api import rauc
from updated.api.bus import DAEMON, DAEMON_PATH, ask, ended
from updated.errors import DeviceError


@dataclass(frozen=True, slots=True)
class Step:
    """One progress report of an install."""

    percentage: int
    message: str
    depth: int


def plain(value: Any) -> Any:
    """`value` without the variants, however many are wrapped around each other."""
    if isinstance(value, Variant):
        return plain(value.value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


@asynccontextmanager
async def departure(bus: MessageBus, name: str) -> AsyncIterator[asyncio.Event]:
    """The event is set when the owner of `name`, or the bus, goes away.  Raises UpdatedError."""
    gone = asyncio.Event()

    def hear(message: Message) -> bool:
        if (
            message.sender == DAEMON
            and message.member == "NameOwnerChanged"
            and message.body[0] == name
            and message.body[1]  # else it only now appears
        ):
            gone.set()
        return False

    bus.add_message_handler(hear)
    end = asyncio.create_task(ended(bus))
    end.add_done_callback(lambda _: gone.set())
    try:
        rule = f"type='signal',sender='{DAEMON}',member='NameOwnerChanged',arg0='{name}'"
        await ask(bus, Message(DAEMON, DAEMON_PATH, DAEMON, "AddMatch", signature="s", body=[rule]))
        yield gone
    finally:
        bus.remove_message_handler(hear)
        end.cancel()
        await asyncio.gather(end, return_exceptions=True)


class Watch:
    """Enter it before InstallBundle is called, so that no signal is missed; tell it when that was accepted.

    Operation=installing comes before the answer to InstallBundle (RAUC src/service.c): the last one until
    then is ours, and what was seen before it belongs to an earlier install.  Signals are believed only from
    `owner`, the unique name of the service: any client may send them to us directly.
    """

    def __init__(self, bus: MessageBus, owner: str) -> None:
        self._bus = bus
        self._owner = owner
        self._rules = (
            f"type='signal',sender='{rauc.BUS_NAME}',path='{rauc.PATH}'",
            f"type='signal',sender='{DAEMON}',member='NameOwnerChanged',arg0='{rauc.BUS_NAME}'",
        )
        self._events: asyncio.Queue[Step | int | DeviceError] = asyncio.Queue()
        self._started = False
        self._accepted = False
        self._end: asyncio.Task[None] | None = None
        self.last_error = ""
        self.result = 0  # of Completed

    async def __aenter__(self) -> None:
        self._bus.add_message_handler(self._handle)
        self._end = asyncio.create_task(self._bus_end())
        for rule in self._rules:
            await self._match("AddMatch", rule)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bus.remove_message_handler(self._handle)
        if self._end is not None:
            self._end.cancel()
            await asyncio.gather(self._end, return_exceptions=True)
        with suppress(DeviceError):  # the bus forgets the rules of a connection that is gone
            for rule in self._rules:
                await self._match("RemoveMatch", rule)

    def accepted(self) -> None:
        """InstallBundle was answered."""
        self._accepted = True

    async def steps(self) -> AsyncIterator[Step]:
        """Until Completed.  Raises DeviceError if the service or the bus goes away."""
        while True:
            event = await self._events.get()
            if isinstance(event, DeviceError):
                raise event
            if isinstance(event, int):
                self.result = event
                return
            yield event

    async def _match(self, member: str, rule: str) -> None:
        await ask(self._bus, Message(DAEMON, DAEMON_PATH, DAEMON, member, signature="s", body=[rule]))

    async def _bus_end(self) -> None:
        reason = await ended(self._bus)
        self._events.put_nowait(DeviceError(f"Lost the connection to the bus: {reason}"))

    def _handle(self, message: Message) -> bool:
        if message.message_type is not MessageType.SIGNAL:
            return False
        match message.sender, message.member, message.signature:
            case "org.freedesktop.DBus", "NameOwnerChanged", "sss":
                if message.body[0] == rauc.BUS_NAME and message.body[2] != self._owner:
                    self._events.put_nowait(DeviceError("The update service ended during the install"))
            case self._owner, "PropertiesChanged", "sa{sv}as":
                if message.body[0] == rauc.INTERFACE:
                    self._changed(plain(message.body[1]))
            case self._owner, "Completed", "i":
                if self._started:
                    self._events.put_nowait(message.body[0])
        return False

    def _changed(self, values: Mapping[str, Any]) -> None:
        if values.get("Operation") == "installing" and not self._accepted:
            self._started = True
            self.last_error = ""
            while not self._events.empty():
                self._events.get_nowait()
        if not self._started:
            return
        if "Progress" in values:
            self._events.put_nowait(Step(*values["Progress"]))
        self.last_error = values.get("LastError", self.last_error)
