"""A new system on trial, under a real systemd: confirmed, given up, given up by systemd; its hooks."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.system.board import UNIT, Board
from tests.system.computer import Computer
from tests.system.conftest import Bundle
from updated.core.events import Id

pytestmark = [pytest.mark.slow, pytest.mark.root]

KILLS = 3  # until systemd reboots; 5 in the unit
REBOOT = 60.0  # seconds; it takes a few, and about 20 where a verdict is waited for
IMMEDIATELY = '[reboot]\nwhen = "immediately"\n'
ON_TRIAL = "Running version 2 from rootfs.1; checking that it is healthy."
BEGAN = "/run/updated/judging.json"

# What a hook may do in the sandbox, and the way out of it: MAX_LINES of the history.
HOOK = """\
#!/bin/sh
echo "$UPDATED_HOOK of $UPDATED_VERSION from $UPDATED_BOOTED to $UPDATED_TARGET: $UPDATED_REASON"
for file in /srv/hook /usr/hook /etc/hook /root/hook; do
    touch $file 2>/dev/null && echo "wrote $file"
done
mount -t tmpfs hook /mnt && touch /mnt/hook && echo mounted
systemctl start --wait migrate.service && echo "a unit $(cat /usr/migrated)"
"""
MIGRATE = "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo migrated >/usr/migrated'\n"
HOOK_THAT_HANGS = "#!/bin/sh\necho $UPDATED_HOOK >/srv/begun\nsleep 1000 &\nsleep 1001\n"

LATE = """\
[Service]
Type=notify
NotifyAccess=all
ExecStart=/bin/sh -c 'until test -e /root/allowed; do sleep 0.1; done; systemd-notify --ready; sleep 1000'
"""
KIOSK = """\
[Service]
User=member
ExecStart=/bin/sh -c 'while updated heartbeat kiosk; do sleep 0.5; done'
"""
GOOD = """\
deadline = 300
[[confirm.checks]]
type = "unit"
unit = "late.service"
period = 0.1
[[confirm.checks]]
type = "target"
[[confirm.checks]]
type = "no-failed-units"
[[confirm.checks]]
type = "heartbeat"
application = "kiosk"
required = true
within = 10
period = 0.1
[hooks]
on-confirmed = ["/srv/hangs"]
timeout = 1
"""
NEVER = "[Service]\nType=notify\nExecStart=/bin/sleep 1000\nTimeoutStartSec=infinity\n"
WEB = "[Service]\nExecStart=/usr/bin/python3 -m http.server --bind 127.0.0.1 --directory /srv 8080\n"
BAD = """\
deadline = 3
[[confirm.checks]]
type = "unit"
unit = "never.service"
deadline = 2
[[confirm.checks]]
type = "no-failed-units"
units = ["fail*"]
[[confirm.checks]]
type = "http"
name = "web"
url = "http://127.0.0.1:8080/health"
period = 1
[[confirm.checks]]
type = "http"
name = "web root"
url = "http://127.0.0.1:8080/"
period = 1
[[confirm.checks]]
type = "socket"
address = "/run/dbus/system_bus_socket"
[[confirm.checks]]
type = "mount"
path = "/var/lib/updated"
"""
# Looks that end soon: a verdict comes at its deadline.
BROKEN = """\
deadline = 1
[[confirm.checks]]
type = "command"
name = "self-test"
command = ["/bin/sh", "-c", "echo no display; exit 7"]
timeout = 0.1
period = 0.1
"""


def units(board: Board, **services: str) -> None:
    for name, text in services.items():
        board.write(f"/etc/systemd/system/{name}.service", text)
    board.run("systemctl daemon-reload")


def program(board: Board, path: str, text: str) -> None:
    board.write(path, text)
    board.container.path(path).chmod(0o755)


def install(board: Board, bundle: Bundle) -> None:
    board.start()
    board.wait_for_idle()
    board.put(bundle.path, "/srv/drop/new.raucb")


def moment(board: Board, message: Id) -> int:
    """When that was last said; microseconds of the monotonic clock."""
    shown = board.run(f"journalctl --output=json --lines=1 --unit={UNIT} MESSAGE_ID={message}")
    return int(json.loads(shown)["__MONOTONIC_TIMESTAMP"])


def hook_of(board: Board) -> str:
    return next((line["text"] for line in board.history() if line["code"] == "hook"), "")


def test_confirmed_once_all_of_it_holds(computer: Computer, small: Bundle) -> None:
    with computer.boot() as board:
        board.configure(agent=f'{IMMEDIATELY}[hooks]\non-installed = ["/srv/migrate"]')
        program(board, "/srv/migrate", HOOK)
        units(board, migrate=MIGRATE)
        install(board, small)
        assert board.container.wait_for_reboot(REBOOT)

    with computer.boot() as board:
        board.run("useradd --groups updated member && useradd stranger")
        units(board, late=LATE, kiosk=KIOSK)
        program(board, "/srv/hangs", HOOK_THAT_HANGS)
        board.configure(agent=GOOD, stable_for=1)
        board.run("systemctl start --no-block late.service")
        board.start()
        waiting = {"unit_late_service": "late.service is activating (start), expected active"}
        board.wait_for_health("judging", **waiting, target_multi_user_target="is reached")
        assert "rootfs.1 version 2: judging since" in board.run("updated health; test $? = 1")
        assert board.show("StatusText") == ON_TRIAL
        assert hook_of(board) == (
            "on-installed: Done after 0 s: on-installed of 2 from rootfs.0 to rootfs.1:  / wrote /srv/hook / "
            "mounted / a unit migrated"
        )
        _neither_a_stop_nor_a_restart_is_a_verdict(board, waiting)

        board.run("touch /root/allowed")
        board.wait_for_health("judging", unit_late_service="is active", heartbeat_kiosk="")
        heartbeat = board.run("updated heartbeat kiosk", check=False, user="stranger")
        assert "be root or a member of the group `updated`" in heartbeat
        assert _states(board.health())["heartbeat kiosk"] == "bad"
        board.run("systemctl start kiosk.service")
        board.wait_for_health("good")
        assert board.grubenv() == {"ORDER": "B A", "A_OK": "1", "A_TRY": "0", "B_OK": "1", "B_TRY": "0"}
        kiosk = board.run("systemctl show --property=ActiveEnterTimestampMonotonic --value kiosk.service")
        assert moment(board, Id.HEALTH_GOOD) - int(kiosk) >= 1_000_000  # stable-for
        assert "rootfs.1 version 2: good since" in board.run("updated health")

        board.wait("the hook's end", lambda: hook_of(board).startswith("on-confirmed"))
        assert hook_of(board) == "on-confirmed: Failed: /srv/hangs did not finish within 1 s."
        assert board.run("cat /srv/begun") == "on-confirmed\n"
        board.wait("its children's end", lambda: len(board.container.pids(UNIT)) == 1)
        assert "confirmed" in [line["code"] for line in board.history()]


def _neither_a_stop_nor_a_restart_is_a_verdict(board: Board, waiting: dict[str, str]) -> None:
    began, before = board.run(f"cat {BEGAN}"), board.grubenv()
    board.run(f"systemctl stop {UNIT} && systemctl start {UNIT} && systemctl restart {UNIT}")
    board.wait_for_health("judging", **waiting)
    assert board.show("StatusText") == ON_TRIAL
    assert board.run(f"cat {BEGAN}") == began  # nobody has more time for that
    assert board.grubenv() == before
    assert before["B_TRY"] == "1"
    assert board.run("updated quarantine") == "Nothing is quarantined.\n"


def test_given_up_with_the_words_of_the_check(computer: Computer, small: Bundle) -> None:
    with computer.boot() as board:
        board.configure(agent=IMMEDIATELY)
        install(board, small)
        assert board.container.wait_for_reboot(REBOOT)

    with computer.boot() as board:
        units(board, never=NEVER, web=WEB, failing="[Service]\nExecStart=/bin/false\n")
        board.run("systemctl start web.service; systemctl start --no-block never failing")
        board.run("ip link set lo up", check=False)
        board.configure(agent=BAD, stable_for=1)
        board.start()
        assert board.container.wait_for_reboot(REBOOT)

    with computer.boot() as board:
        assert board.grubenv()["B_OK"] == "0"
        program(board, "/srv/back", "#!/bin/sh\necho $UPDATED_HOOK: $UPDATED_REASON\n")
        board.configure(agent='[hooks]\non-fallback = ["/srv/back"]')
        board.put(small.path, "/srv/drop/new.raucb")
        board.start()
        board.wait_for_idle()
        why = (
            "unit never.service: not healthy for 1 s within 2 s: "
            "never.service is activating (start), expected active"
        )
        assert _fallback(board)["text"] == f"The bootloader fell back to rootfs.0. Cause: {why}."
        board.wait("the hook", lambda: hook_of(board) != "")
        assert hook_of(board) == f"on-fallback: Done after 0 s: on-fallback: {why}"
        board.wait("the source", lambda: "quarantined" in board.run("updated why"))
        (quarantined,) = json.loads(board.run("updated quarantine --output-format=json"))
        assert quarantined["reason"] == why
        board.wait("the failed boot's journal", lambda: "| [" in board.run("updated quarantine"))
        now, earlier = json.loads(board.run("updated health --limit=2 --output-format=json"))
        assert (now["group"], now["state"]) == ("rootfs.0", "good")
        assert (earlier["group"], earlier["decided"]) == ("rootfs.1", "unit never.service")
        assert _states(earlier) == {
            "watchdog": "good",
            "unit never.service": "bad",
            "no-failed-units fail*": "bad",
            "web": "bad",
            "web root": "good",
            "socket /run/dbus/system_bus_socket": "good",
            "mount /var/lib/updated": "good",
        }
        texts = {check["name"]: check["text"] for check in earlier["checks"]}
        assert texts["no-failed-units fail*"] == "failed: failing.service, expected none"
        assert texts["web"].startswith("status 404")


def test_systemd_gives_it_up_where_we_cannot(computer: Computer, small: Bundle) -> None:
    """The system is bad, and cannot be marked so: no ping goes out any more."""
    with computer.boot() as board:
        install(board, small)
        board.wait_for_journal("installed: Installed to rootfs.1")

    with computer.boot() as board:
        board.run("mount --bind /boot/grub /boot/grub; mount -o remount,bind,ro /boot/grub")
        board.configure(agent=BROKEN)
        board.override("WatchdogSec=1\nTimeoutAbortSec=1\nRestartSec=10ms")
        board.replace(f"[Unit]\nStartLimitBurst={KILLS}\n")
        board.start()
        assert board.container.wait_for_reboot(REBOOT)
    journal = computer.journal()
    seen = "self-test: not healthy for 0.1 s within 1 s: exit code 7, expected exit code 0: no display"
    assert f"no watchdog ping: {seen}" in journal
    assert journal.count(f"{UNIT}: Watchdog timeout") == KILLS
    assert f"{UNIT}: Start request repeated too quickly" in journal

    with computer.boot() as board:
        assert (board.grubenv()["B_OK"], board.grubenv()["B_TRY"]) == ("1", "1")  # GRUB has counted
        board.start()
        board.wait_for_idle()
        assert _fallback(board)["text"] == f"The bootloader fell back to rootfs.0. Cause: {seen}."


def _states(judgement: dict[str, Any]) -> dict[str, str]:
    return {check["name"]: check["state"] for check in judgement["checks"]}


def _fallback(board: Board) -> dict[str, Any]:
    return next(line for line in board.history() if line["code"] == "fallback")
