"""A device's place is its own, the same for ever, and spread evenly over all devices."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from updated.core.rollout import Rollout, place, why_not

NOW = datetime(2026, 6, 1, tzinfo=UTC)
MACHINES = [f"{number:032x}" for number in range(20_000)]


def test_a_place_never_changes() -> None:
    """Devices in the field rely on these: a new version of the agent must not move them."""
    assert place("4c6f7a1e2d3b4a5f8e9d0c1b2a394857", "1.3.0") == 0.2386060198657306
    assert place("", "") == 0.2159276604574586


def test_words_are_told_apart() -> None:
    assert place("ab", "c") != place("a", "bc") != place("a", "b", "c")
    assert place("\udcff") == place("\udcff")


def test_places_are_spread_evenly() -> None:
    """Chi square over 100 bins: 99 degrees of freedom, 148.2 is passed by one in a thousand."""
    bins = [0] * 100
    for machine in MACHINES:
        here = place(machine, "1.3.0")
        assert 0 <= here < 1
        bins[int(here * 100)] += 1
    expected = len(MACHINES) / 100
    assert sum((count - expected) ** 2 / expected for count in bins) < 148.2


@pytest.mark.parametrize("percent", [0.0, 0.5, 10.0, 50.0, 99.0, 100.0])
def test_a_percentage_is_that_part_of_the_devices(percent: float) -> None:
    chosen = sum(not why_not(Rollout(percent), machine, "2", NOW) for machine in MACHINES)
    part = percent / 100
    five_sigma = 5 * (len(MACHINES) * part * (1 - part)) ** 0.5
    assert abs(chosen - len(MACHINES) * part) <= five_sigma


def test_more_percent_only_add_devices() -> None:
    few = {machine for machine in MACHINES if not why_not(Rollout(10), machine, "2", NOW)}
    many = {machine for machine in MACHINES if not why_not(Rollout(25), machine, "2", NOW)}
    assert few < many


def test_the_first_ones_are_others_for_each_version() -> None:
    one = {machine for machine in MACHINES if not why_not(Rollout(10), machine, "1", NOW)}
    two = {machine for machine in MACHINES if not why_not(Rollout(10), machine, "2", NOW)}
    assert 0.05 < len(one & two) / len(one) < 0.15


def test_nobody_before_the_start() -> None:
    late = Rollout(100, NOW)
    assert "starts at 2026-06-01T00:00:00+00:00" in why_not(late, "m", "2", NOW - timedelta(seconds=1))
    assert why_not(late, "m", "2", NOW) == ""
    assert why_not(late, "m", "2", datetime(1970, 1, 1, tzinfo=UTC)), "a clock that was never set"


def test_a_start_at_the_end_of_time() -> None:
    for text in ("9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59"):
        assert isinstance(why_not(Rollout(100, datetime.fromisoformat(text)), "m", "2", NOW), str)


def test_the_reason() -> None:
    assert why_not(Rollout(0), "m", "2", NOW) == "its rollout has reached 0 % of the devices, not this one"
