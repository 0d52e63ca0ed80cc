"""The judge: told what was seen and when, it says whether the system is healthy, and who decided."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from updated.core.health import GATE, MAX_OUTPUT, CheckReport, Judge, Look, Rule, Verdict, excuses

STABLE = 10.0


@dataclass
class Course:
    """A judge and its clock."""

    rules: tuple[Rule, ...]
    stable_for: float = STABLE
    excused: dict[str, str] = field(default_factory=dict)
    not_before: float = -math.inf
    began: float = 0.0

    def __post_init__(self) -> None:
        self.judge = Judge(
            self.rules,
            stable_for=self.stable_for,
            began=self.began,
            excused=self.excused,
            not_before=self.not_before,
        )

    def all(self, ok: bool, now: float) -> None:
        for rule in self.rules:
            self.saw(rule.name, ok, now)

    def saw(self, name: str, ok: bool, now: float) -> bool:
        return self.judge.saw(name, Look(ok, f"{name} at {now:g}"), now, f"T{now:g}")

    def verdict(self, now: float) -> Verdict | None:
        return self.judge.verdict(now)


def test_good_after_an_unbroken_run() -> None:
    course = Course((Rule("a"), Rule("b")))
    for now in range(10):
        course.all(True, now)
        assert course.verdict(now) is None
    course.all(True, 10)
    assert course.verdict(10) == Verdict(good=True, decided="", text="Healthy for 10 s: a, b.")
    assert course.judge.overdue(10) == ""


def test_the_own_pings_are_not_named() -> None:
    course = Course((Rule(GATE),), stable_for=0)
    course.all(True, 0)
    assert course.verdict(0) == Verdict(good=True, decided="", text="Healthy for 0 s.")


def test_each_failure_begins_the_run_anew() -> None:
    course = Course((Rule("a"), Rule("b")))
    for now in range(9):
        course.all(True, now)
    course.saw("a", True, 9)
    course.saw("b", False, 9)
    for now in range(10, 20):
        course.all(True, now)
        assert course.verdict(now) is None
    course.all(True, 20)
    assert course.verdict(20) is not None


def test_they_hold_together_or_not_at_all() -> None:
    """Each alone has a run that is long enough, but not at the same time."""
    course = Course((Rule("a"), Rule("b")))
    for now in range(12):
        course.saw("a", True, now)
        course.saw("b", now >= 6, now)
        assert course.verdict(now) is None
    course.saw("a", False, 12)
    for now in range(12, 17):
        course.saw("b", True, now)
        assert course.verdict(now) is None


def test_a_look_that_hangs_is_no_good_one() -> None:
    course = Course((Rule("a"), Rule("slow")))
    course.all(True, 0)
    course.all(True, 5)
    for now in range(6, 300):
        course.saw("a", True, now)
        assert course.verdict(now) is None
    verdict = course.verdict(300)
    assert verdict is not None
    assert verdict.decided == "slow"
    assert verdict.text == (
        "slow: not healthy for 10 s within 300 s: it held for 5 s only, and it has not answered for 295 s"
    )


def test_given_up_at_the_deadline_with_what_was_seen() -> None:
    course = Course((Rule("a"), Rule("b", deadline=60)))
    for now in range(60):
        course.saw("a", True, now)
        course.saw("b", False, now)
        assert course.verdict(now) is None
    verdict = course.verdict(60)
    assert verdict == Verdict(False, "b", "b: not healthy for 10 s within 60 s: b at 59")
    assert course.judge.overdue(60) == verdict.text


def test_who_has_begun_too_late_is_told_with_what_was_before() -> None:
    course = Course((Rule("a", deadline=20),))
    course.saw("a", False, 11)
    course.saw("a", True, 15)
    course.saw("a", True, 20)
    verdict = course.verdict(20)
    assert verdict is not None
    assert verdict.text == "a: not healthy for 10 s within 20 s: it held for 5 s only; before: a at 11"


def test_who_never_answered_is_told() -> None:
    course = Course((Rule("a"), Rule("mute", deadline=30)))
    course.saw("a", True, 29.9)
    verdict = course.verdict(30)
    assert verdict == Verdict(
        False, "mute", "mute: not healthy for 10 s within 30 s: it has not answered yet"
    )


def test_who_kept_his_own_deadline_has_until_the_last_one() -> None:
    """Going back costs more than waiting: somebody else is not ready yet anyway."""
    course = Course((Rule("early", deadline=60), Rule("late", deadline=300)))
    for now in range(200):
        course.saw("early", now != 100, now)
        course.saw("late", now >= 150, now)
        verdict = course.verdict(now)
        if verdict is not None:
            assert (verdict.good, now) == (True, 160)
            break
    else:
        pytest.fail("no verdict")


def test_who_kept_his_own_deadline_and_fails_at_the_last_is_blamed() -> None:
    course = Course((Rule("early", deadline=60), Rule("late", deadline=300)))
    for now in range(300):
        course.saw("early", now < 100, now)
        course.saw("late", True, now)
        if now <= 9:
            assert course.verdict(now) is None
    verdict = course.verdict(300)
    assert verdict == Verdict(False, "early", "early: not healthy for 10 s within 300 s: early at 299")


def test_what_is_not_required_decides_nothing_and_is_shown() -> None:
    course = Course((Rule("a"), Rule("b", required=False, deadline=1)))
    for now in range(11):
        course.saw("a", True, now)
        course.saw("b", False, now)
    verdict = course.verdict(10)
    assert verdict is not None and verdict.good
    assert course.judge.reports()[1] == CheckReport("b", False, False, "b at 10", "T0")


def test_only_what_is_remote_can_be_excused() -> None:
    why = "the system before could not reach it either"
    rules = (Rule("server", remote=True), Rule("unit"))
    course = Course(rules, excused={"server": why, "unit": why, "stranger": why})
    assert [report.excused for report in course.judge.reports()] == [why, ""]
    for now in range(11):
        course.saw("server", False, now)
        course.saw("unit", True, now)
    verdict = course.verdict(10)
    assert verdict is not None and verdict.good
    assert verdict.text == "Healthy for 10 s: unit."


def test_excuses_for_the_next_system() -> None:
    rules = [Rule("up", remote=True), Rule("down", remote=True), Rule("unit"), Rule("unseen", remote=True)]
    reports = [
        CheckReport("up", True, True, ""),
        CheckReport("down", True, False, ""),
        CheckReport("unit", True, False, ""),
        CheckReport("unseen", True, None, ""),
    ]
    assert excuses(rules, reports) == {"down": "the system before could not reach it either"}


def test_nobody_is_condemned_before_there_was_time_to_look() -> None:
    course = Course((Rule("a"),), began=-1000.0, not_before=25)
    course.saw("a", False, 0)
    assert course.verdict(24.9) is None
    assert course.judge.overdue(24.9) == ""
    verdict = course.verdict(25)
    assert verdict is not None and not verdict.good
    recovered = Course((Rule("a"),), began=-1000.0, not_before=25)
    for now in range(11):
        recovered.saw("a", True, now)
    verdict = recovered.verdict(10)
    assert verdict is not None and verdict.good


def test_a_first_look_that_takes_long_is_waited_for() -> None:
    rules = [Rule("a"), Rule("slow"), Rule("other", required=False)]
    judge = Judge(rules, stable_for=10, began=-1000, excused={}, not_before=25, looked_by=60)
    judge.saw("a", Look(False, "text"), 0, "")
    assert judge.verdict(59.9) is None
    verdict = judge.verdict(60)
    assert verdict is not None and not verdict.good
    judge.saw("slow", Look(True, "text"), 30, "")
    verdict = judge.verdict(30)
    assert verdict is not None
    assert verdict.decided == "a"


def test_nothing_asked_is_good_at_once() -> None:
    verdict = Course(()).verdict(0)
    assert verdict is not None and verdict.good


def test_changes_and_their_times() -> None:
    course = Course((Rule("a"),))
    assert course.judge.reports() == (CheckReport("a", True, None, ""),)
    assert [course.saw("a", ok, now) for now, ok in enumerate([True, True, False, False, True])] == [
        True,
        False,
        True,
        False,
        True,
    ]
    (report,) = course.judge.reports()
    assert (report.ok, report.text, report.time) == (True, "a at 4", "T4")


def test_the_end_of_a_long_text_is_kept() -> None:
    judge = Judge([Rule("a")], stable_for=1, began=0, excused={})
    judge.saw("a", Look(False, "x" * 5000 + "end"), 0, "")
    (report,) = judge.reports()
    assert len(report.text) == MAX_OUTPUT
    assert report.text.endswith("end")


# Against the definition, written down naively: looks at whole seconds, each course a string.


def expected(courses: list[str], stable_for: int, deadlines: list[int]) -> tuple[bool, int] | None:
    """(good, second) of the verdict on courses of "+" (holds), "-" (does not) and "." (no look)."""
    for now in range(len(courses[0])):
        if _held_together(courses, now, stable_for):
            return True, now
        if any(
            now >= deadline and not _ever(course, now, stable_for)
            for course, deadline in zip(courses, deadlines, strict=True)
        ):
            return False, now
        if now >= max(deadlines):
            return False, now
    return None


def _held_together(courses: list[str], now: int, stable_for: int) -> bool:
    """There is a stretch so long, with a good look of each at or before its start and at or after its end,
    and no bad look since."""
    starts, ends = [], []
    for course in courses:
        run = _run(course, now)
        if run is None:
            return False
        starts.append(run[0])
        ends.append(run[1])
    return min(ends) - max(starts) >= stable_for


def _run(course: str, now: int) -> tuple[int, int] | None:
    """First and last look of the unbroken run of good ones that ends now."""
    seen = [(second, what) for second, what in enumerate(course[: now + 1]) if what != "."]
    tail = [*itertools.takewhile(lambda look: look[1] == "+", reversed(seen))]
    return (tail[-1][0], tail[0][0]) if tail else None


def _ever(course: str, now: int, stable_for: int) -> bool:
    runs = (_run(course, moment) for moment in range(now + 1))
    return any(run is not None and run[1] - run[0] >= stable_for for run in runs)


def actual(courses: list[str], stable_for: int, deadlines: list[int]) -> tuple[bool, int] | None:
    rules = [Rule(str(n), deadline=deadline) for n, deadline in enumerate(deadlines)]
    judge = Judge(rules, stable_for=stable_for, began=0, excused={})
    for now in range(len(courses[0])):
        for number, course in enumerate(courses):
            if course[now] != ".":
                judge.saw(str(number), Look(course[now] == "+", "text"), now, "")
        verdict = judge.verdict(now)
        assert bool(judge.overdue(now)) == (verdict is not None and not verdict.good)
        if verdict is not None:
            assert verdict.good == (not verdict.decided)
            return verdict.good, now
    return None


def test_all_short_courses_of_one_check() -> None:
    for looks in itertools.product("+-.", repeat=7):
        course = "".join(looks)
        for stable_for, deadline in ((0, 3), (2, 4), (3, 6)):
            found = actual([course], stable_for, [deadline])
            assert found == expected([course], stable_for, [deadline]), course


def test_all_short_courses_of_two_checks() -> None:
    for looks in itertools.product("+-.", repeat=4):
        for others in itertools.product("+-.", repeat=4):
            courses = ["".join(looks), "".join(others)]
            assert actual(courses, 1, [2, 3]) == expected(courses, 1, [2, 3]), courses


COURSES = st.integers(1, 4).flatmap(
    lambda count: st.lists(st.text("++++-.", min_size=30, max_size=30), min_size=count, max_size=count)
)


@given(COURSES, st.integers(0, 8), st.data())
def test_random_courses(courses: list[str], stable_for: int, data: st.DataObject) -> None:
    deadlines = [data.draw(st.integers(1, 29)) for _ in courses]
    assert actual(courses, stable_for, deadlines) == expected(courses, stable_for, deadlines)


@given(COURSES, st.integers(1, 8))
def test_there_is_always_a_verdict_at_the_last_deadline(courses: list[str], stable_for: int) -> None:
    assert actual(courses, stable_for, [29] * len(courses)) is not None
