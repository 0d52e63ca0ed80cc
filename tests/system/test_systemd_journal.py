"""The journal of a real systemd: our fields, our ids, our catalog, RAUC's name, a journal that goes away."""

from __future__ import annotations

import json

import pytest

from tests.system.board import Board
from tests.system.conftest import Bundle
from updated.core.events import Id

pytestmark = [pytest.mark.slow, pytest.mark.root]


def entries(board: Board, *match: str) -> list[dict[str, str]]:
    words = " ".join(match)
    shown = board.run(f"journalctl --no-pager --all --output=json --unit=updated.service {words}")
    return [json.loads(line) for line in shown.splitlines()]


def test_events_have_fields_under_both_names(board: Board, small: Bundle) -> None:
    board.start()
    board.wait_for_idle()
    board.put(small.path, "/root/new.raucb")
    assert "succeeded" in board.run("updated install /root/new.raucb")

    (booted,) = entries(board, f"MESSAGE_ID={Id.BOOTED}")
    assert booted["_TRANSPORT"] == "journal"
    assert booted["MESSAGE"] == "Booted into rootfs.0 (A)"
    assert (booted["SLOT_NAME"], booted["BOOT_ID"]) == ("rootfs.0", "1")
    assert booted["_SYSTEMD_UNIT"] == "updated.service"
    assert booted["OBJECT_SYSTEMD_UNIT"] == "rauc.service"  # LogExtraFields= of the unit
    assert booted["SYSLOG_IDENTIFIER"] == "updated"

    (started,) = entries(board, f"MESSAGE_ID={Id.INSTALL_STARTED}")
    (written,) = entries(board, "RAUC_EVENT_TYPE=writeslot", f"MESSAGE_ID={Id.SLOT_WRITTEN}")
    assert written["TRANSACTION_ID"] == started["TRANSACTION_ID"]
    assert "Booted into rootfs.0 (A)" in board.run("journalctl --no-pager --unit=rauc")

    board.run("journalctl --update-catalog")
    explained = board.run(f"journalctl --no-pager --catalog --unit=rauc MESSAGE_ID={Id.BOOTED}")
    assert "Subject: The device has booted from rootfs.0 (A)" in explained


def test_a_restart_is_no_boot(board: Board) -> None:
    board.start()
    board.wait_for_idle()
    board.run("systemctl restart updated && systemctl stop updated && systemctl start updated")
    assert len(entries(board, f"MESSAGE_ID={Id.BOOTED}")) == 1
    assert len(entries(board, f"MESSAGE_ID={Id.SERVICE_RESTARTED}")) == 2


def test_event_logs_can_be_written_from_within_the_sandbox(board: Board) -> None:
    board.configure()
    conf = board.container.path("/etc/rauc/system.conf")
    conf.write_text(f"{conf.read_text()}\n[log.all]\nfilename=/var/log/rauc.json\nformat=json\n")
    board.start()
    log = board.container.path("/var/log/rauc.json")
    board.wait("the log", lambda: log.exists() and "Booted into rootfs.0 (A)" in log.read_text())


def test_goes_on_while_the_journal_is_away(board: Board, small: Bundle) -> None:
    """journald is stopped with its sockets; afterwards what is said arrives again."""
    board.start()
    board.wait_for_idle()
    board.put(small.path, "/root/new.raucb")
    board.run(
        "systemctl stop systemd-journald.socket systemd-journald-dev-log.socket systemd-journald-audit.socket"
    )
    board.run("systemctl stop systemd-journald.service", check=False)
    assert "succeeded" in board.run("updated install /root/new.raucb")
    board.run(
        "systemctl start systemd-journald.socket systemd-journald-dev-log.socket systemd-journald.service"
    )
    board.run("systemctl stop updated")
    assert entries(board, f"MESSAGE_ID={Id.INSTALL_STARTED}") == []
    assert len(entries(board, f"MESSAGE_ID={Id.SERVICE_STOPPING}")) == 1
