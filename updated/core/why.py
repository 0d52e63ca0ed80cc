"""Why nothing happens now, and when it will: the sentences of `updated why`.  Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from updated.core.duration import duration
from updated.core.gate import Hold, words

MAX_TEXT = 300  # characters of a reason
MAX_NOTES = 10  # sentences of one kind; the history has the rest


@dataclass(frozen=True, slots=True)
class SourceNote:
    """One automatic source, and what it last said."""

    name: str  # as in `Offer.source`
    configured: bool
    last: str = ""  # "no update candidate available"; "": nothing yet
    next_look: float | None = None  # seconds; None: it looks when something changes
    refused: tuple[tuple[str, str], ...] = ()  # (file or URL, why it is not taken)


@dataclass(frozen=True, slots=True)
class WhyFacts:
    """All that may keep something from happening."""

    state: str  # as in Snapshot
    detail: str  # a sentence of the state
    paused: bool = False  # somebody has stopped the stream
    judged: bool = True  # the running system is known to be healthy
    sick: bool = False  # it is known not to be
    given_up: bool = False  # the running system was marked bad by hand: the other one starts next
    reboots: bool = False  # [reboot] when = "immediately"
    holds: tuple[Hold, ...] = ()  # what they say of the known candidate, or of the reboot
    sources: tuple[SourceNote, ...] = ()
    quarantine: tuple[tuple[str, str], ...] = ()  # (version, why)


def why(facts: WhyFacts) -> tuple[str, ...]:
    """At least one sentence, the most important first."""
    at_rest = facts.state in ("idle", "reboot-pending")
    return (
        *_state(facts),
        *(hold.text for hold in facts.holds),
        *(_sources(facts) if at_rest else ()),
        *(_quarantine(facts) if at_rest else ()),
    )


def _state(facts: WhyFacts) -> Iterator[str]:
    if facts.paused:
        yield "The install is paused; `updated resume` lets it go on."
    if facts.state != "idle" or facts.sick:
        yield facts.detail
    if facts.state == "reboot-pending" and not facts.holds and not facts.reboots:
        yield 'The agent does not reboot by itself: reboot.when is "manual" in updated.toml.'
    if facts.given_up:
        yield "The running system was given up: nothing is installed before the reboot."
    elif facts.state == "confirming":
        yield "Nothing is installed until it is confirmed: an install would overwrite the only way back."
    elif not facts.judged:
        yield "The running system is not known to be healthy yet: automatic sources wait for that."


def _sources(facts: WhyFacts) -> Iterator[str]:
    configured = [source for source in facts.sources if source.configured]
    for source in configured:
        yield from _source(source)
    if not configured:
        yield "No automatic source is configured: updates begin with `updated install`."


def _source(source: SourceNote) -> Iterator[str]:
    refused = source.refused[:MAX_NOTES]
    for name, reason in refused:
        yield f"{words(name, MAX_TEXT)} from {source.name} is not installed: {_reason(reason)}."
    if len(source.refused) > MAX_NOTES:
        yield f"{len(source.refused) - MAX_NOTES} more from {source.name} are not installed."
    look = "" if source.next_look is None else f"; the next look is in {duration(source.next_look)}"
    if source.last:
        yield f"{source.name}: {_reason(source.last)}{look}."
    elif look:
        yield f"{source.name}: not looked at yet{look}."
    elif not refused:
        yield f"{source.name}: nothing is offered."


def _quarantine(facts: WhyFacts) -> Iterator[str]:
    for version, reason in facts.quarantine[:MAX_NOTES]:
        what = f"Version {words(version)}" if version else "A bundle"
        yield f"{what} is quarantined: {_reason(reason)}; installed by hand it is tried again."
    if len(facts.quarantine) > MAX_NOTES:
        yield f"{len(facts.quarantine) - MAX_NOTES} more bundles are quarantined."


def _reason(text: str) -> str:
    """A sentence as a part of another one."""
    return words(text, MAX_TEXT).rstrip(".")
