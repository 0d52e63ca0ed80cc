"""Asking for a reboot, harder and harder; and what a person may ask for in which state."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from updated.config.agent_tables import AgentConfig, Reboot
from updated.core import states
from updated.core.model import Offer
from updated.errors import DeviceError, Refused
from updated.service.reboots import Reboots

Step = Callable[[], Awaitable[None]]


class Bench:
    """Reboots whose steps only write down that they were asked."""

    def __init__(self, *, escalate_after: float = 0.01, delay: float = 0.0) -> None:
        self.config = AgentConfig(reboot=Reboot(escalate_after=escalate_after, delay=delay))
        self.asked: list[str] = []
        self.told: list[str] = []
        self.reboots = Reboots(lambda: self.config, self.told.append)

    def step(self, name: str, error: Exception | None = None) -> Step:
        async def step() -> None:
            self.asked.append(name)
            if error is not None:
                raise error

        return step

    async def rest(self) -> None:
        async with asyncio.timeout(10):
            while self.reboots.begun:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.001)


def test_one_after_the_other() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.reboots.begin([bench.step("a"), bench.step("b"), bench.step("c")], bench.step("before"))
        assert bench.reboots.begun
        bench.reboots.begin([bench.step("x")], None)  # once is enough
        await bench.rest()
        assert bench.asked == ["before", "a", "b", "c"]
        assert bench.told == ["The reboot did not come within 0.01 s; it is asked for harder."] * 2
        bench.reboots.begin([bench.step("again")], None)  # all was in vain, somebody asks again
        await bench.rest()
        assert bench.asked[-1] == "again"

    asyncio.run(scenario())


def test_one_that_comes_leaves_the_others_out() -> None:
    async def scenario() -> None:
        bench = Bench(escalate_after=60)
        bench.reboots.begin([bench.step("a"), bench.step("b")], None)
        await asyncio.sleep(0.02)
        assert (bench.asked, bench.reboots.begun) == (["a"], True)
        await bench.reboots.close()
        assert not bench.reboots.begun
        assert bench.told == []

    asyncio.run(scenario())


def test_the_announced_delay_is_no_failure() -> None:
    async def scenario() -> None:
        bench = Bench(escalate_after=0.01, delay=60)
        bench.reboots.begin([bench.step("a"), bench.step("b")], None)
        await asyncio.sleep(0.05)
        assert (bench.asked, bench.told) == (["a"], [])
        await bench.reboots.close()

    asyncio.run(scenario())


def test_a_refusal_and_a_bug_are_not_the_end(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> Bench:
        bench = Bench()
        steps = [
            bench.step("a", DeviceError("blocked by vi", hint="Leave it.")),
            bench.step("b", KeyError("bug")),
        ]
        bench.reboots.begin([*steps, bench.step("c")], bench.step("before", KeyError("bug")))
        await bench.rest()
        return bench

    with caplog.at_level(logging.ERROR):
        bench = asyncio.run(scenario())
    assert bench.asked == ["before", "a", "b", "c"]
    assert bench.told[0] == "The reboot was refused: blocked by vi."
    assert "Leave it." in caplog.text
    assert caplog.text.count("a bug in `updated`") == 2


# By a person


def manual(site: Any) -> Any:
    return site.config(more=f'[reboot]\ncommand = ["touch", "{site.root}/rebooted"]\n')


async def refusal(service: Any) -> str:
    with pytest.raises(Refused) as caught:
        await service.agent.reboot()
    return str(caught.value)


def test_when_a_person_may_ask_for_it(site: Any) -> None:
    async def scenario() -> None:
        async with site.running(manual(site)) as service:
            assert await refusal(service) == "Nothing waits for a reboot"
            service.runner.request(Offer("request", str(site.bundle())))
            assert await refusal(service) == "Something is being installed"
            await service.runner.rest()
            assert isinstance(service.runner.state, states.RebootPending)
            assert not (site.root / "rebooted").exists()
            await service.agent.reboot()
            assert service.store.saved_state().asked
            await service.until((site.root / "rebooted").exists)
            assert service.agent.snapshot().detail.endswith("The reboot was asked for.")
            await service.agent.rollback()
            await service.until(lambda: not service.runner.departure.begun)
            assert await refusal(service) == "Nothing waits for a reboot"

    asyncio.run(scenario())


def test_after_it_was_marked_bad_by_hand(site: Any) -> None:
    """What starts next is said, and a person may have it start."""
    site.write_env({"ORDER": "A B", "A_OK": "1", "A_TRY": "0", "B_OK": "1", "B_TRY": "0"})

    async def scenario() -> None:
        async with site.running(manual(site)) as service:
            await service.until(lambda: service.offers.judged)
            await service.agent.mark("bad", "booted")
            sentence = "rootfs.0 was given up; rootfs.1 starts next."
            await service.until(lambda: service.agent.snapshot().detail == sentence)
            shutil.copy(site.bundle(), site.root / "drop")
            service.runner.look()
            await asyncio.sleep(0.05)
            assert (service.store.history(), (site.root / "rebooted").exists()) == ([], False)
            await service.agent.reboot()
            await service.until((site.root / "rebooted").exists)
            assert service.agent.snapshot().detail == f"{sentence} The reboot was asked for."
            await service.agent.mark("good", "booted")
            await service.until(lambda: service.last == "installed")
            assert not service.runner.departure.begun

    asyncio.run(scenario())
