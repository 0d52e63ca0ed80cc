"""What our own interface knows, as text: the state of an update and the history.  Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from updated.api.client import Status
from updated.cli import render
from updated.cli.render import BOLD, NORMAL, printable

HISTORY_FORMATS = ("readable", "json", "json-pretty")


def update(status: Status) -> str:
    """The part that follows RAUC's in `status`."""
    return "\n".join(_update(status))


def _update(status: Status) -> Iterator[str]:
    detail = f" ({printable(status.detail)})" if status.detail else ""
    yield "=== Update ==="
    yield f"State:       {BOLD}{printable(status.state)}{NORMAL}{detail}"
    moving = transfer(status.progress)
    if moving:
        yield f"Progress:    {status.progress.get('percentage', 0)}%, {moving}"
    if status.transaction:
        yield f"Transaction: {_text(status.transaction, 'id')}"
        yield from _about(status.transaction)
    if status.last_result:
        result = status.last_result
        yield f"Last result: {_text(result, 'code')} at {_text(result, 'time')}"
        yield from _about(result)
        if "text" in result:
            yield f"  {_text(result, 'text')}"


def _about(values: Mapping[str, Any]) -> Iterator[str]:
    for key, title in (("location", "Bundle"), ("version", "Version"), ("target", "Target")):
        if key in values:
            yield f"  {title + ':':<11}{_text(values, key)}"


def transfer(progress: Mapping[str, Any]) -> str:
    """`12.3 MB of 95.0 MB, 4.1 MB/s, 20 s left`; empty while no bytes are moving."""
    if not progress.get("bytes-total"):
        return ""
    parts = [f"{_short(progress.get('bytes-done', 0))} of {_short(progress['bytes-total'])}"]
    rate = float(progress.get("rate", 0))
    if rate > 0:
        parts.append(f"{_short(int(rate))}/s")
    if "eta" in progress:
        parts.append(f"{duration(float(progress['eta']))} left")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """`45 s`, `3:05 min`, `1:02:03 h`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02} min"
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02} h"


def history(outcomes: Sequence[Mapping[str, str]], output_format: str) -> str:
    """How updates ended, in one of `HISTORY_FORMATS`."""
    if output_format.startswith("json"):
        return render.json_text([dict(each) for each in outcomes], pretty=output_format == "json-pretty")
    if not outcomes:
        return "Nothing was installed yet."
    return "\n".join(_history_line(each) for each in outcomes)


def _history_line(outcome: Mapping[str, str]) -> str:
    columns = f"{_text(outcome, 'time'):<20}  {_text(outcome, 'code'):<9}  {_text(outcome, 'version'):<12}"
    return f"{columns}  {_text(outcome, 'target'):<10}  {_text(outcome, 'text')}".rstrip()


def _text(values: Mapping[str, Any], key: str) -> str:
    return printable(str(values.get(key, "-")))


def _short(count: int) -> str:
    return render.size(count).partition(" (")[0]
