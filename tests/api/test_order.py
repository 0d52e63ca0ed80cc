"""What is on the wire during an install, and in which order (RAUC src/service.c, src/install.c)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.api.peer import RAUC, Peer, serving
from tests.fakes.agent import BROKEN_WRITE, GOOD, REJECTED, FakeAgent, Script

IDLE = ("changed", "Installer", {"Operation": "idle"})
INSTALLING = ("changed", "Installer", {"Operation": "installing"})
ALREADY = "Already processing a different method"
Heard = list[tuple[Any, ...]]


def steps(script: Script) -> Heard:
    """The signals that a script makes: only changed values travel."""
    triples = [event for event in script.events if isinstance(event, tuple)]
    return [("changed", "Installer", {"Progress": list(triple)}) for triple in triples]


def rauc_only(heard: Heard) -> Heard:
    return [
        event
        for event in heard
        if event[0] in ("reply", "error", "Completed") or event[:2] == ("changed", "Installer")
    ]


async def install(peer: Peer, method: str = "InstallBundle") -> Heard:
    """Everything of RAUC's interface that one install makes a client hear."""
    peer.heard.clear()
    if method == "Install":
        await peer.rauc("Install", "s", "/x.raucb")
    else:
        await peer.rauc("InstallBundle", "sa{sv}", "/x.raucb", {})
    return rauc_only(await peer.until(*IDLE))


@pytest.mark.parametrize("method", ["Install", "InstallBundle"])
def test_success(bus: str, method: str) -> None:
    async def scenario() -> None:
        async with serving(bus, FakeAgent()) as peer:
            heard = await install(peer, method)
        assert heard == [INSTALLING, ("reply",), *steps(GOOD), ("Completed", 0), IDLE]

    asyncio.run(scenario())


@pytest.mark.parametrize("script", [REJECTED, BROKEN_WRITE], ids=["before the write", "during the write"])
def test_failure(bus: str, script: Script) -> None:
    async def scenario() -> None:
        async with serving(bus, FakeAgent(script)) as peer:
            heard = await install(peer)
        error = ("changed", "Installer", {"LastError": script.error})
        assert heard == [INSTALLING, ("reply",), *steps(script), error, ("Completed", 1), IDLE]

    asyncio.run(scenario())


def test_last_error_is_cleared_by_the_next_install(bus: str) -> None:
    async def scenario() -> None:
        agent = FakeAgent(REJECTED)
        async with serving(bus, agent) as peer:
            await install(peer)
            agent.script = GOOD
            heard = await install(peer)
            assert heard[:3] == [INSTALLING, ("reply",), ("changed", "Installer", {"LastError": ""})]
            assert heard[-2:] == [("Completed", 0), IDLE]
            assert (await peer.get(RAUC, "LastError")).value == ""

    asyncio.run(scenario())


def test_a_client_may_call_again_when_it_sees_idle(bus: str) -> None:
    async def scenario() -> None:
        async with serving(bus, FakeAgent()) as peer:
            for _ in range(3):
                heard = await install(peer)
                assert heard[0] == INSTALLING
                assert heard[-2:] == [("Completed", 0), IDLE]

    asyncio.run(scenario())


def test_busy_calls_do_not_disturb_the_running_install(bus: str) -> None:
    async def scenario() -> None:
        agent = FakeAgent()
        agent.gate.clear()
        async with serving(bus, agent) as peer:
            await peer.rauc("InstallBundle", "sa{sv}", "/x.raucb", {})
            await peer.until("changed", "Installer", {"Progress": [70, "Copying image to rootfs.1", 3]})
            busy = [
                await peer.rauc("InstallBundle", "sa{sv}", "/y.raucb", {}),
                await peer.rauc("Install", "s", "/y.raucb"),
                await peer.rauc("Mark", "ss", "good", "booted"),
            ]
            assert [answer.body[0] for answer in busy] == [ALREADY, ALREADY, ALREADY.replace("A", "a")]
            assert (await peer.get(RAUC, "Operation")).value == "installing"
            agent.gate.set()
            heard = rauc_only(await peer.until(*IDLE))
        signals = [event for event in heard if event[0] not in ("reply", "error")]
        assert signals == [INSTALLING, *steps(GOOD), ("Completed", 0), IDLE]
        assert [offer.location for offer in agent.offers] == ["/x.raucb"]
        assert agent.marks == []

    asyncio.run(scenario())


def test_reads_are_answered_during_an_install(bus: str) -> None:
    async def scenario() -> None:
        agent = FakeAgent()
        agent.gate.clear()
        async with serving(bus, agent) as peer:
            await peer.rauc("InstallBundle", "sa{sv}", "/x.raucb", {})
            calls: list[tuple[Any, ...]] = [
                ("Info", "s", "/x.raucb"),
                ("InspectBundle", "sa{sv}", "/x.raucb", {}),
                ("GetSlotStatus",),
                ("GetArtifactStatus",),
                ("GetPrimary",),
            ]
            for call in calls:
                answer = await peer.rauc(*call)
                assert answer.error_name is None, call
            agent.gate.set()
            await peer.until(*IDLE)

    asyncio.run(scenario())


def test_pipelined_calls_are_taken_in_order(bus: str) -> None:
    async def scenario() -> None:
        agent = FakeAgent()
        agent.gate.clear()
        async with serving(bus, agent) as peer:
            peer.send(RAUC, "InstallBundle", "sa{sv}", "/x.raucb", {})
            assert (await peer.get(RAUC, "Operation")).value == "installing"
            agent.gate.set()
            await peer.until(*IDLE)
            assert ("Completed", 0) in peer.heard

    asyncio.run(scenario())
