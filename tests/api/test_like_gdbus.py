"""Odd calls: our answers are those of the real RAUC service, name and text."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from dbus_fast import Variant

from tests.api.conftest import Daemon
from tests.api.peer import PROPERTIES, RAUC, Peer, RealRauc, serving
from tests.fakes.agent import FakeAgent

INTERFACE = RAUC[2]
INTROSPECTABLE = "org.freedesktop.DBus.Introspectable"
PEER = "org.freedesktop.DBus.Peer"
MANAGER = "org.freedesktop.DBus.ObjectManager"

Call = tuple[Any, ...]
CALLS: list[Call] = [
    ("/", INTERFACE, "Nope"),
    ("/", "a.b", "Nope"),
    ("/", None, "Nope"),
    ("/", None, "GetPrimary"),
    ("/", None, "Get", "ss", INTERFACE, "Operation"),
    ("/", None, "Introspect"),
    ("/foo", INTERFACE, "GetPrimary"),
    ("/foo", PROPERTIES, "GetAll", "s", INTERFACE),
    ("/foo", PEER, "Ping"),
    ("/", PEER, "Ping"),
    ("/", PEER, "GetMachineId"),
    ("/", PEER, "Ping", "s", "x"),
    ("/", PEER, "Nope"),
    ("/", PROPERTIES, "Nope"),
    ("/", PROPERTIES, "Get", "s", "x"),
    ("/", PROPERTIES, "Get", "ss", INTERFACE, "X"),
    ("/", PROPERTIES, "Get", "ss", "x.y", "X"),
    ("/", PROPERTIES, "Get", "ss", "", "Operation"),
    ("/", PROPERTIES, "Get", "ss", INTERFACE, "Operation"),
    ("/", PROPERTIES, "Get", "ss", INTERFACE, "LastError"),
    ("/", PROPERTIES, "GetAll", "s", "x.y"),
    ("/", PROPERTIES, "GetAll", "s", ""),
    ("/", PROPERTIES, "GetAll", "s", PROPERTIES),
    ("/", PROPERTIES, "Set", "ssv", INTERFACE, "Operation", Variant("s", "x")),
    ("/", PROPERTIES, "Set", "ssv", INTERFACE, "Operation", Variant("i", 1)),
    ("/", PROPERTIES, "Set", "ssv", INTERFACE, "X", Variant("s", "x")),
    ("/", PROPERTIES, "Set", "ssv", "x.y", "X", Variant("s", "x")),
    ("/", INTROSPECTABLE, "Introspect", "s", "x"),
    ("/", INTROSPECTABLE, "Nope"),
    ("/", MANAGER, "GetManagedObjects"),
    ("/", INTERFACE, "GetPrimary", "s", "x"),
    ("/", INTERFACE, "GetPrimary"),
    ("/", INTERFACE, "Mark"),
    ("/", INTERFACE, "Mark", "s", "x"),
    ("/", INTERFACE, "Mark", "(ss)", ["x", "y"]),
    ("/", INTERFACE, "Mark", "ss", "good", "y"),
    ("/", INTERFACE, "Info", "(i)", [1]),
    ("/", INTERFACE, "Install", "o", "/"),
    ("/", INTERFACE, "InstallBundle", "sa{ss}", "x", {}),
    ("/", INTERFACE, "InstallBundle", "sa{sv}", "x", {"nope": Variant("s", "x")}),
    ("/", INTERFACE, "InstallBundle", "sa{sv}", "x", {"ignore-compatible": Variant("s", "x")}),
    ("/", INTERFACE, "InstallBundle", "sa{sv}", "x", {"tls-no-verify": Variant("i", 1)}),
]


async def ask_all(peer: Peer) -> list[tuple[Any, ...]]:
    answers = [await peer.ask(RAUC[0], *call) for call in CALLS]
    return [(a.message_type, a.error_name, a.signature, a.body) for a in answers]


async def ask_real(address: str) -> list[tuple[Any, ...]]:
    async with Peer(address) as peer:
        return await ask_all(peer)


async def ask_ours(address: str) -> list[tuple[Any, ...]]:
    async with serving(address, FakeAgent()) as peer:
        return await ask_all(peer)


def test_answers_are_those_of_the_real_service(daemon: Daemon, real_rauc: RealRauc) -> None:
    real_rauc.fresh()
    with real_rauc.service(daemon.address):
        theirs = asyncio.run(ask_real(daemon.address))
    ours = asyncio.run(ask_ours(daemon.address))
    for call, their, our in zip(CALLS, theirs, ours, strict=True):
        assert our == their, call


@pytest.mark.parametrize("member", ["Introspect", "Ping"])
def test_standard_calls_are_answered_on_any_path(bus: str, member: str) -> None:
    async def scenario() -> None:
        async with serving(bus, FakeAgent()) as peer:
            interface = INTROSPECTABLE if member == "Introspect" else PEER
            answer = await peer.ask(RAUC[0], "/no/such/path", interface, member)
            assert answer.error_name is None

    asyncio.run(scenario())
