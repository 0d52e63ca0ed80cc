"""Is the running system healthy?  The words of the checks, and the judge over what they see.  Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

MAX_OUTPUT: Final = 1000  # characters of what a check has seen that are kept
GATE: Final = "watchdog"  # name of the check that nobody configures: this service's own pings


@dataclass(frozen=True, slots=True)
class Rule:
    """What is asked of one check.  Times are seconds since the judging began."""

    name: str
    required: bool = True  # False: it is shown, and decides nothing
    deadline: float = 300.0  # when it must have held for long enough at the latest
    remote: bool = False  # somebody else's machine has to answer, too


@dataclass(frozen=True, slots=True)
class Look:
    """What a check saw at one look."""

    ok: bool
    text: str  # a sentence for a person; of a command its last lines


class Check(Protocol):
    """Something to look at."""

    @property
    def rule(self) -> Rule: ...

    @property
    def period(self) -> float:
        """Seconds between two looks."""
        ...

    @property
    def limit(self) -> float:
        """Seconds after which a look has come to its end."""
        ...

    async def look(self) -> Look:
        """Never raises, and comes to an end by itself."""
        ...

    async def close(self) -> None:
        """Let go of what is kept from one look to the next; the next one begins anew."""
        ...


@dataclass(frozen=True, slots=True)
class CheckReport:
    """Where one check stands."""

    name: str
    required: bool
    ok: bool | None  # None: not looked at yet
    text: str
    time: str = ""  # of the last change between good and bad, %Y-%m-%dT%H:%M:%SZ
    excused: str = ""  # why it does not count although it is required; "": it counts


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of judging, and which check decided."""

    good: bool
    decided: str  # name of the check; "" where all held
    text: str  # a sentence, with what that check saw


@dataclass(frozen=True, slots=True)
class Judgement:
    """The health of one boot: kept, and shown."""

    boot_id: str
    group: str
    version: str
    state: str  # judging | good | bad
    time: str  # of the last change of `state`
    decided: str = ""
    text: str = ""
    checks: tuple[CheckReport, ...] = ()


@dataclass(slots=True)
class _Course:
    """How one check fared."""

    rule: Rule
    report: CheckReport
    since: float | None = None  # holds without a break since this look
    last: float = 0.0  # the latest look
    proved: bool = False  # has held for long enough once
    trouble: str = ""  # what it saw when it last failed


class Judge:
    """All that counts must hold together, without a break, for `stable_for`, each before its deadline.

    They hold from the first good look of the one that came last to the latest look of the one that was
    looked at longest ago: a look that hangs is no good one.  Whoever has held for long enough before its own
    deadline, and fails later, has until the last deadline of all.

    Times are of one clock that never goes back, in seconds; it has none of its own.
    """

    def __init__(
        self,
        rules: Iterable[Rule],
        *,
        stable_for: float,
        began: float,
        excused: Mapping[str, str],
        not_before: float = -math.inf,
        looked_by: float = -math.inf,
    ) -> None:
        """`excused`: name of a remote check -> why it does not count.

        Nobody is condemned before `not_before`, and before `looked_by` only if each was looked at.
        """
        self._stable_for = stable_for
        self._began = began
        self._not_before = not_before
        self._looked_by = looked_by
        self._courses = {rule.name: _course(rule, excused) for rule in rules}
        self._deadline = max((course.rule.deadline for course in self._counting), default=0.0)

    def saw(self, name: str, look: Look, now: float, timestamp: str) -> bool:
        """Take in one look; returns whether the check is better or worse than before."""
        course = self._courses[name]
        changed = course.report.ok is not look.ok
        text = look.text[-MAX_OUTPUT:]
        time = timestamp if changed else course.report.time
        course.report = replace(course.report, ok=look.ok, text=text, time=time)
        course.last = now
        if not look.ok:
            course.since, course.trouble = None, text
        elif course.since is None:
            course.since = now
        course.proved = course.proved or self._long_enough(_run(course))
        return changed

    def verdict(self, now: float) -> Verdict | None:
        """None: not known yet.  A look that is due must have been taken in before."""
        counting = self._counting
        if self._long_enough(_common_run(counting)):
            return Verdict(good=True, decided="", text=self._praise(counting))
        unseen = any(course.report.ok is None for course in counting)
        if now < self._not_before or (unseen and now < self._looked_by):
            return None
        age = now - self._began
        late = [course for course in counting if age >= course.rule.deadline and not course.proved]
        if late:
            worst = self._worst(late, now)
            return _blame(worst, self._stable_for, worst.rule.deadline, now)
        if age >= self._deadline:
            return _blame(self._worst(counting, now), self._stable_for, self._deadline, now)
        return None

    def overdue(self, now: float) -> str:
        """Which check is past its deadline, as a sentence; "": none.  Then no ping may be sent."""
        found = self.verdict(now)
        return "" if found is None or found.good else found.text

    def reports(self) -> tuple[CheckReport, ...]:
        return tuple(course.report for course in self._courses.values())

    @property
    def _counting(self) -> list[_Course]:
        return [c for c in self._courses.values() if c.rule.required and not c.report.excused]

    def _long_enough(self, run: float) -> bool:
        return run >= self._stable_for

    def _praise(self, counting: Sequence[_Course]) -> str:
        names = ", ".join(course.rule.name for course in counting if course.rule.name != GATE)
        return f"Healthy for {self._stable_for:g} s{f': {names}' if names else ''}."

    def _worst(self, courses: Sequence[_Course], now: float) -> _Course:
        """The one that keeps the others waiting: it fails, or has just begun to hold, or hangs."""

        def badness(course: _Course) -> float:
            if course.since is None:
                return math.inf
            return max(self._stable_for - (now - course.since), now - course.last)

        return max(courses, key=badness)


def excuses(rules: Iterable[Rule], reports: Iterable[CheckReport]) -> dict[str, str]:
    """For the system that comes next: which remote checks cannot be held against it, and why."""
    remote = {rule.name for rule in rules if rule.remote}
    return {
        report.name: "the system before could not reach it either"
        for report in reports
        if report.name in remote and report.ok is False
    }


def _course(rule: Rule, excused: Mapping[str, str]) -> _Course:
    why = excused.get(rule.name, "") if rule.remote else ""
    return _Course(rule, CheckReport(rule.name, rule.required, None, "", excused=why))


def _run(course: _Course) -> float:
    """Seconds that it was seen to hold; less than nothing: it does not."""
    return -math.inf if course.since is None else course.last - course.since


def _common_run(courses: Sequence[_Course]) -> float:
    """Seconds that all were seen to hold together; for ever where nothing is asked."""
    latest = max((math.inf if c.since is None else c.since for c in courses), default=-math.inf)
    return min((course.last for course in courses), default=math.inf) - latest


def _blame(course: _Course, stable_for: float, deadline: float, now: float) -> Verdict:
    text = f"not healthy for {stable_for:g} s within {deadline:g} s: {_seen(course, now)}"
    return Verdict(good=False, decided=course.rule.name, text=f"{course.rule.name}: {text}")


def _seen(course: _Course, now: float) -> str:
    if course.report.ok is None:
        return "it has not answered yet"
    if course.since is None:
        return course.report.text
    silent = f", and it has not answered for {now - course.last:.0f} s" if now - course.last >= 1 else ""
    before = f"; before: {course.trouble}" if course.trouble else ""
    return f"it held for {_run(course):.0f} s only{silent}{before}"
