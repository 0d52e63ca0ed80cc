"""`Retry-After`, in both of its forms and none of them; URLs as people may see them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from updated.core.link import retry_after, without_secrets

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        (" 0 ", 0),
        ("9" * 4000, 9_999_999_999),
        ("Mon, 01 Jun 2026 12:05:00 GMT", 300),
        ("Mon, 01 Jun 2026 12:05:00 -0000", 300),
        ("Mon, 01 Jun 2026 11:00:00 GMT", 0),
        ("Mon Jun  1 12:01:00 2026", 60),
    ],
)
def test_seconds_or_a_date(value: str, seconds: float) -> None:
    assert retry_after(value, NOW) == seconds


@pytest.mark.parametrize(
    "value", ["", "soon", "-5", "1.5", "٣", "Mon, 99 Jun 2026 12:05:00 GMT", "\x00", "1" * 3 + "x"]
)
def test_anything_else(value: str) -> None:
    assert retry_after(value, NOW) is None


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        ("https://user:secret@host:8443/a/b?token=x#y", "https://host:8443/a/b"),
        ("https://host/a", "https://host/a"),
        ("https://user:secret@[::1/a?token=x", "[::1/a"),
        ("https://host/\x1b[2J", "'https://host/\\x1b[2J'"),
    ],
)
def test_urls_without_secrets(url: str, clean: str) -> None:
    assert without_secrets(url) == clean
