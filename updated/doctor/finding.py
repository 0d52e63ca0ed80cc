"""What a check says: one finding, and how bad it is."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass


class Level(enum.IntEnum):
    """From harmless to bad; the worst of all findings is the verdict."""

    OK = 0
    NOTE = 1  # worth knowing, nothing to do
    UNKNOWN = 2  # could not be found out
    WARNING = 3  # works today
    ERROR = 4  # an update, its confirmation or the way back would fail

    @property
    def word(self) -> str:
        return self.name.lower()


EXIT_CODES = {Level.OK: 0, Level.NOTE: 0, Level.WARNING: 1, Level.ERROR: 2, Level.UNKNOWN: 3}
"""As monitoring systems read them (Monitoring Plugins Development Guidelines, "Plugin Return Codes")."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; texts are for people and may change, `check` and `level` are for programs."""

    check: str  # "<group>.<what>", as in docs/doctor.md
    level: Level
    about: str  # which file, slot, certificate; "" where there is only one
    text: str  # what is the case
    expected: str = ""
    got: str = ""
    hint: str = ""  # what to do

    @property
    def group(self) -> str:
        return self.check.partition(".")[0]


def worst(findings: Iterable[Finding]) -> Level:
    """The level of the worst finding; OK if there is none."""
    return max((finding.level for finding in findings), default=Level.OK)


def ok(check: str, about: str, text: str) -> Finding:
    return Finding(check, Level.OK, about, text)


def note(check: str, about: str, text: str, *, hint: str = "") -> Finding:
    return Finding(check, Level.NOTE, about, text, hint=hint)


def unknown(check: str, about: str, text: str, *, hint: str = "") -> Finding:
    return Finding(check, Level.UNKNOWN, about, text, hint=hint)


def warning(
    check: str, about: str, text: str, *, expected: str = "", got: str = "", hint: str = ""
) -> Finding:
    return Finding(check, Level.WARNING, about, text, expected, got, hint)


def error(check: str, about: str, text: str, *, expected: str = "", got: str = "", hint: str = "") -> Finding:
    return Finding(check, Level.ERROR, about, text, expected, got, hint)
