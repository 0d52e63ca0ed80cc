"""The last gate, under a real systemd: when the device is rebooted, and when it is not."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest

from tests.system.board import UNIT, Board
from updated.host.starts import LIMIT, MAX_BOOTS

pytestmark = [pytest.mark.slow, pytest.mark.root]

BROKEN = "[system]\n"
REBOOT = 20.0  # seconds; it takes a few
STARTS = "/var/lib/updated/failed-starts.json"


def repair(board: Board) -> None:
    """Try again with a configuration that is right."""
    board.configure()
    board.run(f"systemctl reload {UNIT}")
    board.wait_for_idle()


def wait_for_restart(board: Board, number: int) -> None:
    active = (str(number), "active")
    board.wait("a restart", lambda: (board.show("NRestarts"), board.show("ActiveState")) == active)


def test_starts_that_fail_reboot_the_device(board: Board) -> None:
    board.override("RestartSec=10ms")
    board.write("/etc/rauc/system.conf", BROKEN)
    board.run(f"systemctl start --no-block {UNIT}")
    assert board.container.wait_for_reboot(REBOOT)


def test_a_service_that_dies_at_each_start_reboots_the_device(board: Board) -> None:
    board.override("RestartSec=10ms\nExecStartPost=/bin/sh -c 'kill -KILL $MAINPID'")
    board.run(f"systemctl start --no-block {UNIT}")
    assert board.container.wait_for_reboot(REBOOT)


def test_what_a_person_does_never_reboots(board: Board) -> None:
    """Restarts, stops and starts, more than the limit; and one kill, which systemd repairs."""
    board.start()
    for _ in range(int(board.show("StartLimitBurst")) + 2):
        board.run(f"systemctl restart {UNIT}")
    for _ in range(int(board.show("StartLimitBurst")) + 2):
        board.run(f"systemctl stop {UNIT}")
        board.run(f"systemctl start {UNIT}")
    assert board.show("NRestarts") == "0"
    board.run(f"systemctl kill --signal=KILL {UNIT}")
    wait_for_restart(board, 1)


def test_a_stop_that_takes_too_long_does_not_reboot(board: Board) -> None:
    board.make_hangable()
    board.override("TimeoutStopSec=1")
    board.start()
    os.kill(board.pid(), signal.SIGUSR2)
    board.run(f"systemctl stop {UNIT}")
    assert board.show("ActiveState") == "failed"
    time.sleep(1)  # a reboot would have begun
    assert board.run("systemctl is-system-running", check=False).strip() == "degraded"
    board.start()


def test_after_ten_boots_without_a_start_it_stays_up_and_says_why(board: Board) -> None:
    board.override("RestartSec=1min\nWatchdogSec=1")
    board.write("/etc/rauc/system.conf", BROKEN)

    def boot(boot_id: str) -> None:
        board.boot_from("A", boot_id)
        board.run("rm -rf /run/updated")

    for number in range(1, MAX_BOOTS):
        boot(f"boot-{number}")
        for _ in range(2 if number == 1 else 1):  # in one boot it is counted once
            board.run(f"systemctl start {UNIT}", check=False)
            assert board.show("SubState") == "auto-restart"
            board.run(f"systemctl stop {UNIT}; systemctl reset-failed {UNIT} || true")
    assert len(json.loads(board.container.path(STARTS).read_text())) == MAX_BOOTS - 1

    boot("the last")
    board.run(f"systemctl start {UNIT}")
    status = board.show("StatusText")
    assert status.startswith("Degraded: ")
    assert status.endswith("; it has failed in 10 boots in a row; `systemctl reload updated` tries again")
    time.sleep(2.5)  # it pings
    assert board.show("ActiveState") == "active"
    assert board.show("NRestarts") == "0"

    board.override("WatchdogSec=1\nRestartSec=10ms")
    board.run(f"systemctl reload {UNIT}")  # the mistake is still there
    board.wait("another try", lambda: board.show("NRestarts") == "1" and board.show("SubState") == "running")
    assert board.show("StatusText") == status
    repair(board)


def test_a_mistake_on_a_confirmed_system_does_not_reboot(board: Board) -> None:
    board.start()
    board.wait_for_idle()
    board.write("/etc/updated/updated.toml", '[folder]\npaht = "/srv"\n')
    board.run(f"systemctl stop {UNIT}")
    board.run(f"systemctl start {UNIT}")
    assert board.show("StatusText").startswith(
        "Degraded: Failed to load /etc/updated/updated.toml: unknown key"
    )
    assert board.show("NRestarts") == "0"
    assert not board.container.path(STARTS).exists()
    repair(board)


def test_a_confirmed_system_whose_service_keeps_dying_is_not_rebooted(board: Board) -> None:
    board.override("RestartSec=10ms")
    board.start()
    board.wait_for_idle()
    for number in range(1, LIMIT):
        board.run(f"systemctl kill --signal=KILL {UNIT}")
        wait_for_restart(board, number)
    assert board.show("StatusText").startswith("Degraded: The service was ended 4 times within 45 minutes; ")
    repair(board)


def test_the_last_resort_of_a_reboot_is_permitted(board: Board) -> None:
    """Without systemd's manager; inside the sandbox of the unit."""
    command = "/bin/systemctl --force --force reboot"
    board.replace(f"[Service]\nExecStart=\nExecStart={command}\n[Unit]\nStartLimitAction=none\n")
    board.run(f"systemctl start --no-block {UNIT}")
    assert board.container.wait_for_reboot(REBOOT)


def test_the_journal_can_be_read_in_the_sandbox(board: Board) -> None:
    read = "journalctl --lines=1 --output=cat"  # no --boot: nspawn's boot id is not seen in a sandbox
    board.override(f"ExecStartPost=/bin/sh -c '{read} >/tmp/read'")
    board.start()
    assert board.run("cat /tmp/read").strip()
