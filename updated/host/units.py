"""systemd's units, asked over D-Bus (org.freedesktop.systemd1(5)).  Needs systemd 230."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from updated.errors import DeviceError
from updated.host.timing import ANSWER_TIMEOUT

if TYPE_CHECKING:
    from dbus_fast.aio import MessageBus

SERVICE: Final = "org.freedesktop.systemd1"
PATH: Final = "/org/freedesktop/systemd1"
MANAGER: Final = f"{SERVICE}.Manager"
LISTED: Final = "a(ssssssouso)"  # name, description, load, active, sub, followed, path, job id, type, path


@dataclass(frozen=True, slots=True)
class UnitState:
    """A unit at one moment (`updated.health.units.Unit`)."""

    load: str
    active: str
    sub: str
    result: str = ""
    restarts: int = 0
    invocation: bytes = b""


class Systemd:
    """`updated.health.units.Systemd`: one connection for all questions, made by the first."""

    def __init__(self, address: str | None = None, timeout: float = ANSWER_TIMEOUT) -> None:
        """`address`: of the bus, instead of the system's.  `timeout`: seconds for one question."""
        self._address = address
        self._timeout = timeout
        self._bus: MessageBus | None = None
        self._setup = asyncio.Lock()
        self._users = 0  # who waits for an answer

    async def show(self, unit: str) -> UnitState:
        """Raises DeviceError."""
        found = await self._list("ListUnitsByNames", "as", [[unit]])
        if not found:
            return UnitState("not-found", "inactive", "dead")
        load, active, sub, path = found[0][2], found[0][3], found[0][4], found[0][6]
        if active != "inactive":
            invocation = await self._get(path, "Unit", "InvocationID", bytes)
        else:
            invocation = b""
        if not unit.endswith(".service") or load != "loaded":
            return UnitState(load, active, sub, invocation=invocation)
        result, restarts = await asyncio.gather(
            self._get(path, "Service", "Result", str), self._get(path, "Service", "NRestarts", int)
        )
        return UnitState(load, active, sub, result, restarts, invocation)

    async def failed(self, patterns: Sequence[str]) -> tuple[str, ...]:
        """Raises DeviceError."""
        found = await self._list("ListUnitsByPatterns", "asas", [["failed"], list(patterns)])
        return tuple(entry[0] for entry in found)

    async def close(self) -> None:
        """Unless somebody waits for an answer; the next question makes another connection."""
        if not self._users:
            await self._disconnect()

    async def _disconnect(self) -> None:
        bus, self._bus = self._bus, None
        if bus is not None:
            from updated.host.bus import disconnect

            await disconnect(bus)

    async def _list(self, member: str, signature: str, body: list[Any]) -> list[Any]:
        found: list[Any] = await self._ask(PATH, MANAGER, member, signature, body=body, expected=LISTED)
        return found

    async def _get(self, path: str, interface: str, name: str, kind: type[Any]) -> Any:
        """A property, or what `kind` has for nothing where this systemd does not know it."""
        properties = "org.freedesktop.DBus.Properties"
        body = [f"{SERVICE}.{interface}", name]
        value = (await self._ask(path, properties, "Get", "ss", body=body, expected="v")).value
        return value if isinstance(value, kind) else kind()

    async def _ask(
        self, path: str, interface: str, member: str, signature: str, *, body: list[Any], expected: str
    ) -> Any:
        from dbus_fast import Message, MessageFlag, MessageType

        from updated.host.bus import BUS_ERRORS

        call = Message(
            SERVICE, path, interface, member, signature=signature, body=body, flags=MessageFlag.NO_AUTOSTART
        )
        self._users += 1
        try:
            async with asyncio.timeout(self._timeout):
                reply = await (await self._connection()).call(call)
        except (DeviceError, *BUS_ERRORS) as error:  # TimeoutError is an OSError
            await self._disconnect()
            why = f"no answer within {self._timeout:g} s" if isinstance(error, TimeoutError) else str(error)
            raise _unreachable(why or type(error).__name__) from error
        finally:
            self._users -= 1
        if reply is None or reply.message_type is MessageType.ERROR:
            raise _unreachable(str(reply.body[0]) if reply and reply.body else "no answer")
        if reply.signature != expected:
            raise _unreachable(f"expected {expected} of {member}, got {reply.signature!r}")
        return reply.body[0]

    async def _connection(self) -> MessageBus:
        """Raises DeviceError."""
        from updated.host.bus import connect

        async with self._setup:
            if self._bus is None or not self._bus.connected:
                self._bus = await connect(self._address)
            return self._bus


def _unreachable(why: str) -> DeviceError:
    return DeviceError(f"systemd cannot be asked: {why}")
