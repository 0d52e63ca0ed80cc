"""What our own interface and RAUC's Poller know, as text.  Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from updated.api.client import Polled, Status
from updated.cli import render
from updated.cli.render import BOLD, NORMAL, printable

FORMATS = ("readable", "json", "json-pretty")


def update(status: Status) -> str:
    """The part that follows RAUC's in `status`."""
    return "\n".join(_update(status))


def _update(status: Status) -> Iterator[str]:
    detail = f" ({printable(status.detail)})" if status.detail else ""
    yield "=== Update ==="
    yield f"State:       {BOLD}{printable(status.state)}{NORMAL}{detail}"
    shown = moving(status)
    if shown:
        yield f"Progress:    {status.progress.get('percentage', 0)}%, {shown}"
    if status.hold:
        yield f"Waiting:     {_waiting(status.hold)}"
    if status.transaction:
        yield f"Transaction: {_text(status.transaction, 'id')}"
        yield from _about(status.transaction)
    if status.health:
        yield f"Health:      {health_line(status.health)}"
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


def _waiting(hold: Mapping[str, Any]) -> str:
    again = f", looked at again in {duration(float(hold['delay']))}" if "delay" in hold else ""
    return f"{_text(hold, 'text')} ({_text(hold, 'rule')}{again})"


def moving(status: Status) -> str:
    """`12.3 MB of 95.0 MB, 4.1 MB/s, 20 s left`, perhaps `paused`; empty while no bytes are moving."""
    parts = [transfer(status.progress), "paused (`updated resume` lets it go on)" if status.paused else ""]
    return ", ".join(part for part in parts if part)


def transfer(progress: Mapping[str, Any]) -> str:
    """`12.3 MB of 95.0 MB, 3.1 MB fetched, 4.1 MB/s, 20 s left`; empty while no bytes are moving."""
    if not progress.get("bytes-total"):
        return ""
    done = progress.get("bytes-done", 0)
    parts = [f"{_short(done)} of {_short(progress['bytes-total'])}"]
    fetched = progress.get("fetched", done)
    if abs(fetched - done) * 10 > max(fetched, done):  # else it says the same twice
        parts.append(f"{_short(fetched)} fetched")
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


def health(judgements: Sequence[Mapping[str, Any]], output_format: str) -> str:
    """How healthy the last boots were, in one of `FORMATS`."""
    if output_format.startswith("json"):
        return render.json_text([*judgements], pretty=output_format == "json-pretty")
    if not judgements:
        return "Nothing was judged yet."
    return "\n".join(line for each in judgements for line in _health(each))


def _health(judgement: Mapping[str, Any]) -> Iterator[str]:
    version = f" version {_text(judgement, 'version')}" if judgement.get("version") else ""
    yield f"{_text(judgement, 'group')}{version}: {health_line(judgement)}"
    for check in judgement.get("checks", ()):
        optional = "" if check.get("required") else " (optional)"
        excused = f" (does not count: {_text(check, 'excused')})" if check.get("excused") else ""
        said = f": {_text(check, 'text')}" if check.get("text") else ""
        since = f" since {_text(check, 'time')}" if check.get("time") else ""
        yield f"  {_text(check, 'state'):<8}{_text(check, 'name')}{optional}{excused}{since}{said}"


def health_line(judgement: Mapping[str, Any]) -> str:
    """`good since ...: which check decided, and what it saw`."""
    said = f": {_text(judgement, 'text')}" if judgement.get("text") else ""
    return f"{_text(judgement, 'state')} since {_text(judgement, 'time')}{said}"


def quarantine(bundles: Sequence[Mapping[str, Any]], output_format: str) -> str:
    """What is not tried again, in one of `FORMATS`."""
    if output_format.startswith("json"):
        return render.json_text([*bundles], pretty=output_format == "json-pretty")
    if not bundles:
        return "Nothing is quarantined."
    return "\n".join(line for each in bundles for line in _quarantined(each))


def _quarantined(bundle: Mapping[str, Any]) -> Iterator[str]:
    yield f"{_text(bundle, 'manifest-hash')}  version {_text(bundle, 'version')}"
    yield f"  {_text(bundle, 'time')}  {_text(bundle, 'reason')}"
    if bundle.get("failed-boots"):
        yield f"  Failed boots: {printable(' '.join(bundle['failed-boots']))}"
    yield from (f"  | {printable(line)}" for line in bundle.get("journal", ()))


def history(outcomes: Sequence[Mapping[str, str]], output_format: str) -> str:
    """How updates ended, in one of `FORMATS`."""
    if output_format.startswith("json"):
        return render.json_text([dict(each) for each in outcomes], pretty=output_format == "json-pretty")
    if not outcomes:
        return "Nothing was installed yet."
    return "\n".join(_history_line(each) for each in outcomes)


def why(reasons: Sequence[str], output_format: str) -> str:
    """Why nothing happens, in one of `FORMATS`."""
    if output_format.startswith("json"):
        return render.json_text([*reasons], pretty=output_format == "json-pretty")
    return "\n".join(printable(reason) for reason in reasons) or "Nothing waits."


def polled(found: Polled, output_format: str, now: int) -> str:
    """When a server is polled and what it said, in one of `FORMATS`.

    `now`: microseconds of CLOCK_BOOTTIME.
    """
    if output_format.startswith("json"):
        members = {"next-poll": found.next_poll, "status": found.status}
        return render.json_text(members, pretty=output_format == "json-pretty")
    return "\n".join(_polled(found, now))


def _polled(found: Polled, now: int) -> Iterator[str]:
    status = found.status
    planned = f"in {duration((found.next_poll - now) / 1e6)}" if found.next_poll else "none is planned"
    yield f"Next poll:    {planned}"
    for key, title in (("last-attempt-time", "Last attempt:"), ("last-success-time", "Last success:")):
        at = status.get(key, 0)
        yield f"{title} {f'{duration((now - at) / 1e6)} ago' if at else 'never'}"
    if status.get("recent-error-count"):
        yield f"Errors:       {status['recent-error-count']} since the last success"
    if "last-error-message" in status:
        yield f"Last error:   {_text(status, 'last-error-message')}"
    if "summary" in status:
        yield f"Result:       {_text(status, 'summary')}"
    if "manifest" in status:
        update, bundle = status["manifest"].get("update", {}), status.get("bundle", {})
        size = f" ({_short(bundle['size'])})" if "size" in bundle else ""
        yield f"Version:      {_text(update, 'version')}{size}"
    if "effective-url" in status.get("bundle", {}):
        yield f"Bundle:       {_text(status['bundle'], 'effective-url')}"


def _history_line(outcome: Mapping[str, str]) -> str:
    columns = f"{_text(outcome, 'time'):<20}  {_text(outcome, 'code'):<9}  {_text(outcome, 'version'):<12}"
    return f"{columns}  {_text(outcome, 'target'):<10}  {_text(outcome, 'text')}".rstrip()


def _text(values: Mapping[str, Any], key: str) -> str:
    return printable(str(values.get(key, "-")))


def _short(count: int) -> str:
    return render.size(count).partition(" (")[0]
