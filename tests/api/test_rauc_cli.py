"""The real `rauc` 1.8 command line as a client of our service."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

from tests.api.peer import RealRauc, serving
from tests.fakes.agent import BROKEN_WRITE, FakeAgent, Script

BUSY = "Already processing a different method"


async def rauc(bus: str, *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error."""
    session = {"DBUS_STARTER_BUS_TYPE": "session", "DBUS_SESSION_BUS_ADDRESS": bus}
    process = await asyncio.create_subprocess_exec(
        "rauc",
        *arguments,
        env=os.environ | session,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    # It depends on the moment whether the client still sees Operation=idle, which comes after Completed.
    return process.returncode or 0, output.decode().replace("\nidle\n", "\n"), errors.decode()


def install(bus: str, bundle: Path, script: Script | None = None) -> tuple[int, str, str]:
    async def scenario() -> tuple[int, str, str]:
        agent = FakeAgent(script) if script else FakeAgent()
        async with serving(bus, agent):
            result = await rauc(bus, "install", str(bundle))
        assert [offer.location for offer in agent.offers] == [str(bundle)]
        return result

    return asyncio.run(scenario())


def test_install(bus: str, real_rauc: RealRauc) -> None:
    code, output, _ = install(bus, real_rauc.good)
    assert code == 0
    assert output.splitlines() == [
        "installing",
        "  0% Installing",
        "  0% Determining slot states",
        " 10% Determining slot states done.",
        " 10% Checking bundle",
        " 20% Checking bundle done.",
        " 40% Updating slots",
        " 46% Copying image to rootfs.1",
        " 70% Copying image to rootfs.1",
        " 99% Copying image to rootfs.1 done.",
        " 99% Updating slots done.",
        "100% Installing done.",
        f"Installing `{real_rauc.good}` succeeded",
    ]


def test_failing_install_shows_the_reason(bus: str, real_rauc: RealRauc) -> None:
    code, output, _ = install(bus, real_rauc.good, BROKEN_WRITE)
    assert code == 1
    assert "100% Installing failed." in output
    assert f"LastError: {BROKEN_WRITE.error}" in output


def test_install_while_another_one_runs(bus: str, real_rauc: RealRauc) -> None:
    async def scenario() -> None:
        agent = FakeAgent()
        agent.gate.clear()
        async with serving(bus, agent) as peer:
            await peer.rauc("Install", "s", "/first.raucb")
            code, _, errors = await rauc(bus, "install", str(real_rauc.good))
            assert code != 0
            assert BUSY in errors
            agent.gate.set()
            await peer.until("Completed", 0)

    asyncio.run(scenario())


def test_status_in_words(bus: str) -> None:
    async def scenario() -> None:
        async with serving(bus, FakeAgent()):
            code, output, _ = await rauc(bus, "status")
            assert code == 0
            assert "Booted from: rootfs.0 (A)" in output
            assert "Activated: rootfs.0 (A)" in output

    asyncio.run(scenario())


def test_status_as_json_during_an_install(bus: str) -> None:
    async def scenario() -> None:
        agent = FakeAgent()
        agent.gate.clear()
        async with serving(bus, agent) as peer:
            await peer.rauc("Install", "s", "/x.raucb")
            code, output, _ = await rauc(bus, "status", "--detailed", "--output-format=json")
            assert code == 0
            agent.gate.set()
            await peer.until("Completed", 0)
        status = json.loads(output)
        assert (status["compatible"], status["variant"]) == ("Test Board", "red")
        assert (status["booted"], status["boot_primary"]) == ("A", "rootfs.0")
        slots = {name: slot for entry in status["slots"] for name, slot in entry.items()}
        assert slots["appfs.0"]["parent"] == "rootfs.0"
        assert slots["rootfs.0"]["slot_status"] == {
            "bundle": {"compatible": "Test Board", "version": "1.0"},
            "checksum": {"sha256": "cd" * 32, "size": 5 * 2**32},
            "installed": {"timestamp": "2026-01-02T03:04:05Z", "count": 3},
            "activated": {"timestamp": "2026-01-02T03:04:06Z", "count": 2},
            "status": "ok",
        }

    asyncio.run(scenario())


def test_mark(bus: str) -> None:
    async def scenario() -> None:
        agent = FakeAgent()
        async with serving(bus, agent):
            code, output, errors = await rauc(bus, "status", "mark-good")
            assert code == 0, errors
            assert "marked slot(s) rootfs.0 as good" in output + errors
            code, _, errors = await rauc(bus, "status", "mark-active", "nonsense")
            assert code == 1
            assert "Invalid slot name format: 'nonsense'" in errors
        assert agent.marks == [("good", "booted")]

    asyncio.run(scenario())
