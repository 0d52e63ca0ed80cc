"""`core.gate.Conditions` of the real device."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ParamSpec, TypeVar

from updated.core.gate import Inhibitor, Power
from updated.host import link_state, logind
from updated.host.power import POWER_SUPPLIES, read_power
from updated.host.timing import ANSWER_TIMEOUT

P = ParamSpec("P")
T = TypeVar("T")


class HostConditions:
    """Asked anew each time, and only when something is about to begin: nothing is watched or kept."""

    def __init__(
        self,
        data: Path,
        *,
        power_supplies: Path = POWER_SUPPLIES,
        bus: str | None = None,
        timeout: float = ANSWER_TIMEOUT,
    ) -> None:
        """`data`: the data directory.  `bus`: its address, instead of the system's.  `timeout`: seconds."""
        self._data = data
        self._power_supplies = power_supplies
        self._bus = bus
        self._timeout = timeout

    async def power(self) -> Power:
        return await self._look(Power(mains=True), read_power, self._power_supplies)

    async def metered(self) -> bool | None:
        return await link_state.metered(self._bus, self._timeout)

    async def inhibitors(self) -> Sequence[Inhibitor]:
        return await logind.shutdown_inhibitors(self._bus, self._timeout)

    async def free_space(self) -> int | None:
        return await self._look(None, _free_space, self._data)

    async def present(self, files: Sequence[str]) -> str:
        return await self._look("", _first_present, files) if files else ""

    async def _look(self, unknown: T, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """In a thread that nobody waits for longer than the timeout."""
        try:
            async with asyncio.timeout(self._timeout):
                return await asyncio.to_thread(function, *args, **kwargs)
        except TimeoutError:
            return unknown


def _free_space(folder: Path) -> int | None:
    """What is reserved for root stays free: logs and repairs need it."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize


def _first_present(files: Sequence[str]) -> str:
    """A link counts if it leads somewhere, as for RAUC (g_file_test)."""
    for file in files:
        try:
            if Path(file).exists():
                return file
        except OSError:
            continue  # not readable: nobody put it there to be seen
    return ""
