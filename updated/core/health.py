"""Is the running system healthy?  The words of the checks, and the judge over what they see.  Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

    async def look(self) -> Look:
        """Never raises, and comes to an end by itself."""
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
    since: float | None = None  # holds without a break since then


class Judge:
    """All that counts must hold without a break for `stable_for`, each before its deadline.

    Times are of one clock that never goes back, in seconds; it has none of its own.
    """

    def __init__(
        self, rules: Sequence[Rule], *, stable_for: float, began: float, excused: Mapping[str, str]
    ) -> None:
        """`excused`: name of a check -> why it does not count."""
        self._stable_for = stable_for
        self._began = began
        self._courses = {rule.name: _course(rule, excused.get(rule.name, "")) for rule in rules}

    def saw(self, name: str, look: Look, now: float, timestamp: str) -> bool:
        """Take in one look; returns whether the check is better or worse than before."""
        course = self._courses[name]
        changed = course.report.ok is not look.ok
        course.report = replace(
            course.report,
            ok=look.ok,
            text=look.text[-MAX_OUTPUT:],
            time=timestamp if changed else course.report.time,
        )
        if not look.ok:
            course.since = None
        elif course.since is None:
            course.since = now
        return changed

    def verdict(self, now: float) -> Verdict | None:
        """None: not known yet.  A look that is due must have been taken in before."""
        counting = [course for course in self._courses.values() if _counts(course)]
        if all(course.since is not None and now - course.since >= self._stable_for for course in counting):
            return Verdict(good=True, decided="", text=self._praise(counting))
        for course in counting:
            late = now - self._began >= course.rule.deadline
            if late and (course.since is None or now - course.since < self._stable_for):
                return Verdict(good=False, decided=course.rule.name, text=self._blame(course))
        return None

    def overdue(self, now: float) -> str:
        """Which check is past its deadline, as a sentence; "": none.  Then no ping may be sent."""
        found = self.verdict(now)
        return "" if found is None or found.good else found.text

    def reports(self) -> tuple[CheckReport, ...]:
        return tuple(course.report for course in self._courses.values())

    def _praise(self, counting: Sequence[_Course]) -> str:
        names = ", ".join(course.rule.name for course in counting if course.rule.name != GATE)
        return f"Healthy for {self._stable_for:g} s{f': {names}' if names else ''}."

    def _blame(self, course: _Course) -> str:
        within = f"not healthy for {self._stable_for:g} s within {course.rule.deadline:g} s"
        seen = "it has not answered yet" if course.report.ok is None else course.report.text
        return f"{course.rule.name}: {within}: {seen}"


def _course(rule: Rule, excused: str) -> _Course:
    return _Course(rule, CheckReport(rule.name, rule.required, None, "", excused=excused))


def _counts(course: _Course) -> bool:
    return course.rule.required and not course.report.excused
