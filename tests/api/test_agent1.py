"""Our own interface: its signals, their rate, and its methods."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace
from typing import Any

import pytest
from dbus_fast import MessageType, Variant

from tests.api.peer import AGENT1, PROPERTIES, Peer, serving
from tests.fakes.agent import GOOD, MAX_HOLD, REJECTED, FakeAgent
from updated.api.agent import MAX_REASON, PROGRESS_PERIOD
from updated.core.gate import Hold
from updated.core.model import Access, Transfer

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
            "Paused": Variant("b", False),
            "Hold": Variant("a{sv}", {}),
            "Floor": Variant("s", ""),
            "Health": Variant("a{sv}", {}),
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


def test_fetched_bytes_are_told_where_the_size_of_the_bundle_is_known(bus: str) -> None:
    async def scenario() -> None:
        agent = FakeAgent()
        async with serving(bus, agent) as peer:
            agent.transfer(Transfer(1, 2, 0.0, -1.0, fetched=2**33, bundle=2**34))
            value = (await peer.get(AGENT1, "Progress")).value
            assert (value["fetched"], value["bundle"]) == (Variant("t", 2**33), Variant("t", 2**34))
            agent.transfer(Transfer(1, 2, 0.0, -1.0))
            value = (await peer.get(AGENT1, "Progress")).value
            assert not {"fetched", "bundle"} & value.keys()

    asyncio.run(scenario())


def test_how_to_reach_a_server(bus: str) -> None:
    async def scenario() -> None:
        agent = FakeAgent()
        async with serving(bus, agent) as peer:
            args = {"http-headers": Variant("as", ["X-A: 1"]), "tls-no-verify": Variant("b", True)}
            await peer.agent1("Install", "sa{sv}", "https://host/x.raucb", args)
            bad = await peer.agent1("Install", "sa{sv}", "/x", {"http-headers": Variant("as", ["none"])})
            assert bad.error_name == "org.updated.Error.Failed"
        (offer,) = agent.offers
        assert (offer.location, offer.access) == (
            "https://host/x.raucb",
            Access(tls_no_verify=True, headers=("X-A: 1",)),
        )

    asyncio.run(scenario())


def test_secrets_of_a_url_are_not_told_to_everybody(bus: str) -> None:
    async def scenario() -> None:
        agent = FakeAgent()
        async with serving(bus, agent) as peer:
            await peer.agent1("Install", "sa{sv}", "https://me:pass@host/x.raucb?signature=secret", {})
            assert (await last_result(peer))["location"] == "https://host/x.raucb?signature=…"
            (outcome,) = (await peer.agent1("GetHistory", "u", 1)).body[0]
            assert outcome["location"].value == "https://host/x.raucb?signature=…"
            changes = [event[2] for event in peer.heard if event[:2] == ("changed", "Agent1")]
            told = [each["Transaction"]["location"] for each in changes if each.get("Transaction")]
            assert told == ["https://host/x.raucb?signature=…"] * len(told)

    asyncio.run(scenario())


def test_pause_and_resume(bus: str) -> None:
    async def scenario() -> None:
        agent = FakeAgent()
        agent.gate.clear()
        async with serving(bus, agent) as peer:
            for member, words in (("Pause", "No install is running"), ("Resume", "Nothing is paused")):
                refused = await peer.agent1(member)
                assert (refused.error_name, refused.body) == ("org.updated.Error.Refused", [words])
            await peer.agent1("Install", "sa{sv}", "/x", {})
            await peer.until("StateChanged", "install", "Installing /x")
            assert (await peer.agent1("Pause")).error_name is None
            await peer.until("changed", "Agent1", {"Paused": True})
            assert (await peer.get(AGENT1, "Paused")).value is True
            assert (await peer.agent1("Resume")).error_name is None
            await peer.until("changed", "Agent1", {"Paused": False})
            states = [event for event in peer.heard if event[0] == "StateChanged"]
            assert states == [("StateChanged", "install", "Installing /x")]  # nothing else has changed
            agent.gate.set()
            await peer.until(*IDLE_STATE)

    asyncio.run(scenario())


def test_what_waits_and_why(bus: str) -> None:
    async def scenario() -> None:
        agent = FakeAgent()
        agent.reasons = ["The window opens at 02:00.", "not\0UTF-8: \udcff"]
        async with serving(bus, agent) as peer:
            why = await peer.agent1("Why")
            assert (why.signature, why.body) == ("as", [["The window opens at 02:00.", "not\ufffdUTF-8: ?"]])
            agent.hold(Hold("window", "The window opens at 02:00.", 60.0))
            told = {"rule": "window", "text": "The window opens at 02:00.", "delay": 60.0}
            await peer.until("changed", "Agent1", {"Hold": told})
            agent.hold(Hold("consent", "Somebody has to agree."))
            await peer.until(
                "changed", "Agent1", {"Hold": {"rule": "consent", "text": "Somebody has to agree."}}
            )
            agent.hold(None)
            await peer.until("changed", "Agent1", {"Hold": {}})

    asyncio.run(scenario())


def test_consent(bus: str) -> None:
    async def scenario() -> None:
        agent = FakeAgent()
        async with serving(bus, agent) as peer:
            early = await peer.agent1("Consent", "sb", "install", True)
            assert early.error_name == "org.updated.Error.Refused"
            agent.asking = "reboot"
            assert (await peer.agent1("Consent", "sb", "reboot", False)).error_name is None
            wrong = await peer.agent1("Consent", "sb", "breakfast", True)
            assert (wrong.error_name, wrong.body) == (
                "org.freedesktop.DBus.Error.InvalidArgs",
                ["Unknown stage “breakfast”, expected “install” or “reboot”"],
            )
        assert agent.answers == [("reboot", False)]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("x" * (MAX_REASON + 1), "", 1), "org.freedesktop.DBus.Error.InvalidArgs"),
        (("", "ä" * (MAX_REASON + 1), 1), "org.freedesktop.DBus.Error.InvalidArgs"),
        (("", "", 0), "org.freedesktop.DBus.Error.InvalidArgs"),
        (("", "", 2**32 - 1), "org.updated.Error.Refused"),
    ],
)
def test_holds_that_are_refused(bus: str, arguments: tuple[str, str, int], error: str) -> None:
    async def scenario() -> None:
        agent = FakeAgent()
        async with serving(bus, agent) as peer:
            assert (await peer.agent1("Inhibit", "ssu", *arguments)).error_name == error
            longest = ("x" * MAX_REASON, "ä" * MAX_REASON, MAX_HOLD)
            assert (await peer.agent1("Inhibit", "ssu", *longest)).error_name is None
        assert len(agent.holds) == 0  # it ended with its owner

    asyncio.run(scenario())


def test_floor(bus: str) -> None:
    async def scenario() -> None:
        agent = FakeAgent()
        agent.now = replace(agent.now, floor="2.1")
        async with serving(bus, agent) as peer:
            assert (await peer.get(AGENT1, "Floor")).value == "2.1"
            agent.floor_error = "the disk is full"
            refused = await peer.agent1("ResetFloor")
            assert (refused.error_name, refused.body) == ("org.updated.Error.Device", ["the disk is full"])
            agent.floor_error = ""
            assert (await peer.agent1("ResetFloor")).error_name is None
            await peer.until("changed", "Agent1", {"Floor": ""})

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
