"""Our own commands and what a person sees of an install, with a simulated agent on a real bus."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.fakes.agent import GOOD, HOLD, MANIFEST, FakeAgent, FakePoller, Script
from updated.api.port import Outcome
from updated.api.server import serve
from updated.core.gate import Hold
from updated.core.model import Access, Transfer
from updated.core.polling import PollStatus

Env = Mapping[str, str]
OUTCOME = Outcome(
    transaction="tx-1",
    source="request",
    location="/data/new.raucb",
    version="2026.1",
    manifest_hash="ab" * 32,
    target="rootfs.1",
    code="confirmed",
    text="The new system is good.",
    time="2026-11-20T11:04:30Z",
)
AS_RAUC = "import sys; from updated.cli.main import run; sys.exit(run(['/usr/bin/rauc', *sys.argv[1:]]))"


@dataclass(frozen=True, slots=True)
class Result:
    code: int
    out: str
    err: str


async def start(
    env: Env, *words: str, program: tuple[str, ...] = ("-m", "updated")
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *program,
        *words,
        env={**os.environ, "LC_ALL": "C.UTF-8", **env},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def end(process: asyncio.subprocess.Process) -> Result:
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode is not None
    return Result(process.returncode, out.decode(), err.decode())


async def cli(env: Env, *words: str) -> Result:
    return await end(await start(env, *words))


@asynccontextmanager
async def serving(env: Env, agent: FakeAgent) -> AsyncIterator[None]:
    server = await serve(agent, address=env["DBUS_SESSION_BUS_ADDRESS"])
    try:
        yield
    finally:
        await server.close()


def with_agent(env: Env, agent: FakeAgent, test: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        async with serving(env, agent):
            await test()

    asyncio.run(run())


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


@pytest.fixture
def agent() -> FakeAgent:
    return FakeAgent()


@pytest.fixture
def holding(agent: FakeAgent) -> FakeAgent:
    """Its install waits at 70 %."""
    agent.gate.clear()
    return agent


@pytest.fixture
def bundle(tmp_path: Path) -> str:
    (tmp_path / "new.raucb").write_bytes(b"-")
    return str(tmp_path / "new.raucb")


def holds(agent: FakeAgent) -> bool:
    return agent.now.progress == (70, "Copying image to rootfs.1", 3)


def test_status_ends_with_the_update(bus: Env, agent: FakeAgent) -> None:
    agent.now = replace(agent.now, last=OUTCOME, detail="Nothing to do")

    async def test() -> None:
        got = await cli({**bus, "NO_COLOR": "1"}, "status")
        rauc_part, _, update = got.out.partition("\n=== Update ===\n")
        assert rauc_part.startswith("=== System Info ===\nCompatible:  Test Board\nVariant:     red\n")
        assert update.splitlines() == [
            "State:       idle (Nothing to do)",
            "Last result: confirmed at 2026-11-20T11:04:30Z",
            "  Bundle:    /data/new.raucb",
            "  Version:   2026.1",
            "  Target:    rootfs.1",
            "  The new system is good.",
        ]
        machine = await cli(bus, "status", "--output-format=json")
        assert list(json.loads(machine.out))[-1] == "artifact-repositories"
        assert "Update" not in (await cli(bus, "status", "--output-format=shell")).out

    with_agent(bus, agent, test)


def test_status_without_a_primary_is_still_a_status(bus: Env, agent: FakeAgent) -> None:
    agent.primary_error = "the bootloader is out"

    async def test() -> None:
        got = await cli(bus, "status")
        assert got.code == 0
        assert "Activated: none\n" in got.out
        assert got.err == "Failed getting primary slot: the bootloader is out\n"

    with_agent(bus, agent, test)


def test_status_during_an_install_shows_bytes(bus: Env, holding: FakeAgent, bundle: str) -> None:
    async def test() -> None:
        install = await start(bus, "install", "--transaction-id=tx-7", bundle)
        await until(lambda: holds(holding))
        got = await cli({**bus, "NO_COLOR": "1"}, "status")
        assert f"State:       install (Installing {bundle})\n" in got.out
        assert "Progress:    70%, 500 bytes of 1.0\u00a0kB, 100 bytes/s, 5 s left\n" in got.out
        assert "Transaction: tx-7\n" in got.out
        holding.gate.set()
        assert (await end(install)).code == 0

    with_agent(bus, holding, test)


def test_arguments_of_install_reach_the_service(bus: Env, agent: FakeAgent, bundle: str) -> None:
    async def test() -> None:
        words = ("--ignore-compatible", "--ignore-version-limit", "--require-manifest-hash=abc")
        assert (await cli(bus, "install", *words, bundle)).code == 0
        (offer,) = agent.offers
        assert offer.location == bundle
        assert offer.args.ignore_compatible
        assert offer.args.ignore_version_limit
        assert offer.args.require_manifest_hash == "abc"

    with_agent(bus, agent, test)


def test_how_to_reach_a_server_reaches_the_service(bus: Env, agent: FakeAgent, tmp_path: Path) -> None:
    url = "HTTPS://example.org/x.raucb?token=1"

    async def test() -> None:
        words = ("--tls-cert=c.pem", "--tls-key=/k.pem", "--tls-ca=pkcs11:token=x", "--tls-no-verify")
        headers = ("-H", "X-A: 1", "--http-header=X-B: 2")
        got = await cli(bus, "install", *words, *headers, url)
        assert (got.code, got.err) == (0, "")
        assert got.out.endswith(f"Installing `{url}` succeeded\n")
        (offer,) = agent.offers
        assert offer.location == url
        assert offer.access == Access(
            f"{Path.cwd()}/c.pem",
            "/k.pem",
            "pkcs11:token=x",
            tls_no_verify=True,
            headers=("X-A: 1", "X-B: 2"),
        )
        bad = await cli(bus, "install", "-H", "none", url)
        assert (bad.code, bad.err.splitlines()[0]) == (
            1,
            "Invalid HTTP header 'none': expected one line 'NAME: VALUE'",
        )

    with_agent(bus, agent, test)


def test_pause_and_resume(bus: Env, holding: FakeAgent, bundle: str) -> None:
    async def test() -> None:
        install = await start(bus, "install", bundle)
        await until(lambda: holds(holding))
        assert (await cli(bus, "pause")).out == "The install rests; `updated resume` lets it go on.\n"
        got = await cli({**bus, "NO_COLOR": "1"}, "status")
        assert "5 s left, paused (`updated resume` lets it go on)\n" in got.out
        assert (await cli(bus, "resume")).out == "The install goes on.\n"
        assert "paused" not in (await cli(bus, "status")).out
        refused = await cli(bus, "resume")
        assert (refused.code, refused.out, refused.err) == (1, "", "Nothing is paused\n")
        holding.gate.set()
        assert (await end(install)).code == 0

    with_agent(bus, holding, test)


def test_status_says_what_waits(bus: Env, agent: FakeAgent) -> None:
    agent.now = replace(agent.now, hold=Hold("window", "The window opens at 02:00.", 3600.0))

    async def test() -> None:
        got = await cli({**bus, "NO_COLOR": "1"}, "status")
        line = "Waiting:     The window opens at 02:00. (window, looked at again in 1:00:00 h)\n"
        assert line in got.out

    with_agent(bus, agent, test)


def test_why(bus: Env, agent: FakeAgent) -> None:
    async def test() -> None:
        assert (await cli(bus, "why")).out == "Nothing waits.\n"
        assert (await cli(bus, "why", "--output-format=json")).out == "[]\n"
        agent.reasons = ["The window opens at 02:00.", "then \x1b[2J"]
        assert (await cli(bus, "why")).out == "The window opens at 02:00.\nthen \\x1b[2J\n"
        machine = await cli(bus, "why", "--output-format=json-pretty")
        assert json.loads(machine.out) == agent.reasons

    with_agent(bus, agent, test)


def test_consent(bus: Env, agent: FakeAgent) -> None:
    async def test() -> None:
        refused = await cli(bus, "consent", "install")
        assert (refused.code, refused.err) == (1, "Nobody asked for consent to the install\n")
        agent.asking = "install"
        assert (await cli(bus, "consent", "install")).out == "The install is agreed to.\n"
        agent.asking = "reboot"
        assert (await cli(bus, "consent", "--deny", "reboot")).out == "The reboot is denied.\n"
        assert agent.answers == [("install", True), ("reboot", False)]
        wrong = await cli(bus, "consent", "breakfast")
        assert wrong.err.splitlines()[0] == "Unknown stage 'breakfast', expected install or reboot"
        assert (await cli(bus, "consent")).code == 1

    with_agent(bus, agent, test)


def test_floor(bus: Env, agent: FakeAgent) -> None:
    async def test() -> None:
        assert (await cli(bus, "floor")).out == "There is no version floor.\n"
        agent.now = replace(agent.now, floor="2.1")
        assert (await cli(bus, "floor")).out == "Nothing below version 2.1 is installed.\n"
        assert (await cli(bus, "floor", "--reset")).out == "Any version may be installed again.\n"
        assert agent.now.floor == ""

    with_agent(bus, agent, test)


def test_poll_where_nothing_is_polled(bus: Env, agent: FakeAgent) -> None:
    async def test() -> None:
        got = await cli(bus, "poll", "--now")
        assert (got.code, got.out) == (1, "")
        assert got.err.splitlines()[0] == "Nothing is polled"

    with_agent(bus, agent, test)


def test_poll(bus: Env) -> None:
    poller = FakePoller()
    agent = FakeAgent(poller=poller)
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000

    async def test() -> None:
        got = await cli(bus, "poll")
        assert got.out.splitlines() == [
            "Next poll:    none is planned",
            "Last attempt: never",
            "Last success: never",
        ]
        poller.now = PollStatus(manifest=MANIFEST, size=10**6, summary="found it")
        poller.next = now + 10**12
        asked = await cli(bus, "poll", "--now", "--output-format=json")
        status = json.loads(asked.out)
        assert poller.asked == 1
        assert status["next-poll"] == now + 10**12 + 30_000_000
        assert status["status"]["manifest"]["update"]["version"] == "2.0"

    with_agent(bus, agent, test)


def test_cancel_ends_the_install(bus: Env, holding: FakeAgent, bundle: str) -> None:
    async def test() -> None:
        install = await start(bus, "install", bundle)
        await until(lambda: holds(holding))
        cancelled = await cli(bus, "cancel")
        assert (cancelled.code, cancelled.err) == (0, "")
        got = await end(install)
        assert got.code == 1
        assert got.out.splitlines()[-1] == "LastError: Cancelled"
        assert got.err == f"Installing `{bundle}` failed\n"
        refused = await cli(bus, "cancel")
        assert (refused.code, refused.out, refused.err) == (1, "", "No install is running\n")

    with_agent(bus, holding, test)


def test_a_second_install_is_refused(bus: Env, holding: FakeAgent, bundle: str) -> None:
    async def test() -> None:
        install = await start(bus, "install", bundle)
        await until(lambda: holds(holding))
        got = await cli(bus, "install", bundle)
        assert (got.code, got.out) == (2, "")
        assert got.err.splitlines() == [
            "Failed to contact rauc service: Already processing a different method",
            f"D-Bus error while installing `{bundle}`",
        ]
        holding.gate.set()
        assert (await end(install)).code == 0

    with_agent(bus, holding, test)


@pytest.mark.parametrize(("program", "code"), [(("-m", "updated"), 130), (("-c", AS_RAUC), 3)])
def test_interrupting_leaves_the_install_alone(
    bus: Env, holding: FakeAgent, bundle: str, program: tuple[str, ...], code: int
) -> None:
    async def test() -> None:
        install = await start(bus, "install", bundle, program=program)
        await until(lambda: holds(holding))
        assert install.stdout is not None
        while b" 70%" not in await asyncio.wait_for(install.stdout.readline(), 20):
            pass  # the client has seen it, too
        install.send_signal(signal.SIGINT)
        got = await end(install)
        assert got.code == code
        assert "will not abort the installation running in the rauc service!" in got.out
        assert got.err == "hint: `updated cancel` stops it, `updated status` shows how far it is.\n"
        assert holding.now.operation == "installing"
        holding.gate.set()
        await until(lambda: holding.now.operation == "idle")

    with_agent(bus, holding, test)


def test_a_service_that_ends_during_the_install(bus: Env, holding: FakeAgent, bundle: str) -> None:
    async def run() -> None:
        async with serving(bus, holding):
            install = await start(bus, "install", bundle)
            await until(lambda: holds(holding))
        got = await end(install)
        assert got.code == 2
        assert got.err.splitlines() == [
            "The update service ended during the install",
            f"D-Bus error while installing `{bundle}`",
        ]

    asyncio.run(run())


def test_an_error_cannot_steer_the_terminal(bus: Env, agent: FakeAgent, bundle: str) -> None:
    agent.script = Script(((0, "Installing", 1), (100, "a\x1b[2Jb", 1)), error="one\n\x1b]0;two")

    async def test() -> None:
        got = await cli(bus, "install", bundle)
        assert got.code == 1
        assert "\x1b" not in got.out
        assert got.out.endswith("100% a\\x1b[2Jb\nLastError: one\n\\x1b]0;two\n")

    with_agent(bus, agent, test)


def test_a_terminal_gets_a_bar(bus: Env, holding: FakeAgent, bundle: str) -> None:
    async def test() -> None:
        terminal, side = pty.openpty()
        install = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "updated", "install", bundle),
            env={**os.environ, **bus, "TERM": "xterm", "COLUMNS": "200"},
            stdout=side,
        )
        os.close(side)
        await until(lambda: holds(holding))
        shown = b""
        while b"500 bytes of 1.0" not in shown:  # told by our own interface
            shown += await asyncio.to_thread(os.read, terminal, 65536)
        holding.gate.set()
        assert await asyncio.wait_for(install.wait(), 30) == 0
        shown += os.read(terminal, 65536)
        os.close(terminal)
        assert b" 70%" in shown
        assert b"Copying image to rootfs.1" in shown
        assert f"Installing `{bundle}` succeeded".encode() in shown

    with_agent(bus, holding, test)


def test_confirm(bus: Env, agent: FakeAgent) -> None:
    async def test() -> None:
        refused = await cli(bus, "confirm")
        assert (refused.code, refused.out) == (1, "")
        assert refused.err.startswith("Nothing is to be confirmed")
        agent.state("confirming", "Waiting for health")
        assert (await cli(bus, "confirm")).code == 0
        assert agent.confirmed == 1

    with_agent(bus, agent, test)


def test_rollback_says_what_starts_next(bus: Env, agent: FakeAgent) -> None:
    async def test() -> None:
        got = await cli(bus, "rollback")
        assert got.out == "The last update is taken back; rootfs.1 starts next.\n"
        assert (await cli(bus, "rollback", "now")).err.startswith("Excess argument: now\n")

    with_agent(bus, agent, test)


def test_history(bus: Env, agent: FakeAgent) -> None:
    async def test() -> None:
        assert (await cli(bus, "history")).out == "Nothing was installed yet.\n"
        agent.outcomes = [replace(OUTCOME, code="failed", version=""), OUTCOME]
        assert (await cli(bus, "history")).out.splitlines() == [
            "2026-11-20T11:04:30Z  confirmed  2026.1        rootfs.1    The new system is good.",
            "2026-11-20T11:04:30Z  failed     -             rootfs.1    The new system is good.",
        ]
        newest = json.loads((await cli(bus, "history", "--limit=1", "--output-format=json")).out)
        assert [outcome["code"] for outcome in newest] == ["confirmed"]
        huge = await cli(bus, "history", f"--limit={'9' * 5000}")
        assert (huge.code, huge.err[:26]) == (1, "Cannot parse integer value")
        bad = await cli(bus, "history", "--limit=-1")
        assert (bad.code, bad.err.splitlines()[0]) == (1, "Cannot parse integer value '-1' for --limit")

    with_agent(bus, agent, test)


def test_the_fakes_install_is_what_these_tests_think() -> None:
    assert HOLD in GOOD.events
    assert Transfer(done=500, total=1000, rate=100.0, eta=5.0) in GOOD.events
