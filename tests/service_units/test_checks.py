"""From the tables to a verdict: all kinds together, on a private bus, with a real server."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.conftest import CONFIG, Daemon
from tests.fakes.systemd import FakeSystemd, FakeUnit, fake_systemd
from tests.fakes.web import Fault, Server
from updated.config.agent_toml import parse_agent_config
from updated.core.health import Rule, Verdict
from updated.core.link import LinkSettings
from updated.errors import Refused
from updated.health.gate import Gate
from updated.health.watchdog import Watchdog
from updated.service.checks import Heartbeats, make_checks, memory_check

CHECKS = """\
[confirm]
stable-for = 0.3
deadline = 30

[[confirm.checks]]
type = "unit"
unit = "kiosk.service"
period = 0.1

[[confirm.checks]]
type = "target"
period = 0.1

[[confirm.checks]]
type = "no-failed-units"
period = 0.1

[[confirm.checks]]
type = "http"
url = "{url}"
body = "w.ll"
period = 0.1

[[confirm.checks]]
type = "command"
command = ["/bin/sh", "-c", "exit 0"]
period = 0.1

[[confirm.checks]]
type = "socket"
address = "127.0.0.1:{port}"
period = 0.1

[[confirm.checks]]
type = "mount"
path = "/proc"
writable = true
period = 0.1

[[confirm.checks]]
type = "free-space"
path = "/"
min-free = 1
period = 0.1

[[confirm.checks]]
type = "clock"
required = false
period = 0.1

[[confirm.checks]]
type = "heartbeat"
application = "kiosk"
required = true
within = 60
deadline = {deadline}
period = 0.1
"""
LINK = LinkSettings(proxy="http://127.0.0.1:1")  # leads nowhere; this device is reached without it


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    config = tmp_path / "bus.conf"
    config.write_text(CONFIG.format(socket=tmp_path / "bus"))
    running = Daemon(config, tmp_path / "bus")
    yield running
    running.kill()


def well(here: FakeSystemd) -> None:
    here.units = {"kiosk.service": FakeUnit(), "multi-user.target": FakeUnit()}


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def judged(daemon: Daemon, server: Server) -> tuple[Verdict, dict[str, bool | None]]:
    text = CHECKS.format(url=server.url("/health"), port=server.port, deadline=30)
    confirm = parse_agent_config(text.encode()).confirm
    checks, heartbeats = make_checks(confirm, LINK, bus=daemon.address)
    heartbeats.beat("kiosk")
    reports: dict[str, bool | None] = {}
    gate = Gate(
        Watchdog(None, lambda: None),
        checks,
        stable_for=confirm.stable_for,
        deadline=confirm.deadline,
        began=time.monotonic(),
        changed=lambda found: reports.update({report.name: report.ok for report in found}),
    )
    before = open_files()
    async with asyncio.timeout(60):
        verdict = await gate.judge()
    await asyncio.sleep(0.05)  # the server lets go of its side
    assert open_files() <= before
    return verdict, reports


def test_all_are_well(daemon: Daemon) -> None:
    async def scene() -> None:
        async with fake_systemd(daemon.address) as here, Server({"/health": b"well"}) as server:
            well(here)
            verdict, reports = await judged(daemon, server)
            assert verdict.good, verdict
            assert verdict.text.startswith(
                "Healthy for 0.3 s: unit kiosk.service, target multi-user.target, "
            )
            assert all(ok for name, ok in reports.items() if name != "clock"), reports
            assert len(here.senders) == 1  # one connection for all

    asyncio.run(scene())


def test_rules_follow_from_the_tables() -> None:
    text = CHECKS.format(url="http://example.com/", port=80, deadline=20)
    checks, _ = make_checks(parse_agent_config(text.encode()).confirm, LINK)
    rules = {check.rule.name: check.rule for check in checks}
    assert rules["http http://example.com/"] == Rule("http http://example.com/", False, 30, True)
    assert rules["unit kiosk.service"] == Rule("unit kiosk.service", True, 30, False)
    assert rules["clock"] == Rule("clock", False, 30, True)
    assert rules["heartbeat kiosk"] == Rule("heartbeat kiosk", True, 20, True)
    assert {check.period for check in checks} == {0.1}


def test_one_that_is_asked_once(daemon: Daemon) -> None:
    async def scene() -> None:
        faults = {"/health": [Fault(status=500, body=b"no database")]}
        async with fake_systemd(daemon.address) as here, Server(faults=faults) as server:
            well(here)
            here.units["kiosk.service"] = FakeUnit(active="failed", sub="failed", result="core-dump")
            text = CHECKS.format(url=server.url("/health"), port=server.port, deadline=30)
            checks, _ = make_checks(parse_agent_config(text.encode()).confirm, LINK, bus=daemon.address)
            gate = Gate(Watchdog(None, lambda: None), checks, stable_for=1, deadline=30, began=0.0)
            reports = {report.name: report for report in await gate.look_once()}
            failed = {report.text for name, report in reports.items() if not report.ok and name != "clock"}
            assert failed == {
                "kiosk.service is failed (failed), ended before with 'core-dump', expected active",
                "failed: kiosk.service, expected none",
                "status 500, expected 200: no database",
                "kiosk was never heard, expected a heartbeat every 60 s",
            }

    asyncio.run(scene())


def test_heartbeats_are_kept_from_one_configuration_to_the_next() -> None:
    text = CHECKS.format(url="http://localhost/", port=80, deadline=30)
    confirm = parse_agent_config(text.encode()).confirm
    _, heartbeats = make_checks(confirm, LINK)
    heartbeats.beat("kiosk")
    _, again = make_checks(confirm, LINK, heartbeats)
    assert again is heartbeats
    assert again.age("kiosk") is not None
    _, none = make_checks(parse_agent_config(b"").confirm, LINK, heartbeats)
    with pytest.raises(Refused):
        none.beat("kiosk")
    assert isinstance(none, Heartbeats)


def test_nothing_large_is_loaded_for_checks_that_are_not_made() -> None:
    script = """
import sys
from updated.config.agent_toml import parse_agent_config
from updated.core.link import LinkSettings
from updated.service.checks import make_checks
text = sys.stdin.read()
checks, _ = make_checks(parse_agent_config(text.encode()).confirm, LinkSettings())
assert len(checks) == 10
print(*sorted({"aiohttp", "dbus_fast", "ctypes"} & set(sys.modules)))
"""
    text = CHECKS.format(url="http://localhost/", port=80, deadline=30)
    done = subprocess.run(
        [sys.executable, "-c", script], input=text, capture_output=True, text=True, check=True
    )
    assert done.stdout == "\n"


def test_a_system_without_its_memory_is_not_good(tmp_path: Path) -> None:
    """fstab wants a data partition and it is not there: it cannot even know that it is on trial."""
    confirm = parse_agent_config(b"").confirm
    assert memory_check(confirm, "") == ()
    (missing,) = memory_check(confirm, str(tmp_path))
    assert missing.rule.required
    assert not asyncio.run(missing.look()).ok
    (there,) = memory_check(confirm, "/proc")
    assert asyncio.run(there.look()).ok
