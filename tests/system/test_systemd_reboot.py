"""Reboots by a real logind: who is told, who is waited for, who may hold it; one that does not come."""

from __future__ import annotations

import pytest

from tests.system.board import Board
from tests.system.computer import Computer
from tests.system.conftest import Bundle, NewComputer

pytestmark = [pytest.mark.slow, pytest.mark.root]

REBOOT = 30.0  # seconds; without anybody who holds it, it takes about one
SCHEDULED = "/run/systemd/shutdown/scheduled"
PREPARING = (
    "busctl get-property org.freedesktop.login1 /org/freedesktop/login1 org.freedesktop.login1.Manager "
    "PreparingForShutdown"
)
STATE = "busctl get-property org.updated.Agent1 /org/updated/Agent1 org.updated.Agent1 State"
IMMEDIATELY = '[reboot]\nwhen = "immediately"\n'
# Somebody who is logged in.  logind looks for him where who(1) does: utmp(5).
TERMINAL = """\
import os, pty, struct
ours, theirs = pty.openpty()
line = os.ttyname(theirs).removeprefix("/dev/").encode()
USER_PROCESS = 7
with open("/run/utmp", "ab") as utmp:
    utmp.write(struct.pack("=h2xi32s4s32s340x", USER_PROCESS, os.getpid(), line, b"test", b"root"))
while True:
    print(os.read(ours, 4096).decode().replace("\\r", ""), flush=True)
"""
SCREEN = "/root/screen"
# Its stop never ends, and systemd waits for it.
HANGING = """\
[Unit]
{order}
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
ExecStop=/bin/sleep infinity
TimeoutStopSec=infinity
"""


def inhibit(board: Board, mode: str) -> None:
    """Until `systemctl stop inhibitor`."""
    words = f"--what=shutdown --mode={mode} --who=kiosk '--why=a card is read'"
    board.run(f"systemd-run --quiet --unit=inhibitor systemd-inhibit {words} sleep infinity")
    board.wait("the inhibitor", lambda: "kiosk" in board.run("systemd-inhibit --list --no-legend"))


def install(board: Board, bundle: Bundle) -> None:
    board.start()
    board.wait_for_idle()
    board.put(bundle.path, "/srv/drop/new.raucb")


def test_people_are_told_and_who_delays_it_is_waited_for(board: Board, small: Bundle) -> None:
    board.write("/etc/systemd/logind.conf.d/test.conf", "[Login]\nInhibitDelayMaxSec=1min\n")
    board.run("systemctl restart systemd-logind")
    board.write("/root/someone.py", TERMINAL)
    board.run(f"systemd-run --quiet --property=StandardOutput=file:{SCREEN} python3 /root/someone.py")
    inhibit(board, "delay")
    board.configure(agent=f'{IMMEDIATELY}message = "Until soon."')
    install(board, small)
    board.wait("logind", lambda: "true" in board.run(PREPARING))
    screen = board.container.path(SCREEN).read_text()
    assert "Broadcast message from root@" in screen
    assert "Until soon.\nThe system will reboot now!" in screen
    assert board.show("StatusText").endswith("it starts with the next reboot. The reboot was asked for.")
    board.run("systemctl stop --no-block inhibitor")
    assert board.container.wait_for_reboot(REBOOT)


def test_who_blocks_it_is_named_and_a_delay_is_scheduled(board: Board, small: Bundle) -> None:
    board.configure(agent=f"{IMMEDIATELY}delay = 1")
    inhibit(board, "block")
    install(board, small)
    held = "The reboot into version 2 waits: kiosk blocks the shutdown (a card is read)"
    board.wait("the hold", lambda: held in board.run("updated why"))
    assert '"reboot-pending"' in board.run(STATE)
    board.reload()  # it is looked at again
    assert held in board.run("updated why")
    assert not board.container.path(SCHEDULED).exists()

    board.run("systemctl stop inhibitor")
    board.reload()  # or within a minute
    board.wait("the plan", lambda: "MODE=reboot" in board.run(f"cat {SCHEDULED}", check=False), pause=0)
    assert board.container.wait_for_reboot(REBOOT)


def test_by_hand_without_a_logind(computer: Computer, small: Bundle) -> None:
    """What blocks the shutdown is no matter then: a person has decided."""
    with computer.boot() as board:
        assert "Nothing waits for a reboot" in _reboot_by_hand(board)
        install(board, small)
        manual = 'The agent does not reboot by itself: reboot.when is "manual" in updated.toml.'
        board.wait("the install", lambda: manual in board.run("updated why"))
        board.run("systemctl mask --now --runtime systemd-logind.service")
        assert "The reboot was asked for." in _reboot_by_hand(board)
        assert board.container.wait_for_reboot(REBOOT)
    assert "trying `systemctl reboot`" in computer.journal()


def test_a_shutdown_that_hangs_is_enforced(new_computer: NewComputer, small: Bundle) -> None:
    """In the stop of a unit before ours, and of one without which ours ends.  Both at once: they wait."""
    before, after = new_computer(), new_computer()
    with before.boot() as ours_runs, after.boot() as ours_is_stopped:
        for board, order in ((ours_runs, "After=updated.service"), (ours_is_stopped, "")):
            board.write("/etc/systemd/system/hanging.service", HANGING.format(order=order))
            board.configure(agent=f"{IMMEDIATELY}escalate-after = 10")
            board.run("systemctl daemon-reload; systemctl start hanging.service")
            install(board, small)
        assert ours_runs.container.wait_for_reboot(REBOOT)
        assert ours_is_stopped.container.wait_for_reboot(REBOOT)
    assert "The reboot did not come within 10 s; now by step 2 of 3" in before.journal()
    assert "updated-reboot.service" not in before.journal()
    assert "if the reboot does not come, updated-reboot.service asks for it harder" in after.journal()


def test_a_stop_by_hand_leaves_nobody_behind_who_reboots(board: Board, small: Bundle) -> None:
    board.configure(agent=f"{IMMEDIATELY}delay = 600")
    install(board, small)
    board.wait("the plan", lambda: board.container.path(SCHEDULED).exists())
    board.run("systemctl stop updated")
    assert board.run("systemctl list-units --all --no-legend 'updated-*'") == ""


def _reboot_by_hand(board: Board) -> str:
    return board.run("updated reboot", check=False)
