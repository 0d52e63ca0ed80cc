"""systemd's units over D-Bus: one connection while it is asked, none afterwards."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.api.conftest import Daemon
from tests.fakes.systemd import FakeUnit, fake_systemd
from updated.errors import DeviceError
from updated.host.units import Systemd, UnitState


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_what_is_known_of_units(daemon: Daemon) -> None:
    async def scene() -> None:
        async with fake_systemd(daemon.address) as here:
            here.units = {
                "kiosk.service": FakeUnit(restarts=3, invocation=bytes(range(16)), result="watchdog"),
                "multi-user.target": FakeUnit(sub="active", invocation=b"2" * 16),
                "gone.service": FakeUnit("masked", "inactive", "dead"),
            }
            systemd = Systemd(daemon.address)
            try:
                assert await systemd.show("kiosk.service") == UnitState(
                    "loaded", "active", "running", "watchdog", 3, bytes(range(16))
                )
                assert await systemd.show("multi-user.target") == UnitState(
                    "loaded", "active", "active", invocation=b"2" * 16
                )
                assert await systemd.show("gone.service") == UnitState("masked", "inactive", "dead")
                assert await systemd.show("none.service") == UnitState("not-found", "inactive", "dead")
            finally:
                await systemd.close()

    asyncio.run(scene())


def test_which_have_failed(daemon: Daemon) -> None:
    async def scene() -> None:
        async with fake_systemd(daemon.address) as here:
            here.units = {
                "a.service": FakeUnit(active="failed"),
                "b.service": FakeUnit(),
                "c.mount": FakeUnit(active="failed"),
            }
            systemd = Systemd(daemon.address)
            try:
                assert await systemd.failed(["*"]) == ("a.service", "c.mount")
                assert await systemd.failed(["*.mount", "b*"]) == ("c.mount",)
                assert await systemd.failed(["b*"]) == ()
            finally:
                await systemd.close()

    asyncio.run(scene())


def test_one_connection_for_all_and_none_afterwards(daemon: Daemon) -> None:
    async def scene() -> None:
        async with fake_systemd(daemon.address) as here:
            before = open_files()
            systemd = Systemd(daemon.address)
            assert open_files() == before
            await asyncio.gather(*(systemd.show(f"{n}.service") for n in range(5)), systemd.failed(["*"]))
            assert len(here.senders) == 1
            assert open_files() == before + 1
            await systemd.close()
            await systemd.close()
            assert open_files() == before
            await systemd.show("a.service")  # it can be asked again
            assert len(here.senders) == 2
            await systemd.close()
            assert open_files() == before

    asyncio.run(scene())


def test_who_waits_for_an_answer_is_not_disturbed(daemon: Daemon) -> None:
    """One of two gates that share it has come to its end."""

    async def scene() -> None:
        async with fake_systemd(daemon.address) as here:
            systemd = Systemd(daemon.address)
            asking = asyncio.create_task(systemd.show("a.service"))
            await here.called.wait()
            await systemd.close()
            assert (await asking).load == "not-found"
            await systemd.close()

    asyncio.run(scene())


Question = Callable[[Systemd], Awaitable[object]]
QUESTIONS: list[Question] = [lambda s: s.show("a.service"), lambda s: s.failed(["*"])]


async def refused(address: str, question: Question, timeout: float = 5.0) -> str:
    systemd = Systemd(address, timeout)
    before = open_files()
    with pytest.raises(DeviceError) as caught:
        await question(systemd)
    await systemd.close()
    assert open_files() == before
    return str(caught.value)


@pytest.mark.parametrize("question", QUESTIONS)
def test_nobody_there(daemon: Daemon, question: Question) -> None:
    text = asyncio.run(refused(daemon.address, question))
    assert text.startswith("systemd cannot be asked: ")
    assert "org.freedesktop.systemd1" in text


@pytest.mark.parametrize("question", QUESTIONS)
def test_no_bus(tmp_path: Path, question: Question) -> None:
    text = asyncio.run(refused(f"unix:path={tmp_path}/none", question))
    assert text.startswith("systemd cannot be asked: Cannot reach the system bus: ")


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_systemd_that_hangs(daemon: Daemon, question: Question) -> None:
    async def scene() -> str:
        async with fake_systemd(daemon.address) as here:
            here.hangs = True
            return await refused(daemon.address, question, 0.1)

    assert asyncio.run(scene()) == "systemd cannot be asked: no answer within 0.1 s"


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_systemd_that_refuses(daemon: Daemon, question: Question) -> None:
    async def scene() -> str:
        async with fake_systemd(daemon.address) as here:
            here.refuses = "not for you"
            return await refused(daemon.address, question)

    assert asyncio.run(scene()) == "systemd cannot be asked: not for you"


def test_a_bus_that_hangs(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "deaf"))
        server.listen()
        text = asyncio.run(refused(f"unix:path={tmp_path}/deaf", QUESTIONS[0], 0.1))
    assert text == "systemd cannot be asked: no answer within 0.1 s"


def test_a_bus_that_goes_away_and_comes_back(daemon: Daemon) -> None:
    async def scene() -> None:
        async with fake_systemd(daemon.address) as here:
            here.hangs = True
            systemd = Systemd(daemon.address)
            asking = asyncio.ensure_future(systemd.show("a.service"))
            await here.called.wait()
            daemon.kill()
            with pytest.raises(DeviceError, match="systemd cannot be asked: "):
                await asking
            with pytest.raises(DeviceError, match="systemd cannot be asked: "):
                await systemd.show("a.service")
            await systemd.close()

    with pytest.raises((EOFError, ConnectionError)):  # of the fake itself
        asyncio.run(scene())


def test_cancelled_it_leaves_nothing(daemon: Daemon) -> None:
    async def scene() -> None:
        async with fake_systemd(daemon.address) as here:
            here.hangs = True
            before = open_files()
            systemd = Systemd(daemon.address)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await systemd.show("a.service")
            await systemd.close()
            assert open_files() == before

    asyncio.run(scene())
