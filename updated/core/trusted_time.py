"""What time it is at least, on a device whose clock may never have been set.  Pure.

It is not earlier than the running system was built, nor than the latest moment at which somebody this device
trusts has signed something: the latest of these two and the system clock is the time to check by.

What must not happen is that a wrong witness keeps a device from all updates for ever:

- A build time or a signed time after the end of the whole keyring, or after 2100, is a mistake.  No signature
  could be good then, so it does not count.  Before the keyring's end a mistake can be repaired by its owner,
  with a signer's certificate that is valid long enough.
- A signed time counts only inside the validity of its own signer's chain (`counts`): a signer with a wrong
  clock cannot lead a device further than to the end of his own certificate.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from updated.core.model import TIMESTAMP

LAST: Final = datetime(2100, 1, 1, tzinfo=UTC)  # a clock that says more is broken; this program is gone then


@dataclass(frozen=True, slots=True)
class Build:
    """When the running system was built."""

    moment: datetime  # with a time zone
    starts_clock: bool  # systemd sets the clock to it at boot where it is earlier (systemd(1), "epoch")


@dataclass(frozen=True, slots=True)
class Reading:
    """The time to check certificates by."""

    moment: datetime
    behind: bool = False  # it may be later than that: the clock was not set since the boot
    why: str = ""  # a sentence why it is not what the system clock says; "": it is


def verification_time(
    system: datetime,
    build: Build | None,
    seen: datetime | None,
    *,
    uptime: timedelta = timedelta(0),
    until: datetime | None = None,
) -> Reading:
    """The latest of the system clock, the build time and the latest signed time `seen`.  All have a zone.

    `uptime`: since the boot.  `until`: when the last certificate of the keyring ends.
    A system clock after 2100 is as good as none.
    """
    end = LAST if until is None else min(until, LAST)
    witnesses = [(seen, "something trusted was signed at")] if seen is not None else []
    if build is not None:
        witnesses.append((build.moment, "this system was built at"))
    latest, words = max(
        ((moment, words) for moment, words in witnesses if moment < end), default=(system, "")
    )
    if latest > system or (words and system >= LAST):
        why = f"The system clock says {_shown(system)}, but {words} {_shown(latest)}"
        return Reading(latest, behind=True, why=f"{why}: certificates are checked as of then")
    # A clock that was set is ahead of one that began at the build time and has only counted since the boot.
    never_set = build is not None and build.starts_clock and system - build.moment <= uptime
    return Reading(system, behind=never_set)


def counts(signed: datetime, not_before: datetime, not_after: datetime) -> bool:
    """Is `signed`, the time that a trusted signer claims, to be believed?

    `not_before` and `not_after`: between these all certificates of his chain are valid.
    """
    return not_before <= signed <= not_after and signed < LAST


def _shown(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime(TIMESTAMP)
