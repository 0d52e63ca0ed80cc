"""Who holds something over D-Bus: what he holds ends when he leaves the bus.

The bus is asked to tell only of those who hold something now, so nobody else's coming and going wakes us.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from dbus_fast import DBusError, Message, MessageFlag, MessageType
from dbus_fast.aio import MessageBus

from updated.api.bus import DAEMON, DAEMON_PATH, ask, post
from updated.api.wire import LIMITS_EXCEEDED

MAX_HOLDS = 64  # of all clients together; an application needs one or two


class Owners:
    """Numbers of holds and the unique names they belong to."""

    def __init__(self, bus: MessageBus, forget: Callable[[str], None]) -> None:
        """`forget`: called with a name when it is gone."""
        self._bus = bus
        self._forget = forget
        self._loop = asyncio.get_running_loop()
        self._holds: dict[int, tuple[str, float]] = {}  # number -> owner, loop time of its end
        bus.add_message_handler(self._hear)

    def close(self) -> None:
        """The connection ends, and with it all that we would hear of the owners."""
        self._bus.remove_message_handler(self._hear)
        for owner in {owner for owner, _ in self._holds.values()}:
            self._forget(owner)
        self._holds.clear()

    def check_room(self) -> None:
        """Raises DBusError if there are too many holds."""
        for number in [n for n, (_, end) in self._holds.items() if end < self._loop.time()]:
            self.drop(number)
        if len(self._holds) >= MAX_HOLDS:
            raise DBusError(LIMITS_EXCEEDED, "Too many holds at the same time")

    async def keep(self, number: int, owner: str, seconds: int) -> None:
        """`owner` holds `number` for at most `seconds`.  Raises UpdatedError if the bus does not help."""
        known = self._owns(owner)
        self._holds[number] = owner, self._loop.time() + seconds
        if known:
            return
        await ask(self._bus, self._call("AddMatch", _rule(owner)))
        # He may have left before the bus heard that we want to know.
        here = await ask(self._bus, self._call("NameHasOwner", owner))
        if not here.body[0]:
            self._gone(owner)

    def drop(self, number: int) -> None:
        """`number` is released or over."""
        owner, _ = self._holds.pop(number, ("", 0.0))
        if owner and not self._owns(owner):
            post(self._bus, self._call("RemoveMatch", _rule(owner), MessageFlag.NO_REPLY_EXPECTED))

    def _owns(self, owner: str) -> bool:
        return any(owner == other for other, _ in self._holds.values())

    def _gone(self, owner: str) -> None:
        for number in [n for n, (other, _) in self._holds.items() if other == owner]:
            self.drop(number)
        self._forget(owner)

    def _call(self, member: str, argument: str, flags: MessageFlag = MessageFlag.NONE) -> Message:
        return Message(DAEMON, DAEMON_PATH, DAEMON, member, signature="s", body=[argument], flags=flags)

    def _hear(self, message: Message) -> bool:
        if (
            message.message_type is MessageType.SIGNAL
            and message.sender == DAEMON
            and message.member == "NameOwnerChanged"
            and self._owns(message.body[0])
            and not message.body[2]
        ):
            self._gone(message.body[0])
        return False


def _rule(owner: str) -> str:
    return f"type='signal',sender='{DAEMON}',member='NameOwnerChanged',arg0='{owner}'"
