"""Versions read and order as RAUC's do."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from updated.core.version import RAUC_VERSION, VersionError, parse


@pytest.mark.parametrize(("smaller", "larger"), [
    ("0-1", "0"),
    ("0", "0.0.1"), ("0.9", "0.10"), ("1-", "1-0"), ("1-1", "1-2"), ("1-2", "1-10"), ("1-10", "1-a"),
    ("1-a", "1-a.1"), ("1-a.1", "1-a.b"), ("1-a", "1-b"), ("1-B", "1-a"), ("1-a", "1"), ("1.14-rc.1", "1.14"),
    ("1.15.2", "1.16-dev"), ("1.9.9", "1.10"), ("2", "18446744073709551615"),
    ("1-18446744073709551615", "1-18446744073709551616"),  # the second is text: it does not fit
])  # fmt: skip
def test_order(smaller: str, larger: str) -> None:
    assert parse(smaller) < parse(larger)
    assert not parse(larger) <= parse(smaller)


@pytest.mark.parametrize(
    ("one", "other"), [("1", "1.0.0"), ("01.2", "1.2"), ("1+a", "1+b"), ("1.2-3+x", "1.2-03")]
)
def test_equal(one: str, other: str) -> None:
    assert parse(one) == parse(other)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Failed to parse semantic version '', 'version core' has no components."),
        ("-1", "Failed to parse semantic version '-1', 'version core' has no components."),
        ("abc", "Failed to parse core version component 'abc' as uint: “abc” is not an unsigned number"),
        ("1.2.3.4", "Failed to parse core version component '3.4' as uint: “3.4” is not an unsigned number"),
        ("1..3", "Failed to parse core version component '' as uint: Empty string is not a number"),
        (
            "1.14-a-b",
            "Failed to parse core version component '14-a' as uint: “14-a” is not an unsigned number",
        ),
        ("v1", "Failed to parse core version component 'v1' as uint: “v1” is not an unsigned number"),
        ("1+a+b", "Failed to parse core version component '1+a' as uint: “1+a” is not an unsigned number"),
        (" 1", "Failed to parse core version component ' 1' as uint: “ 1” is not an unsigned number"),
        ("+1", "Failed to parse semantic version '+1', 'version core' has no components."),
        ("²", "Failed to parse core version component '²' as uint: “²” is not an unsigned number"),
        (
            "18446744073709551616",
            "Failed to parse core version component '18446744073709551616' as uint: "
            "Number “18446744073709551616” is out of bounds [0, 18446744073709551615]",
        ),
    ],
)
def test_refusals_have_raucs_texts(text: str, message: str) -> None:
    with pytest.raises(VersionError) as caught:
        parse(text)
    assert str(caught.value) == message


def test_the_text_is_kept() -> None:
    assert str(parse("1.02-rc.1+git")) == "1.02-rc.1+git"
    assert parse(RAUC_VERSION).core == (1, 15, 2)


@given(st.text(max_size=20))
@settings(derandomize=True, deadline=None)
def test_any_text_parses_or_raises_our_error(text: str) -> None:
    with contextlib.suppress(VersionError):
        assert parse(text) <= parse(text)


def test_a_huge_number_is_refused_in_bounded_time() -> None:
    with pytest.raises(VersionError, match="out of bounds"):
        parse("9" * 65536)
