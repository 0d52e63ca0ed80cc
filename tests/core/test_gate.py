"""How sentences about what waits begin, and strangers' words in them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from updated.core.gate import Stage, name_of, words


@pytest.mark.parametrize(
    ("stage", "version", "source", "name"),
    [
        ("install", "1.3.0", "ota", "Version 1.3.0 from ota"),
        ("install", "1.3.0", "request", "Version 1.3.0"),
        ("install", "", "usb", "A bundle from usb"),
        ("reboot", "1.3.0", "ota", "The reboot into version 1.3.0"),
        ("reboot", "", "ota", "The reboot"),
        ("install", "1\n2", "usb", "Version 1 2 from usb"),
    ],
)
def test_names(stage: Stage, version: str, source: str, name: str) -> None:
    assert name_of(stage, version, source) == name


@given(st.text(max_size=500), st.integers(1, 200))
def test_words_are_one_line_and_short(text: str, most: int) -> None:
    told = words(text, most)
    assert told.isprintable()
    assert len(told) <= most


@given(st.text(st.characters(categories=["L", "N"]), max_size=100))
def test_plain_words_stay(text: str) -> None:
    assert words(text) == text
