"""What the checks have in common."""

from __future__ import annotations

from updated.core.health import MAX_OUTPUT, Look, Rule

MIB = 1 << 20


class BasicCheck:
    """A check that keeps nothing from one look to the next."""

    def __init__(self, rule: Rule, *, period: float, limit: float) -> None:
        """Times in seconds; see `core.health.Check`."""
        self.rule = rule
        self.period = period
        self.limit = limit

    async def close(self) -> None:
        """Nothing is kept."""


def good(text: str) -> Look:
    return Look(ok=True, text=text)


def bad(text: str) -> Look:
    return Look(ok=False, text=text)


def last_lines(text: str, most: int = MAX_OUTPUT) -> str:
    """The end of what a program printed: whole lines if there are any, without control characters."""
    end = text.strip()[-most:]
    if len(end) == most and "\n" in end:
        end = end.partition("\n")[2]
    return "".join(c if c.isprintable() or c == "\n" else " " for c in end).strip()
