"""When windows are open, against an oracle that looks at the clock on the wall minute by minute."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from functools import cache
from itertools import accumulate
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from updated.core.windows import DAYS, next_opening, open_now

MINUTE = timedelta(minutes=1)
AROUND = 18  # days that the oracle looks at, the middle one is where the clock jumps

# Where clocks jump in an odd way; UTC.
JUMPS = [
    ("Europe/Berlin", datetime(2026, 3, 29, 1)),
    ("Europe/Berlin", datetime(2026, 10, 25, 1)),
    ("America/New_York", datetime(2026, 3, 8, 7)),
    ("America/New_York", datetime(2026, 11, 1, 6)),
    ("Australia/Lord_Howe", datetime(2026, 10, 3, 15, 30)),  # by half an hour
    ("Australia/Lord_Howe", datetime(2026, 4, 4, 15)),
    ("Africa/Casablanca", datetime(2026, 2, 15, 2)),  # for Ramadan
    ("Africa/Casablanca", datetime(2026, 3, 22, 2)),
    ("Asia/Kathmandu", datetime(1985, 12, 31, 18, 30)),  # by a quarter, once
    ("America/Sao_Paulo", datetime(2017, 10, 15, 3)),  # no midnight
    ("America/Sao_Paulo", datetime(2018, 2, 18, 2)),  # two hours before midnight
    ("America/St_Johns", datetime(2006, 10, 29, 2, 31)),  # a minute after midnight, back to yesterday
    ("Pacific/Apia", datetime(2011, 12, 30, 10)),  # a day that was not
    ("UTC", datetime(2026, 7, 1)),
]


@dataclass(frozen=True)
class Span:
    start: str
    length: float
    days: tuple[str, ...] = DAYS


@cache
def wall(zone: str, first: datetime) -> Sequence[datetime]:
    """The latest that the clock on the wall has shown by each minute after `first`."""
    minutes = (first + n * MINUTE for n in range(AROUND * 1440))
    shown = (at.astimezone(ZoneInfo(zone)).replace(tzinfo=None) for at in minutes)
    return list(accumulate(shown, max))


def openings(window: Span, zone: str, first: datetime) -> list[datetime]:
    """The first minute that shows the start or more, of each day that is seen whole."""
    clock = wall(zone, first)
    found = []
    day = clock[0].date() + timedelta(days=1)
    while day < clock[-1].date():
        if DAYS[day.weekday()] in window.days:
            minute = bisect_left(clock, datetime.combine(day, time.fromisoformat(window.start)))
            found.append(first + minute * MINUTE)
        day += timedelta(days=1)
    return found


SPANS = st.builds(
    Span,
    st.builds(lambda h, m: f"{h:02}:{m:02}", st.sampled_from([0, 0, 1, 2, 2, 3, 12, 23]), st.integers(0, 59)),
    st.one_of(st.integers(1, 180), st.integers(1, 6 * 1440)).map(lambda minutes: minutes * 60.0),
    st.sets(st.sampled_from(DAYS), min_size=1).map(tuple),
)


@settings(max_examples=300)
@given(
    jump=st.sampled_from(JUMPS),
    windows=st.lists(SPANS, min_size=1, max_size=3),
    offset=st.one_of(st.integers(-180, 180), st.integers(-1440, 1440)),
)
@example(JUMPS[0], [Span("02:30", 3600)], 0)
@example(JUMPS[1], [Span("02:30", 3600)], 30)
def test_like_the_clock_on_the_wall(jump: tuple[str, datetime], windows: list[Span], offset: int) -> None:
    zone, at = jump
    now = at.replace(tzinfo=UTC) + offset * MINUTE
    first = at.replace(tzinfo=UTC) - timedelta(days=AROUND / 2)
    open_expected = any(
        opening <= now < opening + timedelta(seconds=window.length)
        for window in windows
        for opening in openings(window, zone, first)
    )
    local = now.astimezone(ZoneInfo(zone))
    assert open_now(windows, local) is open_expected
    nearest = min(at for window in windows for at in openings(window, zone, first) if at > now)
    assert next_opening(windows, local).astimezone(UTC) == nearest


BERLIN = ZoneInfo("Europe/Berlin")
NIGHT = Span("02:30", 3600)


def berlin(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).astimezone(BERLIN)


@pytest.mark.parametrize(
    ("utc", "is_open"),
    [
        ("2026-03-29T00:59:59", False),  # 01:59:59, and then it is 03:00
        ("2026-03-29T01:00:00", True),
        ("2026-03-29T01:59:59", True),
        ("2026-03-29T02:00:00", False),
        ("2026-10-25T00:29:59", False),
        ("2026-10-25T00:30:00", True),  # 02:30 for the first time
        ("2026-10-25T01:29:59", True),  # 02:29:59 for the second time: 3600 real seconds
        ("2026-10-25T01:30:00", False),  # 02:30 for the second time
    ],
)
def test_a_start_that_is_skipped_or_comes_twice(utc: str, is_open: bool) -> None:
    assert open_now([NIGHT], berlin(utc)) is is_open


def test_over_midnight_it_belongs_to_the_day_on_which_it_starts() -> None:
    window = Span("23:00", 4 * 3600, ("fri",))
    assert open_now([window], datetime(2026, 7, 4, 2, 59, tzinfo=BERLIN))  # Saturday
    assert not open_now([window], datetime(2026, 7, 5, 2, 59, tzinfo=BERLIN))
    assert not open_now([window], datetime(2026, 7, 3, 2, 59, tzinfo=BERLIN))


def test_a_week_long_window_is_always_open() -> None:
    window = Span("04:00", 7 * 86400, ("wed",))
    hours = [datetime(2026, 3, 20, tzinfo=UTC) + timedelta(hours=n) for n in range(24 * 21)]
    assert not [hour for hour in hours if not open_now([window], hour.astimezone(ZoneInfo("UTC")))]


def test_seven_days_are_real_ones() -> None:
    window = Span("04:00", 7 * 86400, ("wed",))
    assert open_now([window], datetime(2026, 4, 1, 4, 30, tzinfo=BERLIN))
    # In autumn they end an hour early on the wall.
    assert not open_now([window], datetime(2026, 10, 28, 3, 30, tzinfo=BERLIN))


def test_without_windows_it_is_open() -> None:
    assert open_now([], datetime(2026, 1, 1, tzinfo=UTC))


def test_the_next_opening_is_that_of_another_day_once_it_has_begun() -> None:
    opening = next_opening([NIGHT], datetime(2026, 7, 1, 2, 30, tzinfo=BERLIN))
    assert opening == datetime(2026, 7, 2, 2, 30, tzinfo=BERLIN)
    assert opening.tzinfo is BERLIN


def test_a_window_without_days_never_opens() -> None:
    with pytest.raises(ValueError, match="empty"):
        next_opening([Span("01:00", 60, ())], datetime(2026, 1, 1, tzinfo=UTC))
