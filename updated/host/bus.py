"""A connection to a message bus: its beginning, its end, and one question to somebody else's service."""

from __future__ import annotations

import asyncio
import io
import os
import socket
from typing import TYPE_CHECKING

from dbus_fast import BusType, Message, MessageFlag, MessageType
from dbus_fast.aio import MessageBus
from dbus_fast.errors import DBusFastError

from updated.errors import DeviceError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

CONNECT_TIMEOUT = 10.0  # seconds; a bus that runs answers in milliseconds
BUS_ERRORS = (OSError, EOFError, ValueError, DBusFastError)
"""What dbus-fast raises for a bus that is missing, refuses or goes away."""


class _PatientSocket(socket.socket):
    """dbus-fast 5.2 takes a full socket buffer for the end of the connection: a burst of signals, or a client
    that floods, would cost us the bus.  To have sent nothing makes it wait for room, as it should.  And the
    end of the connection is noticed where it is read, in order, once."""

    def send(self, data: Buffer, flags: int = 0) -> int:
        try:
            return super().send(data, flags)
        except (BlockingIOError, ConnectionError):
            return 0


class _Bus(MessageBus):
    @staticmethod
    def _create_socket_for_transport(
        transport: str, options: dict[str, str]
    ) -> tuple[socket.socket, io.BufferedRWPair, bytes | str | tuple[str, int]]:
        plain, stream, address = MessageBus._create_socket_for_transport(transport, options)
        stream.close()
        patient = _PatientSocket(plain.family, plain.type, plain.proto, plain.detach())
        return patient, patient.makefile("rwb"), address


async def connect(address: str | None = None) -> MessageBus:
    """The system bus; the session bus if DBUS_STARTER_BUS_TYPE=session (as RAUC does); or `address`.

    Raises DeviceError if there is none.
    """
    session = os.environ.get("DBUS_STARTER_BUS_TYPE") == "session"
    kind = BusType.SESSION if session else BusType.SYSTEM
    try:
        bus = _Bus(bus_address=address, bus_type=kind)
        async with asyncio.timeout(CONNECT_TIMEOUT):
            return await bus.connect()
    except BUS_ERRORS as error:
        raise DeviceError(
            f"Cannot reach the {kind.name.lower()} bus: {error or type(error).__name__}",
            hint="is dbus-daemon running?",
        ) from error


async def ended(bus: MessageBus) -> str:
    """Wait for the end of the connection; why it ended."""
    try:
        await asyncio.shield(bus.wait_for_disconnect())  # type: ignore[no-untyped-call]
    except BUS_ERRORS as error:
        return str(error) or type(error).__name__
    return "closed"


async def disconnect(bus: MessageBus) -> None:
    """Close the connection and wait for its end; harmless if it is gone already."""
    if bus.connected:
        bus.disconnect()
    await ended(bus)


async def question(
    address: str | None, call: Message, timeout: float, *, start: bool = False
) -> Message | None:
    """The answer of a service that runs, over a connection of its own; None: there is no answer.

    Nobody is started for it, unless `start` says so.  Never raises, and never takes longer than `timeout`
    (seconds).
    """
    if not start:
        call.flags = MessageFlag.NO_AUTOSTART
    bus: MessageBus | None = None
    try:
        async with asyncio.timeout(timeout):
            bus = await connect(address)
            reply: Message | None = await bus.call(call)
    except (DeviceError, *BUS_ERRORS):  # TimeoutError is an OSError
        return None
    finally:
        if bus is not None:
            await disconnect(bus)
    return None if reply is None or reply.message_type is MessageType.ERROR else reply
