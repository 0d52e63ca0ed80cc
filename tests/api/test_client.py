"""Our client, with our service and with the real one."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest
from dbus_fast import Message

from tests.api.conftest import Daemon
from tests.api.peer import DEADLINE, RAUC, RealRauc, serving
from tests.fakes.agent import BROKEN_WRITE, GOOD, FakeAgent, FakePoller
from updated.api.client import Client
from updated.api.server import serve
from updated.api.watch import Step
from updated.core.gate import Hold
from updated.core.model import Access, InstallArgs
from updated.errors import DeviceError, UpdatedError

GOOD_STEPS = [Step(*event) for event in GOOD.events if isinstance(event, tuple)]


async def steps(client: Client, bundle: str = "/x.raucb", args: InstallArgs | None = None) -> list[Step]:
    async with asyncio.timeout(DEADLINE):
        return [step async for step in client.install(bundle, args or InstallArgs())]


async def error_of(work: Coroutine[Any, Any, object]) -> UpdatedError:
    with pytest.raises(UpdatedError) as caught:
        await work
    return caught.value


def with_ours(bus: str, agent: Callable[[], FakeAgent], check: Callable[[Client, FakeAgent], Any]) -> None:
    async def scenario() -> None:
        fake = agent()
        async with serving(bus, fake), Client(bus) as client:
            await check(client, fake)

    asyncio.run(scenario())


def test_reads(bus: str) -> None:
    async def check(client: Client, _agent: FakeAgent) -> None:
        system = await client.system()
        assert (system.operation, system.compatible, system.system_version) == ("idle", "Test Board", "1.0")
        assert [slot.name for slot in await client.slots()] == ["rootfs.0", "appfs.0", "rootfs.1"]
        assert (await client.slots())[0].values["installed.count"] == 3
        assert await client.primary() == "rootfs.0"
        assert await client.mark("good", "booted") == ("rootfs.0", "marked slot(s) rootfs.0 as good")
        assert await client.info("/x.raucb") == ("Test Board", "2.0")
        info = await client.inspect("/x.raucb")
        assert info["update"]["version"] == "2.0"
        assert info["images"][0]["size"] == 2**40

    with_ours(bus, FakeAgent, check)


def test_install_yields_every_step(bus: str) -> None:
    async def check(client: Client, agent: FakeAgent) -> None:
        args = InstallArgs(ignore_compatible=True, transaction_id="tx-1")
        assert await steps(client, args=args) == GOOD_STEPS
        assert agent.offers[0].args == args
        assert await steps(client) == GOOD_STEPS

    with_ours(bus, FakeAgent, check)


def test_how_to_reach_a_server_is_sent_only_if_it_is_said(bus: str) -> None:
    async def check(client: Client, agent: FakeAgent) -> None:
        access = Access("/c", "/k", "/r", tls_no_verify=True, headers=("X: y",))
        assert [step async for step in client.install("https://h/x", access=access)] == GOOD_STEPS
        assert agent.offers[0].access == access
        await steps(client)
        assert agent.offers[1].access == Access()

    with_ours(bus, FakeAgent, check)


def test_pause_consent_floor_and_why(bus: str) -> None:
    async def check(client: Client, agent: FakeAgent) -> None:
        agent.asking = "install"
        agent.reasons = ["one", "two"]
        agent.now = replace(agent.now, floor="3", paused=True, hold=Hold("window", "later", 60.0))
        status = await client.status()
        assert (status.floor, status.paused) == ("3", True)
        assert status.hold == {"rule": "window", "text": "later", "delay": 60.0}
        await client.resume()
        assert str(await error_of(client.pause())) == "No install is running"
        await client.consent("install", True)
        await client.reset_floor()
        assert (agent.now.paused, agent.now.floor, agent.answers) == (False, "", [("install", True)])
        assert await client.why() == ["one", "two"]

    with_ours(bus, FakeAgent, check)


def test_a_hold_ends_with_its_block(bus: str) -> None:
    async def check(client: Client, agent: FakeAgent) -> None:
        async with client.holding("who", "why", 5) as gone:
            ((who, why, seconds, _owner),) = agent.holds.values()
            assert (who, why, seconds) == ("who", "why", 5)
            assert not gone.is_set()
        assert agent.holds == {}
        async with client.holding("who", "why", 5):
            agent.holds.clear()  # its time is over

    with_ours(bus, FakeAgent, check)


def test_a_hold_ends_with_the_service(bus: str) -> None:
    async def scenario() -> None:
        server = await serve(FakeAgent(), address=bus)
        async with Client(bus) as client, client.holding("who", "why", 5) as gone:
            await server.close()
            await asyncio.wait_for(gone.wait(), DEADLINE)

    asyncio.run(scenario())


def test_a_hold_ends_with_the_bus(daemon: Daemon) -> None:
    async def scenario() -> None:
        server = await serve(FakeAgent(), address=daemon.address)
        async with Client(daemon.address) as client, client.holding("who", "why", 5) as gone:
            daemon.kill()
            await asyncio.wait_for(gone.wait(), DEADLINE)
        await server.close()

    asyncio.run(scenario())


def test_polling(bus: str) -> None:
    async def check(client: Client, agent: FakeAgent) -> None:
        await client.poll()
        polled = await client.polled()
        assert polled.next_poll == 30_000_000
        assert polled.status["update-available"] is False

    with_ours(bus, lambda: FakeAgent(poller=FakePoller()), check)


def test_nothing_is_polled(bus: str) -> None:
    async def check(client: Client, _agent: FakeAgent) -> None:
        error = await error_of(client.polled())
        assert (str(error), "updated.toml" in error.hint) == ("Nothing is polled", True)

    with_ours(bus, FakeAgent, check)


def test_failed_install_raises_the_last_error(bus: str) -> None:
    async def check(client: Client, _agent: FakeAgent) -> None:
        assert str(await error_of(steps(client))) == BROKEN_WRITE.error

    with_ours(bus, lambda: FakeAgent(BROKEN_WRITE), check)


def test_busy_service_refuses(bus: str) -> None:
    async def check(client: Client, agent: FakeAgent) -> None:
        agent.gate.clear()
        first = asyncio.create_task(steps(client))
        async with Client(bus) as other:
            while not agent.offers:  # noqa: ASYNC110  the fake has no event for it
                await asyncio.sleep(0.001)
            assert str(await error_of(steps(other))) == "Already processing a different method"
        agent.gate.set()
        assert await first == GOOD_STEPS

    with_ours(bus, FakeAgent, check)


def test_watching_may_stop_early(bus: str) -> None:
    async def check(client: Client, agent: FakeAgent) -> None:
        agent.gate.clear()
        async with aclosing(client.install("/x.raucb")) as watched:  # type: ignore[type-var]
            async for step in watched:
                assert step == GOOD_STEPS[0]
                break
        agent.gate.set()
        async with asyncio.timeout(DEADLINE):
            while (await client.system()).operation != "idle":  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        assert await steps(client) == GOOD_STEPS

    with_ours(bus, FakeAgent, check)


def test_signals_from_a_stranger_are_not_believed(bus: str) -> None:
    async def scenario() -> None:
        agent = FakeAgent()
        agent.gate.clear()
        async with serving(bus, agent) as stranger, Client(bus) as client:
            watching = asyncio.create_task(steps(client))
            await stranger.until("changed", "Installer", {"Progress": [70, "Copying image to rootfs.1", 3]})
            names = (await stranger.ask(*DBUS, "ListNames")).body[0]
            for name in names:
                if name.startswith(":"):
                    signal = Message.new_signal(RAUC[1], RAUC[2], "Completed", "i", [0])
                    signal.destination = name
                    await stranger.bus.send(signal)
            await client.system()  # behind the forged signals
            assert not watching.done()
            agent.gate.set()
            assert await watching == GOOD_STEPS

    asyncio.run(scenario())


DBUS = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")


def test_service_that_goes_away_ends_the_watch(bus: str) -> None:
    async def scenario() -> None:
        agent = FakeAgent()
        agent.gate.clear()
        server = await serve(agent, address=bus)
        async with Client(bus) as client:
            watching = asyncio.create_task(error_of(steps(client)))
            while not agent.offers:  # noqa: ASYNC110  the fake has no event for it
                await asyncio.sleep(0.001)
            await server.close()
            agent.gate.set()
            error = await asyncio.wait_for(watching, DEADLINE)
            assert isinstance(error, DeviceError)
            assert "ended" in str(error)

    asyncio.run(scenario())


def test_bus_that_goes_away_ends_the_watch(daemon: Daemon) -> None:
    async def scenario() -> None:
        agent = FakeAgent()
        agent.gate.clear()
        server = await serve(agent, address=daemon.address)
        async with Client(daemon.address) as client:
            watching = asyncio.create_task(error_of(steps(client)))
            while not agent.offers:  # noqa: ASYNC110  the fake has no event for it
                await asyncio.sleep(0.001)
            await asyncio.to_thread(daemon.kill)
            error = await asyncio.wait_for(watching, DEADLINE)
            assert "Lost the connection to the bus" in str(error)
            assert "Lost the connection to the bus" in str(await error_of(client.primary()))
        agent.gate.set()
        await server.close()

    asyncio.run(scenario())


def test_no_service_on_the_bus(bus: str) -> None:
    async def scenario() -> None:
        async with Client(bus) as client:
            for work in (client.primary(), steps(client), client.status()):
                error = await error_of(work)
                assert str(error) == "The update service is not running"
                assert error.hint

    asyncio.run(scenario())


def test_no_bus_at_all() -> None:
    async def scenario() -> None:
        async with Client("unix:path=/nonexistent/bus"):
            raise AssertionError("connected")

    with pytest.raises(DeviceError, match="Cannot reach the system bus"):
        asyncio.run(scenario())


def test_our_own_interface(bus: str) -> None:
    async def check(client: Client, agent: FakeAgent) -> None:
        agent.gate.clear()
        watching = asyncio.create_task(error_of(steps(client)))
        async with Client(bus) as other:
            status = await other.status()
            while status.progress["percentage"] != 70:
                status = await other.status()
            assert status.state == "install"
            assert status.transaction["target"] == "rootfs.1"
            assert status.progress["bytes-total"] == 1000
            await other.cancel()
            assert str(await watching) == "Cancelled"
            assert (await other.history(10))[0]["code"] == "cancelled"
            assert (await other.status()).last_result["code"] == "cancelled"
            assert await other.rollback() == "rootfs.1"
            assert "Nothing is to be confirmed" in str(await error_of(other.confirm()))

    with_ours(bus, FakeAgent, check)


def with_real(
    bus: str, real: RealRauc, check: Callable[[Client, subprocess.Popen[bytes]], Coroutine[Any, Any, None]]
) -> None:
    async def scenario(process: subprocess.Popen[bytes]) -> None:
        async with Client(bus) as client:
            await check(client, process)

    real.fresh()
    with real.service(bus) as process:
        asyncio.run(scenario(process))


def test_real_rauc_reads_and_marks(bus: str, real_rauc: RealRauc) -> None:
    async def check(client: Client, _process: object) -> None:
        system = await client.system()
        assert (system.compatible, system.boot_slot, system.system_version) == ("Real", "A", "")
        slots = {slot.name: slot.values for slot in await client.slots()}
        assert slots["rootfs.0"]["state"] == "booted"
        assert slots["rootfs.1"]["boot-status"] == "good"
        assert await client.primary() == "rootfs.0"
        assert await client.mark("bad", "other") == ("rootfs.1", "marked slot rootfs.1 as bad")
        assert str(await error_of(client.mark("good", "x"))) == "Invalid slot name format: 'x'"
        assert await client.info(str(real_rauc.good)) == ("Real", "2")
        missing = await error_of(client.inspect(str(real_rauc.good)))
        assert str(missing) == "No such method “InspectBundle”"
        assert missing.hint

    with_real(bus, real_rauc, check)


@pytest.mark.root
def test_real_rauc_installs(bus: str, real_rauc: RealRauc) -> None:
    async def check(client: Client, _process: object) -> None:
        for _ in range(2):
            seen = await steps(client, str(real_rauc.good))
            assert seen[0] == Step(0, "Installing", 1)
            assert Step(99, "Updating slots done.", 2) in seen
            assert seen[-1] == Step(100, "Installing done.", 1)
        slots = {slot.name: slot.values for slot in await client.slots()}
        assert slots["rootfs.1"]["installed.count"] == 2
        assert await client.primary() == "rootfs.1"

    with_real(bus, real_rauc, check)


@pytest.mark.root
def test_real_rauc_rejects(bus: str, real_rauc: RealRauc) -> None:
    async def check(client: Client, _process: object) -> None:
        error = str(await error_of(steps(client, str(real_rauc.foreign))))
        assert "Expected 'Real' but bundle manifest has 'Foreign'" in error
        missing = str(await error_of(steps(client, "/nonexistent.raucb")))
        assert "No such file or directory" in missing

    with_real(bus, real_rauc, check)


@pytest.mark.root
def test_real_rauc_is_killed_on_the_way(bus: str, real_rauc: RealRauc) -> None:
    async def check(client: Client, process: subprocess.Popen[bytes]) -> None:
        async with aclosing(client.install(str(real_rauc.good))) as watched:  # type: ignore[type-var]

            async def watch() -> None:
                async for _ in watched:
                    process.send_signal(signal.SIGKILL)

            error = await error_of(asyncio.wait_for(watch(), DEADLINE))
        assert isinstance(error, DeviceError)

    with_real(bus, real_rauc, check)
