"""`inhibit`: what is held, for how long, and what the command notices of it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import pytest

from tests.fakes.agent import MAX_HOLD, FakeAgent
from updated.api.server import Server, serve

Env = Mapping[str, str]
WAIT = "import sys; print('runs', flush=True); sys.exit(int(sys.stdin.readline()))"


@dataclass(slots=True)
class Session:
    """The service, and our command line beside it."""

    env: Env
    agent: FakeAgent
    server: Server

    async def start(self, *words: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "updated", "inhibit", *words),
            env={**os.environ, **self.env},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def run(self, *words: str) -> tuple[int | None, str, str]:
        return await end(await self.start(*words))

    async def no_holds(self) -> None:
        deadline = time.monotonic() + 20
        while self.agent.holds:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)


async def end(process: asyncio.subprocess.Process, text: bytes = b"") -> tuple[int | None, str, str]:
    out, err = await asyncio.wait_for(process.communicate(text), 30)
    return process.returncode, out.decode(), err.decode()


async def line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    return (await asyncio.wait_for(process.stdout.readline(), 20)).decode()


def session(env: Env, test: Callable[[Session], Awaitable[None]]) -> None:
    async def run() -> None:
        agent = FakeAgent()
        server = await serve(agent, address=env["DBUS_SESSION_BUS_ADDRESS"])
        try:
            await test(Session(env, agent, server))
        finally:
            await server.close()

    asyncio.run(run())


def test_the_hold_lasts_as_long_as_the_command(bus: Env) -> None:
    async def test(on: Session) -> None:
        process = await on.start("--why=a backup", "--for=60", "--", sys.executable, "-c", WAIT)
        assert await line(process) == "runs\n"
        assert [hold[:3] for hold in on.agent.holds.values()] == [(sys.executable, "a backup", 60)]
        assert await end(process, b"42\n") == (42, "", "")
        assert on.agent.holds == {}

    session(bus, test)


def test_a_command_that_a_signal_ends(bus: Env) -> None:
    async def test(on: Session) -> None:
        code, _, _ = await on.run("--why=x", "--", "sh", "-c", "kill -KILL $$")
        assert code == 128 + signal.SIGKILL

    session(bus, test)


def test_ctrl_c_is_the_business_of_the_command(bus: Env) -> None:
    async def test(on: Session) -> None:
        process = await on.start("--why=x", "--", sys.executable, "-c", WAIT)
        await line(process)
        process.send_signal(signal.SIGINT)  # to us alone: a terminal sends it to both
        assert await end(process, b"0\n") == (0, "", "")

    session(bus, test)


def test_an_end_is_passed_on_to_the_command(bus: Env) -> None:
    async def test(on: Session) -> None:
        process = await on.start("--why=x", "--", sys.executable, "-c", WAIT)
        await line(process)
        process.terminate()
        assert (await end(process))[0] == 128 + signal.SIGTERM
        assert on.agent.holds == {}

    session(bus, test)


def test_without_a_command_until_the_time_is_over(bus: Env) -> None:
    async def test(on: Session) -> None:
        process = await on.start("--why=x", "--who=me", "--for=1")
        assert await line(process) == "Updates are held off for 1 s; Ctrl-C ends it.\n"
        assert [hold[:3] for hold in on.agent.holds.values()] == [("me", "x", 1)]
        assert await end(process) == (0, "", "")
        assert on.agent.holds == {}

    session(bus, test)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_without_a_command_until_it_is_stopped(bus: Env, number: signal.Signals, code: int) -> None:
    async def test(on: Session) -> None:
        process = await on.start("--why=x")
        await line(process)
        assert len(on.agent.holds) == 1
        process.send_signal(number)
        assert (await end(process))[0] == code
        await on.no_holds()

    session(bus, test)


def test_a_service_that_ends_takes_the_hold_with_it(bus: Env) -> None:
    async def test(on: Session) -> None:
        alone = await on.start("--why=x")
        await line(alone)
        command = await on.start("--why=x", "--", sys.executable, "-c", WAIT)
        await line(command)
        await on.server.close()
        gone = "The update service ended, and the hold with it\n"
        assert (await end(alone))[::2] == (1, gone)
        assert command.stderr is not None
        assert (await asyncio.wait_for(command.stderr.readline(), 20)).decode() == gone
        assert await end(command, b"5\n") == (5, "", "")

    session(bus, test)


def test_a_command_that_outlives_the_hold_is_told(bus: Env) -> None:
    async def test(on: Session) -> None:
        process = await on.start("--why=x", "--for=1", "--", sys.executable, "-c", WAIT)
        assert process.stderr is not None
        told = (await asyncio.wait_for(process.stderr.readline(), 20)).decode()
        assert told == "The time of the hold is over\n"
        assert (await end(process, b"0\n"))[0] == 0

    session(bus, test)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ((), "A reason must be provided with --why\n"),
        (("--why=x", "--for=soon"), "Cannot parse integer value 'soon' for --for\n"),
        (("--why=x", f"--for={MAX_HOLD + 1}"), f"A hold lasts at most {MAX_HOLD} s (ask for less)\n"),
        (("--why=x", "--for=0"), "A hold lasts at least 1 second, got 0\n"),
        (("--why=x", "--", "/nosuch/command"), "Cannot run /nosuch/command: No such file or directory\n"),
    ],
)
def test_what_cannot_be(bus: Env, words: tuple[str, ...], error: str) -> None:
    async def test(on: Session) -> None:
        code, out, err = await on.run(*words)
        assert (code, out) == (1, "")
        assert err.startswith(error)
        assert on.agent.holds == {}

    session(bus, test)
