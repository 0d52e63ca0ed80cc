"""Windows in which something may begin.  Pure.

A window opens at the first moment at which the clock on the wall shows its start or more.  So a start that
the spring skips opens when the clock has jumped, and one that comes twice in autumn opens the first time.
Lengths are real seconds.  Differences are taken in UTC: those of two times in one zone ignore its jumps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Protocol

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

_DAY = timedelta(days=1)
_SECOND = timedelta(seconds=1)


class Window(Protocol):
    """As in the configuration."""

    @property
    def start(self) -> str:
        """ "HH:MM", by the clock on the wall."""
        ...

    @property
    def length(self) -> float:
        """Seconds, at most seven days."""
        ...

    @property
    def days(self) -> Sequence[str]:
        """Of `DAYS`, on which it starts."""
        ...


def open_now(windows: Sequence[Window], now: datetime) -> bool:
    """`now` knows its zone, which is that of the windows.  Without windows it is always open."""
    if not windows:
        return True
    return any(
        opening <= now.astimezone(UTC) < opening + timedelta(seconds=window.length)
        for window in windows
        for opening in _openings(window, now, back=timedelta(seconds=window.length))
    )


def next_opening(windows: Sequence[Window], now: datetime) -> datetime:
    """The first moment after `now` at which one of `windows` opens, in the zone of `now`.

    Raises ValueError if there is none, which takes a window without days.
    """
    openings = (
        opening for window in windows for opening in _openings(window, now) if opening > now.astimezone(UTC)
    )
    return min(openings).astimezone(now.tzinfo)


def _openings(window: Window, now: datetime, back: timedelta = _DAY) -> Iterator[datetime]:
    """In UTC, all from `back` before `now` to a week after it, and some more."""
    assert now.tzinfo is not None
    first = (now - back - _DAY).date()
    for number in range((back // _DAY) + 11):
        day = first + number * _DAY
        if DAYS[day.weekday()] in window.days:
            yield _moment(day, time.fromisoformat(window.start), now.tzinfo)


def _moment(day: date, start: time, zone: tzinfo) -> datetime:
    """When the clock in `zone` first shows `start` on `day`, or more; in UTC."""
    wall = datetime.combine(day, start)
    moment = _utc(wall, zone, fold=0)
    if moment.astimezone(zone).replace(tzinfo=None) == wall:
        return moment
    # The clock jumps over it: of the two readings (PEP 495) one is before the jump, the other not.
    before, after = sorted((_utc(wall, zone, fold=1), moment))
    while after - before > _SECOND:
        middle = before + (after - before) // _SECOND // 2 * _SECOND
        if middle.astimezone(zone).replace(tzinfo=None) < wall:
            before = middle
        else:
            after = middle
    return after


def _utc(wall: datetime, zone: tzinfo, fold: int) -> datetime:
    return wall.replace(tzinfo=zone, fold=fold).astimezone(UTC)
