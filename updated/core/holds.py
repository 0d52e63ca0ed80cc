"""What applications hold back for a while.  Times are seconds of CLOCK_BOOTTIME, from the caller."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from updated.core.duration import duration
from updated.core.gate import words
from updated.errors import Refused

MAX_HOLDS: Final = 64  # at a time; a device has a handful of applications


@dataclass(frozen=True, slots=True)
class AppHold:
    """Nothing begins and nothing reboots until then."""

    number: int
    who: str
    why: str
    owner: str  # whose end releases it: a unique name on the bus
    until: float


class Holds:
    """In memory only: who holds something takes it again after a restart."""

    def __init__(self) -> None:
        self._holds: dict[int, AppHold] = {}
        self._last = 0

    def take(self, who: str, why: str, seconds: float, owner: str, *, now: float, longest: float) -> int:
        """Returns the number of the new hold.  Raises Refused(rule="hold")."""
        if not 0 < seconds <= longest:
            raise Refused(
                f"Cannot hold updates for {seconds:g} s: expected 1 to {longest:g} s",
                rule="hold",
                hint="max-hold in updated.toml is the longest; take the hold again before it ends.",
            )
        self._expire(now)
        if len(self._holds) >= MAX_HOLDS:
            raise Refused(
                f"Cannot hold updates: there are {MAX_HOLDS} holds already",
                rule="hold",
                hint="Release those that are not needed any more.",
            )
        self._last += 1
        self._holds[self._last] = AppHold(self._last, words(who), words(why), owner, now + seconds)
        return self._last

    def release(self, number: int, *, now: float) -> None:
        """Raises Refused(rule="hold") if there is no such hold, or it has expired."""
        self._expire(now)
        if self._holds.pop(number, None) is None:
            raise Refused(f"There is no hold {number}", rule="hold", hint="It may have expired.")

    def forget_owner(self, owner: str) -> bool:
        """Release all that he has; True: he had some."""
        kept = {number: hold for number, hold in self._holds.items() if hold.owner != owner}
        had = len(kept) < len(self._holds)
        self._holds = kept
        return had

    def longest(self, now: float) -> AppHold | None:
        """The one that ends last: until then nothing begins."""
        self._expire(now)
        return max(self._holds.values(), key=lambda hold: hold.until, default=None)

    def _expire(self, now: float) -> None:
        self._holds = {number: hold for number, hold in self._holds.items() if hold.until > now}


def describe(hold: AppHold, now: float) -> str:
    """`kiosk holds it back (a sale is running), for 10 min at most`."""
    why = f" ({hold.why})" if hold.why else ""
    return f"{hold.who or 'an application'} holds it back{why}, for {duration(hold.until - now)} at most"
