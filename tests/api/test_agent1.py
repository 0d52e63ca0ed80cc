"""Our own interface: its signals, their rate, and its methods."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

from dbus_fast import MessageType, Variant

from tests.api.peer import AGENT1, PROPERTIES, Peer, serving
from tests.fakes.agent import GOOD, REJECTED, FakeAgent
from updated.api.agent import PROGRESS_PERIOD
from updated.core.model import Transfer

IDLE_STATE = ("StateChanged", "idle", "Nothing to do")


def ours(peer: Peer) -> list[tuple[Any, ...]]:
    names = ("StateChanged", "ProgressChanged")
    return [event for event in peer.heard if event[0] in names or event[:2] == ("changed", "Agent1")]


async def last_result(peer: Peer) -> dict[str, Any]:
    """Wait for the end of an install; what LastResult then is."""
    await peer.until(*IDLE_STATE)
    reply = await peer.agent1("GetHistory", "u", 1)  # behind the signals that are told "soon"
    assert reply.error_name is None
    told = [event[2]["LastResult"] for event in ours(peer) if "LastResult" in event[-1]]
    assert len(told) == 1
    assert isinstance(told[0], dict)
    return told[0]


def test_properties_at_rest(bus: str) -> None:
    async def scenario() -> None:
        async with serving(bus, FakeAgent()) as peer:
            answer = await peer.ask(*AGENT1[:2], PROPERTIES, "GetAll", "s", AGENT1[2])
        (values,) = answer.body
        assert values == {
            "State": Variant("s", "idle"),
            "Detail": Variant("s", "Nothing to do"),
            "Progress": Variant(
                "a{sv}",
                {"percentage": Variant("i", 0), "message": Variant("s", ""), "depth": Variant("i", 0)},
            ),
            "Transaction": Variant("a{sv}", {}),
            "LastResult": Variant("a{sv}", {}),
        }

    asyncio.run(scenario())


def test_an_install_from_start_to_end(bus: str) -> None:
    async def scenario() -> None:
        agent = FakeAgent()
        agent.gate.clear()
        async with serving(bus, agent) as peer:
            reply = await peer.agent1(
                "Install", "sa{sv}", "/x.raucb", {"ignore-compatible": Variant("b", True)}
            )
            (transaction,) = reply.body
            assert str(uuid.UUID(transaction)) == transaction
            assert agent.offers[0].args.transaction_id == transaction
            assert agent.offers[0].args.ignore_compatible
            await peer.until("StateChanged", "install", "Installing /x.raucb")
            running = {"id": transaction, "source": "request", "location": "/x.raucb", "target": "rootfs.1"}
            async with asyncio.timeout(5):
                while not any(event[-1].get("Transaction") == running for event in ours(peer)[1:]):
                    await peer.agent1("GetHistory", "u", 1)
            agent.gate.set()
            result = await last_result(peer)
            assert (result["code"], result["transaction"]) == ("installed", transaction)
            assert (await peer.get(AGENT1, "Transaction")).value == {}
            assert (await peer.get(AGENT1, "LastResult")).value["code"] == Variant("s", "installed")

    asyncio.run(scenario())


def test_transaction_id_of_the_caller_is_kept(bus: str) -> None:
    async def scenario() -> None:
        async with serving(bus, FakeAgent()) as peer:
            reply = await peer.agent1("Install", "sa{sv}", "/x", {"transaction-id": Variant("s", "mine")})
            assert reply.body == ["mine"]
            assert (await last_result(peer))["transaction"] == "mine"

    asyncio.run(scenario())


def test_failed_install(bus: str) -> None:
    async def scenario() -> None:
        async with serving(bus, FakeAgent(REJECTED)) as peer:
            await peer.agent1("Install", "sa{sv}", "/x", {})
            result = await last_result(peer)
            assert (result["code"], result["text"]) == ("failed", REJECTED.error)

    asyncio.run(scenario())


def test_progress_is_told_ten_times_a_second_and_the_last_value_always(bus: str) -> None:
    async def scenario() -> None:
        agent = FakeAgent()
        seconds = 0.5
        async with serving(bus, agent) as peer:
            loop = asyncio.get_running_loop()
            end = loop.time() + seconds
            done = 0
            while loop.time() < end:
                done += 1
                agent.transfer(Transfer(done, 10**6, 100.0, 5.0))
                await asyncio.sleep(0.001)
            last = {"percentage": 0, "message": "", "depth": 0}
            last |= {"bytes-done": done, "bytes-total": 10**6, "rate": 100.0, "eta": 5.0}
            await peer.until("ProgressChanged", last)
            await peer.until("changed", "Agent1", {"Progress": last})
            told = [event for event in peer.heard if event[0] == "ProgressChanged"]
            # The first at once, one in each full period after it, and the last one.
            assert 3 <= len(told) <= seconds / PROGRESS_PERIOD + 2

    asyncio.run(scenario())


def test_unknown_times_are_left_out(bus: str) -> None:
    async def scenario() -> None:
        agent = FakeAgent()
        async with serving(bus, agent) as peer:
            agent.transfer(Transfer(1, 2, 0.0, -1.0))
            value = (await peer.get(AGENT1, "Progress")).value
            assert value["bytes-done"] == Variant("t", 1)
            assert value["rate"] == Variant("d", 0.0)
            assert "eta" not in value

    asyncio.run(scenario())


def test_cancel_confirm_rollback(bus: str) -> None:
    async def scenario() -> None:
        agent = FakeAgent()
        agent.gate.clear()
        async with serving(bus, agent) as peer:
            await peer.agent1("Install", "sa{sv}", "/x", {})
            await peer.until("StateChanged", "install", "Installing /x")
            assert (await peer.agent1("Cancel")).message_type is MessageType.METHOD_RETURN
            assert (await last_result(peer))["code"] == "cancelled"
            refused = await peer.agent1("Cancel")
            assert (refused.error_name, refused.body) == (
                "org.updated.Error.Refused",
                ["No install is running"],
            )
            agent.state("confirming", "Is it healthy?")
            assert (await peer.agent1("Confirm")).error_name is None
            assert agent.confirmed == 1
            again = await peer.agent1("Confirm")
            assert again.body == ["Nothing is to be confirmed (look at `updated status`)"]
            assert (await peer.agent1("Rollback")).body == ["rootfs.1"]

    asyncio.run(scenario())


def test_history_is_limited(bus: str) -> None:
    async def scenario() -> None:
        async with serving(bus, FakeAgent()) as peer:
            for name in ("/first", "/second"):
                await peer.agent1("Install", "sa{sv}", name, {})
                await peer.until(*IDLE_STATE)
                peer.heard.clear()
            newest = await peer.agent1("GetHistory", "u", 1)
            assert newest.signature == "aa{sv}"
            assert [o["location"].value for o in newest.body[0]] == ["/second"]
            both = await peer.agent1("GetHistory", "u", 2**32 - 1)
            assert [o["location"].value for o in both.body[0]] == ["/second", "/first"]

    asyncio.run(scenario())


def test_busy_and_bad_arguments_have_names(bus: str) -> None:
    async def scenario() -> None:
        agent = FakeAgent(GOOD)
        agent.gate.clear()
        async with serving(bus, agent) as peer:
            await peer.agent1("Install", "sa{sv}", "/x", {})
            busy = await peer.agent1("Install", "sa{sv}", "/x", {})
            assert (busy.error_name, busy.body) == (
                "org.updated.Error.Refused",
                ["Already processing a different method"],
            )
            unknown = await peer.agent1("Install", "sa{sv}", "/x", {"colour": Variant("s", "red")})
            assert unknown.body == ["Unsupported key: colour"]
            agent.gate.set()
            await peer.until(*IDLE_STATE)

    asyncio.run(scenario())
