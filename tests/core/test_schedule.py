"""When the next look is due: within bounds whatever happens to service, device and clocks."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from updated.core.schedule import (
    MAX_POSTPONE,
    MAX_SPREAD,
    PLAUSIBLE,
    SOON,
    Now,
    Plan,
    Timing,
    after_failure,
    after_success,
    first_delay,
    plan,
    postpone,
    resume,
    spread,
)

DAY = 86400.0
OTA = Timing(6 * 3600.0, DAY)
RAUC = Timing(DAY, 4 * DAY, linear=True)
NOW = Now(1000.0, "this-boot", PLAUSIBLE + 1e7)

anything = st.floats(allow_nan=True, allow_infinity=True)
places = st.floats(0, 1, exclude_max=True)
jitters = st.floats(-1, 1)
timings = st.builds(
    lambda interval, factor, linear: Timing(interval, interval * factor, linear),
    st.floats(60, 30 * DAY),
    st.floats(1, 10),
    st.booleans(),
)
nows = st.builds(
    Now,
    st.floats(0, 1e9),
    st.sampled_from(["this-boot", "other-boot"]),
    st.floats(-1e10, 1e11),
)


@given(anything, nows, timings)
def test_a_plan_is_never_soon_and_never_beyond_the_cap(delay: float, now: Now, timing: Timing) -> None:
    made = plan(delay, now, timing)
    assert SOON <= made.wait <= timing.cap
    assert made.due == now.boottime + made.wait
    assert (made.boot_id, made.made) == (now.boot_id, now.wall)


@given(
    st.none() | st.builds(Plan, anything, st.sampled_from(["this-boot", "x"]), anything, anything),
    nows,
    timings,
    places,
)
def test_whatever_was_saved(saved: Plan | None, now: Now, timing: Timing, place: float) -> None:
    """Torn, foreign or from another century."""
    assert SOON <= resume(saved, now, timing, place).wait <= timing.cap


@given(timings, places, st.floats(0, 30 * DAY))
def test_a_restart_of_the_service_changes_nothing(timing: Timing, place: float, later: float) -> None:
    """However often, and whatever the time of day jumps to."""
    first = resume(None, NOW, timing, place)
    later = min(later, first.wait - SOON)
    for wall in (NOW.wall, 0.0, NOW.wall + 1e9):
        again = resume(first, Now(NOW.boottime + later, NOW.boot_id, wall), timing, place)
        assert again.due == pytest.approx(first.due)


@given(timings, places, st.lists(st.floats(0, 3600), max_size=30))
def test_restarts_can_not_put_a_look_off_for_ever(timing: Timing, place: float, runs: list[float]) -> None:
    saved, now = resume(None, NOW, timing, place), NOW
    promised = saved.due
    for run in runs:
        now = replace(now, boottime=now.boottime + run)
        saved = resume(saved, now, timing, place)
        assert saved.due <= max(promised, now.boottime + SOON) + 1e-3


@given(timings, places, st.floats(0, 100 * DAY), st.floats(0, 600))
def test_after_a_reboot_only_what_is_left(timing: Timing, place: float, off: float, up: float) -> None:
    saved = plan(after_success(timing), NOW, timing)
    started = Now(up, "next-boot", NOW.wall + off)
    wait = resume(saved, started, timing, place).wait
    left = saved.wait - off
    assert wait == pytest.approx(min(max(left, spread(timing, place), SOON), timing.cap))


def test_power_comes_back_everywhere_at_once() -> None:
    """Devices that were off for long do not all look in the same moment, but all do soon."""
    saved = plan(after_success(OTA), NOW, OTA)
    started = Now(20.0, "next-boot", NOW.wall + 3 * DAY)
    waits = [resume(saved, started, OTA, place / 100).wait for place in range(100)]
    assert max(waits) <= MAX_SPREAD
    assert len(set(waits)) > 90
    assert spread(Timing(60, 600), 0.999) < 6


@pytest.mark.parametrize("wall", [0.0, PLAUSIBLE - 1, NOW.wall - 1, -1e9])
def test_after_a_reboot_with_a_clock_that_was_not_set(wall: float) -> None:
    """For how long the device was off is not known: the first delay again, which differs between devices."""
    saved = plan(after_success(OTA), NOW, OTA)
    assert resume(saved, Now(5.0, "next-boot", wall), OTA, 0.5).wait == first_delay(OTA, 0.5)


def test_a_clock_that_was_never_set() -> None:
    saved = plan(after_success(OTA), Now(10.0, "old-boot", 20.0), OTA)
    assert resume(saved, Now(5.0, "next-boot", 1e8), OTA, 0.5).wait == first_delay(OTA, 0.5)


def test_a_clock_that_was_once_in_the_future() -> None:
    saved = Plan(0.0, "old-boot", NOW.wall + 1e9, 3600.0)
    assert resume(saved, NOW, OTA, 0.0).wait == first_delay(OTA, 0.0)


@given(timings, places)
def test_the_first_delay_is_that_of_rauc(timing: Timing, place: float) -> None:
    assert 0.1 * timing.interval <= first_delay(timing, place) <= 0.9 * timing.interval


def test_rauc_s_backoff() -> None:
    """interval * (errors + 1), at most max-interval."""
    waits = [after_failure(RAUC, errors, 0.9) / DAY for errors in (1, 2, 3, 4, 1000)]
    assert waits == [2, 3, 4, 4, 4]


def test_our_backoff() -> None:
    waits = [after_failure(OTA, errors, 0.0) for errors in range(1, 13)]
    assert waits == [60 * 2.0**n for n in range(11)] + [DAY]
    assert after_failure(OTA, 10**9, 0.0) == DAY
    assert after_failure(Timing(40, DAY), 1, 0.0) == 40
    assert (after_failure(OTA, 1, -1.0), after_failure(OTA, 1, 1.0)) == (45, 75)


@given(timings, st.integers(1, 10**9), jitters, st.none() | anything, st.booleans())
def test_every_failure_waits_within_bounds(
    timing: Timing, errors: int, jitter: float, retry_after: float | None, gone: bool
) -> None:
    delay = after_failure(timing, errors, jitter, retry_after=retry_after, gone=gone)
    made = plan(delay, NOW, timing)
    assert SOON <= made.wait <= timing.cap
    if retry_after is not None and not math.isnan(retry_after):
        assert made.wait >= min(retry_after, timing.cap)


def test_what_the_server_asks_for_is_the_least() -> None:
    assert after_failure(OTA, 1, 0.0, retry_after=7200) == 7200
    assert after_failure(OTA, 8, 0.0, retry_after=1) == 7680
    assert plan(after_failure(OTA, 1, 0.0, retry_after=1e9), NOW, OTA).wait == DAY


def test_what_is_not_there_is_not_asked_for_soon() -> None:
    assert after_failure(OTA, 1, 0.5, gone=True) == OTA.interval


def test_while_looking_is_not_allowed() -> None:
    assert [postpone(times) for times in range(1, 8)] == [30, 60, 120, 240, 480, 600, 600]
    assert postpone(10**9) == MAX_POSTPONE
