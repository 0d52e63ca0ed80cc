"""RAUC's Poller: types, signals, and that it is only there where something is polled."""

from __future__ import annotations

import asyncio
import xml.etree.ElementTree as ET

from dbus_fast import Variant

from tests.api.peer import PROPERTIES, RAUC, serving
from tests.fakes.agent import MANIFEST, FakeAgent, FakePoller
from updated.api import variants
from updated.core.polling import PollStatus

POLLER = (*RAUC[:2], "de.pengutronix.rauc.Poller")
AT_START = {
    "attempt-count": Variant("t", 0),
    "recent-error-count": Variant("t", 0),
    "last-attempt-time": Variant("t", 0),
    "last-success-time": Variant("t", 0),
    "update-available": Variant("b", False),
}
FOUND = PollStatus(
    attempts=3,
    recent_errors=1,
    last_attempt=2**40,
    last_success=2**40 - 1,
    last_error="the server was away",
    update_available=True,
    summary="update candidate found: higher semantic version",
    attempted_hash="ab" * 32,
    manifest=MANIFEST,
    size=2**33,
    effective_url="https://mirror/x.raucb",
    modified=1_700_000_000,
    etag='"x"',
)


def test_nobody_polls_nobody_is_there(bus: str) -> None:
    async def scenario() -> None:
        async with serving(bus, FakeAgent()) as peer:
            xml = (await peer.ask(*RAUC[:2], "org.freedesktop.DBus.Introspectable", "Introspect")).body[0]
            assert POLLER[2] not in xml
            answer = await peer.ask(*RAUC[:2], PROPERTIES, "GetAll", "s", POLLER[2])
            assert (answer.error_name, answer.body) == (
                "org.freedesktop.DBus.Error.InvalidArgs",
                [f"No such interface “{POLLER[2]}”"],
            )
            assert (await peer.ask(*POLLER, "Poll")).error_name == "org.freedesktop.DBus.Error.UnknownMethod"

    asyncio.run(scenario())


def test_introspection_has_its_members_beside_the_installer(bus: str) -> None:
    async def scenario() -> None:
        async with serving(bus, FakeAgent(poller=FakePoller())) as peer:
            xml = (await peer.ask(*RAUC[:2], "org.freedesktop.DBus.Introspectable", "Introspect")).body[0]
        interfaces = {element.attrib["name"]: element for element in ET.fromstring(xml)}
        assert RAUC[2] in interfaces
        members = [(e.tag, e.attrib["name"], e.get("type"), e.get("access")) for e in interfaces[POLLER[2]]]
        assert members == [  # RAUC src/de.pengutronix.rauc.Poller.xml
            ("method", "Poll", None, None),
            ("property", "NextPoll", "x", "read"),
            ("property", "Status", "a{sv}", "read"),
        ]
        assert len(interfaces[POLLER[2]].findall("method/arg")) == 0

    asyncio.run(scenario())


def test_before_the_first_attempt(bus: str) -> None:
    async def scenario() -> None:
        poller = FakePoller()
        poller.next = 2**40
        async with serving(bus, FakeAgent(poller=poller)) as peer:
            answer = await peer.ask(*POLLER[:2], PROPERTIES, "GetAll", "s", POLLER[2])
        assert answer.body == [{"NextPoll": Variant("x", 2**40), "Status": Variant("a{sv}", AT_START)}]

    asyncio.run(scenario())


def test_keys_and_types_of_the_status(bus: str) -> None:
    async def scenario() -> None:
        poller = FakePoller()
        poller.now = FOUND
        async with serving(bus, FakeAgent(poller=poller)) as peer:
            status = (await peer.get(POLLER, "Status")).value
            inspected = (await peer.rauc("InspectBundle", "sa{sv}", "/x", {})).body[0]
        assert status == {
            "attempt-count": Variant("t", 3),
            "recent-error-count": Variant("t", 1),
            "last-attempt-time": Variant("t", 2**40),
            "last-success-time": Variant("t", 2**40 - 1),
            "last-error-message": Variant("s", "the server was away"),
            "update-available": Variant("b", True),
            "summary": Variant("s", "update candidate found: higher semantic version"),
            "attempted-hash": Variant("s", "ab" * 32),
            "manifest": Variant("a{sv}", inspected),  # a variant once; inside as in InspectBundle
            "bundle": Variant(
                "a{sv}",
                {
                    "size": Variant("t", 2**33),
                    "effective-url": Variant("s", "https://mirror/x.raucb"),
                    "modified-time": Variant("t", 1_700_000_000),
                    "etag": Variant("s", '"x"'),
                },
            ),
        }

    asyncio.run(scenario())


def test_what_the_server_does_not_say_is_absent() -> None:
    status = variants.poll_status(PollStatus(manifest=MANIFEST))
    assert status["bundle"] == Variant("a{sv}", {})
    assert not {"last-error-message", "summary", "attempted-hash"} & status.keys()
    assert "bundle" not in variants.poll_status(PollStatus(size=1, etag="x"))


def test_an_attempt_is_one_signal_with_both(bus: str) -> None:
    async def scenario() -> None:
        poller = FakePoller()
        async with serving(bus, FakeAgent(poller=poller)) as peer:
            poller.attempt(PollStatus(attempts=1, last_attempt=5, last_success=5), 77)
            await peer.rauc("GetPrimary")
            (told,) = [event for event in peer.heard if event[0] == "changed"]
            assert told[1] == "Poller"
            assert set(told[2]) == {"NextPoll", "Status"}
            assert (told[2]["NextPoll"], told[2]["Status"]["attempt-count"]) == (77, 1)

    asyncio.run(scenario())


def test_poll_tells_the_new_time_before_it_answers(bus: str) -> None:
    async def scenario() -> None:
        poller = FakePoller()
        async with serving(bus, FakeAgent(poller=poller)) as peer:
            answer = await peer.ask(*POLLER, "Poll")
            assert (answer.signature, answer.body, poller.asked) == ("", [], 1)
            assert peer.heard == [("changed", "Poller", {"NextPoll": 30_000_000}), ("reply",)]

    asyncio.run(scenario())


def test_what_is_the_same_is_not_told(bus: str) -> None:
    async def scenario() -> None:
        poller = FakePoller()
        async with serving(bus, FakeAgent(poller=poller)) as peer:
            poller.plan(5)
            await peer.until("changed", "Poller", {"NextPoll": 5})
            poller.plan(5)
            poller.plan(6)
            await peer.until("changed", "Poller", {"NextPoll": 6})
            assert len([event for event in peer.heard if event[0] == "changed"]) == 2

    asyncio.run(scenario())


def test_a_poller_that_speaks_after_the_end(bus: str) -> None:
    async def scenario() -> None:
        poller = FakePoller()
        async with serving(bus, FakeAgent(poller=poller)):
            poller.plan(1)
        poller.plan(2)
        await asyncio.sleep(0)
        async with serving(bus, FakeAgent(poller=poller)) as peer:  # as after a restart of the bus
            poller.plan(3)
            await peer.until("changed", "Poller", {"NextPoll": 3})

    asyncio.run(scenario())
