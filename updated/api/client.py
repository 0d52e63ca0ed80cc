"""What the command line asks of a running service: ours, or any other that speaks RAUC's interface."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from dbus_fast import Message, Variant
from dbus_fast.aio import MessageBus

from updated.api import agent as agent1
from updated.api import poller, rauc
from updated.api.bus import CALL_TIMEOUT, ask, connect, disconnect
from updated.api.watch import Step, Watch, departure, plain
from updated.api.wire import PROPERTIES
from updated.core.model import Access, InstallArgs
from updated.errors import DeviceError, UpdatedError

INSPECT_TIMEOUT = 1800.0  # seconds; a plain bundle is hashed as a whole: 2 GiB at little more than 1 MB/s


@dataclass(frozen=True, slots=True)
class System:
    """The properties of RAUC's interface.  Those that a service does not have are empty."""

    operation: str
    last_error: str
    progress: tuple[int, str, int]  # percentage, message, depth
    compatible: str
    variant: str
    system_version: str
    boot_slot: str


@dataclass(frozen=True, slots=True)
class SlotInfo:
    """One slot of GetSlotStatus; the keys of `values` are RAUC's (`state`, `installed.count`, ...)."""

    name: str
    values: Mapping[str, str | int]


@dataclass(frozen=True, slots=True)
class Status:
    """The properties of our own interface; keys as in docs/dbus.md."""

    state: str
    detail: str
    progress: Mapping[str, Any]
    transaction: Mapping[str, Any]
    last_result: Mapping[str, Any]
    paused: bool = False
    hold: Mapping[str, Any] = field(default_factory=dict)
    floor: str = ""
    health: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Polled:
    """The properties of RAUC's Poller."""

    next_poll: int  # microseconds of CLOCK_BOOTTIME; 0: none is planned
    status: Mapping[str, Any]  # keys are RAUC's (`attempt-count`, `summary`, ...)


class Client:
    """A connection to the service.  All methods raise UpdatedError with the text of the service.

    `async with Client() as client: ...`
    """

    def __init__(self, address: str | None = None) -> None:
        self._address = address
        self._bus: MessageBus | None = None

    async def __aenter__(self) -> Client:
        """Raises DeviceError if there is no bus."""
        self._bus = await connect(self._address)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bus is not None:
            await disconnect(self._bus)

    async def system(self) -> System:
        values = plain((await self._properties()).body[0])
        percentage, message, depth = values.get("Progress", (0, "", 0))
        return System(
            operation=values.get("Operation", ""),
            last_error=values.get("LastError", ""),
            progress=(percentage, message, depth),
            compatible=values.get("Compatible", ""),
            variant=values.get("Variant", ""),
            system_version=values.get("SystemVersion", ""),
            boot_slot=values.get("BootSlot", ""),
        )

    async def slots(self) -> Sequence[SlotInfo]:
        body = await self._rauc("GetSlotStatus")
        return [SlotInfo(name, plain(values)) for name, values in body[0]]

    async def primary(self) -> str:
        return str((await self._rauc("GetPrimary"))[0])

    async def mark(self, state: str, identifier: str) -> tuple[str, str]:
        """(slot names joined by blanks, message)"""
        names, message = await self._rauc("Mark", "ss", state, identifier)
        return names, message

    async def info(self, bundle: str) -> tuple[str, str]:
        """(compatible, version)"""
        compatible, version = await self._rauc("Info", "s", bundle, timeout=INSPECT_TIMEOUT)
        return compatible, version

    async def inspect(self, bundle: str) -> Mapping[str, Any]:
        """The `info` dictionary of InspectBundle without its variants.  RAUC 1.8 does not have it."""
        body = await self._rauc("InspectBundle", "sa{sv}", bundle, {}, timeout=INSPECT_TIMEOUT)
        info: Mapping[str, Any] = plain(body[0])
        return info

    async def install(
        self,
        source: str,
        args: InstallArgs = InstallArgs(),  # noqa: B008  frozen
        access: Access = Access(),  # noqa: B008  frozen
    ) -> AsyncIterator[Step]:
        """Install `source` (absolute path or URL) and yield progress; returns when it succeeded.

        Raises UpdatedError with the service's LastError if it failed, or with its refusal (busy), and
        DeviceError if the service ends on the way.  Close the iterator to stop watching; the install goes on.
        """
        watch = Watch(self._connected(), (await self._properties()).sender or "")
        async with watch:
            # What is at its default is not sent: older services refuse keys that they do not know.
            await self._rauc("InstallBundle", "sa{sv}", source, _wire_args(args, access))
            watch.accepted()
            async for step in watch.steps():
                yield step
        if watch.result:
            error = watch.last_error or (await self.system()).last_error
            raise UpdatedError(error or f"Installing {source} failed")

    async def status(self) -> Status:
        reply = await self._call(agent1.BUS_NAME, agent1.PATH, PROPERTIES, "GetAll", "s", agent1.INTERFACE)
        values = plain(reply.body[0])
        return Status(
            state=values["State"],
            detail=values["Detail"],
            progress=values["Progress"],
            transaction=values["Transaction"],
            last_result=values["LastResult"],
            paused=values.get("Paused", False),
            hold=values.get("Hold", {}),
            floor=values.get("Floor", ""),
            health=values.get("Health", {}),
        )

    async def cancel(self) -> None:
        await self._agent1("Cancel")

    async def pause(self) -> None:
        await self._agent1("Pause")

    async def resume(self) -> None:
        await self._agent1("Resume")

    async def why(self) -> Sequence[str]:
        """Sentences, the most important first."""
        reasons: Sequence[str] = (await self._agent1("Why"))[0]
        return reasons

    async def consent(self, stage: str, allow: bool) -> None:
        """`stage`: install or reboot."""
        await self._agent1("Consent", "sb", stage, allow)

    @asynccontextmanager
    async def holding(self, who: str, why: str, seconds: int) -> AsyncIterator[asyncio.Event]:
        """Hold off what nobody asked for by hand, for `seconds` at most.

        The event is set when the service goes away, and the hold with it.
        """
        async with departure(self._connected(), agent1.BUS_NAME) as gone:
            number = int((await self._agent1("Inhibit", "ssu", who, why, seconds))[0])
            try:
                yield gone
            finally:
                if not gone.is_set():
                    with suppress(UpdatedError):  # its time may be over
                        await self._agent1("Release", "u", number)

    async def reset_floor(self) -> None:
        await self._agent1("ResetFloor")

    async def heartbeat(self, application: str) -> None:
        await self._agent1("Heartbeat", "s", application)

    async def health(self, limit: int) -> Sequence[Mapping[str, Any]]:
        """How healthy the last boots were, the newest first; keys as in docs/dbus.md."""
        judgements: Sequence[Mapping[str, Any]] = plain((await self._agent1("GetHealth", "u", limit))[0])
        return judgements

    async def quarantine(self) -> Sequence[Mapping[str, Any]]:
        """The newest first; keys as in docs/dbus.md."""
        bundles: Sequence[Mapping[str, Any]] = plain((await self._agent1("GetQuarantine"))[0])
        return bundles

    async def lift(self, manifest_hash: str) -> int:
        """ "" is all of them; returns how many."""
        return int((await self._agent1("Lift", "s", manifest_hash))[0])

    async def reboot(self) -> None:
        await self._agent1("Reboot")

    async def poll(self) -> None:
        """Ask for a poll soon."""
        await self._call(rauc.BUS_NAME, rauc.PATH, poller.INTERFACE, "Poll", "")

    async def polled(self) -> Polled:
        """Raises UpdatedError if nothing is polled."""
        try:
            reply = await self._call(rauc.BUS_NAME, rauc.PATH, PROPERTIES, "GetAll", "s", poller.INTERFACE)
        except UpdatedError as error:
            if str(error) != f"No such interface “{poller.INTERFACE}”":
                raise
            hint = "`[ota] index` of updated.toml, or `[polling]` of system.conf, names a server."
            raise UpdatedError("Nothing is polled", hint=hint) from error
        values = plain(reply.body[0])
        return Polled(values["NextPoll"], values["Status"])

    async def confirm(self) -> None:
        await self._agent1("Confirm")

    async def rollback(self) -> str:
        """Name of the group that starts next."""
        return str((await self._agent1("Rollback"))[0])

    async def history(self, limit: int) -> Sequence[Mapping[str, str]]:
        """The newest first; keys as in docs/dbus.md."""
        outcomes: Sequence[Mapping[str, str]] = plain((await self._agent1("GetHistory", "u", limit))[0])
        return outcomes

    def _connected(self) -> MessageBus:
        if self._bus is None:
            raise DeviceError("Not connected to the bus")
        return self._bus

    async def _properties(self) -> Message:
        """Starts the service where the bus can do that; the sender of the answer is its unique name."""
        return await self._call(rauc.BUS_NAME, rauc.PATH, PROPERTIES, "GetAll", "s", rauc.INTERFACE)

    async def _rauc(self, member: str, signature: str = "", *body: Any, timeout: float = CALL_TIMEOUT) -> Any:
        reply = await self._call(
            rauc.BUS_NAME, rauc.PATH, rauc.INTERFACE, member, signature, *body, timeout=timeout
        )
        return reply.body

    async def _agent1(self, member: str, signature: str = "", *body: Any) -> Any:
        return (
            await self._call(agent1.BUS_NAME, agent1.PATH, agent1.INTERFACE, member, signature, *body)
        ).body

    async def _call(
        self,
        name: str,
        path: str,
        interface: str,
        member: str,
        signature: str,
        *body: Any,
        timeout: float = CALL_TIMEOUT,
    ) -> Message:
        call = Message(name, path, interface, member, signature=signature, body=[*body])
        return await ask(self._connected(), call, timeout)


def _wire_args(args: InstallArgs, access: Access) -> dict[str, Variant]:
    known = {
        "ignore-compatible": Variant("b", args.ignore_compatible),
        "ignore-version-limit": Variant("b", args.ignore_version_limit),
        "transaction-id": Variant("s", args.transaction_id),
        "require-manifest-hash": Variant("s", args.require_manifest_hash),
        "tls-cert": Variant("s", access.tls_cert),
        "tls-key": Variant("s", access.tls_key),
        "tls-ca": Variant("s", access.tls_ca),
        "tls-no-verify": Variant("b", access.tls_no_verify),
        "http-headers": Variant("as", [*access.headers]),
    }
    return {key: value for key, value in known.items() if value.value}
