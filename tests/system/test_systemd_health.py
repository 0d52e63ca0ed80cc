"""Checks of real units, and all kinds of checks in the sandbox that the unit has."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.system.board import Board

pytestmark = [pytest.mark.slow, pytest.mark.root]

# Judges as the service does, beside it.
JUDGE = """\
import asyncio, json, sys, time
sys.path.insert(0, "/usr/lib/updated")
from updated.config.agent_toml import parse_agent_config
from updated.core.link import LinkSettings
from updated.health.gate import Gate
from updated.health.watchdog import Watchdog
from updated.service.checks import make_checks

async def main():
    confirm = parse_agent_config(sys.stdin.buffer.read()).confirm
    checks, _ = make_checks(confirm, LinkSettings())
    seen = {check.rule.name: [] for check in checks}
    def changed(reports):
        for report in reports:
            if report.name in seen and report.text not in ("", *seen[report.name][-1:]):
                seen[report.name].append(report.text)
    gate = Gate(
        Watchdog(None, lambda: None), checks, stable_for=confirm.stable_for, deadline=confirm.deadline,
        began=time.monotonic() - float(sys.argv[1]), changed=changed,
    )
    verdict = await gate.judge()
    print(json.dumps({"good": verdict.good, "decided": verdict.decided, "text": verdict.text, "seen": seen}))

asyncio.run(main())
"""
LATE = """\
[Service]
Type=notify
NotifyAccess=all
ExecStart=/bin/sh -c 'sleep 2; systemd-notify --ready; exec sleep 1000'
"""
RESTARTING = """\
[Unit]
StartLimitIntervalSec=0
[Service]
ExecStart=/bin/sh -c 'sleep 0.6; exit 3'
Restart=always
RestartSec=1ms
"""
FAILING = "[Service]\nExecStart=/bin/false\n"


def judge(board: Board, toml: str, *, ago: float = 0.0) -> dict[str, Any]:
    board.write("/root/judge.py", JUDGE)
    board.write("/root/checks.toml", toml)
    found: dict[str, Any] = json.loads(board.run(f"python3 /root/judge.py {ago} </root/checks.toml"))
    return found


def unit(name: str, kind: str = "unit") -> str:
    return f'[[confirm.checks]]\ntype = "{kind}"\n{kind} = "{name}"\nperiod = 0.1\n'


SHOW = """\
import asyncio, sys
sys.path.insert(0, "/usr/lib/updated")
from updated.host.units import Systemd

async def main():
    systemd = Systemd()
    print((await systemd.show(sys.argv[1])).invocation.hex())
    await systemd.close()

asyncio.run(main())
"""


def test_real_units(board: Board) -> None:
    board.write("/etc/systemd/system/late.service", LATE)
    board.write("/etc/systemd/system/restarting.service", RESTARTING)
    board.write("/etc/systemd/system/failing.service", FAILING)
    board.run("systemctl daemon-reload; systemctl start --no-block late.service")

    target = unit("multi-user.target", "target")
    found = judge(board, f"[confirm]\nstable-for = 1\ndeadline = 30\n{target}{unit('late.service')}")
    assert found["good"]
    assert found["text"] == "Healthy for 1 s: target multi-user.target, unit late.service."
    assert found["seen"]["unit late.service"] == [
        "late.service is activating (start), expected active",
        "late.service is active (running)",
    ]

    board.write("/root/show.py", SHOW)
    shown = board.run("python3 /root/show.py late.service").strip()
    assert shown == board.run("systemctl show --property=InvocationID --value late.service").strip()
    assert len(shown) == 32

    # It is active at almost every look.
    board.run("systemctl start restarting.service")
    found = judge(board, f"[confirm]\nstable-for = 2\ndeadline = 5\n{unit('restarting.service')}", ago=5)
    assert (found["good"], found["decided"]) == (False, "unit restarting.service")
    assert "was restarted by systemd" in found["text"] or "is activating (auto-restart)" in found["text"], (
        found
    )
    board.run("systemctl stop restarting.service")

    none = '[[confirm.checks]]\ntype = "no-failed-units"\nunits = ["fail*", "late*"]\n'
    quick = "[confirm]\nstable-for = 0\ndeadline = 1\n"
    assert judge(board, quick + none.replace('"\n', '"\nperiod = 0.1\n', 1))["good"]
    board.run("systemctl start failing.service; sleep 0.2", check=False)
    found = judge(board, f"[confirm]\nstable-for = 0\ndeadline = 2\n{none}{unit('none.service')}", ago=2)
    assert not found["good"]
    assert found["seen"]["no-failed-units fail* late*"] == ["failed: failing.service, expected none"]
    assert found["seen"]["unit none.service"] == ["none.service does not exist, expected active"]


ALL = """\
deadline = 60

[[confirm.checks]]
type = "unit"
unit = "web.service"

[[confirm.checks]]
type = "target"

[[confirm.checks]]
type = "no-failed-units"

[[confirm.checks]]
type = "http"
url = "http://127.0.0.1:8080/"
body = "Directory.*/srv|Directory l[a-z]+"

[[confirm.checks]]
type = "command"
command = ["/bin/sh", "-c", "echo seven of seven"]

[[confirm.checks]]
type = "socket"
address = "127.0.0.1:8080"

[[confirm.checks]]
type = "socket"
address = "/run/dbus/system_bus_socket"

[[confirm.checks]]
type = "mount"
path = "/srv/data"
writable = true

[[confirm.checks]]
type = "free-space"
path = "/srv/data"
min-free = 4096

[[confirm.checks]]
type = "clock"

[[confirm.checks]]
type = "heartbeat"
application = "kiosk"
required = true
"""
WEB = "[Service]\nExecStart=/usr/bin/python3 -m http.server --directory /srv 8080\n"


def test_all_kinds_in_the_sandbox_of_the_unit(board: Board) -> None:
    board.write("/etc/systemd/system/web.service", WEB)
    board.run("systemctl daemon-reload; systemctl start web.service; ip link set lo up", check=False)
    board.configure(agent=ALL)
    board.start()
    board.run("mkdir -p /srv/data && mount -t tmpfs tmpfs /srv/data")  # seen by who is running already
    board.run("updated heartbeat kiosk")
    health: dict[str, Any] = {}

    def good() -> bool:
        nonlocal health
        (health,) = json.loads(board.run("updated health --output-format=json", check=False))
        return bool(health["state"] == "good")

    board.wait("health", good, pause=0.5)
    reports = {report["name"]: report for report in health["checks"]}
    clock = reports.pop("clock")
    assert clock["text"] in ("the clock is synchronised", "the clock is not synchronised")
    assert {name for name, report in reports.items() if report["state"] != "good"} == set()
    assert reports["command /bin/sh -c echo seven of seven"]["text"] == "seven of seven"
