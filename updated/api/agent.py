"""`org.updated.Agent1` on `/org/updated/Agent1`: what RAUC's interface has no word for (docs/dbus.md).

States, bytes and times of a transfer, the running transaction, how the last one ended and the history;
cancel, pause, confirm, rollback, reboot; what waits and why, consent and holds; health and quarantine.
It translates, and decides nothing.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import cast

from dbus_fast import DBusError, Variant

from updated import errors
from updated.api import variants
from updated.api.owners import Owners
from updated.api.port import Agent, Snapshot
from updated.api.rauc import access, checked, install_args
from updated.api.wire import INVALID_ARGS, Body, Handler, Interface, Objects, text
from updated.core.gate import Stage
from updated.core.model import Offer, Transfer
from updated.errors import UpdatedError

BUS_NAME = "org.updated.Agent1"
PATH = "/org/updated/Agent1"
INTERFACE = "org.updated.Agent1"
PROGRESS_PERIOD = 0.1  # seconds between two ProgressChanged; faster than the eye is a waste of wake-ups
MAX_HISTORY = 1000  # outcomes in one answer
MAX_REASON = 200  # characters of `who` and `why`; they are shown on one line
STAGES = ("install", "reboot")

XML = """\
  <interface name="org.updated.Agent1">
    <method name="Install">
      <arg type="s" name="source" direction="in"/>
      <arg type="a{sv}" name="args" direction="in"/>
      <arg type="s" name="transaction" direction="out"/>
    </method>
    <method name="Cancel"/>
    <method name="Pause"/>
    <method name="Resume"/>
    <method name="Confirm"/>
    <method name="Rollback">
      <arg type="s" name="group" direction="out"/>
    </method>
    <method name="GetHistory">
      <arg type="u" name="limit" direction="in"/>
      <arg type="aa{sv}" name="outcomes" direction="out"/>
    </method>
    <method name="Why">
      <arg type="as" name="reasons" direction="out"/>
    </method>
    <method name="Consent">
      <arg type="s" name="stage" direction="in"/>
      <arg type="b" name="allow" direction="in"/>
    </method>
    <method name="Inhibit">
      <arg type="s" name="who" direction="in"/>
      <arg type="s" name="why" direction="in"/>
      <arg type="u" name="seconds" direction="in"/>
      <arg type="u" name="number" direction="out"/>
    </method>
    <method name="Release">
      <arg type="u" name="number" direction="in"/>
    </method>
    <method name="ResetFloor"/>
    <method name="Heartbeat">
      <arg type="s" name="application" direction="in"/>
    </method>
    <method name="GetHealth">
      <arg type="u" name="limit" direction="in"/>
      <arg type="aa{sv}" name="judgements" direction="out"/>
    </method>
    <method name="GetQuarantine">
      <arg type="aa{sv}" name="bundles" direction="out"/>
    </method>
    <method name="Lift">
      <arg type="s" name="manifest_hash" direction="in"/>
      <arg type="u" name="lifted" direction="out"/>
    </method>
    <method name="Reboot"/>
    <signal name="StateChanged">
      <arg type="s" name="state"/>
      <arg type="s" name="detail"/>
    </signal>
    <signal name="ProgressChanged">
      <arg type="a{sv}" name="progress"/>
    </signal>
    <property type="s" name="State" access="read"/>
    <property type="s" name="Detail" access="read"/>
    <property type="a{sv}" name="Progress" access="read"/>
    <property type="a{sv}" name="Transaction" access="read"/>
    <property type="a{sv}" name="LastResult" access="read"/>
    <property type="b" name="Paused" access="read"/>
    <property type="a{sv}" name="Hold" access="read"/>
    <property type="s" name="Floor" access="read"/>
    <property type="a{sv}" name="Health" access="read"/>
  </interface>
"""

# Who must act, as the last word of the error name.
ERRORS = {
    errors.SignatureError: "Signature",
    errors.BundleError: "Bundle",
    errors.SourceError: "Source",
    errors.DeviceError: "Device",
    errors.ConfigError: "Config",
    errors.NotSupportedError: "NotSupported",
    errors.Refused: "Refused",
    errors.Cancelled: "Cancelled",
}


def error(_method: str, raised: Exception) -> tuple[str, str] | None:
    """`org.updated.Error.<who>`; the hint follows the message in brackets."""
    if not isinstance(raised, UpdatedError):
        return None
    kind = next((name for of, name in ERRORS.items() if isinstance(raised, of)), "Failed")
    hint = f" ({raised.hint})" if raised.hint else ""
    return f"org.updated.Error.{kind}", f"{raised}{hint}"


def values(snapshot: Snapshot) -> dict[str, object]:
    """All properties by name."""
    return {
        "State": text(snapshot.state),
        "Detail": text(snapshot.detail),
        "Progress": variants.progress(snapshot),
        "Transaction": variants.transaction(snapshot.transaction),
        "LastResult": variants.outcome(snapshot.last),
        "Paused": snapshot.paused,
        "Hold": variants.hold(snapshot.hold),
        "Floor": text(snapshot.floor),
        "Health": variants.judgement(snapshot.health),
    }


class AgentInterface:
    """The methods, and a Listener that tells what is different from what was told before."""

    def __init__(self, agent: Agent, objects: Objects) -> None:
        self._agent = agent
        self._told = values(agent.snapshot())
        self._state = agent.snapshot().state, agent.snapshot().detail  # as the last signal told it
        self._loop = asyncio.get_running_loop()
        self._soon: asyncio.Handle | None = None
        self._later: asyncio.TimerHandle | None = None
        self._next_progress = 0.0  # loop time
        handlers: dict[str, Handler] = {
            "Install": self._install,
            "Cancel": self._cancel,
            "Pause": self._pause,
            "Resume": self._resume,
            "Confirm": self._confirm,
            "Rollback": self._rollback,
            "GetHistory": self._history,
            "Why": self._why,
            "Consent": self._consent,
            "Inhibit": self._inhibit,
            "Release": self._release,
            "ResetFloor": self._reset_floor,
            "Heartbeat": self._heartbeat,
            "GetHealth": self._health,
            "GetQuarantine": self._quarantine,
            "Lift": self._lift,
            "Reboot": self._reboot,
        }
        getters = {name: lambda name=name: values(agent.snapshot())[name] for name in self._told}
        interface = Interface(PATH, XML, handlers, getters, error, with_sender=("Inhibit",))
        self._exported = objects.export(interface)
        self._owners = Owners(self._exported.bus, agent.forget_owner)

    def close(self) -> None:
        self._owners.close()
        for handle in (self._soon, self._later):
            if handle is not None:
                handle.cancel()

    def _install(self, source: str, args: Mapping[str, Variant]) -> Body:
        wanted = install_args(args)
        wanted = replace(wanted, transaction_id=wanted.transaction_id or str(uuid.uuid4()))
        self._agent.submit(Offer("request", checked(source), wanted, access(args)))
        return [wanted.transaction_id]

    async def _cancel(self) -> Body:
        await self._agent.cancel()
        return []

    def _pause(self) -> Body:
        self._agent.pause()
        return []

    def _resume(self) -> Body:
        self._agent.resume()
        return []

    async def _confirm(self) -> Body:
        await self._agent.confirm()
        return []

    async def _rollback(self) -> Body:
        return [text(await self._agent.rollback())]

    def _history(self, limit: int) -> Body:
        return [[variants.outcome(o) for o in self._agent.history(min(limit, MAX_HISTORY))]]

    async def _why(self) -> Body:
        return [[text(reason) for reason in await self._agent.why()]]

    async def _consent(self, stage: str, allow: bool) -> Body:
        if stage not in STAGES:
            expected = " or ".join(f"“{known}”" for known in STAGES)
            raise DBusError(INVALID_ARGS, f"Unknown stage “{stage}”, expected {expected}")
        await self._agent.consent(cast("Stage", stage), allow)
        return []

    async def _inhibit(self, sender: str, who: str, why: str, seconds: int) -> Body:
        if seconds == 0:
            raise DBusError(INVALID_ARGS, "A hold lasts at least 1 second, got 0")
        self._owners.check_room()
        number = self._agent.inhibit(_line("who", who), _line("why", why), seconds, sender)
        try:
            await self._owners.keep(number, sender, seconds)
        except UpdatedError:
            self._owners.drop(number)
            self._agent.release(number)
            raise
        return [number]

    def _release(self, number: int) -> Body:
        self._agent.release(number)
        self._owners.drop(number)
        return []

    async def _reset_floor(self) -> Body:
        await self._agent.reset_floor()
        return []

    def _heartbeat(self, application: str) -> Body:
        self._agent.heartbeat(application)
        return []

    def _health(self, limit: int) -> Body:
        return [[variants.judgement(one) for one in self._agent.judgements()[:limit]]]

    def _quarantine(self) -> Body:
        return [[variants.quarantined(one) for one in self._agent.quarantine()]]

    async def _lift(self, manifest_hash: str) -> Body:
        return [await self._agent.lift(manifest_hash)]

    async def _reboot(self) -> Body:
        await self._agent.reboot()
        return []

    def operation(self, _operation: str) -> None:
        self._touch()

    def step(self, _percentage: int, _message: str, _depth: int) -> None:
        self._touch()

    def last_error(self, _text: str) -> None:
        self._touch()

    def completed(self, _result: int) -> None:
        self._touch()

    def transfer(self, _transfer: Transfer) -> None:
        self._touch()

    def state(self, state: str, detail: str) -> None:
        if (state, detail) != self._state:
            self._state = state, detail
            self._exported.emit("StateChanged", text(state), text(detail))
        self._touch()

    def _touch(self) -> None:
        """Something happened: look at all of it once the service has finished telling."""
        if self._soon is None:
            self._soon = self._loop.call_soon(self._tell)

    def _tell(self) -> None:
        self._soon = None
        now = values(self._agent.snapshot())
        news = [name for name in now if name != "Progress" and now[name] != self._told[name]]
        self._told |= {name: now[name] for name in news}
        if news:
            self._exported.changed(*news)
        self._tell_progress(now["Progress"])

    def _tell_progress(self, progress: object) -> None:
        if progress == self._told["Progress"] or self._later is not None:
            return
        wait = self._next_progress - self._loop.time()
        if wait > 0:
            self._later = self._loop.call_later(wait, self._period_over)
            return
        self._next_progress = self._loop.time() + PROGRESS_PERIOD
        self._told["Progress"] = progress
        self._exported.emit("ProgressChanged", progress)
        self._exported.changed("Progress")

    def _period_over(self) -> None:
        self._later = None
        self._tell_progress(values(self._agent.snapshot())["Progress"])


def _line(name: str, words: str) -> str:
    """Raises DBusError if too long."""
    if len(words) > MAX_REASON:
        got = f"expected at most {MAX_REASON} characters, got {len(words)}"
        raise DBusError(INVALID_ARGS, f"“{name}” is too long: {got}")
    return words
