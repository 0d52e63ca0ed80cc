"""`de.pengutronix.rauc.Installer` on `/`: what RAUC's clients speak.  It translates, and decides nothing.

Members, types and order on the wire: RAUC's de.pengutronix.rauc.Installer.xml and src/service.c (1.16),
recorded from a real service.  One thing is better: reads are answered while an install is running.
"""

from __future__ import annotations

from collections.abc import Mapping

from dbus_fast import Variant

from updated.api import variants
from updated.api.port import Agent
from updated.api.wire import Body, Handler, Interface, Objects, text
from updated.core.link import header
from updated.core.model import Access, InstallArgs, Offer, Transfer
from updated.errors import Refused, UpdatedError

BUS_NAME = "de.pengutronix.rauc"
PATH = "/"
INTERFACE = "de.pengutronix.rauc.Installer"
APPLICATION_ERROR = "org.gtk.GDBus.UnmappedGError.Quark._g_2dio_2derror_2dquark.Code30"
MAX_ARGUMENT = 4096  # characters of a path, a URL, a slot name, a header or an identifier; PATH_MAX
MAX_HEADERS = 32  # HTTP headers of one call; more than any server takes notice of

XML = """\
  <interface name="de.pengutronix.rauc.Installer">
    <method name="Install">
      <arg type="s" name="source" direction="in"/>
    </method>
    <method name="InstallBundle">
      <annotation name="org.qtproject.QtDBus.QtTypeName.In1" value="QVariantMap"/>
      <arg type="s" name="source" direction="in"/>
      <arg type="a{sv}" name="args" direction="in"/>
    </method>
    <method name="Info">
      <arg type="s" name="bundle" direction="in"/>
      <arg type="s" name="compatible" direction="out"/>
      <arg type="s" name="version" direction="out"/>
    </method>
    <method name="InspectBundle">
      <annotation name="org.qtproject.QtDBus.QtTypeName.In1" value="QVariantMap"/>
      <annotation name="org.qtproject.QtDBus.QtTypeName.Out0" value="QVariantMap"/>
      <arg type="s" name="source" direction="in"/>
      <arg type="a{sv}" name="args" direction="in"/>
      <arg type="a{sv}" name="info" direction="out"/>
    </method>
    <method name="Mark">
      <arg type="s" name="state" direction="in"/>
      <arg type="s" name="slot_identifier" direction="in"/>
      <arg type="s" name="slot_name" direction="out"/>
      <arg type="s" name="message" direction="out"/>
    </method>
    <method name="GetSlotStatus">
      <annotation name="org.qtproject.QtDBus.QtTypeName.Out0" value="RaucSlotStatusArray"/>
      <arg type="a(sa{sv})" name="slot_status_array" direction="out"/>
    </method>
    <method name="GetArtifactStatus">
      <annotation name="org.qtproject.QtDBus.QtTypeName.Out0" value="QList&lt;QVariantMap&gt;"/>
      <arg type="aa{sv}" name="artifacts" direction="out"/>
    </method>
    <method name="GetPrimary">
      <arg type="s" name="primary" direction="out"/>
    </method>
    <signal name="Completed">
      <arg type="i" name="result"/>
    </signal>
    <property type="s" name="Operation" access="read"/>
    <property type="s" name="LastError" access="read"/>
    <property type="(isi)" name="Progress" access="read">
      <annotation name="org.qtproject.QtDBus.QtTypeName" value="RaucProgress"/>
    </property>
    <property type="s" name="Compatible" access="read"/>
    <property type="s" name="Variant" access="read"/>
    <property type="s" name="SystemVersion" access="read"/>
    <property type="s" name="BootSlot" access="read"/>
  </interface>
"""

ACCESS_ARGS = {"tls-cert": "s", "tls-key": "s", "tls-ca": "s", "tls-no-verify": "b", "http-headers": "as"}
INSTALL_ARGS = {
    "ignore-compatible": "b",
    "ignore-version-limit": "b",
    "transaction-id": "s",
    "require-manifest-hash": "s",
}


def checked(argument: str) -> str:
    """Raises UpdatedError if longer than a path can be."""
    if len(argument) > MAX_ARGUMENT:
        raise UpdatedError(
            f"Argument too long: expected at most {MAX_ARGUMENT} characters, got {len(argument)}"
        )
    return argument


def check_args(args: Mapping[str, Variant], allowed: Mapping[str, str]) -> None:
    """Raises UpdatedError for a key that is unknown or has another type, in RAUC's words."""
    for key, value in args.items():
        if allowed.get(key) != value.signature:
            raise UpdatedError(f"Unsupported key: {key}")


def install_args(args: Mapping[str, Variant]) -> InstallArgs:
    """What InstallBundle may be asked beside `access`."""
    check_args(args, INSTALL_ARGS | ACCESS_ARGS)
    known = {key: value.value for key, value in args.items()}
    return InstallArgs(
        ignore_compatible=known.get("ignore-compatible", False),
        ignore_version_limit=known.get("ignore-version-limit", False),
        transaction_id=checked(known.get("transaction-id", "")),
        require_manifest_hash=checked(known.get("require-manifest-hash", "")),
    )


def access(args: Mapping[str, Variant]) -> Access:
    """How the server is to be reached.  Accepted for a local path, too, and of no use to it.

    `args` are checked.  Raises UpdatedError for what is no HTTP header: RAUC's client library would send it.
    """
    known = {key: value.value for key, value in args.items()}
    headers = known.get("http-headers", [])
    if len(headers) > MAX_HEADERS:
        raise UpdatedError(f"Too many HTTP headers: expected at most {MAX_HEADERS}, got {len(headers)}")
    for line in headers:
        header(checked(line))
    return Access(
        tls_cert=checked(known.get("tls-cert", "")),
        tls_key=checked(known.get("tls-key", "")),
        tls_ca=checked(known.get("tls-ca", "")),
        tls_no_verify=known.get("tls-no-verify", False),
        headers=tuple(headers),
    )


def error(method: str, raised: Exception) -> tuple[str, str] | None:
    """RAUC's error name and texts; InstallBundle says `Already`, all others `already`."""
    if not isinstance(raised, UpdatedError):
        return None
    if isinstance(raised, Refused) and raised.rule == "busy":
        word = "Already" if method.startswith("Install") else "already"
        return APPLICATION_ERROR, f"{word} processing a different method"
    return APPLICATION_ERROR, str(raised)


class RaucInterface:
    """The methods, and a Listener that puts what the service tells on the wire."""

    def __init__(self, agent: Agent, objects: Objects) -> None:
        self._agent = agent
        snapshot = agent.snapshot()
        self._values: dict[str, object] = {
            "Operation": snapshot.operation,
            "LastError": text(snapshot.last_error),
            "Progress": _triple(*snapshot.progress),
        }
        handlers: dict[str, Handler] = {
            "Install": self._install,
            "InstallBundle": self._install,
            "Info": self._info,
            "InspectBundle": self._inspect,
            "Mark": self._mark,
            "GetSlotStatus": self._slot_status,
            "GetArtifactStatus": lambda: [[]],  # there are no artifact repositories
            "GetPrimary": self._primary,
        }
        getters = {
            "Operation": lambda: self._values["Operation"],
            "LastError": lambda: self._values["LastError"],
            "Progress": lambda: self._values["Progress"],
            "Compatible": lambda: text(agent.system.compatible),
            "Variant": lambda: text(agent.system.variant),
            "SystemVersion": lambda: text(agent.system.system_version),
            "BootSlot": lambda: text(agent.system.boot_slot),
        }
        self._exported = objects.export(Interface(PATH, XML, handlers, getters, error))

    def _install(self, source: str, args: Mapping[str, Variant] | None = None) -> Body:
        args = args or {}
        self._agent.submit(Offer("request", checked(source), install_args(args), access(args)))
        return []

    async def _info(self, bundle: str) -> Body:
        manifest = await self._agent.inspect(checked(bundle))
        return [text(manifest.compatible), text(manifest.version or "")]

    async def _inspect(self, source: str, args: Mapping[str, Variant]) -> Body:
        check_args(args, ACCESS_ARGS)
        return [variants.manifest(await self._agent.inspect(checked(source), access(args)))]

    async def _mark(self, state: str, identifier: str) -> Body:
        names, message = await self._agent.mark(checked(state), checked(identifier))
        return [text(names), text(message)]

    async def _slot_status(self) -> Body:
        return [[[text(r.slot.name), variants.slot(r)] for r in await self._agent.slots()]]

    async def _primary(self) -> Body:
        try:
            return [text(await self._agent.primary())]
        except UpdatedError as reason:
            raise UpdatedError(f"Failed getting primary slot: {reason}\n") from reason

    def _set(self, name: str, value: object) -> None:
        """One property, one signal: RAUC's clients look at one key of each."""
        if self._values[name] != value:
            self._values[name] = value
            self._exported.changed(name)

    def operation(self, operation: str) -> None:
        self._set("Operation", operation)

    def step(self, percentage: int, message: str, depth: int) -> None:
        self._set("Progress", _triple(percentage, message, depth))

    def last_error(self, message: str) -> None:
        self._set("LastError", text(message))

    def completed(self, result: int) -> None:
        self._exported.emit("Completed", result)

    def state(self, state: str, detail: str) -> None:
        """RAUC has no word for it."""

    def transfer(self, transfer: Transfer) -> None:
        """RAUC has no word for it."""


def _triple(percentage: int, message: str, depth: int) -> tuple[int, str, int]:
    return percentage, text(message), depth
