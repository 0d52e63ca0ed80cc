"""Checks of systemd's units."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from updated.core.health import Look, Rule
from updated.errors import DeviceError
from updated.health.basis import BasicCheck, bad, good

LIMIT: Final = 15.0  # seconds; each question to systemd has its own timeout
MAX_NAMES: Final = 10  # of failed units in one sentence

_UP: Final = ("active", "reloading", "refreshing")


class Unit(Protocol):
    """A unit at one moment (org.freedesktop.systemd1(5))."""

    @property
    def load(self) -> str:
        """loaded not-found masked bad-setting error ..."""
        ...

    @property
    def active(self) -> str:
        """active reloading inactive failed activating deactivating ..."""
        ...

    @property
    def sub(self) -> str:
        """running exited start auto-restart ..."""
        ...

    @property
    def result(self) -> str:
        """Why a service ended last: success exit-code timeout watchdog ...; "" for others."""
        ...

    @property
    def restarts(self) -> int:
        """Automatic restarts of a service; 0 for others."""
        ...

    @property
    def invocation(self) -> bytes:
        """Another one after each start."""
        ...


class Systemd(Protocol):
    """Answers within a few seconds.  Raises DeviceError if it cannot be asked."""

    async def show(self, unit: str) -> Unit: ...

    async def failed(self, patterns: Sequence[str]) -> Sequence[str]:
        """Names of the failed units that one of `patterns` fits."""
        ...

    async def close(self) -> None:
        """Its connection, unless somebody else waits for an answer; the next question makes another."""
        ...


class UnitCheck(BasicCheck):
    """Active, which a unit of Type=notify is once it has told that it is ready, and not restarted since."""

    def __init__(self, rule: Rule, *, period: float, systemd: Systemd, unit: str) -> None:
        super().__init__(rule, period=period, limit=LIMIT)
        self._systemd = systemd
        self._unit = unit
        self._before: _Life | None = None
        self._looked = -math.inf

    async def look(self) -> Look:
        try:
            unit = await self._systemd.show(self._unit)
        except DeviceError as error:
            return bad(str(error))
        return self._judge(unit)

    async def close(self) -> None:
        await self._systemd.close()

    def _judge(self, unit: Unit) -> Look:
        """A restart since the last look breaks the run, also if the unit is up again."""
        if unit.active not in _UP:
            return bad(f"{self._unit} {_is(unit)}, expected active")
        life, now = _Life(unit.restarts, unit.invocation), time.monotonic()
        before = self._before if now - self._looked <= 2 * self.period + self.limit else None
        self._before, self._looked = life, now
        if before is None or before == life:
            return good(f"{self._unit} is {unit.active} ({unit.sub})")
        times = f" by systemd, {unit.restarts} times in all" if unit.restarts > before.restarts else ""
        return bad(f"{self._unit} was restarted{times}, expected one that stays up")


class TargetCheck(BasicCheck):
    """Reached."""

    def __init__(self, rule: Rule, *, period: float, systemd: Systemd, target: str) -> None:
        super().__init__(rule, period=period, limit=LIMIT)
        self._systemd = systemd
        self._target = target

    async def look(self) -> Look:
        try:
            unit = await self._systemd.show(self._target)
        except DeviceError as error:
            return bad(str(error))
        if unit.active == "active":
            return good(f"{self._target} is reached")
        return bad(f"{self._target} {_is(unit)}, expected it to be reached")

    async def close(self) -> None:
        await self._systemd.close()


class NoFailedCheck(BasicCheck):
    """None that one of the patterns fits has failed."""

    def __init__(self, rule: Rule, *, period: float, systemd: Systemd, patterns: Sequence[str]) -> None:
        super().__init__(rule, period=period, limit=LIMIT)
        self._systemd = systemd
        self._patterns = patterns

    async def look(self) -> Look:
        try:
            names = sorted(await self._systemd.failed(self._patterns))
        except DeviceError as error:
            return bad(str(error))
        if not names:
            return good("no unit has failed")
        more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
        return bad(f"failed: {', '.join(names[:MAX_NAMES])}{more}, expected none")

    async def close(self) -> None:
        await self._systemd.close()


@dataclass(frozen=True, slots=True)
class _Life:
    restarts: int
    invocation: bytes


def _is(unit: Unit) -> str:
    if unit.load == "not-found":
        return "does not exist"
    if unit.load == "masked":
        return "is masked"
    if unit.load != "loaded":
        return f"cannot be loaded ({unit.load})"
    ended = f", ended before with {unit.result!r}" if unit.result not in ("", "success") else ""
    again = f", restarted {unit.restarts} times" if unit.restarts else ""
    return f"is {unit.active} ({unit.sub}){ended}{again}"
