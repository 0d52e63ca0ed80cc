"""What a person reads on the stick after an update.  Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from updated.core.model import Outcome

MAX_LINE: Final = 1000  # characters of a text from elsewhere

HEADINGS: Final = {
    "installed": "The update was installed. The device starts it at its next restart.",
    "failed": "The update FAILED. The device keeps what it had.",
    "refused": "The update was REFUSED. The device keeps what it had.",
    "cancelled": "The update was CANCELLED. The device keeps what it had.",
}
NOTHING: Final = "No update was installed from this stick."
AGAIN: Final = "It will be tried again by itself while the stick stays in."


@dataclass(frozen=True, slots=True)
class Tried:
    """One bundle of the stick, and how it ended."""

    bundle: str  # file name on the stick
    outcome: Outcome
    again: bool = False


@dataclass(frozen=True, slots=True)
class Passed:
    """One that was not tried."""

    bundle: str
    reason: str


def result_text(*, compatible: str, time: str, tried: Tried | None, passed: Sequence[Passed]) -> str:
    """The result file.  `time`: when it is written."""
    facts = [("Device", compatible), ("Time", tried.outcome.time if tried else time)]
    lines = [NOTHING]
    if tried:
        outcome = tried.outcome
        lines = [HEADINGS.get(outcome.code, f"The update ended: {outcome.code}")]
        facts += [("Bundle", tried.bundle), ("Version", outcome.version or "not known")]
        facts += [("Result", outcome.code), ("Reason", outcome.text)]
        if tried.again:
            lines.append(AGAIN)
    lines += ["", *(f"{name + ':':9}{plain(text)}" for name, text in facts if text)]
    if passed:
        lines += ["", "Not installed:"]
        lines += [f"- {plain(one.bundle)}: {plain(one.reason)}" for one in passed]
    return "\n".join(lines) + "\n"


def plain(text: str) -> str:
    """One line without control characters, of bounded length."""
    line = " ".join(text.split())
    return "".join(letter if letter.isprintable() else "?" for letter in line)[:MAX_LINE]
