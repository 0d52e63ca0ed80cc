"""What other services on the bus say: NetworkManager of the link, logind of who blocks the shutdown."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from dbus_fast import Variant

from tests.api.conftest import CONFIG, Daemon
from tests.fakes.neighbours import LOGIND, NETWORK_MANAGER, Neighbours, neighbours
from updated.core.gate import Inhibitor
from updated.host.link_state import metered
from updated.host.logind import shutdown_inhibitors


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Variant("u", 0), None),
        (Variant("u", 1), True),
        (Variant("u", 2), False),
        (Variant("u", 3), True),
        (Variant("u", 4), False),
        (Variant("u", 77), None),
        (Variant("s", "1"), None),
        (None, None),
    ],
)
def test_metered(daemon: Daemon, value: Variant | None, expected: bool | None) -> None:
    async def scene() -> bool | None:
        async with neighbours(daemon.address) as here:
            here.metered = value
            return await metered(daemon.address)

    assert asyncio.run(scene()) is expected


def test_only_a_block_of_the_shutdown_counts(daemon: Daemon) -> None:
    async def scene() -> object:
        async with neighbours(daemon.address) as here:
            here.inhibitors = [
                ["shutdown:sleep", "Burner", "burning a disc", "block", 1000, 17],
                ["shutdown", "NetworkManager", "turns off", "delay", 0, 18],
                ["shutdown", "Editor", "unsaved", "block-weak", 1000, 19],
                ["sleep:idle", "Player", "a film", "block", 1000, 20],
                ["idle:shutdown", "Backup", "", "block", 0, 21],
            ]
            return await shutdown_inhibitors(daemon.address)

    assert asyncio.run(scene()) == (Inhibitor("Burner", "burning a disc"), Inhibitor("Backup", ""))


Question = Callable[[str, float], Awaitable[object]]
QUESTIONS: list[tuple[Question, object]] = [(metered, None), (shutdown_inhibitors, ())]


@pytest.mark.parametrize(("question", "nothing"), QUESTIONS)
def test_nobody_there(daemon: Daemon, question: Question, nothing: object) -> None:
    assert asyncio.run(_ask(question, daemon.address)) == nothing


@pytest.mark.parametrize(("question", "nothing"), QUESTIONS)
def test_no_bus(tmp_path: Path, question: Question, nothing: object) -> None:
    assert asyncio.run(_ask(question, f"unix:path={tmp_path}/none")) == nothing


async def _ask(question: Question, address: str) -> object:
    return await question(address, 5)


@pytest.mark.parametrize(("question", "nothing"), QUESTIONS)
def test_a_service_that_hangs_is_not_waited_for(daemon: Daemon, question: Question, nothing: object) -> None:
    async def scene() -> None:
        async with neighbours(daemon.address) as here:
            here.hangs = True
            assert await question(daemon.address, 0.1) == nothing
            assert here.asked

    before = open_files()
    asyncio.run(scene())
    assert open_files() == before


@pytest.mark.parametrize(("question", "nothing"), QUESTIONS)
def test_a_bus_that_hangs_is_not_waited_for(tmp_path: Path, question: Question, nothing: object) -> None:
    """It takes the connection, and says nothing."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "deaf"))
        server.listen()
        before = open_files()
        assert asyncio.run(_short(question, f"unix:path={tmp_path}/deaf")) == nothing
        assert open_files() == before


async def _short(question: Question, address: str) -> object:
    return await question(address, 0.1)


@pytest.mark.parametrize(("question", "nothing"), QUESTIONS)
def test_a_bus_that_goes_away(daemon: Daemon, question: Question, nothing: object) -> None:
    async def scene() -> None:
        async with neighbours(daemon.address) as here:
            here.hangs = True
            asking = asyncio.ensure_future(question(daemon.address, 5))
            await here.called.wait()
            daemon.kill()
            assert await asking == nothing

    with pytest.raises((EOFError, ConnectionError)):  # of the neighbours themselves
        asyncio.run(scene())


@pytest.mark.parametrize(("question", "nothing"), QUESTIONS)
def test_nobody_is_started_to_answer(tmp_path: Path, question: Question, nothing: object) -> None:
    """Names that the bus could activate stay asleep."""
    for name in (NETWORK_MANAGER, LOGIND):
        start = f'/bin/sh -c "touch {tmp_path}/started; exit 1"'
        (tmp_path / f"{name}.service").write_text(f"[D-BUS Service]\nName={name}\nExec={start}\n")
    config = tmp_path / "bus.conf"
    folder = f"<servicedir>{tmp_path}</servicedir></busconfig>"
    config.write_text(CONFIG.format(socket=tmp_path / "bus").replace("</busconfig>", folder))
    running = Daemon(config, tmp_path / "bus")
    try:
        assert asyncio.run(_ask(question, running.address)) == nothing
        assert not (tmp_path / "started").exists()
        # Without our flag it would be started.
        to = (f"--bus={running.address}", f"--dest={LOGIND}", "--print-reply")
        subprocess.run(["dbus-send", *to, "/", "a.b.c"], capture_output=True, check=False, timeout=10)
        assert (tmp_path / "started").exists()
    finally:
        running.kill()


def test_the_neighbours_are_told_apart(daemon: Daemon) -> None:
    async def scene() -> Neighbours:
        async with neighbours(daemon.address) as here:
            await metered(daemon.address)
            await shutdown_inhibitors(daemon.address)
            return here

    assert asyncio.run(scene()).asked == ["Get", "ListInhibitors"]
