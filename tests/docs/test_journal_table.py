"""docs/journal.md names every event, with its id and its type."""

from __future__ import annotations

import re
from pathlib import Path

from tests.core.test_events import EVENTS

DOCUMENT = Path(__file__).parents[2] / "docs/journal.md"


def test_every_event_is_in_the_table() -> None:
    rows = re.findall(r"^\| .* \| `([0-9a-f]{32})` \| (\w+) \|", DOCUMENT.read_text(), flags=re.MULTILINE)
    assert len(rows) == len(dict(rows))
    assert dict(rows) == {event.id.value: event.type for event in EVENTS}
