"""Callers that mean harm, or do not know better: the service answers, stays small and stays there."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from typing import Any

from dbus_fast import Message, MessageType, Variant

from tests.api.peer import AGENT1, DEADLINE, PROPERTIES, RAUC, Peer, serving
from tests.fakes.agent import FakeAgent, FakePoller
from updated.api.rauc import MAX_ARGUMENT
from updated.api.wire import MAX_CALLS, MAX_CALLS_PER_CLIENT, MAX_ERROR_TEXT

DBUS = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
POLLER = "de.pengutronix.rauc.Poller"
LIMITS = "org.freedesktop.DBus.Error.LimitsExceeded"


async def alive(peer: Peer) -> None:
    assert (await peer.rauc("GetPrimary")).body == ["rootfs.0"]


def test_one_client_cannot_take_all_calls(bus: str) -> None:
    async def scenario() -> None:
        agent = FakeAgent()
        agent.inspecting.clear()
        async with serving(bus, agent) as flooder, Peer(bus) as other:
            flood = [asyncio.create_task(flooder.rauc("Info", "s", "/x")) for _ in range(100)]
            async with asyncio.timeout(DEADLINE):
                await asyncio.sleep(0)
                await alive(other)
            agent.inspecting.set()
            answers = await asyncio.gather(*flood)
            refused = [answer for answer in answers if answer.error_name == LIMITS]
            assert len(refused) == 100 - MAX_CALLS_PER_CLIENT
            await alive(flooder)

    asyncio.run(scenario())


def test_many_clients_cannot_take_more_than_all(bus: str) -> None:
    async def scenario() -> None:
        agent = FakeAgent()
        agent.inspecting.clear()
        async with serving(bus, agent) as last:
            peers = [await Peer(bus).__aenter__() for _ in range(MAX_CALLS // MAX_CALLS_PER_CLIENT)]
            calls = [
                asyncio.create_task(peer.rauc("Info", "s", "/x"))
                for peer in peers
                for _ in range(MAX_CALLS_PER_CLIENT)
            ]
            for peer in peers:
                await peer.rauc("GetArtifactStatus")  # answered at once, behind the calls of the peer
            assert (await last.rauc("Info", "s", "/x")).error_name == LIMITS
            assert (await last.get(RAUC, "Operation")).value == "idle"
            agent.inspecting.set()
            for answer in await asyncio.gather(*calls):
                assert answer.error_name is None
            await alive(last)
            for peer in peers:
                await peer.__aexit__(None, None, None)

    asyncio.run(scenario())


def flood(address: str, calls: int) -> None:
    """Call and never read an answer, with a bare socket (D-Bus specification, "Authentication")."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as bare:
        bare.connect(address.removeprefix("unix:path="))
        bare.sendall(b"\0AUTH EXTERNAL " + str(os.getuid()).encode().hex().encode() + b"\r\n")
        assert bare.recv(100).startswith(b"OK")
        bare.sendall(b"BEGIN\r\n")
        hello = Message(*DBUS, "Hello", serial=1)
        bare.sendall(hello._marshall(False))
        call = Message(*RAUC[:2], PROPERTIES, "GetAll", signature="s", body=[RAUC[2]], serial=2)
        bare.sendall(call._marshall(False) * calls)
        bare.recv(1)


def test_a_client_that_calls_and_never_reads(bus: str) -> None:
    async def scenario() -> None:
        agent = FakeAgent()
        async with serving(bus, agent) as other:
            flooding = asyncio.create_task(asyncio.to_thread(flood, bus, 5000))
            while not flooding.done():
                await alive(other)
            await flooding
            await alive(other)

    asyncio.run(scenario())


def test_a_burst_that_the_bus_does_not_take_at_once(bus: str) -> None:
    async def scenario() -> None:
        agent = FakeAgent()
        async with serving(bus, agent) as peer:
            for number in range(5000):  # more than the socket's buffer holds
                agent.step(number % 100, f"step {number}", 1)
            agent.completed(0)
            heard = await peer.until("Completed", 0)
            told = [event[2]["Progress"][1] for event in heard if event[:2] == ("changed", "Installer")]
            assert told == [f"step {number}" for number in range(5000)]
            await alive(peer)

    asyncio.run(scenario())


def test_huge_strings(bus: str) -> None:
    async def scenario() -> None:
        agent = FakeAgent()
        huge = "x" * 10_000_000
        calls: list[tuple[Any, ...]] = [
            ("Install", "s", huge),
            ("InstallBundle", "sa{sv}", huge, {}),
            ("InstallBundle", "sa{sv}", "/x", {huge: Variant("s", "")}),
            ("InstallBundle", "sa{sv}", "/x", {"transaction-id": Variant("s", huge)}),
            ("Info", "s", huge),
            ("InspectBundle", "sa{sv}", huge, {}),
            ("InspectBundle", "sa{sv}", "/x", {"tls-key": Variant("s", huge)}),
            ("InstallBundle", "sa{sv}", "/x", {"http-headers": Variant("as", [f"X: {huge}"])}),
            ("InstallBundle", "sa{sv}", "/x", {"http-headers": Variant("as", ["X: y"] * 100_000)}),
            ("Mark", "ss", huge, "booted"),
            ("Mark", "ss", "good", huge),
        ]
        async with serving(bus, agent) as peer:
            for call in calls:
                answer = await peer.rauc(*call)
                assert answer.message_type is MessageType.ERROR
                assert len(answer.body[0]) <= MAX_ERROR_TEXT
            assert (await peer.rauc("Install", "s", "x" * MAX_ARGUMENT)).error_name is None
        assert [len(offer.location) for offer in agent.offers] == [MAX_ARGUMENT]

    asyncio.run(scenario())


def test_huge_strings_for_our_own_interface(bus: str) -> None:
    async def scenario() -> None:
        agent = FakeAgent()
        huge = "x" * 10_000_000
        calls: list[tuple[Any, ...]] = [
            ("Install", "sa{sv}", huge, {}),
            ("Install", "sa{sv}", "/x", {"tls-cert": Variant("s", huge)}),
            ("Consent", "sb", huge, True),
            ("Inhibit", "ssu", huge, "", 1),
            ("Inhibit", "ssu", "", huge, 1),
        ]
        async with serving(bus, agent) as peer:
            for call in calls:
                answer = await peer.agent1(*call)
                assert answer.message_type is MessageType.ERROR
                assert len(answer.body[0]) <= MAX_ERROR_TEXT
            await alive(peer)
        assert (agent.offers, agent.answers, agent.holds) == ([], [], {})

    asyncio.run(scenario())


def nested(depth: int) -> Variant:
    value = Variant("s", "deep")
    for _ in range(depth):
        value = Variant("v", value)
    return value


def test_deep_variants(bus: str) -> None:
    async def scenario() -> None:
        async with serving(bus, FakeAgent()) as watcher:
            for depth in range(1, 70):
                # The daemon closes the connection of a caller that goes too deep.
                async with Peer(bus) as peer:
                    peer.send(RAUC, "InstallBundle", "sa{sv}", "/x", {"ignore-compatible": nested(depth)})
                    peer.send(RAUC, "GetPrimary")
                await alive(watcher)

    asyncio.run(scenario())


def signature(rng: random.Random, depth: int = 0) -> str:
    kind = rng.choice("ybnqiuxtdsogva({" if depth < 4 else "ybnqiuxtdsogv")
    if kind == "a":
        return "a" + signature(rng, depth + 1)
    if kind == "(":
        return "(" + "".join(signature(rng, depth + 1) for _ in range(rng.randint(1, 3))) + ")"
    if kind == "{":
        return "a{" + rng.choice("ybnqiuxtdsog") + signature(rng, depth + 1) + "}"
    return kind


VALUES: dict[str, Any] = {
    **dict.fromkeys("ynqiuxt", 1),
    "b": True,
    "d": float("nan"),
    "s": "\x7f\u202e",
    "o": "/",
    "g": "a{sv}",
    "v": Variant("as", []),
}


def value(sig: str) -> Any:
    if sig[0] == "(":
        return [value(part) for part in split(sig[1:-1])]
    if sig.startswith("a{"):
        return {VALUES[sig[2]]: value(sig[3:-1])}
    if sig[0] == "a":
        return b"\0\1" if sig == "ay" else [value(sig[1:])] * 2
    return VALUES[sig]


def split(sig: str) -> list[str]:
    """The complete types of a signature."""
    parts: list[str] = []
    start = depth = 0
    for end, char in enumerate(sig, 1):
        depth += (char in "({") - (char in ")}")
        if depth == 0 and char != "a":
            parts.append(sig[start:end])
            start = end
    return parts


def test_random_calls_are_refused(bus: str) -> None:
    async def scenario() -> None:
        rng = random.Random(1)
        members = ["Install", "InstallBundle", "Info", "Mark", "GetSlotStatus", "GetPrimary", "Get", "Set"]
        members += ["Consent", "Inhibit", "Release", "Why", "Pause", "Poll"]
        interfaces = [RAUC[2], AGENT1[2], POLLER, PROPERTIES, "org.freedesktop.DBus.Peer", "x.y", None]
        agent = FakeAgent(poller=FakePoller())
        async with serving(bus, agent) as peer:
            for _ in range(300):
                sig = "".join(signature(rng) for _ in range(rng.randint(1, 4)))
                body = [value(part) for part in split(sig)]
                path = rng.choice(["/", "/org", "/org/updated/Agent1", "/x"])
                answer = await peer.ask(
                    RAUC[0], path, rng.choice(interfaces), rng.choice(members), sig, *body
                )
                assert answer.message_type is MessageType.ERROR, (sig, body)
            await alive(peer)
        assert (agent.offers, agent.holds) == ([], {})

    asyncio.run(scenario())


def test_strangers_signals_and_replies_are_ignored(bus: str) -> None:
    async def scenario() -> None:
        async with serving(bus, FakeAgent()) as peer:
            for name in ("NameLost", "NameOwnerChanged"):
                forged = Message.new_signal(
                    "/org/freedesktop/DBus", "org.freedesktop.DBus", name, "s", [RAUC[0]]
                )
                forged.destination = RAUC[0]
                await peer.bus.send(forged)
            await alive(peer)

    asyncio.run(scenario())
