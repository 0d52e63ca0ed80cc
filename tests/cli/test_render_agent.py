"""What our own interface and RAUC's Poller tell, as text."""

from __future__ import annotations

import json
from typing import Any

import pytest

from updated.api.client import Polled, Status
from updated.cli.render import plain
from updated.cli.render_agent import health, moving, polled, quarantine, transfer, update

MOVING = {"bytes-done": 50_000_000, "bytes-total": 100_000_000, "rate": 0.0}
SECOND = 1_000_000  # microseconds


@pytest.mark.parametrize(
    ("fetched", "shown"),
    [
        ({}, ""),
        ({"fetched": 50_000_000}, ""),
        ({"fetched": 46_000_000}, ""),
        ({"fetched": 20_000_000}, "20.0 MB fetched"),
        ({"fetched": 70_000_000}, "70.0 MB fetched"),
        ({"fetched": 0}, "0 bytes fetched"),
    ],
)
def test_fetched_bytes_are_shown_where_they_say_something(fetched: dict[str, int], shown: str) -> None:
    got = transfer(MOVING | fetched).replace("\u00a0", " ")
    assert got == "50.0 MB of 100.0 MB" + (f", {shown}" if shown else "")


def test_a_pause_is_shown_even_before_bytes_move() -> None:
    assert moving(Status("verify", "", {}, {}, {}, paused=True)).startswith("paused")
    assert moving(Status("verify", "", {}, {}, {})) == ""


def test_what_waits_for_a_person_has_no_time() -> None:
    hold = {"rule": "consent", "text": "Somebody has to agree.\x1b"}
    shown = plain(update(Status("idle", "", {}, {}, {}, hold=hold)))
    assert shown.splitlines()[-1] == "Waiting:     Somebody has to agree.\\x1b (consent)"


STATUS: dict[str, Any] = {
    "attempt-count": 7,
    "recent-error-count": 2,
    "last-attempt-time": 900 * SECOND,
    "last-success-time": 400 * SECOND,
    "last-error-message": "the server\x1b was away",
    "update-available": True,
    "summary": "update candidate found: higher semantic version",
    "manifest": {"update": {"version": "2.0"}},
    "bundle": {"size": 95_000_000, "effective-url": "https://mirror/x.raucb"},
}


def test_all_of_a_poll() -> None:
    found = Polled(1090 * SECOND, STATUS)
    assert polled(found, "readable", 1000 * SECOND).replace("\u00a0", " ").splitlines() == [
        "Next poll:    in 1:30 min",
        "Last attempt: 1:40 min ago",
        "Last success: 10:00 min ago",
        "Errors:       2 since the last success",
        "Last error:   the server\\x1b was away",
        "Result:       update candidate found: higher semantic version",
        "Version:      2.0 (95.0 MB)",
        "Bundle:       https://mirror/x.raucb",
    ]
    assert json.loads(polled(found, "json", 0)) == {"next-poll": 1090 * SECOND, "status": STATUS}


def test_a_poll_that_is_due() -> None:
    assert polled(Polled(5, {}), "readable", 10 * SECOND).splitlines()[0] == "Next poll:    in 0 s"


def test_health_and_quarantine_of_another_service() -> None:
    """Keys may be missing: what is not known is a dash, and nothing fails."""
    assert health([], "json") == quarantine([], "json") == "[]"
    assert health([{}], "readable") == "-: - since -"
    assert health([{"state": "good", "checks": [{}]}], "readable").splitlines()[1] == "  -       - (optional)"
    assert quarantine([{}], "readable") == "-  version -\n  -  -"
    shown = quarantine(
        [{"manifest-hash": "a\x1b", "failed-boots": ["\x1b"], "journal": ["\x1b[2J"]}], "readable"
    )
    assert "\x1b" not in shown
    assert shown.splitlines()[2:] == ["  Failed boots: \\x1b", "  | \\x1b[2J"]
