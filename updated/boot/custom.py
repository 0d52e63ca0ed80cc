"""A script that knows the bootloader: RAUC's `bootloader-custom-backend=` in `[handlers]`.

Called as `get-primary`, `set-primary <bootname>`, `get-state <bootname>`, `set-state <bootname> good|bad` and
`get-current`.  Answers go to standard output; exit code 0 is success.
Source: RAUC's integration guide, "Custom", and src/bootloaders/custom.c.
"""

from __future__ import annotations

from collections.abc import Sequence

from updated import command
from updated.errors import DeviceError

DEFAULT_TIMEOUT = 60.0  # seconds; RAUC waits for ever, and a script that hangs would block every update


class Custom:
    """A `Bootloader`."""

    def __init__(self, script: str, bootnames: Sequence[str], *, timeout: float = DEFAULT_TIMEOUT) -> None:
        self._script = script
        self._bootnames = tuple(bootnames)
        self._timeout = timeout

    async def get_primary(self) -> str | None:
        """Raises DeviceError, also for a name that is not configured."""
        name = await self._call("get-primary")
        if name not in self._bootnames:
            raise DeviceError(
                f"'{name}' does not match any configured bootname",
                hint=f"Configured: {', '.join(self._bootnames)}.",
            )
        return name

    async def set_primary(self, bootname: str) -> None:
        await self._call("set-primary", bootname)

    async def get_state(self, bootname: str) -> bool:
        state = await self._call("get-state", bootname)
        if state not in ("good", "bad"):
            raise DeviceError(f'Obtained string does not match "good" or "bad": \'{state}\'')
        return state == "good"

    async def set_state(self, bootname: str, good: bool) -> None:
        await self._call("set-state", bootname, "good" if good else "bad")

    async def get_current(self) -> str | None:
        """First line of the answer.  Raises DeviceError, also if there is none (an old script)."""
        lines = (await self._call("get-current")).splitlines()
        if not lines:
            raise DeviceError(f"Failed to get custom backend bootname '{self._script}': no output")
        return lines[0]

    async def _call(self, *arguments: str) -> str:
        result = await command.run([self._script, *arguments], timeout=self._timeout)
        if result.code:
            lines = result.stderr.strip().splitlines()
            reason = f": {lines[-1]}" if lines else ""
            raise DeviceError(f"{self._script} failed with exit code {result.code}{reason}")
        return result.stdout.strip()
