"""Holds belong to whoever took them: they end when he leaves the bus, and nobody else wakes the service."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from dbus_fast import Message, MessageType

from tests.api.conftest import Daemon
from tests.api.peer import AGENT1, DEADLINE, Peer, serving
from tests.fakes.agent import FakeAgent
from updated.api.owners import MAX_HOLDS, Owners
from updated.api.server import serve

DBUS = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
LIMITS = "org.freedesktop.DBus.Error.LimitsExceeded"


async def inhibit(peer: Peer, seconds: int = 60) -> int:
    reply = await peer.agent1("Inhibit", "ssu", "kiosk", "a customer pays", seconds)
    assert reply.signature == "u", reply.body
    return int(reply.body[0])


async def until(peer: Peer, condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():
            await peer.agent1("Why")


async def rules(peer: Peer) -> list[str]:
    """What the service asks the bus to tell of others' coming and going."""
    stats = await peer.ask(*DBUS[:2], f"{DBUS[0]}.Debug.Stats", "GetAllMatchRules")
    owner = (await peer.ask(*DBUS, "GetNameOwner", "s", AGENT1[0])).body[0]
    return [rule for rule in stats.body[0][owner] if "NameOwnerChanged" in rule]


def test_a_hold_is_its_callers(bus: str) -> None:
    async def scenario() -> None:
        agent = FakeAgent()
        async with serving(bus, agent) as other, Peer(bus) as peer:
            number = await inhibit(peer)
            assert agent.holds == {number: ("kiosk", "a customer pays", 60, peer.bus.unique_name)}
            refused = await other.agent1("Release", "u", number + 1)
            assert refused.error_name == "org.updated.Error.Refused"
            assert (await peer.agent1("Release", "u", number)).error_name is None
            assert agent.holds == {}

    asyncio.run(scenario())


def test_holds_end_with_the_connection(bus: str) -> None:
    async def scenario() -> None:
        agent = FakeAgent()
        async with serving(bus, agent) as stays:
            kept = await inhibit(stays)
            async with Peer(bus) as leaves:
                name = leaves.bus.unique_name
                await inhibit(leaves)
                await inhibit(leaves)
            await until(stays, lambda: agent.forgotten == [name])
            assert list(agent.holds) == [kept]

    asyncio.run(scenario())


def test_a_caller_that_does_not_wait_for_the_answer(bus: str) -> None:
    async def scenario() -> None:
        agent = FakeAgent()
        async with serving(bus, agent) as stays:
            for _ in range(20):
                async with Peer(bus) as leaves:
                    leaves.send(AGENT1, "Inhibit", "ssu", "hasty", "", 60)
                await stays.agent1("Why")  # behind the call of the one that left
            await until(stays, lambda: len(agent.forgotten) >= 20)
            assert agent.holds == {}
            assert await rules(stays) == []

    asyncio.run(scenario())


def test_the_bus_is_asked_only_while_somebody_holds(bus: str) -> None:
    async def scenario() -> None:
        agent = FakeAgent()
        async with serving(bus, agent) as peer, Peer(bus) as other:
            assert await rules(other) == []
            numbers = [await inhibit(peer), await inhibit(peer)]
            (rule,) = await rules(other)
            assert f"arg0='{peer.bus.unique_name}'" in rule
            await peer.agent1("Release", "u", numbers[0])
            assert len(await rules(other)) == 1
            await other.agent1("Release", "u", numbers[1])
            assert await rules(other) == []

    asyncio.run(scenario())


def test_all_clients_together_have_a_limit(bus: str) -> None:
    async def scenario() -> None:
        agent = FakeAgent()
        async with serving(bus, agent) as peer:
            for _ in range(MAX_HOLDS):
                await inhibit(peer)
            more = await peer.agent1("Inhibit", "ssu", "", "", 60)
            assert (more.error_name, more.body) == (LIMITS, ["Too many holds at the same time"])
            await peer.agent1("Release", "u", 7)
            assert await inhibit(peer)
            assert len(agent.holds) == MAX_HOLDS

    asyncio.run(scenario())


def test_what_is_over_makes_room(bus: str) -> None:
    async def scenario() -> None:
        agent = FakeAgent()
        async with serving(bus, agent), Peer(bus) as peer:
            owners = Owners(peer.bus, agent.forget_owner)
            owner = peer.bus.unique_name
            assert owner is not None
            for number in range(MAX_HOLDS):
                await owners.keep(number, owner, -1)
            owners.check_room()  # says nothing
            owners.close()
            assert agent.forgotten == []  # none was left

    asyncio.run(scenario())


def test_without_a_bus_nobody_holds_anything(daemon: Daemon) -> None:
    async def scenario() -> None:
        agent = FakeAgent()
        lost = asyncio.Event()
        server = await serve(agent, address=daemon.address, on_lost=lambda _: lost.set())
        async with Peer(daemon.address) as peer:
            await inhibit(peer)
            daemon.kill()
            await asyncio.wait_for(lost.wait(), DEADLINE)
            await server.close()
            assert agent.forgotten == [peer.bus.unique_name]
            assert agent.holds == {}

    asyncio.run(scenario())


def test_a_stranger_cannot_send_somebody_away(bus: str) -> None:
    async def scenario() -> None:
        agent = FakeAgent()
        async with serving(bus, agent) as victim, Peer(bus) as stranger:
            await inhibit(victim)
            name = victim.bus.unique_name
            forged = Message.new_signal(*DBUS[1:], "NameOwnerChanged", "sss", [name, name, ""])
            forged.destination = AGENT1[0]
            assert forged.message_type is MessageType.SIGNAL
            await stranger.bus.send(forged)
            await stranger.agent1("Why")  # behind it
            assert len(agent.holds) == 1

    asyncio.run(scenario())
