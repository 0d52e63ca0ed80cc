#!/usr/bin/env python3
"""Show what the update service does, as a line of text.  Needs dbus-fast and nothing of `updated`.

A device with a screen draws here; this one prints.  It survives a service that is not there yet, or restarts.
With a name as argument it says again and again that the application of this name is well (docs/health.md).
"""

import asyncio
import os
import sys
from typing import Any

from dbus_fast import BusType, Message, MessageType
from dbus_fast.aio import MessageBus

NAME = INTERFACE = "org.updated.Agent1"
PATH = "/org/updated/Agent1"
PROPERTIES = "org.freedesktop.DBus.Properties"
DBUS = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
RULES = (
    f"type='signal',sender='{NAME}',path='{PATH}',interface='{PROPERTIES}'",
    f"type='signal',sender='{DBUS[0]}',member='NameOwnerChanged',arg0='{NAME}'",
)
WIDTH = 20  # characters of the bar
BEAT = 10.0  # seconds between two heartbeats


def draw(values: dict[str, Any]) -> str:
    """One line for the properties of the service; {} if it is not running."""
    if not values:
        return "The update service is not running."
    if values["State"] == "install":
        return draw_progress(values["Progress"]) + ("  (paused)" if values["Paused"] else "")
    hold, result = values["Hold"], values["LastResult"]
    waits = f"  Waiting: {hold['text']}" if hold else ""
    last = f"  Last update: {result['code']} ({result['text']})" if result else ""
    return f"{values['Detail'] or values['State']}{waits}{last}"


def draw_progress(progress: dict[str, Any]) -> str:
    filled = progress["percentage"] * WIDTH // 100
    bar = "#" * filled + "." * (WIDTH - filled)
    line = f"[{bar}] {progress['percentage']:3d} %  {progress['message']}"
    if "bytes-total" in progress:
        done, total, rate = (progress[key] / 1e6 for key in ("bytes-done", "bytes-total", "rate"))
        line += f"  {done:.1f} of {total:.1f} MB" + (f", {rate:.1f} MB/s" if rate else "")  # 0: not known yet
    if "eta" in progress:
        line += f", {progress['eta']:.0f} s left"
    return line


def plain(value: Any) -> Any:
    """The value without D-Bus's variants."""
    value = getattr(value, "value", value)
    return {k: plain(v) for k, v in value.items()} if isinstance(value, dict) else value


class Kiosk:
    def __init__(self, bus: MessageBus) -> None:
        self.bus = bus
        self.values: dict[str, Any] = {}
        self.shown = ""
        self.restarted = asyncio.Event()
        bus.add_message_handler(self.hear)

    async def run(self) -> None:
        for rule in RULES:  # listen first, then look: nothing falls in between
            await self.bus.call(Message(*DBUS, "AddMatch", signature="s", body=[rule]))
        while True:
            self.restarted.clear()
            call = Message(NAME, PATH, PROPERTIES, "GetAll", signature="s", body=[INTERFACE])
            reply = await self.bus.call(call)
            running = reply is not None and reply.message_type is MessageType.METHOD_RETURN
            self.values = plain(reply.body[0]) if reply and running else {}
            self.show()
            await self.restarted.wait()

    async def beat(self, application: str) -> None:
        """Only what has really drawn is well.  The answer is no matter: perhaps nobody wants to know."""
        while True:
            if self.values:
                self.show()
            await self.bus.call(
                Message(NAME, PATH, INTERFACE, "Heartbeat", signature="s", body=[application])
            )
            await asyncio.sleep(BEAT)

    def hear(self, message: Message) -> None:
        if message.member == "NameOwnerChanged":
            self.restarted.set()
        elif message.member == "PropertiesChanged" and self.values:
            self.values |= plain(message.body[1])
            self.show()

    def show(self) -> None:
        line = draw(self.values)
        if line != self.shown:
            self.shown = line
            sys.stdout.write(f"\r{line:<100}" if sys.stdout.isatty() else f"{line}\n")
            sys.stdout.flush()


async def main() -> None:
    session = os.environ.get("DBUS_STARTER_BUS_TYPE") == "session"
    bus = await MessageBus(bus_type=BusType.SESSION if session else BusType.SYSTEM).connect()
    kiosk = Kiosk(bus)
    beats = [kiosk.beat(application) for application in sys.argv[1:]]
    await asyncio.gather(kiosk.run(), *beats, bus.wait_for_disconnect())  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    asyncio.run(main())
