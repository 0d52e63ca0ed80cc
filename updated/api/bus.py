"""A connection to the bus: its beginning, its end, and one question."""

from __future__ import annotations

import asyncio
import io
import os
import socket
from typing import TYPE_CHECKING

from dbus_fast import BusType, Message, MessageType
from dbus_fast.aio import MessageBus
from dbus_fast.errors import DBusFastError

from updated.errors import DeviceError, UpdatedError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

DAEMON = "org.freedesktop.DBus"
DAEMON_PATH = "/org/freedesktop/DBus"
CONNECT_TIMEOUT = 10.0  # seconds; a bus that runs answers in milliseconds
CALL_TIMEOUT = (
    120.0  # seconds; marking a slot may mean a slow bootloader tool, reading a status a slow medium
)
BUS_ERRORS = (OSError, EOFError, ValueError, DBusFastError)
"""What dbus-fast raises for a bus that is missing, refuses or goes away."""

NOT_RUNNING = (f"{DAEMON}.Error.ServiceUnknown", f"{DAEMON}.Error.NameHasNoOwner")
# What the well-known errors mean to the person at the command line.
HINTS = {
    f"{DAEMON}.Error.AccessDenied": "be root or a member of the group `updated`",
    f"{DAEMON}.Error.UnknownMethod": "the service on the bus does not have this function",
}


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


def post(bus: MessageBus, message: Message) -> asyncio.Future[None] | None:
    """Send without waiting.  Nothing happens once the bus is gone: who has to know is told by `ended`."""
    if not bus.connected:
        return None
    try:
        future: asyncio.Future[None] = bus.send(message)
    except OSError:
        return None
    future.add_done_callback(_forget)
    return future


def _forget(future: asyncio.Future[None]) -> None:
    if not future.cancelled():
        future.exception()


async def ask(bus: MessageBus, call: Message, timeout: float = CALL_TIMEOUT) -> Message:
    """The answer to `call`.  Raises UpdatedError with the text of an error, DeviceError if nobody answers."""
    if not bus.connected:
        raise DeviceError("Lost the connection to the bus")
    try:
        async with asyncio.timeout(timeout):
            reply: Message | None = await bus.call(call)
    except TimeoutError as error:
        raise DeviceError(f"{call.member}: no answer from the service in {timeout:.0f} s") from error
    except BUS_ERRORS as error:
        raise DeviceError(f"Lost the connection to the bus: {error or type(error).__name__}") from error
    if reply is None:  # the connection was closed under the call
        raise DeviceError("Lost the connection to the bus")
    if reply.message_type is not MessageType.ERROR:
        return reply
    if reply.error_name in NOT_RUNNING:
        raise DeviceError("The update service is not running", hint="systemctl start updated")
    message = str(reply.body[0]) if reply.body else str(reply.error_name)
    raise UpdatedError(message.rstrip("\n"), hint=HINTS.get(reply.error_name or "", ""))
