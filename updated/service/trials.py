"""What is known of an update's trials from the judgements of its boots.  Pure."""

from __future__ import annotations

from collections.abc import Sequence

from updated.core import states
from updated.core.health import Judgement


def trials_of(update: states.Update, judgements: Sequence[Judgement]) -> tuple[Judgement, ...]:
    """The judgements (the newest first) of the boots of `update` since another group ran."""
    trials = []
    for one in judgements:
        if one.group != update.target or one.version != update.version:
            break
        trials.append(one)
    return tuple(trials)


def decisive_check(trials: Sequence[Judgement]) -> str:
    """Which check was the end of it; "": none was."""
    return next((one.decided for one in trials if one.state == "bad"), "")


def cause(update: states.Update, judgements: Sequence[Judgement]) -> str:
    """Why the bootloader fell back, as far as that is known here."""
    trials = trials_of(update, judgements)
    if not trials:
        return "It never came as far as the update service"
    last = trials[0]
    if last.state == "bad":
        return last.text
    open_checks = [f"{check.name}: {check.text}" for check in last.checks if check.ok is False]
    seen = f"; it waited for {'; '.join(open_checks)}" if open_checks else ""
    return f"It was started, but reset before it was confirmed{seen}"
