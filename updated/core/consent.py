"""Does somebody at the device agree?  Pure.

A question is about one bundle at one stage.  Another bundle is another question; what was said of the first
says nothing of it.  Without an answer it stays, or is taken for agreed after `expires` seconds (`default`).
An agreement holds for `expires` seconds.  So does a denial, then it is asked anew: a person has said "not
now", and what he never wants to see again he takes off the source.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from updated.core.duration import duration
from updated.core.gate import Hold, Stage, Subject, name_of

Reply = Literal["", "allow", "deny"]


@dataclass(frozen=True, slots=True)
class Moment:
    """A point in time that survives a reboot, and a clock that is wrong."""

    boot_id: str
    boottime: float  # seconds of CLOCK_BOOTTIME
    wall: float | None  # seconds since 1970; None: the clock was not set


@dataclass(frozen=True, slots=True)
class Question:
    """Asked of whoever is there."""

    stage: Stage
    manifest_hash: str
    version: str
    source: str
    asked: Moment
    reply: Reply = ""
    replied: Moment | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """`[consent]`."""

    expires: float  # seconds
    default: Literal["wait", "allow"]


def elapsed(since: Moment, now: Moment) -> float:
    """Seconds; over a reboot as the clock on the wall says, and at least since the start of this boot."""
    if since.boot_id == now.boot_id:
        return max(now.boottime - since.boottime, 0.0)
    if since.wall is None or now.wall is None:
        return now.boottime
    return max(now.wall - since.wall, now.boottime)


def consider(
    stage: Stage, subject: Subject, last: Question | None, rules: Rules, now: Moment
) -> tuple[Question, Hold | None]:
    """The question that stands now, which is `last` or a new one; None: go on."""
    fresh = Question(stage, subject.manifest_hash, subject.version, subject.source, asked=now)
    if last is None or (last.stage, last.manifest_hash) != (stage, subject.manifest_hash):
        return fresh, _wait(fresh, rules, now)
    left = rules.expires - elapsed(last.replied or last.asked, now)
    if last.reply == "allow" and left > 0:
        return last, None
    if last.reply == "deny" and left > 0:
        what = name_of(stage, last.version, last.source)
        return last, Hold(
            "consent", f"{what} was declined; it is asked about again in {duration(left)}.", left
        )
    if not last.reply and left <= 0 and rules.default == "allow":
        return last, None
    if not last.reply and left > 0:
        return last, _wait(last, rules, now)
    return fresh, _wait(fresh, rules, now)


def stands(question: Question, rules: Rules, now: Moment) -> bool:
    """It may be answered, or answered otherwise: a person may change his mind."""
    return question.replied is None or elapsed(question.replied, now) < rules.expires


def answer(question: Question, *, allow: bool, now: Moment) -> Question:
    return replace(question, reply="allow" if allow else "deny", replied=now)


def _wait(question: Question, rules: Rules, now: Moment) -> Hold:
    what = name_of(question.stage, question.version, question.source)
    left = max(rules.expires - elapsed(question.asked, now), 0.0)
    if rules.default == "wait":
        return Hold("consent", f"{what} waits until somebody at the device agrees.")
    return Hold("consent", f"{what} waits for somebody to agree, {duration(left)} at most.", left)
