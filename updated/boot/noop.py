"""No bootloader to talk to: RAUC's `bootloader=noop`.  Writes are ignored, reads have no answer."""

from __future__ import annotations

from updated.errors import DeviceError


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
