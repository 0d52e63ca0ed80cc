"""Names and the bus itself: taken, lost, missing."""

from __future__ import annotations

import asyncio

import pytest
from dbus_fast import NameFlag
from dbus_fast.aio import MessageBus

from tests.api.conftest import Daemon
from tests.api.peer import DEADLINE, Peer, RealRauc, serving
from tests.fakes.agent import FakeAgent
from updated.api.server import BUS_NAMES, serve
from updated.core.model import Offer
from updated.errors import DeviceError


def test_both_names_on_one_connection(bus: str) -> None:
    async def scenario() -> None:
        async with serving(bus, FakeAgent()) as peer:
            daemon = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
            owners = [(await peer.ask(*daemon, "GetNameOwner", "s", n)).body[0] for n in BUS_NAMES]
            assert owners[0] == owners[1]

    asyncio.run(scenario())


@pytest.mark.parametrize("name", BUS_NAMES)
def test_a_taken_name_is_an_error_and_nothing_stays_behind(bus: str, name: str) -> None:
    async def scenario() -> None:
        other = await MessageBus(bus_address=bus).connect()
        await other.request_name(name)
        with pytest.raises(DeviceError, match=f"{name} is taken"):
            await serve(FakeAgent(), address=bus)
        await other.release_name(name)
        async with serving(bus, FakeAgent()) as peer:
            assert (await peer.rauc("GetPrimary")).body == ["rootfs.0"]
        other.disconnect()
        await other.wait_for_disconnect()  # type: ignore[no-untyped-call]

    asyncio.run(scenario())


def test_beside_the_real_rauc(bus: str, real_rauc: RealRauc) -> None:
    with real_rauc.service(bus), pytest.raises(DeviceError, match=r"de\.pengutronix\.rauc is taken"):
        asyncio.run(serve(FakeAgent(), address=bus))


def test_names_are_not_given_away(bus: str) -> None:
    async def scenario() -> None:
        async with serving(bus, FakeAgent()) as peer:
            flags = NameFlag.REPLACE_EXISTING | NameFlag.DO_NOT_QUEUE
            reply = await peer.bus.request_name(BUS_NAMES[0], flags)
            assert reply.name == "EXISTS"

    asyncio.run(scenario())


def test_no_bus(session: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert session
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent/bus")
    with pytest.raises(DeviceError, match="Cannot reach the session bus"):
        asyncio.run(serve(FakeAgent()))
    for bad in ("nonsense", "", "unix:", "tcp:host=x,port=y", "unixexec:path=/bin/true"):
        with pytest.raises(DeviceError, match="Cannot reach"):
            asyncio.run(serve(FakeAgent(), address=bad or "unix:nothing=1"))


def test_environment_chooses_the_session_bus(session: str) -> None:
    async def scenario() -> None:
        server = await serve(FakeAgent())
        async with Peer(session) as peer:
            assert (await peer.rauc("GetPrimary")).body == ["rootfs.0"]
        await server.close()

    asyncio.run(scenario())


def test_loss_of_the_bus_is_told_once_and_the_agent_goes_on(daemon: Daemon) -> None:
    async def scenario() -> None:
        agent = FakeAgent()
        lost: asyncio.Queue[str] = asyncio.Queue()
        server = await serve(agent, address=daemon.address, on_lost=lost.put_nowait)
        agent.gate.clear()
        agent.submit(Offer("folder", "/x"))
        await asyncio.to_thread(daemon.kill)
        reason = await asyncio.wait_for(lost.get(), DEADLINE)
        assert reason.startswith("Lost the connection to the bus")
        agent.gate.set()
        async with asyncio.timeout(DEADLINE):
            while not agent.outcomes:  # noqa: ASYNC110  the fake has no event for it
                await asyncio.sleep(0.001)
        await server.close()
        await server.close()
        assert lost.empty()
        assert agent.outcomes[0].code == "installed"

    asyncio.run(scenario())


def test_close_is_no_loss(bus: str) -> None:
    async def scenario() -> None:
        lost: list[str] = []
        agent = FakeAgent()
        server = await serve(agent, address=bus, on_lost=lost.append)
        await server.close()
        assert agent.listeners == []
        assert lost == []
        again = await serve(agent, address=bus)
        await again.close()

    asyncio.run(scenario())


def test_callers_of_a_closing_service_get_an_error(bus: str) -> None:
    async def scenario() -> None:
        agent = FakeAgent()
        agent.inspecting.clear()
        server = await serve(agent, address=bus)
        async with Peer(bus) as peer:
            waiting = asyncio.create_task(peer.rauc("Info", "s", "/x"))
            await peer.rauc("GetArtifactStatus")
            await server.close()
            assert (await waiting).error_name == "org.freedesktop.DBus.Error.NoReply"

    asyncio.run(scenario())
