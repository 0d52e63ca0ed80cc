"""A connection to the bus: its beginning, its end, and one question."""

from __future__ import annotations

import asyncio
import os

from dbus_fast import BusType, Message, MessageType
from dbus_fast.aio import MessageBus
from dbus_fast.errors import DBusFastError

from updated.errors import DeviceError, UpdatedError

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


async def connect(address: str | None = None) -> MessageBus:
    """The system bus; the session bus if DBUS_STARTER_BUS_TYPE=session (as RAUC does); or `address`.

    Raises DeviceError if there is none.
    """
    session = os.environ.get("DBUS_STARTER_BUS_TYPE") == "session"
    kind = BusType.SESSION if session else BusType.SYSTEM
    try:
        bus = MessageBus(bus_address=address, bus_type=kind)
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
