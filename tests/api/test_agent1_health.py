"""Our own interface: health, heartbeats, the quarantine, and the reboot."""

from __future__ import annotations

import asyncio

import pytest
from dbus_fast import Variant

from tests.api.peer import AGENT1, Peer, serving
from tests.fakes.agent import FakeAgent
from updated.api.client import Client
from updated.core.health import CheckReport, Judgement
from updated.core.model import Quarantined
from updated.errors import UpdatedError

TIME = "2026-11-20T10:00:05Z"
CHECKS = (
    CheckReport("shop", required=True, ok=False, text="HTTP 500", time=TIME),
    CheckReport("cloud", required=True, ok=None, text="", excused="the system before could not reach it"),
    CheckReport("radio", required=False, ok=True, text="on", time=TIME),
)
BAD = Judgement(
    boot_id="b-2",
    group="rootfs.1",
    version="2.0",
    state="bad",
    time="2026-11-20T10:05:00Z",
    decided="shop",
    text="shop: not healthy for 10 s within 300 s: HTTP 500",
    checks=CHECKS,
)
GOOD = Judgement("b-1", "rootfs.0", "", "good", "2026-11-19T10:00:00Z")
TOLD = {
    "boot-id": "b-2",
    "group": "rootfs.1",
    "version": "2.0",
    "state": "bad",
    "time": "2026-11-20T10:05:00Z",
    "decided": "shop",
    "text": "shop: not healthy for 10 s within 300 s: HTTP 500",
    "checks": [
        {
            "name": "shop",
            "required": True,
            "state": "bad",
            "text": "HTTP 500",
            "time": "2026-11-20T10:00:05Z",
        },
        {
            "name": "cloud",
            "required": True,
            "state": "unknown",
            "excused": "the system before could not reach it",
        },
        {"name": "radio", "required": False, "state": "good", "text": "on", "time": TIME},
    ],
}
REJECTED = Quarantined("ab" * 32, "2.0", "shop: HTTP 500", "2026-11-20T10:05:00Z", "b-2")
SEEN = Quarantined(
    "cd" * 32, "1.9", "the bootloader fell back", "2026-10-01T00:00:00Z", "b-0", ("f" * 32,), ("panic", "end")
)


def test_what_is_told_of_the_running_system(bus: str) -> None:
    """A property that changes with each check, and the boots before."""

    async def scenario() -> None:
        agent = FakeAgent()
        async with serving(bus, agent) as peer, Client(bus) as client:
            assert (await client.status()).health == {}
            assert await client.health(10) == []
            agent.health(GOOD)
            told = {
                "boot-id": "b-1",
                "group": "rootfs.0",
                "state": "good",
                "time": "2026-11-19T10:00:00Z",
                "checks": [],
            }
            await peer.until("changed", "Agent1", {"Health": told})
            agent.health(BAD)
            await peer.until("changed", "Agent1", {"Health": TOLD})
            assert (await client.status()).health == TOLD
            assert await client.health(2**32 - 1) == [TOLD, told]
            assert await client.health(1) == [TOLD]
            assert await client.health(0) == []

    asyncio.run(scenario())


def test_what_checks_print_is_made_text(bus: str) -> None:
    """A program may print anything; nobody loses the bus for it."""
    report = CheckReport("a\0b", required=True, ok=False, text="not\0UTF-8: \udcff", time="")

    async def scenario() -> None:
        agent = FakeAgent()
        async with serving(bus, agent), Client(bus) as client:
            agent.health(Judgement("b", "g", "v\udc80", "bad", "", "a\0b", "\0", (report,)))
            told = (await client.status()).health
        assert told["checks"][0]["text"] == "not\ufffdUTF-8: ?"
        assert told["decided"] == "a\ufffdb"

    asyncio.run(scenario())


def test_heartbeats(bus: str) -> None:
    async def scenario() -> None:
        agent = FakeAgent()
        async with serving(bus, agent) as peer:
            assert (await peer.agent1("Heartbeat", "s", "kiosk")).error_name is None
            refused = await peer.agent1("Heartbeat", "s", "kisok")
            assert refused.error_name == "org.updated.Error.Refused"
            assert refused.body == ["No heartbeat of 'kisok' is expected"]
            wrong = await peer.agent1("Heartbeat", "u", 1)
            assert wrong.error_name == "org.freedesktop.DBus.Error.InvalidArgs"
        assert agent.beats == ["kiosk"]

    asyncio.run(scenario())


def test_quarantine(bus: str) -> None:
    """The newest first; one is lifted, or all."""

    async def scenario() -> None:
        agent = FakeAgent()
        agent.rejected = [SEEN, REJECTED]
        async with serving(bus, agent) as peer, Client(bus) as client:
            reply = await peer.agent1("GetQuarantine")
            assert reply.signature == "aa{sv}"
            assert reply.body[0][1]["failed-boots"] == Variant("as", ["f" * 32])
            newest, oldest = await client.quarantine()
            assert newest == {
                "manifest-hash": "ab" * 32,
                "version": "2.0",
                "reason": "shop: HTTP 500",
                "time": "2026-11-20T10:05:00Z",
                "boot-id": "b-2",
            }
            assert (oldest["failed-boots"], oldest["journal"]) == (["f" * 32], ["panic", "end"])
            unknown = await peer.agent1("Lift", "s", "00" * 32)
            assert unknown.error_name == "org.updated.Error.Refused"
            assert len(agent.rejected) == 2
            assert await client.lift("ab" * 32) == 1
            assert [one["version"] for one in await client.quarantine()] == ["1.9"]
            assert await client.lift("") == 1
            assert await client.lift("") == 0
            assert await client.quarantine() == []

    asyncio.run(scenario())


async def _reboot(peer: Peer) -> str | None:
    return (await peer.agent1("Reboot")).error_name


def test_reboot(bus: str) -> None:
    async def scenario() -> None:
        agent = FakeAgent()
        async with serving(bus, agent) as peer:
            assert await _reboot(peer) == "org.updated.Error.Refused"
            agent.state("reboot-pending", "Version 2.0 waits")
            assert await _reboot(peer) is None
            assert (await peer.get(AGENT1, "State")).value == "reboot-pending"  # until it comes
        assert agent.reboots == 1

    asyncio.run(scenario())


def test_clients_get_the_words_of_a_refusal(bus: str) -> None:
    async def scenario() -> None:
        async with serving(bus, FakeAgent()), Client(bus) as client:
            with pytest.raises(UpdatedError, match=r"^Nothing waits for a reboot$"):
                await client.reboot()
            with pytest.raises(UpdatedError, match=r"^Bundle 0 is not quarantined$"):
                await client.lift("0")
            with pytest.raises(UpdatedError, match=r"^No heartbeat of 'x' is expected$"):
                await client.heartbeat("x")

    asyncio.run(scenario())
