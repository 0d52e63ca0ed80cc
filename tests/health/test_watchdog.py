"""The watchdog, in real time, only quicker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from updated.health.watchdog import Watchdog


class Pings:
    def __init__(self) -> None:
        self.times: list[float] = []
        self.stuck = ""

    def __call__(self) -> None:
        self.times.append(time.monotonic())

    def why(self) -> str:
        return self.stuck


def run(timeout: float | None, scenario: Callable[[Watchdog, Pings], Coroutine[Any, Any, None]]) -> None:
    """A watchdog of `timeout` seconds runs beside the scenario."""

    async def main() -> None:
        pings = Pings()
        watchdog = Watchdog(timeout, pings)
        task = asyncio.create_task(watchdog.run(pings.why))
        await scenario(watchdog, pings)
        if timeout is not None:
            assert not task.done()
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())


def test_pings_twice_in_the_time() -> None:
    async def scenario(watchdog: Watchdog, pings: Pings) -> None:
        await asyncio.sleep(0.55)
        assert 4 <= len(pings.times) <= 6
        assert watchdog.missed == 0

    run(0.2, scenario)


def test_without_a_watchdog_nothing_wakes_up() -> None:
    async def scenario(watchdog: Watchdog, pings: Pings) -> None:
        await asyncio.sleep(0.02)
        assert pings.times == []

    run(None, scenario)


def test_a_machine_that_does_not_get_on_is_not_pinged_for(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(watchdog: Watchdog, pings: Pings) -> None:
        await asyncio.sleep(0.01)
        before, pings.stuck = len(pings.times), "nothing moved for 120 s"
        await asyncio.sleep(0.12)
        assert len(pings.times) == before
        assert watchdog.missed >= 2
        pings.stuck = ""
        await asyncio.sleep(0.06)
        assert len(pings.times) > before

    run(0.08, scenario)
    assert "no watchdog ping: nothing moved for 120 s" in caplog.text


def test_a_blocked_loop_is_a_missed_ping(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(watchdog: Watchdog, pings: Pings) -> None:
        await asyncio.sleep(0.01)
        time.sleep(0.25)  # noqa: ASYNC251 - this is what must be noticed
        await asyncio.sleep(0.02)
        assert watchdog.missed == 1

    run(0.1, scenario)
    assert "the event loop was blocked for 0.2" in caplog.text
