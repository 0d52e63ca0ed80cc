"""What introspection tells, compared with the real service."""

from __future__ import annotations

import asyncio
import xml.etree.ElementTree as ET

from tests.api.conftest import Daemon
from tests.api.peer import AGENT1, RAUC, Peer, RealRauc, serving
from tests.fakes.agent import FakeAgent

INTROSPECTABLE = "org.freedesktop.DBus.Introspectable"
SINCE_1_8 = {"InspectBundle", "GetArtifactStatus", "SystemVersion"}


def members(xml: str) -> dict[tuple[str, str], list[tuple[str, ...]]]:
    """(interface, member) -> its types, names and annotations."""
    found = {}
    for interface in ET.fromstring(xml).iter("interface"):
        for member in interface:
            own = (member.tag, member.get("type", ""), member.get("access", ""))
            parts = [
                (e.tag, e.get("name", ""), e.get("type", ""), e.get("direction", ""), e.get("value", ""))
                for e in member
            ]
            found[interface.attrib["name"], member.attrib["name"]] = [own, *parts]
    return found


async def introspect(peer: Peer, path: str) -> str:
    return str((await peer.ask(RAUC[0], path, INTROSPECTABLE, "Introspect")).body[0])


async def real(address: str) -> str:
    async with Peer(address) as peer:
        return await introspect(peer, "/")


async def ours(address: str, path: str) -> str:
    async with serving(address, FakeAgent()) as peer:
        return await introspect(peer, path)


def test_members_are_those_of_the_real_service(daemon: Daemon, real_rauc: RealRauc) -> None:
    with real_rauc.service(daemon.address):
        theirs = members(asyncio.run(real(daemon.address)))
    our = members(asyncio.run(ours(daemon.address, "/")))
    assert {key: value for key, value in our.items() if key[1] not in SINCE_1_8} == theirs
    assert {key[1] for key in our.keys() - theirs.keys()} == SINCE_1_8


def test_tree_leads_to_our_own_object(bus: str) -> None:
    for path, child in (("/", "org"), ("/org", "updated"), ("/org/updated", "Agent1")):
        nodes = ET.fromstring(asyncio.run(ours(bus, path))).findall("node")
        assert [node.attrib["name"] for node in nodes] == [child], path
    assert (AGENT1[2], "GetHistory") in members(asyncio.run(ours(bus, AGENT1[1])))


def test_no_objects_where_there_are_none(bus: str) -> None:
    assert len(ET.fromstring(asyncio.run(ours(bus, "/elsewhere")))) == 0
