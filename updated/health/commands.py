"""A check that runs a program."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Final

from updated import command
from updated.core.health import MAX_OUTPUT, Look, Rule
from updated.errors import DeviceError
from updated.health.basis import BasicCheck, bad, good, last_lines

KILL: Final = 5.0  # seconds for the kernel to end what is killed


class CommandCheck(BasicCheck):
    """Ends with exit code 0; what it prints is shown.

    Killed with all that it started if it is not done in time, or prints more than 1 MiB.
    """

    def __init__(self, rule: Rule, *, period: float, argv: Sequence[str], timeout: float) -> None:
        super().__init__(rule, period=period, limit=timeout + KILL)
        self._argv = argv
        self._timeout = timeout

    async def look(self) -> Look:
        try:
            result = await command.run(self._argv, timeout=self._timeout)
        except DeviceError as error:
            return bad(str(error))
        printed = last_lines(result.stderr or result.stdout, MAX_OUTPUT - 60)
        if result.code == 0:
            return good(printed or "exit code 0")
        return bad(f"{_ending(result.code)}, expected exit code 0{f': {printed}' if printed else ''}")


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
