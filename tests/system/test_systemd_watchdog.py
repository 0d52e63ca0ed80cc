"""A service that hangs, under a real systemd: it is ended, says where it hung, and works again."""

from __future__ import annotations

import os
import signal

import pytest

from tests.system.board import HANG_FLAG, UNIT, Board
from tests.system.conftest import Bundle

pytestmark = [pytest.mark.slow, pytest.mark.root]

QUICK = "WatchdogSec=2\nTimeoutAbortSec=2"
AT_ONCE = "RestartSec=10ms"
REBOOT = 30.0  # seconds; it takes about ten
GET_PRIMARY = "busctl call de.pengutronix.rauc / de.pengutronix.rauc.Installer GetPrimary"


def restarted(board: Board) -> bool:
    return board.show("NRestarts") == "1" and board.show("ActiveState") == "active"


def test_a_frozen_process_is_killed_and_started_anew(board: Board) -> None:
    """Stopped with all its threads it cannot even take SIGABRT: SIGKILL comes after TimeoutAbortSec=."""
    board.override(QUICK)
    board.start()
    first = board.pid()
    os.kill(first, signal.SIGSTOP)
    board.wait("a restart", lambda: restarted(board))
    assert "Failed with result 'watchdog'" in board.journal()
    assert board.pid() != first


def test_a_loop_that_hangs_is_ended_with_a_traceback_and_nothing_is_lost(board: Board, small: Bundle) -> None:
    """An update is installed and waits for its reboot; after the kill it still does."""
    board.make_hangable()
    board.override(QUICK)
    board.start()
    board.wait_for_idle()
    board.put(small.path, "/root/new.raucb")
    assert "succeeded" in board.run("updated install /root/new.raucb")
    before = (board.show("StatusText"), board.grubenv(), board.history(), board.run(GET_PRIMARY))
    assert "rootfs.1" in before[-1]

    os.kill(board.pid(), signal.SIGUSR2)
    board.wait("a restart", lambda: restarted(board))
    journal = board.journal()
    assert f"{UNIT}: Watchdog timeout" in journal
    assert "Fatal Python error: Aborted" in journal
    assert "in hang" in journal  # where it hung
    board.wait("the same state", lambda: board.show("StatusText") == before[0])
    assert (board.show("StatusText"), board.grubenv(), board.history(), board.run(GET_PRIMARY)) == before


def test_one_that_hangs_after_each_start_reboots_the_device(board: Board) -> None:
    board.make_hangable()
    board.override(f"{QUICK}\n{AT_ONCE}\nExecStartPost=/bin/sh -c 'kill -USR2 $MAINPID'")
    board.run(f"systemctl start --no-block {UNIT}")
    assert board.container.wait_for_reboot(REBOOT)


def test_one_that_never_becomes_ready_reboots_the_device(board: Board) -> None:
    board.make_hangable()
    board.write(HANG_FLAG, "")
    board.override(f"TimeoutStartSec=1\nTimeoutStopSec=1\n{AT_ONCE}")
    board.run(f"systemctl start --no-block {UNIT}")
    assert board.container.wait_for_reboot(REBOOT)
