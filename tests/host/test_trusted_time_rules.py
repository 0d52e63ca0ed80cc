"""Which of the three witnesses decides, and which are not believed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from updated.core.trusted_time import LAST, Build, Reading, counts, verification_time


def day(year: int, month: int = 1, date: int = 1) -> datetime:
    return datetime(year, month, date, tzinfo=UTC)


NEVER_SET = day(1970)
BUILT = Build(day(2026), starts_clock=False)
EPOCH = Build(day(2026), starts_clock=True)
MOMENTS = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))


@pytest.mark.parametrize(
    ("system", "build", "seen", "expected", "words"),
    [
        (day(2027), None, None, day(2027), ""),
        (day(2027), BUILT, day(2026, 5), day(2027), ""),
        (NEVER_SET, None, None, NEVER_SET, ""),
        (NEVER_SET, BUILT, None, day(2026), "this system was built at 2026-01-01T00:00:00Z"),
        (NEVER_SET, BUILT, day(2025), day(2026), "this system was built"),
        (NEVER_SET, BUILT, day(2026, 5), day(2026, 5), "something trusted was signed at 2026-05-01"),
        (day(2026, 4), BUILT, day(2026, 5), day(2026, 5), "The system clock says 2026-04-01"),
        (NEVER_SET, None, day(2026, 5), day(2026, 5), "something trusted was signed"),
        # Mistakes of others
        (day(2027), Build(day(2150), starts_clock=False), None, day(2027), ""),
        (NEVER_SET, Build(day(2150), starts_clock=False), day(2026), day(2026), "signed at 2026"),
        (day(2027), BUILT, day(2150), day(2027), ""),
        (day(2150), BUILT, None, day(2026), "The system clock says 2150"),
        (day(2150), None, None, day(2150), ""),
    ],
)
def test_who_decides(
    system: datetime, build: Build | None, seen: datetime | None, expected: datetime, words: str
) -> None:
    found = verification_time(system, build, seen)
    assert found.moment == expected
    assert words in found.why
    assert bool(found.why) == bool(words) == found.behind


def test_nothing_counts_after_the_end_of_the_keyring() -> None:
    """By such a time no signature would ever be good again, and no update could repair it."""
    late = Build(day(2050), starts_clock=False)
    assert verification_time(day(2027), late, None).moment == day(2050)
    assert verification_time(day(2027), late, None, until=day(2046)) == Reading(day(2027))
    assert verification_time(day(2027), None, day(2046), until=day(2046)) == Reading(day(2027))
    assert verification_time(day(2027), late, day(2030), until=day(2046)).moment == day(2030)
    # A clock that is right after all: the keyring is over.
    assert verification_time(day(2047), late, None, until=day(2046)) == Reading(day(2047))


@pytest.mark.parametrize(
    ("build", "since", "behind"),
    [
        (EPOCH, timedelta(hours=1), True),
        (EPOCH, timedelta(hours=2), True),
        (EPOCH, timedelta(hours=2, seconds=1), False),
        (BUILT, timedelta(hours=1), False),
        (None, timedelta(hours=1), False),
    ],
)
def test_a_clock_that_began_at_the_build_time(build: Build | None, since: timedelta, behind: bool) -> None:
    """It has only counted the two hours since the boot: nobody has set it."""
    found = verification_time(day(2026) + since, build, None, uptime=timedelta(hours=2))
    assert found == Reading(day(2026) + since, behind=behind)


@given(MOMENTS, st.none() | MOMENTS, st.none() | MOMENTS, st.none() | MOMENTS)
def test_never_earlier_than_a_good_clock_and_never_led_too_far(
    system: datetime, built: datetime | None, seen: datetime | None, until: datetime | None
) -> None:
    build = None if built is None else Build(built, starts_clock=True)
    found = verification_time(system, build, seen, until=until)
    if system < LAST:
        assert found.moment >= system
    if found.moment != system:
        assert found.moment in (built, seen)
        assert found.moment < min(until or LAST, LAST)
        assert found.behind
        assert found.why


def test_a_claim_counts_within_the_validity_of_who_makes_it() -> None:
    begin, end = day(2026), day(2028)
    assert counts(day(2027), begin, end)
    assert counts(begin, begin, end)
    assert counts(end, begin, end)
    assert not counts(begin - timedelta(seconds=1), begin, end)
    assert not counts(end + timedelta(seconds=1), begin, end)
    assert not counts(day(2150), begin, day(9999))
