"""`updated doctor` under a real systemd and a real system bus, as `make install` leaves them."""

from __future__ import annotations

import json

import pytest

from tests.system.board import UNIT, Board

pytestmark = [pytest.mark.slow, pytest.mark.root]


def levels(board: Board) -> dict[str, str]:
    """Check -> level, of what is about the service."""
    told = json.loads(board.run("updated doctor --json --cmdline=/etc/test/cmdline", check=False))
    return {each["check"]: each["level"] for each in told["findings"] if each["check"].startswith("service.")}


def test_what_systemd_says(board: Board) -> None:
    board.start()
    found = levels(board)
    assert found.pop("service.hardware-watchdog") == "warning", "a container has none"
    assert found == {
        "service.policy": "ok",
        "service.running": "ok",
        "service.enabled": "ok",
        "service.watchdog": "ok",
        "service.failure": "ok",
    }
    board.run(f"systemctl disable --now {UNIT}")
    stopped = levels(board)
    assert (stopped["service.enabled"], stopped["service.running"]) == ("error", "error")


def test_a_data_directory_that_the_sandbox_takes_away(board: Board) -> None:
    board.configure(system="data-directory=/etc/state")
    board.run("mkdir /etc/state")
    board.start()
    assert levels(board)["service.sandbox"] == "error"
