"""The system bus with its policy as it is installed: who may do what."""

from __future__ import annotations

import json
from collections.abc import Iterator
from xml.etree import ElementTree

import pytest

from tests.system.board import Board

pytestmark = [pytest.mark.slow, pytest.mark.root]

OBJECTS = {"de.pengutronix.rauc": "/", "org.updated.Agent1": "/org/updated/Agent1"}
EVERYBODY = {
    "Installer.GetSlotStatus",
    "Installer.GetArtifactStatus",
    "Installer.GetPrimary",
    "Agent1.GetHealth",
    "Agent1.GetHistory",
    "Agent1.Why",
}
ROOT_ONLY = {"Agent1.ResetFloor"}
VALUES = {"s": "nothing", "b": "false", "u": "1", "a{sv}": "0"}  # for busctl, by type
STAYS = '[reboot]\ncommand = ["/bin/true"]\n'  # a rollback and a reboot are among what is called
OTA = '[ota]\nindex = "http://127.0.0.1:1/index.json"'  # for the interface Poller
MARK = "busctl call de.pengutronix.rauc / de.pengutronix.rauc.Installer Mark ss bad other"


def test_everybody_may_look_and_the_group_may_change(board: Board) -> None:
    """All methods there are, so that none is forgotten."""
    board.run("useradd --groups updated member && useradd stranger")
    board.configure(agent=STAYS + OTA)
    board.start()
    board.wait_for_idle()
    calls = dict(_methods(board))
    assert {"Poller.Poll", "Installer.Install", "Agent1.Install", "Agent1.Inhibit"} <= calls.keys()
    assert {"Agent1.Heartbeat", "Agent1.Reboot", "Agent1.Lift", "Agent1.GetQuarantine"} <= calls.keys()
    for user in ("stranger", "member"):
        denied = {name for name, call in calls.items() if _is_denied(board, call, user)}
        assert denied == (calls.keys() - EVERYBODY if user == "stranger" else ROOT_ONLY)
    for bus_name, path in OBJECTS.items():
        board.run(f"busctl introspect {bus_name} {path}", user="stranger")
    assert _is_denied(board, MARK, "stranger")
    assert board.grubenv()["B_OK"] == "1"
    board.run(MARK, user="member")
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


def _methods(board: Board) -> Iterator[tuple[str, str]]:
    """The methods of our interfaces (the last word of its name and theirs), each with a call of it."""
    for bus_name, path in OBJECTS.items():
        call = f"busctl --json=short call {bus_name} {path}"
        answer = board.run(f"{call} org.freedesktop.DBus.Introspectable Introspect")
        for interface in ElementTree.fromstring(json.loads(answer)["data"][0]).iter("interface"):
            of = interface.get("name", "")
            if of.startswith("org.freedesktop."):
                continue
            for method in interface.iter("method"):
                name = method.get("name", "")
                types = [arg.get("type", "") for arg in method.iter("arg") if arg.get("direction") == "in"]
                values = " ".join(VALUES[one] for one in types)
                yield f"{of.rpartition('.')[2]}.{name}", f"{call} {of} {name} '{''.join(types)}' {values}"


def _is_denied(board: Board, call: str, user: str) -> bool:
    return "Access denied" in board.run(call, check=False, user=user)
