"""The watchdog and the gate, in real time, only quicker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from updated.health import gate
from updated.health.gate import judge
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


# The gate


def judged(
    stable_for: float, deadline: float, trouble: Callable[[Watchdog], Coroutine[Any, Any, None]] | None = None
) -> tuple[str, float]:
    """(reason, seconds it took) while `trouble` happens."""

    async def main() -> tuple[str, float]:
        watchdog = Watchdog(None, lambda: None)
        start = time.monotonic()
        task = asyncio.create_task(trouble(watchdog)) if trouble else None
        async with asyncio.timeout(10):
            reason = await judge(watchdog, stable_for=stable_for, deadline=deadline)
        took = time.monotonic() - start
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        return reason, took

    return asyncio.run(main())


def test_healthy() -> None:
    reason, took = judged(0.2, 10)
    assert reason == ""
    assert 0.2 <= took < 1


def test_no_time_at_all() -> None:
    reason, took = judged(0, 10)
    assert reason == ""
    assert took < 0.2


def test_the_run_begins_anew_after_each_trouble() -> None:
    """0.3 s of trouble, then 0.2 s without."""

    async def trouble(watchdog: Watchdog) -> None:
        for _ in range(6):
            await asyncio.sleep(0.05)
            watchdog.missed += 1

    reason, took = judged(0.2, 10, trouble)
    assert reason == ""
    assert 0.45 <= took < 2


def test_given_up_at_the_deadline() -> None:
    async def trouble(watchdog: Watchdog) -> None:
        while True:
            watchdog.missed += 1
            await asyncio.sleep(0.02)

    reason, took = judged(0.2, 0.5, trouble)
    assert reason == "not healthy for 0.2 s within 0.5 s of the start: a watchdog ping was missed"
    assert 0.5 <= took < 2


def test_a_deadline_before_the_run_is_over() -> None:
    reason, _ = judged(0.5, 0.1)
    assert reason == "not healthy for 0.5 s within 0.1 s of the start"


def test_a_blocked_loop_counts_without_a_watchdog_too() -> None:
    async def trouble(_: Watchdog) -> None:
        await asyncio.sleep(0.05)
        time.sleep(gate.MAX_PERIOD + 0.5)  # noqa: ASYNC251 - this is what must be noticed

    reason, took = judged(1.3, 1.35, trouble)
    assert reason.startswith(
        "not healthy for 1.3 s within 1.35 s of the start: the service was blocked for 1."
    )
    assert took < 4
