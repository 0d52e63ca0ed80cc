"""The system bus with its policy as it is installed: who may do what."""

from __future__ import annotations

import pytest

from tests.system.board import Board

pytestmark = [pytest.mark.slow, pytest.mark.root]

RAUC = "busctl call de.pengutronix.rauc / de.pengutronix.rauc.Installer"
AGENT = "busctl call org.updated.Agent1 /org/updated/Agent1 org.updated.Agent1"
CHANGES = (
    f"{RAUC} InstallBundle 'sa{{sv}}' /nothing 0",
    f"{RAUC} Mark ss bad other",
    f"{AGENT} Install 'sa{{sv}}' /nothing 0",
    f"{AGENT} Cancel",
    f"{AGENT} Rollback",
)
READS = (
    f"{RAUC} GetSlotStatus",
    f"{AGENT} GetHistory u 1",
    "busctl get-property org.updated.Agent1 /org/updated/Agent1 org.updated.Agent1 State",
)


def test_everybody_may_look_and_the_group_may_change(board: Board) -> None:
    board.run("useradd --groups updated member && useradd stranger")
    board.start()
    board.wait_for_idle()
    for user in ("stranger", "member"):
        for call in READS:
            board.run(call, user=user)
    for call in CHANGES:
        assert "Access denied" in board.run(call, check=False, user="stranger"), call
    assert board.grubenv()["B_OK"] == "1"
    for call in CHANGES:
        assert "Access denied" not in board.run(call, check=False, user="member"), call
    board.run(f"{RAUC} Mark ss bad other", user="member")
    assert board.grubenv()["B_OK"] == "0"


def test_nobody_takes_the_names(board: Board) -> None:
    board.run("useradd --groups updated member")
    request = "busctl call org.freedesktop.DBus / org.freedesktop.DBus RequestName su de.pengutronix.rauc 4"
    assert "Access denied" in board.run(request, check=False, user="member")


def test_a_restarted_bus_is_found_again(board: Board) -> None:
    """dbus-daemon should not be restarted on a running system; after a crash it is."""
    board.start()
    board.wait_for_idle()
    board.run("systemctl kill --signal=KILL dbus.service")
    board.wait_for_journal("Lost the connection to the bus")
    assert "rootfs.1" in board.run("rauc status")
