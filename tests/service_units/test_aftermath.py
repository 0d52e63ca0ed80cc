"""After a fallback: is it the other system's fault that a server did not answer?"""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from updated.core import states
from updated.core.health import Judgement
from updated.core.model import Quarantined
from updated.service.aftermath import Aftermath
from updated.service.memory import Memory
from updated.service.trials import cause, decisive_check, trials_of

U = states.Update("t-1", "ota", "/x", "hash", "2.0.0", "rootfs.1", "Test")
SAVED = states.RebootPending(U, "boot-0")
CHECK = """
[[confirm.checks]]
type = "socket"
name = "cloud"
address = "{host}:{port}"
required = true
period = 0.1
timeout = 1
deadline = 1
"""


def judgement(boot: str, *, group: str = "rootfs.1", state: str = "bad", decided: str = "cloud") -> Judgement:
    return Judgement(boot, group, "2.0.0", state, "", decided, f"{decided}: no")


class Bench:
    """What is left after a fallback to rootfs.0, whose system is judged good by now."""

    def __init__(self, service: Any, judgements: Sequence[Judgement]) -> None:
        self.store = service.store
        self.lifted = 0
        runner = service.runner
        memory = Memory(self.store, service.announcer)
        self.aftermath = Aftermath(
            lambda: runner.setting, self.store, memory, runner.judging, lifted=self._lift
        )
        for one in judgements:
            self.store.judged(one)
        self.store.reject(Quarantined("hash", "2.0.0", "cloud: no", "", "b"))

    def _lift(self) -> None:
        self.lifted += 1

    async def look(self) -> bool:
        """Is it excused?"""
        await self.aftermath.look_into(SAVED)
        assert self.lifted == ("hash" not in self.store.quarantine())
        return bool(self.lifted)


@asynccontextmanager
async def service(site: Any, *, host: str = "0.0.0.0", port: int = 1) -> AsyncIterator[Any]:
    """0.0.0.0 is no address of this device, but leads to it; nobody listens at port 1."""
    check = CHECK.format(host=host, port=port)
    config = site.config(more=f"deadline = 5\n{check}")
    async with site.running(config) as running:
        yield running


def run(site: Any, judgements: Sequence[Judgement], **where: Any) -> tuple[bool, list[str]]:
    async def scenario() -> tuple[bool, list[str]]:
        async with service(site, **where) as running:
            bench = Bench(running, judgements)
            excused = await bench.look()
            return excused, [line.code for line in running.store.history()]

    return asyncio.run(scenario())


def test_excused_when_it_is_no_better_here(site: Any) -> None:
    assert run(site, [judgement("b-1")]) == (True, ["excused"])


def test_this_boot_is_no_trial(site: Any) -> None:
    """It may be judged before the look into the others is over."""
    here = judgement("boot-1", group="rootfs.0", state="good", decided="")
    assert run(site, [judgement("b-1"), here])[0]


def test_not_excused_if_it_answers_here(site: Any) -> None:
    with socket.create_server(("", 0)) as server:
        assert run(site, [judgement("b-1")], port=server.getsockname()[1]) == (False, [])


def test_not_excused_for_what_is_on_the_device(site: Any) -> None:
    assert run(site, [judgement("b-1")], host="localhost") == (False, [])
    assert run(site, [judgement("b-2", decided="watchdog")]) == (False, [])
    assert run(site, []) == (False, [])  # it never came up


def test_once_for_each_bundle(site: Any) -> None:
    async def scenario() -> None:
        async with service(site) as running:
            assert await Bench(running, [judgement("b-1")]).look()
            again = Bench(running, [judgement("b-2")])
            assert not await again.look()
            assert [line.code for line in running.store.history()] == ["excused"]

    asyncio.run(scenario())


def test_lifted_by_a_person_meanwhile(site: Any) -> None:
    async def scenario() -> None:
        async with service(site) as running:
            bench = Bench(running, [judgement("b-1")])
            looking = asyncio.create_task(bench.aftermath.look_into(SAVED))
            await asyncio.sleep(0)
            bench.store.lift("hash")
            await looking
            assert (bench.lifted, running.store.history()) == (0, [])

    asyncio.run(scenario())


def test_a_floor_that_is_reset(site: Any) -> None:
    """What was refused because of it is looked at again, without a new file or a new start."""
    config = site.config(more='[policy]\nversion-floor = "confirmed"\n')
    shutil.copy(site.bundle(), site.root / "drop")

    async def scenario() -> None:
        async with site.running(config) as running:
            running.store.raise_floor("3.0.0")
            await running.until(lambda: running.offers.put_off)
            assert running.store.history() == []
            await running.agent.reset_floor()
            await running.until(lambda: running.last == "installed")

    asyncio.run(scenario())


def test_which_boots_were_trials() -> None:
    """The newest first; those before another group ran were of another time."""
    trial, earlier = judgement("b-3"), judgement("b-1")
    between = judgement("b-2", group="rootfs.0", state="good")
    assert trials_of(U, [trial, between, earlier]) == (trial,)
    assert trials_of(U, [between, trial]) == ()
    resets = judgement("b-4", state="judging", decided="")
    assert decisive_check([resets, trial]) == "cloud"
    assert decisive_check([resets]) == ""
    assert cause(U, [trial]) == "cloud: no"
    assert cause(U, []) == "It never came as far as the update service"
    assert cause(U, [resets]) == "It was started, but reset before it was confirmed"
