"""The gate in real time, only quicker: rounds, pings, cancellation, restarts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest

from updated.core.health import GATE, CheckReport, Look, Rule, Verdict
from updated.health.gate import MAX_BLOCKED, Gate
from updated.health.watchdog import Watchdog

Used = Callable[[], tuple[int, int]]


@dataclass
class Steps:
    """A check that sees one after the other of `looks`, and then the last for ever."""

    rule: Rule
    looks: list[bool] = field(default_factory=lambda: [True])
    period: float = 0.01
    limit: float = 1.0
    takes: float = 0.0  # seconds of each look
    looked: int = 0
    closed: int = 0
    under_way: int = 0

    async def look(self) -> Look:
        self.looked += 1
        self.under_way += 1
        try:
            await asyncio.sleep(self.takes)
        finally:
            self.under_way -= 1
        ok = self.looks[min(self.looked, len(self.looks)) - 1]
        return Look(ok, f"look {self.looked}")

    async def close(self) -> None:
        assert self.under_way == 0
        self.closed += 1


class Raising(Steps):
    async def look(self) -> Look:
        raise ZeroDivisionError("oops")


Trouble = Callable[[Watchdog], Coroutine[Any, Any, None]]


def judged(
    *checks: Steps,
    stable_for: float = 0.2,
    deadline: float = 10.0,
    ago: float = 0.0,
    trouble: Trouble | None = None,
    told: list[tuple[CheckReport, ...]] | None = None,
) -> tuple[Verdict, float]:
    """The verdict and the seconds it took, while `trouble` happens; judging began `ago` seconds before."""

    async def main() -> tuple[Verdict, float]:
        watchdog = Watchdog(None, lambda: None)
        start = time.monotonic()
        gate = Gate(
            watchdog,
            checks,
            stable_for=stable_for,
            deadline=deadline,
            began=start - ago,
            changed=told.append if told is not None else lambda _: None,
        )
        task = asyncio.create_task(trouble(watchdog)) if trouble else None
        async with asyncio.timeout(10):
            verdict = await gate.judge()
        took = time.monotonic() - start
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert gate.overdue() == ""
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return verdict, took

    verdict, took = asyncio.run(main())
    assert all(check.closed == 1 and check.under_way == 0 for check in checks)
    return verdict, took


def test_healthy() -> None:
    verdict, took = judged(Steps(Rule("a")), Steps(Rule("b")))
    assert verdict == Verdict(good=True, decided="", text="Healthy for 0.2 s: a, b.")
    assert took >= 0.2


def test_no_time_and_no_check_at_all() -> None:
    verdict, _ = judged(stable_for=0)
    assert verdict.good


def test_no_time_but_a_look() -> None:
    check = Steps(Rule("a"), [False, False, True])
    verdict, _ = judged(check, stable_for=0)
    assert verdict.good
    assert check.looked >= 3


def test_a_bad_look_begins_the_run_anew() -> None:
    check = Steps(Rule("a"), [True, True, True, False, True], period=0.05)
    verdict, took = judged(check, stable_for=1.0)
    assert verdict.good
    assert took >= 0.15 + 1.0


def test_given_up() -> None:
    told: list[tuple[CheckReport, ...]] = []
    sick = Steps(Rule("b", deadline=0.5), [False], limit=0.1)
    verdict, took = judged(Steps(Rule("a"), limit=0.1), sick, told=told)
    assert (verdict.good, verdict.decided) == (False, "b")
    assert verdict.text.startswith("b: not healthy for 0.2 s within 0.5 s: look ")
    assert took >= 0.5
    assert {report.name: report.ok for report in told[-1]} == {GATE: True, "a": True, "b": False}


def test_only_news_is_told_and_all_of_it() -> None:
    told: list[tuple[CheckReport, ...]] = []
    judged(Steps(Rule("a"), [True, True, False, False, True]), told=told)
    assert [reports[1].text for reports in told] == ["", "look 1", "look 3", "look 5"]


def test_a_look_that_raises_is_a_bad_one(caplog: pytest.LogCaptureFixture) -> None:
    verdict, _ = judged(Raising(Rule("a", deadline=0.1), limit=0.1), stable_for=0.05)
    assert verdict.text == "a: not healthy for 0.05 s within 0.1 s: internal error: oops"
    assert "the check a raises" in caplog.text


def test_a_look_that_hangs_does_not_keep_the_verdict() -> None:
    hanging = Steps(Rule("a", deadline=0.1), takes=60, limit=0.1)
    verdict, _ = judged(hanging, stable_for=0.05)
    assert verdict.text.endswith("it has not answered yet")


def test_slow_looks_that_are_good() -> None:
    verdict, _ = judged(Steps(Rule("a"), takes=0.15), stable_for=0.1)
    assert verdict.good


# The pings


def test_the_run_begins_anew_after_each_missed_ping() -> None:
    async def trouble(watchdog: Watchdog) -> None:
        for _ in range(6):
            await asyncio.sleep(0.05)
            watchdog.missed += 1

    verdict, took = judged(trouble=trouble)
    assert verdict.good
    assert took >= 0.3 + 0.2


def test_given_up_for_missed_pings() -> None:
    async def trouble(watchdog: Watchdog) -> None:
        while True:
            watchdog.missed += 1
            await asyncio.sleep(0.02)

    verdict, took = judged(deadline=0.5, trouble=trouble)
    assert verdict == Verdict(
        False, GATE, "watchdog: not healthy for 0.2 s within 0.5 s: a watchdog ping was missed"
    )
    assert took >= 0.5


def test_a_blocked_loop_counts_without_a_watchdog_too() -> None:
    async def trouble(_: Watchdog) -> None:
        await asyncio.sleep(0.05)
        time.sleep(MAX_BLOCKED + 0.5)  # noqa: ASYNC251 - this is what must be noticed

    told: list[tuple[CheckReport, ...]] = []
    verdict, took = judged(stable_for=0.3, trouble=trouble, told=told)
    assert verdict.good
    assert took >= MAX_BLOCKED + 0.5 + 0.3
    (blocked,) = (reports[0] for reports in told if reports[0].ok is False)
    assert blocked.text.startswith("the service was blocked for 3.")


def test_it_pings_at_each_round() -> None:
    async def main() -> int:
        pings: list[float] = []
        watchdog = Watchdog(None, lambda: pings.append(0))
        await Gate(watchdog, (), stable_for=0.4, deadline=9, began=time.monotonic()).judge()
        return len(pings)

    assert asyncio.run(main()) >= 3


# A service that was restarted


def test_a_restarted_service_gets_no_new_deadline() -> None:
    verdict, took = judged(Steps(Rule("a", deadline=300), [False], limit=0.1), deadline=300, ago=299.6)
    assert not verdict.good
    assert took < 5


def test_a_service_that_is_restarted_late_looks_before_it_condemns() -> None:
    verdict, _ = judged(Steps(Rule("a", deadline=300)), deadline=300, ago=1000)
    assert verdict.good
    verdict, took = judged(Steps(Rule("a"), [False], limit=0.1), deadline=300, ago=1000)
    assert not verdict.good
    assert took >= 2 * 0.2


# No verdict, no ping


def test_overdue_while_nobody_decides() -> None:
    """The rounds hang: whoever pings beside them sees that the deadline is over."""

    async def main() -> None:
        watchdog = Watchdog(None, lambda: None)
        check = Steps(Rule("a", deadline=0.1), [False], limit=0.01)
        overdue: list[str] = []

        def changed(_: tuple[CheckReport, ...]) -> None:
            overdue.append(gate.overdue())
            time.sleep(0.15)
            overdue.append(gate.overdue())

        began = time.monotonic()
        gate = Gate(watchdog, (check,), stable_for=0.01, deadline=9, began=began, changed=changed)
        assert gate.overdue() == ""
        assert not (await gate.judge()).good
        assert overdue[0] == ""
        assert overdue[-1].startswith("a: not healthy for 0.01 s within 0.1 s: ")
        assert gate.overdue() == ""

    asyncio.run(main())


# Cancellation, and one look


@pytest.mark.parametrize("delay", [0.0, 0.01, 0.12, 0.25])
def test_cancelled_at_any_time(used: Used, delay: float) -> None:
    async def main() -> None:
        checks = [Steps(Rule("a"), takes=0.1), Steps(Rule("b"), [False]), Steps(Rule("c"), takes=60)]
        before = used()
        gate = Gate(Watchdog(None, lambda: None), checks, stable_for=30, deadline=99, began=time.monotonic())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(delay):
                await gate.judge()
        assert used() == before
        assert gate.overdue() == ""
        assert all(check.under_way == 0 for check in checks)
        assert all(check.closed == (1 if delay else check.closed) for check in checks)

    asyncio.run(main())


def test_each_once_and_at_the_same_time() -> None:
    async def main() -> tuple[CheckReport, ...]:
        checks = [
            Steps(Rule("a"), takes=0.2),
            Steps(Rule("b", required=False), [False], takes=0.2),
            Steps(Rule("c"), takes=0.2),
        ]
        start = time.monotonic()
        gate = Gate(Watchdog(None, lambda: None), checks, stable_for=1, deadline=9, began=start)
        reports = await gate.look_once()
        assert [(check.looked, check.closed) for check in checks] == [(1, 1)] * 3
        return reports

    reports = asyncio.run(main())
    assert [(report.name, report.required, report.ok) for report in reports] == [
        ("a", True, True),
        ("b", False, False),
        ("c", True, True),
    ]
    assert all(report.text == "look 1" and report.time.endswith("Z") for report in reports)
