"""No bootloader to talk to: RAUC's `bootloader=noop`.  Writes are ignored, reads have no answer."""

from __future__ import annotations

from updated.errors import DeviceError, NotSupportedError


class Noop:
    """A `Bootloader`."""

    async def get_primary(self) -> str | None:
        raise DeviceError("Obtaining primary entry from bootloader 'noop' not supported yet")

    async def set_primary(self, bootname: str) -> None:
        """Ignored."""

    async def get_state(self, bootname: str) -> bool:
        raise DeviceError("Obtaining state from bootloader 'noop' not supported yet")

    async def set_state(self, bootname: str, good: bool) -> None:
        """Ignored."""

    async def get_current(self) -> str | None:
        return None


class Unsupported:
    """A `Bootloader` that RAUC knows and we do not: the service runs, and says so when it is needed."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    async def get_primary(self) -> str | None:
        raise self._error()

    async def set_primary(self, bootname: str) -> None:
        raise self._error()

    async def get_state(self, bootname: str) -> bool:
        raise self._error()

    async def set_state(self, bootname: str, good: bool) -> None:
        raise self._error()

    async def get_current(self) -> str | None:
        return None

    def _error(self) -> NotSupportedError:
        return NotSupportedError(
            f"Bootloader type '{self._kind}' not supported yet",
            hint="Use `bootloader=custom` with a script meanwhile.",
        )
