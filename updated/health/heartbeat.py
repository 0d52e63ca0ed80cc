"""Applications that say again and again that they are well."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final

from updated.core.gate import words
from updated.core.health import Look, Rule
from updated.errors import Refused
from updated.health.basis import BasicCheck, bad, good

_NOBODY: Final = 'A check of type "heartbeat" in [[confirm.checks]] of updated.toml names an application.'


class Heartbeats:
    """When each application was heard last.  Lives as long as the service does."""

    def __init__(self, applications: Iterable[str] = ()) -> None:
        self._last: dict[str, float | None] = {}
        self.expect(applications)

    def expect(self, applications: Iterable[str]) -> None:
        """From now on these are known; what was heard of them counts."""
        self._last = {name: self._last.get(name) for name in applications}

    def beat(self, application: str) -> None:
        """It is well.  Raises Refused(rule="heartbeat") if nobody waits for it."""
        if application not in self._last:
            known = ", ".join(sorted(self._last))
            hint = f"Known are: {known}." if known else _NOBODY
            raise Refused(f"No heartbeat of {words(application)!r} is expected", rule="heartbeat", hint=hint)
        self._last[application] = time.monotonic()

    def age(self, application: str) -> float | None:
        """Seconds since it was heard; None: never, since this service has started."""
        last = self._last.get(application)
        return None if last is None else time.monotonic() - last


class HeartbeatCheck(BasicCheck):
    """Heard within so many seconds."""

    def __init__(
        self, rule: Rule, *, period: float, heartbeats: Heartbeats, application: str, within: float
    ) -> None:
        super().__init__(rule, period=period, limit=1.0)
        self._heartbeats = heartbeats
        self._application = application
        self._within = within

    async def look(self) -> Look:
        age = self._heartbeats.age(self._application)
        if age is None:
            return bad(f"{self._application} was never heard, expected a heartbeat every {self._within:g} s")
        if age > self._within:
            return bad(
                f"{self._application} was last heard {age:.0f} s ago, expected {self._within:g} s at most"
            )
        return good(f"{self._application} is heard")
