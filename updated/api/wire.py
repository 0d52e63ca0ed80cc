"""Objects on a D-Bus connection that answer as GDBus does, to the letter.

dbus-fast's own ServiceInterface uses other error names and texts, announces an ObjectManager and takes calls
without an interface; RAUC's clients know GDBus.  So calls are answered here, from messages.  The XML is the
only description of an interface: signatures are read from it, and Introspect returns it.

Error names and texts were recorded from GLib 2.74 (`rauc service` 1.8); tests compare both services.
"""

from __future__ import annotations

import asyncio
import logging
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from dbus_fast import DBusError, Message, MessageFlag, MessageType, Variant
from dbus_fast.aio import MessageBus

from updated.api.bus import post

LOG = logging.getLogger(__name__)

MAX_CALLS = 64  # calls being worked on for all clients; a kiosk, a dashboard and a shell need a handful
MAX_CALLS_PER_CLIENT = 8  # so that one client cannot take all of them
MAX_UNSENT = 1024  # answers that the bus has not taken yet; later ones are dropped, or memory would grow
MAX_ERROR_TEXT = 4096  # characters; callers can put what they like into names that we echo

PROPERTIES = "org.freedesktop.DBus.Properties"
INTROSPECTABLE = "org.freedesktop.DBus.Introspectable"
PEER = "org.freedesktop.DBus.Peer"
INVALID_ARGS = "org.freedesktop.DBus.Error.InvalidArgs"
UNKNOWN_METHOD = "org.freedesktop.DBus.Error.UnknownMethod"
LIMITS_EXCEEDED = "org.freedesktop.DBus.Error.LimitsExceeded"
FAILED = "org.freedesktop.DBus.Error.Failed"

HEAD = """\
<!DOCTYPE node PUBLIC "-//freedesktop//DTD D-BUS Object Introspection 1.0//EN"
                      "http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd">
<node>
"""
STANDARD = """\
  <interface name="org.freedesktop.DBus.Properties">
    <method name="Get">
      <arg type="s" name="interface_name" direction="in"/>
      <arg type="s" name="property_name" direction="in"/>
      <arg type="v" name="value" direction="out"/>
    </method>
    <method name="GetAll">
      <arg type="s" name="interface_name" direction="in"/>
      <arg type="a{sv}" name="properties" direction="out"/>
    </method>
    <method name="Set">
      <arg type="s" name="interface_name" direction="in"/>
      <arg type="s" name="property_name" direction="in"/>
      <arg type="v" name="value" direction="in"/>
    </method>
    <signal name="PropertiesChanged">
      <arg type="s" name="interface_name"/>
      <arg type="a{sv}" name="changed_properties"/>
      <arg type="as" name="invalidated_properties"/>
    </signal>
  </interface>
  <interface name="org.freedesktop.DBus.Introspectable">
    <method name="Introspect">
      <arg type="s" name="xml_data" direction="out"/>
    </method>
  </interface>
  <interface name="org.freedesktop.DBus.Peer">
    <method name="Ping"/>
    <method name="GetMachineId">
      <arg type="s" name="machine_uuid" direction="out"/>
    </method>
  </interface>
"""

Body = Sequence[object]
Handler = Callable[..., "Body | Awaitable[Body]"]
"""Takes the arguments of the call.  A plain function is answered before the next call is looked at.

Raises what `Interface.error` knows, or a DBusError as it is to be sent.
"""


def text(value: str) -> str:
    """`value` as a D-Bus string: valid UTF-8 without NUL (D-Bus specification, "Valid strings")."""
    return value.replace("\0", "�").encode("utf-8", "replace").decode()


@dataclass(frozen=True, slots=True)
class Interface:
    """One interface at one path, and who answers for it."""

    path: str
    xml: str  # the <interface> element
    handlers: Mapping[str, Handler]
    getters: Mapping[str, Callable[[], object]]
    error: Callable[[str, Exception], tuple[str, str] | None]
    """(method, what was raised) -> (error name, text); None: it is a bug."""
    with_sender: Collection[str] = ()
    """Methods whose handler takes the unique name of the caller before the arguments."""

    @property
    def name(self) -> str:
        return ET.fromstring(self.xml).attrib["name"]

    def signatures(self, member: str, direction: str) -> dict[str, str]:
        """Name -> joined types of the arguments with `direction` of all `member` (method, signal)."""
        return {
            element.attrib["name"]: "".join(
                arg.attrib["type"] for arg in element if arg.get("direction", "") == direction
            )
            for element in ET.fromstring(self.xml).iter(member)
        }

    def property_types(self) -> dict[str, str]:
        return {e.attrib["name"]: e.attrib["type"] for e in ET.fromstring(self.xml).iter("property")}


class Exported:
    """An interface on a connection: what its owner uses to speak."""

    def __init__(self, bus: MessageBus, interface: Interface) -> None:
        self.bus = bus
        self.interface = interface
        self.name = interface.name
        self.inputs = interface.signatures("method", "in")
        self.outputs = interface.signatures("method", "out")
        self.signals = interface.signatures("signal", "")
        self.types = interface.property_types()

    def get(self, name: str) -> Variant:
        return Variant(self.types[name], self.interface.getters[name]())

    def get_all(self) -> dict[str, Variant]:
        return {name: self.get(name) for name in self.types}

    def emit(self, signal: str, *body: object) -> None:
        """Send a signal; nothing happens once the bus is gone."""
        path, name = self.interface.path, self.name
        post(self.bus, Message.new_signal(path, name, signal, self.signals[signal], [*body]))

    def changed(self, *names: str) -> None:
        """Tell the present values of properties.  The invalidated array stays empty: RAUC's clients take
        anything in it for the end of the service."""
        path, body = self.interface.path, [self.name, {name: self.get(name) for name in names}, []]
        post(self.bus, Message.new_signal(path, PROPERTIES, "PropertiesChanged", "sa{sv}as", body))


class Objects:
    """All interfaces of one connection."""

    def __init__(self, bus: MessageBus) -> None:
        self._bus = bus
        self._exported: dict[tuple[str, str], Exported] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._calls: Counter[str] = Counter()
        self._unsent = 0
        bus.add_message_handler(self._handle)

    def export(self, interface: Interface) -> Exported:
        exported = Exported(self._bus, interface)
        self._exported[interface.path, exported.name] = exported
        return exported

    def withdraw(self, exported: Exported) -> None:
        """It is not there any more; what it works on is still answered."""
        self._exported = {key: each for key, each in self._exported.items() if each is not exported}

    async def close(self) -> None:
        """Stop the calls that are being worked on; their callers see the connection close."""
        self._bus.remove_message_handler(self._handle)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _handle(self, call: Message) -> bool:
        if call.message_type is not MessageType.METHOD_CALL:
            return False
        try:
            self._dispatch(call)
        except DBusError as error:
            self._error(call, error.type, error.text)
        return True

    def _dispatch(self, call: Message) -> None:
        path, interface, member = call.path or "", call.interface, call.member or ""
        match interface, member, call.signature:
            case "org.freedesktop.DBus.Introspectable", "Introspect", "":
                return self._reply(call, "s", [self._introspect(path)])
            case "org.freedesktop.DBus.Peer", "Ping", "":
                return self._reply(call, "", [])
            case "org.freedesktop.DBus.Peer", "GetMachineId", "":
                return self._start(call, "s", self._machine_id())
        if interface is None or not any(known == path for known, _ in self._exported):
            raise DBusError(UNKNOWN_METHOD, f"Object does not exist at path “{path}”")
        match interface, member, call.signature:
            case "org.freedesktop.DBus.Properties", "Get", "ss":
                return self._reply(call, "v", [self._property(path, *call.body).get(call.body[1])])
            case "org.freedesktop.DBus.Properties", "GetAll", "s":
                return self._reply(call, "a{sv}", [self._interface(path, call.body[0]).get_all()])
            case "org.freedesktop.DBus.Properties", "Set", "ssv":
                self._property(path, *call.body[:2])
                raise DBusError(INVALID_ARGS, f"Property “{call.body[1]}” is not writable")
        return self._method(call, path, interface, member)

    def _method(self, call: Message, path: str, interface: str, member: str) -> None:
        exported = self._exported.get((path, interface))
        if exported is None:
            raise DBusError(UNKNOWN_METHOD, f"No such interface “{interface}” on object at path {path}")
        if member not in exported.inputs:
            raise DBusError(UNKNOWN_METHOD, f"No such method “{member}”")
        expected = exported.inputs[member]
        if call.signature != expected:
            got = f"Type of message, “({call.signature})”, does not match expected type “({expected})”"
            raise DBusError(INVALID_ARGS, got)
        sender = [call.sender or ""] if member in exported.interface.with_sender else []
        try:
            result = exported.interface.handlers[member](*sender, *call.body)
        except Exception as error:  # noqa: BLE001  a bug of ours must not end the connection
            return self._failed(call, error)
        if isinstance(result, Awaitable):
            return self._start(call, exported.outputs[member], result)
        return self._reply(call, exported.outputs[member], result)

    def _interface(self, path: str, name: str) -> Exported:
        exported = self._exported.get((path, name))
        if exported is None:
            raise DBusError(INVALID_ARGS, f"No such interface “{name}”")
        return exported

    def _property(self, path: str, interface: str, name: str) -> Exported:
        exported = self._interface(path, interface)
        if name not in exported.types:
            raise DBusError(INVALID_ARGS, f"No such property “{name}”")
        return exported

    def _introspect(self, path: str) -> str:
        own = [e.interface.xml for (known, _), e in self._exported.items() if known == path]
        prefix = path.rstrip("/") + "/"
        below = {
            known.removeprefix(prefix).partition("/")[0]
            for known, _ in self._exported
            if known.startswith(prefix) and known != path
        }
        nodes = "".join(f'  <node name="{name}"/>\n' for name in sorted(below))
        return HEAD + (STANDARD if own else "") + "".join(own) + nodes + "</node>\n"

    async def _machine_id(self) -> Body:
        daemon = Message("org.freedesktop.DBus", "/org/freedesktop/DBus", PEER, "GetMachineId")
        return (await self._bus.call(daemon)).body

    def _start(self, call: Message, signature: str, result: Awaitable[Body]) -> None:
        sender = call.sender or ""
        if len(self._tasks) >= MAX_CALLS or self._calls[sender] >= MAX_CALLS_PER_CLIENT:
            if asyncio.iscoroutine(result):
                result.close()
            raise DBusError(LIMITS_EXCEEDED, "Too many calls at the same time")
        self._calls[sender] += 1
        task = asyncio.create_task(self._finish(call, signature, result))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _finish(self, call: Message, signature: str, result: Awaitable[Body]) -> None:
        try:
            self._reply(call, signature, await result)
        except Exception as error:  # noqa: BLE001  a bug of ours must not end the connection
            self._failed(call, error)
        finally:
            sender = call.sender or ""
            self._calls[sender] -= 1
            if not self._calls[sender]:
                del self._calls[sender]

    def _failed(self, call: Message, error: Exception) -> None:
        if isinstance(error, DBusError):
            return self._error(call, error.type, error.text)
        exported = self._exported.get((call.path or "", call.interface or ""))
        known = exported and exported.interface.error(call.member or "", error)
        if known:
            return self._error(call, *known)
        LOG.error("%s.%s failed", call.interface, call.member, exc_info=error)
        return self._error(call, FAILED, f"internal error: {type(error).__name__}")

    def _error(self, call: Message, name: str, message: str) -> None:
        self._answer(call, Message.new_error(call, name, text(message[:MAX_ERROR_TEXT])))

    def _reply(self, call: Message, signature: str, body: Body) -> None:
        self._answer(call, Message.new_method_return(call, signature, [*body]))

    def _answer(self, call: Message, answer: Message) -> None:
        if call.flags & MessageFlag.NO_REPLY_EXPECTED:
            return
        if self._unsent >= MAX_UNSENT:
            LOG.warning("the bus does not take answers: dropped one to %s", call.sender)
            return
        sent = post(self._bus, answer)
        if sent is not None:
            self._unsent += 1
            sent.add_done_callback(self._sent)

    def _sent(self, _future: asyncio.Future[None]) -> None:
        self._unsent -= 1
