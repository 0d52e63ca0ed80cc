"""How an event is written down, as RAUC does it (src/event_log.c; reference, `[log.*]`)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Final

from updated.core.events import Event

_INDENT: Final = "\n" + " " * 22  # below the text
_NAMES: Final = {
    "TRANSACTION_ID": "transaction ID",
    "BOOT_ID": "boot ID",
    "BUNDLE_HASH": "bundle hash",
    "BUNDLE_VERSION": "bundle version",
    "SLOT_NAME": "slot",
    "SLOT_BOOTNAME": "bootname",
}
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def _readable(event: Event, time: str) -> str:
    """The text, and the fields that a person has a use for; those that are empty are left out."""
    known = [f"{_NAMES[name]}: {_line(value)}" for name, value in event.fields if name in _NAMES and value]
    return _INDENT.join([_short(event, time), *known])


def _short(event: Event, time: str) -> str:
    return f"{time}: {_line(event.text)}"


def _json(event: Event, time: str) -> str:
    return json.dumps(_members(event, time), separators=(",", ":"))


def _json_pretty(event: Event, time: str) -> str:
    return json.dumps(_members(event, time), separators=(",", " : "), indent=2)


FORMATS: Final[Mapping[str, Callable[[Event, str], str]]] = {
    "readable": _readable,
    "short": _short,
    "json": _json,
    "json-pretty": _json_pretty,
}


def formatted(event: Event, layout: str, time: str) -> bytes:
    """One entry with its newline.  `layout`: a key of FORMATS; `time`: as `TS` is written."""
    return f"{FORMATS[layout](event, time)}\n".encode(errors="backslashreplace")


def _members(event: Event, time: str) -> dict[str, str]:
    members = {"TS": time, "MESSAGE": event.text, **dict(event.entries())}
    return {name: value.encode(errors="backslashreplace").decode() for name, value in members.items()}


def _line(text: str) -> str:
    """Nobody's text may begin a line of its own, or move the cursor of who reads it."""
    return _CONTROL.sub(" ", text)
