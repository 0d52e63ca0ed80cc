"""What our interfaces and our client say on the bus; the connection itself is `host.bus`."""

from __future__ import annotations

import asyncio

from dbus_fast import Message, MessageType
from dbus_fast.aio import MessageBus

from updated.errors import DeviceError, UpdatedError
from updated.host.bus import BUS_ERRORS as BUS_ERRORS
from updated.host.bus import CONNECT_TIMEOUT as CONNECT_TIMEOUT
from updated.host.bus import connect as connect
from updated.host.bus import disconnect as disconnect
from updated.host.bus import ended as ended

DAEMON = "org.freedesktop.DBus"
DAEMON_PATH = "/org/freedesktop/DBus"
CALL_TIMEOUT = (
    120.0  # seconds; marking a slot may mean a slow bootloader tool, reading a status a slow medium
)

NOT_RUNNING = (f"{DAEMON}.Error.ServiceUnknown", f"{DAEMON}.Error.NameHasNoOwner")
# What the well-known errors mean to the person at the command line.
HINTS = {
    f"{DAEMON}.Error.AccessDenied": "be root or a member of the group `updated`",
    f"{DAEMON}.Error.UnknownMethod": "the service on the bus does not have this function",
}


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
