"""Connect to the bus, export the interfaces, own both names."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from dbus_fast import Message, MessageType, NameFlag, RequestNameReply
from dbus_fast.aio import MessageBus
from dbus_fast.errors import DBusError

from updated.api import agent as agent1
from updated.api import rauc
from updated.api.bus import BUS_ERRORS, CONNECT_TIMEOUT, DAEMON, connect, disconnect, ended
from updated.api.poller import PollerInterface
from updated.api.port import Agent
from updated.api.wire import Objects
from updated.core.model import Listener
from updated.errors import DeviceError

BUS_NAMES = (rauc.BUS_NAME, agent1.BUS_NAME)


class NameTakenError(DeviceError):
    """Another update service runs: this one has no business here."""


class Server:
    """All interfaces on one connection.  Use `serve`."""

    def __init__(self, bus: MessageBus, agent: Agent, on_lost: Callable[[str], None] | None) -> None:
        self._bus = bus
        self._agent = agent
        self._on_lost = on_lost
        self._objects = Objects(bus)
        self._agent1 = agent1.AgentInterface(agent, self._objects)
        self._listeners: list[Listener] = [rauc.RaucInterface(agent, self._objects), self._agent1]
        self._poller: PollerInterface | None = None
        self.poller_changed()
        for listener in self._listeners:
            agent.subscribe(listener)
        bus.add_message_handler(self._name_lost)
        self._watch = asyncio.create_task(self._bus_lost())

    async def own_names(self) -> None:
        """Raises NameTakenError, or DeviceError if a name may not be owned."""
        for name in BUS_NAMES:
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    reply = await self._bus.request_name(name, NameFlag.DO_NOT_QUEUE)
            except BUS_ERRORS as error:
                reason = error.text if isinstance(error, DBusError) else error
                raise DeviceError(
                    f"Cannot own the bus name {name}: {reason}", hint=f"is {name}.conf installed?"
                ) from error
            if reply not in (RequestNameReply.PRIMARY_OWNER, RequestNameReply.ALREADY_OWNER):
                raise NameTakenError(f"The bus name {name} is taken", hint="does another update service run?")

    def poller_changed(self) -> None:
        """The agent has another poller, or none."""
        if self._poller is not None:
            self._poller.close()
        poller = self._agent.poller
        self._poller = PollerInterface(poller, self._objects) if poller else None

    async def close(self) -> None:
        """Give the names up and leave the bus.  May be called more than once."""
        self._on_lost = None
        while self._listeners:
            self._agent.unsubscribe(self._listeners.pop())
        self._watch.cancel()
        await asyncio.gather(self._watch, return_exceptions=True)
        self._agent1.close()
        if self._poller is not None:
            self._poller.close()
        await self._objects.close()
        await disconnect(self._bus)

    def _lost(self, reason: str) -> None:
        if self._on_lost is not None:
            tell, self._on_lost = self._on_lost, None
            tell(reason)

    def _name_lost(self, message: Message) -> bool:
        if (
            message.message_type is MessageType.SIGNAL
            and message.sender == DAEMON
            and message.member == "NameLost"
            and message.body[0] in BUS_NAMES
        ):
            self._lost(f"Lost the bus name {message.body[0]}")
        return False

    async def _bus_lost(self) -> None:
        self._lost(f"Lost the connection to the bus: {await ended(self._bus)}")


async def serve(
    agent: Agent, *, address: str | None = None, on_lost: Callable[[str], None] | None = None
) -> Server:
    """Answer for `agent` on the bus until `close()`.

    `on_lost` is called once, from the event loop, with a sentence, when the bus or a name is gone; the server
    is then of no use: close it.  Raises NameTakenError if another service has a name, and DeviceError if no
    bus can be reached or a name may not be owned: the agent can go on without D-Bus.
    """
    bus = await connect(address)
    try:
        server = Server(bus, agent, on_lost)
    except BaseException:
        await disconnect(bus)
        raise
    try:
        await server.own_names()
    except BaseException:
        await server.close()
        raise
    return server
