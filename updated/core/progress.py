"""RAUC's progress: a stack of named steps, each with a share of its parent (RAUC src/context.c).

Every begin and end of a step is reported as (percentage, message, depth); only the outermost may say 100.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

ROOT_WEIGHT: Final = 10  # "Installing": four steps of 1, then "Updating slots" or the handler with 6

Report = Callable[[int, str, int], None]


@dataclass(slots=True)
class _Step:
    description: str
    start: float  # percent of the whole
    share: float  # percent of the whole
    units: int  # into which its children divide it
    used: int = 0
    shown: int = 0  # last explicit percentage of this step


class Progress:
    """One install's steps.  Not reentrant; called from the event loop."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._stack: list[_Step] = []

    @contextmanager
    def step(self, description: str, *, weight: int = 1, units: int = 1) -> Iterator[None]:
        """A step of `weight` units of its parent, divided into `units` for its own children.

        Ends with `done.`, or `failed.` when an exception passes.
        """
        self._begin(description, weight, units)
        try:
            yield
        except BaseException:
            self._end("failed.")
            raise
        self._end("done.")

    def percent(self, fraction: float) -> None:
        """The innermost step is `fraction` (0..1) done; reported when it rises by a whole percent of it."""
        step = self._stack[-1]
        percent = min(int(fraction * 100), 99)  # 100 is left to the end of the step
        if percent <= step.shown:
            return
        step.shown = percent
        self._say(step.start + step.share * percent / 100, step.description)

    def _begin(self, description: str, weight: int, units: int) -> None:
        start, share = 0.0, 100.0
        if self._stack:
            parent = self._stack[-1]
            start = parent.start + parent.share * parent.used / parent.units
            share = parent.share * weight / parent.units
            parent.used += weight
        self._stack.append(_Step(description, start, share, units))
        self._say(start, description)

    def _end(self, verdict: str) -> None:
        step = self._stack[-1]
        self._say(step.start + step.share, f"{step.description} {verdict}")
        self._stack.pop()

    def _say(self, percentage: float, message: str) -> None:
        # Rounding first: 40 + 60 * 0.1 must not become 45.
        whole = int(round(percentage, 6))
        depth = len(self._stack)
        self._report(whole if depth == 1 else min(whole, 99), message, depth)
