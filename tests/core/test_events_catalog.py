"""units/updated.catalog: an entry for every id, and systemd takes it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.core.test_events import EVENTS
from updated.core.events import Id

CATALOG = Path(__file__).parents[2] / "units/updated.catalog"
# Of events that say how something ended; the same entry is for both.
FIELDS = {event.id: {name for name, _ in event.entries()} for event in EVENTS}


def entries() -> dict[str, str]:
    """Id -> what is below it."""
    parts = re.split(r"^-- ([0-9a-f]{32})\n", CATALOG.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_it_has_every_id_once_and_no_other() -> None:
    found = re.findall(r"^-- (.*)$", CATALOG.read_text(), flags=re.MULTILINE)
    assert sorted(found) == sorted(one.value for one in Id)


@pytest.mark.parametrize("message_id", Id, ids=lambda one: one.name)
def test_each_entry_says_something(message_id: Id) -> None:
    header, _, text = entries()[message_id.value].partition("\n\n")
    keys = [line.partition(": ")[0] for line in header.splitlines()]
    assert keys == ["Subject", "Defined-By", "Support"]
    assert len(text.strip()) > 20
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("message_id", Id, ids=lambda one: one.name)
def test_each_entry_names_only_fields_that_the_event_has(message_id: Id) -> None:
    named = set(re.findall(r"@(\w+)@", entries()[message_id.value]))
    assert named <= FIELDS[message_id]


def test_systemd_takes_it(tmp_path: Path) -> None:
    folder = tmp_path / "usr/lib/systemd/catalog"
    folder.mkdir(parents=True)
    (folder / "updated.catalog").write_bytes(CATALOG.read_bytes())
    (tmp_path / "var/lib/systemd/catalog").mkdir(parents=True)
    journalctl = ["journalctl", f"--root={tmp_path}"]
    made = subprocess.run([*journalctl, "--update-catalog"], capture_output=True, text=True, check=True)
    assert made.stderr == ""
    listed = subprocess.run([*journalctl, "--list-catalog"], capture_output=True, text=True, check=True)
    assert len(listed.stdout.splitlines()) == len(Id)
    assert f"{Id.CONFIRMED} updated: Version @BUNDLE_VERSION@ is confirmed" in listed.stdout
