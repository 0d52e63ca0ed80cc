"""Rates, patience and tries, on a loop whose clock a test may look at."""

from __future__ import annotations

import asyncio

import pytest

from updated.readers.http_pace import BURST, FLOOR, Patience, RateLimit, Retries, Tries


class JumpingLoop(asyncio.SelectorEventLoop):
    """Its clock jumps to the next timer instead of waiting for it."""

    now = 1000.0

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        scheduled: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        if scheduled and not self._ready:  # type: ignore[attr-defined]
            self.now = max(self.now, scheduled[0].when())
        super()._run_once()  # type: ignore[misc]


@pytest.mark.parametrize("takers", [1, 3])
@pytest.mark.parametrize("rate", [1000, 125_000, 50_000_000])
def test_the_rate_is_kept_to_the_percent_and_smooth(rate: int, takers: int) -> None:
    times: list[tuple[float, int]] = []

    async def main() -> None:
        loop, limit = asyncio.get_running_loop(), RateLimit(rate)

        async def take() -> None:
            for _ in range(300):
                await limit.take(limit.chunk)
                times.append((loop.time(), limit.chunk))

        await asyncio.gather(*(take() for _ in range(takers)))

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(main())
    total = sum(count for _, count in times)
    assert total / (times[-1][0] - 1000.0) == pytest.approx(rate, rel=0.02)
    in_a_moment = [sum(count for at, count in times if 0 <= at - moment < 0.1) for moment, _ in times[::7]]
    assert max(in_a_moment) <= rate * (BURST + 0.1) * 1.5 * takers


def test_no_limit_never_waits() -> None:
    limit = RateLimit(0)
    assert limit.chunk == 0
    asyncio.run(limit.take(1 << 60))


def test_only_real_progress_wins_time_back() -> None:
    patience = Patience(10.0)
    patience.waited(6.0, FLOOR - 1)
    assert patience.left == 4.0
    patience.waited(3.0, 1)
    assert patience.left == 10.0
    for _ in range(20):
        patience.waited(1.0, 1)
    assert patience.left == 0.0


def test_tries_wait_longer_and_longer_and_end() -> None:
    tries = Tries(Retries())
    waits = [tries.again(None) for _ in range(5)]
    assert waits.pop() is None
    assert all(
        wait and most / 2 <= wait <= most for wait, most in zip(waits, (0.5, 1.0, 2.0, 4.0), strict=True)
    )
    tries.progress(FLOOR - 1)
    assert tries.again(None) is None
    tries.progress(1)
    assert tries.again(5.0) == 5.0
    assert tries.again(1e9) == 60.0
