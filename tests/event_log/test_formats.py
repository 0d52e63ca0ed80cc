"""The four formats, as RAUC writes them."""

from __future__ import annotations

import json

import pytest

from updated.core import events
from updated.core.events import Event, Id
from updated.event_log.formats import FORMATS, formatted

TIME = "2026-06-14T20:18:07Z"
BOOTED = events.booted("rootfs.0", "A", boot_id="16655d2c-c5ca-48d3-bea8-7b95c803b4b2", bundle_hash="")


def text(event: Event, layout: str) -> str:
    return formatted(event, layout, TIME).decode()


def test_readable() -> None:
    """src/event_log.c shows this one; fields in the order of the event."""
    assert text(BOOTED, "readable") == (
        "2026-06-14T20:18:07Z: Booted into rootfs.0 (A)\n"
        "                      slot: rootfs.0\n"
        "                      bootname: A\n"
        "                      boot ID: 16655d2c-c5ca-48d3-bea8-7b95c803b4b2\n"
        "                      bundle hash: unknown\n"
    )


def test_readable_leaves_out_what_is_empty_and_what_is_for_machines() -> None:
    event = events.marked_active("rootfs.1", "B", bundle_hash="", by="install")
    assert text(event, "readable") == (
        "2026-06-14T20:18:07Z: Marked slot rootfs.1 as active\n"
        "                      slot: rootfs.1\n"
        "                      bootname: B\n"
    )


def test_short() -> None:
    assert text(BOOTED, "short") == "2026-06-14T20:18:07Z: Booted into rootfs.0 (A)\n"


def test_json_is_one_line_with_all_fields() -> None:
    line = text(BOOTED, "json")
    assert line.startswith('{"TS":"2026-06-14T20:18:07Z","MESSAGE":"Booted into rootfs.0 (A)","MESSAGE_ID":')
    assert line.endswith("}\n")
    assert line.count("\n") == 1
    assert json.loads(line) == {
        "TS": TIME,
        "MESSAGE": "Booted into rootfs.0 (A)",
        "MESSAGE_ID": Id.BOOTED,
        "PRIORITY": "5",
        "GLIB_DOMAIN": "rauc-event",
        "RAUC_EVENT_TYPE": "boot",
        "SLOT_NAME": "rootfs.0",
        "SLOT_BOOTNAME": "A",
        "BOOT_ID": "16655d2c-c5ca-48d3-bea8-7b95c803b4b2",
        "BUNDLE_HASH": "unknown",
    }


def test_json_pretty_is_the_same_on_lines_of_its_own() -> None:
    pretty = text(BOOTED, "json-pretty")
    assert pretty.splitlines()[:2] == ["{", '  "TS" : "2026-06-14T20:18:07Z",']
    assert json.loads(pretty) == json.loads(text(BOOTED, "json"))


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize(
    "hostile",
    ["x\n2026-06-14T20:18:07Z: Forged", "\x1b[2J\x9b1m\r", "\u2028\x85", "\0", "\udcff\ud800", '"}{"'],
)
def test_nobodys_text_is_a_line_of_its_own(layout: str, hostile: str) -> None:
    written = text(events.quarantined(hostile, hostile, hostile), layout)
    assert all(char == "\n" or char.isprintable() for char in written)
    lines = written.splitlines()
    assert len(lines) == {"readable": 3, "short": 1, "json": 1}.get(layout, 11)
    if "json" in layout:
        assert json.loads(written)["RAUC_EVENT_TYPE"] == "install"
    else:
        assert lines[0].startswith(f"{TIME}: Bundle ")
        assert all(line.startswith(" " * 22) for line in lines[1:])
