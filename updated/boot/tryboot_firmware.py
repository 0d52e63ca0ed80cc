"""What the Raspberry Pi firmware says in the device tree of this start, and of itself.

Source: Raspberry Pi documentation, "Device trees", `/chosen`; the names are those of real devices.
TRYBOOT_A_B came with the Pi 4's bootloader of 2022-10-18.  On a Pi 5 `partition` is 0 before 2024-05-13.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final

from updated.errors import DeviceError

CHOSEN: Final = Path("/proc/device-tree/chosen")
BY_PARTITION: Final = 1 << 2  # TRYBOOT_A_B, of `capabilities`
BY_FILE: Final = 1 << 3  # TRYBOOT
_MAX_STRING: Final = 256  # bytes of os_prefix that are looked at; the firmware's paths end at 63
_HINT: Final = (
    "Nothing was marked. On a Pi 4 or 5 run `rpi-eeprom-update -a` and restart; on older ones the firmware"
    " is in the boot partition: take a newer bootcode.bin and start.elf."
)


@dataclass(frozen=True, slots=True)
class Firmware:
    """All methods block; what is not said is None or False."""

    chosen: Path = CHOSEN
    least: date | None = None  # build day of the EEPROM that is wanted

    def partition(self) -> int | None:
        """Number of the partition that this system was started from; None: not said."""
        return self._number("bootloader/partition") or None

    def on_trial(self) -> bool:
        """The tryboot flag was set at this start."""
        return bool(self._number("bootloader/tryboot"))

    def os_prefix(self) -> str | None:
        """`os_prefix` that was used at this start."""
        data = self._read("os_prefix")
        return None if data is None else data[:_MAX_STRING].partition(b"\0")[0].decode(errors="replace")

    def check(self, needed: int) -> None:
        """Raises DeviceError if it cannot start a trial; `needed`: BY_PARTITION or BY_FILE.

        Only the Pi 4 and later have an EEPROM, and tell `capabilities` and a build time.
        """
        if self._number("bootloader/tryboot") is None:
            raise DeviceError(
                f"The firmware is too old for tryboot: {self.chosen}/bootloader/tryboot is missing",
                hint=_HINT,
            )
        capabilities = self._number("bootloader/capabilities")
        if capabilities is not None and not capabilities & needed:
            name = "TRYBOOT_A_B" if needed == BY_PARTITION else "TRYBOOT"
            raise DeviceError(
                f"The firmware is too old: expected {name} among its capabilities, got {capabilities:#x}",
                hint=_HINT,
            )
        if self.least is not None:
            self._check_age(self.least)

    def _check_age(self, least: date) -> None:
        built = self._number("bootloader/build-timestamp")
        day = datetime.fromtimestamp(built, UTC).date() if built else None
        if day is None or day < least:
            raise DeviceError(
                f"The firmware is too old: expected {least} (min-firmware) or later, got {day or 'no date'}",
                hint=_HINT,
            )

    def _number(self, name: str) -> int | None:
        """A property with one cell of 32 bits, big-endian."""
        data = self._read(name)
        return int.from_bytes(data, "big") if data is not None and len(data) == 4 else None

    def _read(self, name: str) -> bytes | None:
        try:
            with (self.chosen / name).open("rb") as file:
                return file.read(_MAX_STRING)
        except OSError:
            return None
