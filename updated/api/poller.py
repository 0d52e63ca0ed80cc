"""`de.pengutronix.rauc.Poller` on `/`: a server that is looked at again and again.  It translates only.

Members and types: RAUC's de.pengutronix.rauc.Poller.xml and src/polling.c (1.16).  Exported only where
something is polled, as with RAUC.
"""

from __future__ import annotations

import asyncio

from updated.api import variants
from updated.api.port import Poller
from updated.api.rauc import PATH, error
from updated.api.wire import Body, Interface, Objects

INTERFACE = "de.pengutronix.rauc.Poller"

XML = """\
  <interface name="de.pengutronix.rauc.Poller">
    <method name="Poll"/>
    <property type="x" name="NextPoll" access="read"/>
    <property type="a{sv}" name="Status" access="read"/>
  </interface>
"""


class PollerInterface:
    """The method, and the properties as they are told: after an attempt both in one signal."""

    def __init__(self, poller: Poller, objects: Objects) -> None:
        self._poller = poller
        self._objects = objects
        self._told = self._values()
        self._loop = asyncio.get_running_loop()
        self._soon: asyncio.Handle | None = None
        getters = {name: lambda name=name: self._values()[name] for name in self._told}
        self._exported = objects.export(Interface(PATH, XML, {"Poll": self._poll}, getters, error))
        poller.subscribe(self._touch)

    def close(self) -> None:
        self._poller.subscribe(lambda: None)
        self._objects.withdraw(self._exported)
        if self._soon is not None:
            self._soon.cancel()

    def _poll(self) -> Body:
        self._poller.poll()
        self._tell()  # RAUC tells NextPoll before it answers
        return []

    def _touch(self) -> None:
        """Something is another: look at both once the poller has finished telling."""
        if self._soon is None:
            self._soon = self._loop.call_soon(self._tell)

    def _tell(self) -> None:
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        now = self._values()
        news = [name for name in now if now[name] != self._told[name]]
        self._told = now
        if news:
            self._exported.changed(*news)

    def _values(self) -> dict[str, object]:
        return {
            "NextPoll": self._poller.next_poll(),
            "Status": variants.poll_status(self._poller.status()),
        }
