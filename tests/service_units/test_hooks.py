"""The device's own programs: once each, in order, again after a power cut, and never for ever."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from updated.config.agent_toml import AgentConfig, parse_agent_config
from updated.core import states
from updated.service.announce import Announcer
from updated.service.hooks import MAX_BEGUN, Hooks
from updated.service.memory import Memory
from updated.store import PendingHook, Store

U = states.Update("t-1", "usb", "/x", "h1", "2.0", "rootfs.1")
PENDING = states.RebootPending(U, "boot-1")


class Bench:
    """Hooks on a store of their own."""

    def __init__(self, folder: Path, config: str) -> None:
        self.config: AgentConfig = parse_agent_config(config.encode())
        self.store = Store(folder / "data", print)
        self.over = 0
        self.ended = asyncio.Event()
        memory = Memory(self.store, Announcer())
        self.hooks = Hooks(
            lambda: self.config, self.store, memory, booted=lambda: "rootfs.0", over=self._over
        )

    def _over(self) -> None:
        self.over += 1
        self.ended.set()

    async def rest(self) -> None:
        if self.hooks.running:
            async with asyncio.timeout(10):
                await self.ended.wait()
        self.ended.clear()

    @property
    def texts(self) -> list[str]:
        return [line.text for line in self.store.history()][::-1]


Make = Callable[[str], Bench]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    return lambda config: Bench(tmp_path, config)


def test_what_is_not_configured_does_nothing(make: Make) -> None:
    async def scenario() -> None:
        bench = make("")
        await bench.hooks.add("installed", U)
        assert bench.hooks.running == ""
        assert bench.texts == []

    asyncio.run(scenario())


def test_it_is_told_what_it_is_about_and_how_it_ends_is_kept(make: Make, tmp_path: Path) -> None:
    words = '["sh", "-c", "env | grep ^UPDATED_ | sort > $0; echo 3 files saved", "%s"]' % (tmp_path / "env")

    async def scenario() -> None:
        bench = make(f"[hooks]\non-installed = {words}\n")
        await bench.hooks.add("installed", U)
        assert bench.hooks.running == "on-installed"
        await bench.rest()
        assert bench.texts == ["on-installed: Done after 0 s: 3 files saved"]
        assert bench.over == 1
        assert bench.store.pending_hooks() == []

    asyncio.run(scenario())
    told = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines())
    assert told == {
        "UPDATED_BOOTED": "rootfs.0",
        "UPDATED_HOOK": "on-installed",
        "UPDATED_MANIFEST_HASH": "h1",
        "UPDATED_REASON": "",
        "UPDATED_SOURCE": "usb",
        "UPDATED_TARGET": "rootfs.1",
        "UPDATED_TRANSACTION": "t-1",
        "UPDATED_VERSION": "2.0",
    }


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ('["false"]', "on-fallback: Failed with exit code 1 after 0 s."),
        ('["sh", "-c", "echo no room >&2; exit 3"]', "Failed with exit code 3 after 0 s: no room"),
        ('["/nowhere/backup"]', "Failed: Failed to execute /nowhere/backup: No such file or directory."),
        ('["sleep", "60"]', "Failed: sleep did not finish within 1 s."),
    ],
)
def test_one_that_fails_is_told_and_stops_nothing(make: Make, command: str, said: str) -> None:
    async def scenario() -> None:
        bench = make(f"[hooks]\non-fallback = {command}\non-confirmed = ['true']\ntimeout = 1\n")
        await bench.hooks.add("fallback", U)
        await bench.hooks.add("confirmed", U)
        await bench.rest()
        assert said in bench.texts[0]
        assert bench.texts[1] == "on-confirmed: Done after 0 s."

    asyncio.run(scenario())


def test_one_that_a_power_cut_ended_runs_again(make: Make, tmp_path: Path) -> None:
    script = f"cd {tmp_path}; echo >> runs; test -e quick || {{ mkfifo begun; echo > begun; sleep 60; }}"
    config = f'[hooks]\non-fallback = ["sh", "-c", "{script}"]\n'

    def until_begun() -> None:
        while not (tmp_path / "begun").exists():
            time.sleep(0.005)
        (tmp_path / "begun").read_text()

    async def cut() -> None:
        bench = make(config)
        await bench.hooks.add("fallback", U)
        await asyncio.to_thread(until_begun)
        await bench.hooks.close()

    async def again() -> None:
        (tmp_path / "quick").touch()
        bench = make(config)
        assert bench.hooks.running == "on-fallback"
        bench.hooks.resume(states.Idle())
        await bench.rest()
        assert bench.texts == ["on-fallback: Done after 0 s."]

    began = time.monotonic()
    asyncio.run(cut())
    asyncio.run(again())
    assert time.monotonic() - began < 50  # nobody waited for the first one
    assert (tmp_path / "runs").read_text() == "\n\n"


def test_one_that_never_gets_to_its_end_is_given_up(make: Make) -> None:
    async def scenario() -> None:
        bench = make('[hooks]\non-fallback = ["true"]\n')
        bench.store.save_hooks([PendingHook("fallback", U, MAX_BEGUN)])
        bench = make('[hooks]\non-fallback = ["true"]\n')
        bench.hooks.resume(states.Idle())
        await bench.rest()
        assert bench.texts == ["on-fallback: Not run again: it was interrupted 3 times."]

    asyncio.run(scenario())


@pytest.mark.parametrize(("state", "runs"), [(PENDING, 1), (states.Confirming(U), 0), (states.Idle(), 0)])
def test_what_was_to_come_before_the_reboot_is_too_late_after_it(
    make: Make, state: states.State, runs: int
) -> None:
    async def scenario() -> None:
        bench = make('[hooks]\non-installed = ["true"]\n')
        bench.store.save_hooks([PendingHook("installed", U)])
        bench = make('[hooks]\non-installed = ["true"]\n')
        bench.hooks.resume(state)
        await bench.rest()
        assert len(bench.texts) == runs

    asyncio.run(scenario())
