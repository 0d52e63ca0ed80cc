"""`health`, `heartbeat`, `quarantine` and `reboot`, with a simulated agent on a real bus."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping

import pytest

from tests.fakes.agent import FakeAgent
from updated.api.server import serve
from updated.core.health import CheckReport, Judgement
from updated.core.model import Quarantined

Env = Mapping[str, str]
Run = Callable[..., tuple[int, str, str]]
TIME = "2026-11-20T10:00:00Z"
CHECKS = (
    CheckReport("shop", required=True, ok=False, text="exit code 3: \x1b[2Jno till", time=TIME),
    CheckReport("cloud", required=True, ok=None, text="", excused="the system before could not reach it"),
    CheckReport("radio", required=False, ok=True, text="on", time=TIME),
)
GOOD = Judgement("b-1", "rootfs.0", "1.0", "good", TIME, "", "Healthy for 10 s: shop.")
BAD = Judgement("b-2", "rootfs.1", "2.0", "bad", TIME, "shop", "shop: exit code 3", CHECKS)
REJECTED = Quarantined("ab" * 32, "2.0", "shop: exit code 3", TIME, "b-2", ("f" * 32,), ("kernel: panic",))


@pytest.fixture
def agent() -> FakeAgent:
    return FakeAgent()


@pytest.fixture
def run(bus: Env, agent: FakeAgent, updated: Callable[..., object]) -> Run:
    """Runs commands with the agent on the bus; (exit code, stdout, stderr)."""

    def run(*words: str) -> tuple[int, str, str]:
        async def served() -> tuple[int, str, str]:
            server = await serve(agent, address=bus["DBUS_SESSION_BUS_ADDRESS"])
            try:
                done = await asyncio.to_thread(updated, *words, env={**bus, "NO_COLOR": "1"})
            finally:
                await server.close()
            return done.returncode, done.stdout, done.stderr  # type: ignore[attr-defined]

        return asyncio.run(served())

    return run


def test_health(run: Run, agent: FakeAgent) -> None:
    """The exit code says whether it is good, for scripts; what checks print cannot steer the terminal."""
    assert run("health") == (1, "Nothing was judged yet.\n", "")
    agent.health(GOOD)
    assert run("health") == (0, f"rootfs.0 version 1.0: good since {TIME}: Healthy for 10 s: shop.\n", "")
    agent.health(BAD)
    code, out, _ = run("health")
    assert code == 1
    assert out.splitlines() == [
        f"rootfs.1 version 2.0: bad since {TIME}: shop: exit code 3",
        f"  bad     shop since {TIME}: exit code 3: \\x1b[2Jno till",
        "  unknown cloud (does not count: the system before could not reach it)",
        f"  good    radio (optional) since {TIME}: on",
    ]
    code, out, _ = run("health", "--limit=2")
    assert out.count("since") == 4
    assert "rootfs.0 version 1.0" in out
    code, out, _ = run("health", "--output-format=json")
    assert (code, json.loads(out)[0]["decided"]) == (1, "shop")


def test_health_in_status(run: Run, agent: FakeAgent) -> None:
    agent.health(BAD)
    _, out, _ = run("status")
    assert f"Health:      bad since {TIME}: shop: exit code 3\n" in out


def test_heartbeat(run: Run, agent: FakeAgent) -> None:
    assert run("heartbeat", "kiosk") == (0, "", "")
    assert agent.beats == ["kiosk"]
    assert run("heartbeat", "kisok") == (1, "", "No heartbeat of 'kisok' is expected\n")
    code, _, err = run("heartbeat")
    assert (code, err.splitlines()[0]) == (1, "The name of the application must be provided")


def test_quarantine(run: Run, agent: FakeAgent) -> None:
    assert run("quarantine") == run("quarantine", "list") == (0, "Nothing is quarantined.\n", "")
    agent.rejected = [REJECTED]
    _, out, _ = run("quarantine")
    assert out.splitlines() == [
        f"{'ab' * 32}  version 2.0",
        f"  {TIME}  shop: exit code 3",
        f"  Failed boots: {'f' * 32}",
        "  | kernel: panic",
    ]
    assert json.loads(run("quarantine", "list", "--output-format=json")[1])[0]["journal"] == ["kernel: panic"]
    assert run("quarantine", "lift", "00") == (1, "", "Bundle 00 is not quarantined\n")
    assert run("quarantine", "lift", "ab" * 32) == (0, f"Bundle {'ab' * 32} may be installed again.\n", "")
    assert run("quarantine", "lift", "--all") == (0, "0 bundles may be installed again.\n", "")
    agent.rejected = [REJECTED]
    assert run("quarantine", "lift", "--all") == (0, "1 bundle may be installed again.\n", "")


@pytest.mark.parametrize(
    "words",
    [
        ("lift",),
        ("lift", ""),  # all of them only if that is said
        ("lift", "--all", "ab"),
        ("list", "--all"),
        ("lsit",),
        ("list", "ab"),
    ],
)
def test_what_is_no_question_about_the_quarantine(run: Run, agent: FakeAgent, words: tuple[str, ...]) -> None:
    agent.rejected = [REJECTED]
    code, _, err = run("quarantine", *words)
    assert code == 1
    assert "Expected `list`, `lift <HASH>` or `lift --all`" in err
    assert agent.rejected == [REJECTED]


def test_reboot(run: Run, agent: FakeAgent) -> None:
    assert run("reboot") == (1, "", "Nothing waits for a reboot\n")
    agent.state("reboot-pending", "Version 2.0 waits")
    assert run("reboot") == (0, "The reboot was asked for.\n", "")
    assert run("reboot", "now")[0] == 1
    assert agent.reboots == 1
