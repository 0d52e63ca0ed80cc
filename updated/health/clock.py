"""A check of the clock."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from updated.core.health import Look, Rule
from updated.errors import DeviceError
from updated.health.basis import BasicCheck, bad, good

LIMIT: Final = 10.0  # seconds


class ClockCheck(BasicCheck):
    """Somebody keeps the system's clock right."""

    def __init__(self, rule: Rule, *, period: float, synchronised: Callable[[], Awaitable[bool]]) -> None:
        """`synchronised` answers within a few seconds, or raises DeviceError."""
        super().__init__(rule, period=period, limit=LIMIT)
        self._synchronised = synchronised

    async def look(self) -> Look:
        try:
            if await self._synchronised():
                return good("the clock is synchronised")
        except DeviceError as error:
            return bad(str(error))
        return bad("the clock is not synchronised")
