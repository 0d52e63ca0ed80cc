"""Batteries and mains, as the kernel shows them (Linux, Documentation/ABI/testing/sysfs-class-power)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from updated.core.gate import Power

POWER_SUPPLIES: Final = Path("/sys/class/power_supply")
MAX_SUPPLIES: Final = 64  # looked at; more is no device of ours

_ATTRIBUTES = (
    *("type", "scope", "present", "online", "status", "capacity"),
    *("energy_now", "energy_full", "charge_now", "charge_full"),
)
_BATTERIES = ("Battery", "UPS")
_MAX_VALUE = 64  # bytes of an attribute; they are words and numbers


def read_power(folder: Path = POWER_SUPPLIES) -> Power:
    """What feeds the system.  Blocks; never raises.

    Supplies of scope `Device` are those of a mouse.  Without any battery, power is mains, as for the kernel
    (power_supply_is_system_supplied).  A battery that cannot be read does not count.
    """
    try:
        paths = sorted(folder.iterdir())[:MAX_SUPPLIES]
    except OSError:
        paths = []
    supplies = [supply for path in paths if (supply := _read(path)).get("scope") != "Device"]
    batteries = [s for s in supplies if s.get("type") in _BATTERIES and s.get("present") != "0"]
    others = [s for s in supplies if s.get("type") not in (None, *_BATTERIES)]
    mains = (
        not batteries
        or any(_number(supply, "online") for supply in others)  # 1, or 2 and 3 of programmable ones
        or any(battery.get("status") == "Charging" for battery in batteries)  # no supply of its own is shown
    )
    charges = [charge for battery in batteries if (charge := _charge(battery)) is not None]
    return Power(mains, round(sum(charges) / len(charges)) if charges else None)


def _charge(battery: Mapping[str, str]) -> float | None:
    """Percent."""
    charge = _number(battery, "capacity")
    if charge is not None and charge <= 100:
        return charge
    for kind in ("energy", "charge"):
        now, full = _number(battery, f"{kind}_now"), _number(battery, f"{kind}_full")
        if now is not None and full:
            return min(100 * now / full, 100)
    return None


def _number(supply: Mapping[str, str], name: str) -> int | None:
    text = supply.get(name, "")
    return int(text) if text.isascii() and text.isdecimal() else None


def _read(path: Path) -> dict[str, str]:
    values = {}
    for name in _ATTRIBUTES:
        try:
            with (path / name).open("rb", buffering=0) as file:
                values[name] = file.read(_MAX_VALUE).decode("ascii", "replace").strip()
        except OSError:
            continue  # not every supply has every attribute, and a gauge may be asleep
    return values
