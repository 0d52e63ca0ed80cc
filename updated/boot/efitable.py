"""What efibootmgr prints: the firmware's boot entries and which of them starts.  No I/O.

Versions differ in what follows the label: a tab and the device path (from 18 on, or with -v), lines with raw
bytes, lines about memory mirroring.  BootOrder and BootNext may name entries that are gone.
Source: efibootmgr's src/efibootmgr.c; UEFI specification, "Boot Manager".
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_ENTRY = re.compile(r"^Boot([0-9A-Fa-f]{4})([* ]) ([^\t\n]*)", re.MULTILINE)
_NEXT = re.compile(r"^BootNext: ([0-9A-Fa-f]{4})$", re.MULTILINE)
_CURRENT = re.compile(r"^BootCurrent: ([0-9A-Fa-f]{4})$", re.MULTILINE)
_ORDER = re.compile(r"^BootOrder: ([0-9A-Fa-f,]+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Entry:
    """One Boot#### variable."""

    number: str  # four hexadecimal digits, capital letters
    label: str
    active: bool  # the firmware skips others in BootOrder, not in BootNext


@dataclass(frozen=True, slots=True)
class BootTable:
    """All entries, as listed, and the numbers that BootOrder, BootNext and BootCurrent hold."""

    entries: tuple[Entry, ...]
    order: tuple[str, ...]  # empty also if there is no BootOrder
    next: str | None = None
    current: str | None = None

    def entry(self, number: str | None) -> Entry | None:
        """None also for a number whose entry is gone."""
        return next((entry for entry in self.entries if entry.number == number), None)

    def labelled(self, label: str) -> Entry | None:
        """The entry of a bootname.  Of several it is the one that has just been started, which works; else
        the first of BootOrder.
        """
        ranks = {number: rank for rank, number in enumerate(self.order)}
        ours = [entry for entry in self.entries if entry.label == label]
        return min(
            ours,
            key=lambda entry: (entry.number != self.current, ranks.get(entry.number, len(ranks))),
            default=None,
        )

    def startable(self) -> list[Entry]:
        """The active entries of BootOrder."""
        found = [self.entry(number) for number in self.order]
        return [entry for entry in found if entry and entry.active]

    def order_with_first(self, entry: Entry) -> tuple[str, ...]:
        """BootOrder with `entry` in front; as it is if that is what starts first anyway."""
        if self.startable()[:1] == [entry]:
            return self.order
        return (entry.number, *self._others(entry.number))

    def order_without(self, label: str) -> tuple[str, ...]:
        """BootOrder without all entries of that label; as it is if it has none."""
        ours = [entry.number for entry in self.entries if entry.label == label]
        return self._others(*ours) if set(ours) & set(self.order) else self.order

    def _others(self, *numbers: str) -> tuple[str, ...]:
        """BootOrder without these, and without those that are gone: efibootmgr refuses to write them."""
        left = dict.fromkeys(number for number in self.order if self.entry(number))
        return tuple(number for number in left if number not in numbers)


def parse(text: str) -> BootTable:
    """Read the listing.  Lines that are none of these do not count."""
    order = _ORDER.search(text)
    numbers = [number for number in order[1].upper().split(",") if number] if order else []
    return BootTable(
        tuple(Entry(found[1].upper(), found[3], found[2] == "*") for found in _ENTRY.finditer(text)),
        tuple(numbers),
        _number(_NEXT.search(text)),
        _number(_CURRENT.search(text)),
    )


def _number(found: re.Match[str] | None) -> str | None:
    return found[1].upper() if found else None
