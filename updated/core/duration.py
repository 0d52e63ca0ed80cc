"""Durations for persons.  Pure."""

from __future__ import annotations

_UNITS = ((86400, "day"), (3600, "h"), (60, "min"))  # seconds


def duration(seconds: float) -> str:
    """`25200` -> `7 h`; the largest unit of which there are two, or exactly one, rounded up."""
    whole = max(-int(-seconds // 1), 0)
    for unit, name in _UNITS:
        if whole == unit or whole > 1.5 * unit:
            count = -(-whole // unit)
            return f"{count} {name}{'s' if name == 'day' and count > 1 else ''}"
    return f"{whole} s"
