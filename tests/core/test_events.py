"""Events: RAUC's own words where RAUC has them, and fields that journald takes."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from updated.core import events
from updated.core.events import Event, Id
from updated.core.model import Outcome

TRANSACTION = "0a1b2c3d-0000-4000-8000-000000000000"
OUTCOME = Outcome(TRANSACTION, "ota", "/srv/x.raucb", "2.0.0", "ab" * 32, "rootfs.1", "", "Because.", "T")


def ended(code: str, text: str = "Because.") -> Event:
    event = events.ended(replace(OUTCOME, code=code, text=text))
    assert event is not None
    return event


EVENTS = [
    events.booted("rootfs.0", "A", boot_id="b-1", bundle_hash=""),
    events.booted_external("b-1"),
    events.service_started(again=False),
    events.service_started(again=True),
    events.service_stopping(),
    events.marked_good("rootfs.0", "A", by="request"),
    events.marked_bad("rootfs.0", "A", by="install"),
    events.marked_active("rootfs.0", "A", bundle_hash="h", by="install"),
    events.install_started(TRANSACTION, source="usb", location="/mnt/x.raucb"),
    events.slot_write_started("rootfs.1", transaction=TRANSACTION, bundle_hash="h"),
    events.slot_written("rootfs.1", transaction=TRANSACTION, bundle_hash="h"),
    *map(ended, ("installed", "failed", "refused", "cancelled", "confirmed", "fallback", "rollback")),
    events.quarantined("ab" * 32, "2.0.0", "It crashed."),
    events.lifted("ab" * 32, "2.0.0"),
    events.judged("rootfs.1", good=True, check="", text="Healthy for 10 s."),
    events.judged("rootfs.1", good=False, check="unit app", text="app: failed"),
    events.ping_withheld("nothing moved for 61 s"),
    events.reboot_asked("logind", "an update is installed"),
    events.reboot_escalated("systemctl --force", 300.4),
    events.degraded("no group would start"),
    events.clock_not_believed("1970-01-01T00:00:03Z", "2026-05-01T00:00:00Z"),
    events.hook_failed("on-installed", "it took longer than 300 s", transaction=TRANSACTION),
]


def test_every_id_has_an_event() -> None:
    assert {event.id for event in EVENTS} == set(Id)


@pytest.mark.parametrize("message_id", Id, ids=lambda one: one.name)
def test_ids_are_128_bits_in_hex(message_id: Id) -> None:
    assert re.fullmatch(r"[0-9a-f]{32}", message_id.value)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.text[:30])
def test_fields_are_such_as_journald_takes(event: Event) -> None:
    """journald drops names that are too long, in lower case, or begin with `_` or a digit."""
    names = [name for name, _ in event.entries()]
    assert len(set(names)) == len(names)
    assert "MESSAGE" not in names
    for name in names:
        assert re.fullmatch(r"[A-Z][A-Z0-9_]{0,63}", name)
    assert event.text
    assert event.priority in (3, 4, 5)


@pytest.mark.parametrize(
    ("event", "kind", "text", "fields"),
    [
        (
            events.booted("rootfs.0", "A", boot_id="b-1", bundle_hash=""),
            "boot",
            "Booted into rootfs.0 (A)",
            {"SLOT_NAME": "rootfs.0", "SLOT_BOOTNAME": "A", "BOOT_ID": "b-1", "BUNDLE_HASH": "unknown"},
        ),
        (events.booted_external("b-1"), "boot", "Booted from external source", {"BOOT_ID": "b-1"}),
        (
            events.marked_active("rootfs.1", "B", bundle_hash="h", by="request"),
            "mark",
            "Marked slot rootfs.1 as active",
            {"SLOT_NAME": "rootfs.1", "SLOT_BOOTNAME": "B", "BUNDLE_HASH": "h"},
        ),
        (
            events.marked_good("rootfs.1", "B", by="updated"),
            "mark",
            "Marked slot rootfs.1 as good",
            {"SLOT_NAME": "rootfs.1", "SLOT_BOOTNAME": "B"},
        ),
        (
            events.install_started(TRANSACTION, source="ota", location="x"),
            "install",
            "Installation 0a1b2c3d started",
            {"TRANSACTION_ID": TRANSACTION},
        ),
        (
            ended("installed"),
            "install",
            "Installation 0a1b2c3d succeeded",
            {"TRANSACTION_ID": TRANSACTION, "BUNDLE_VERSION": "2.0.0", "BUNDLE_HASH": "ab" * 32},
        ),
        (ended("failed"), "install", "Installation 0a1b2c3d failed: Because.", {"UPDATED_CODE": "failed"}),
        (
            ended("refused"),
            "install",
            "Installation 0a1b2c3d rejected: Because.",
            {"BUNDLE_NAME": "/srv/x.raucb"},
        ),
        (events.service_started(again=False), "service", "Service started", {}),
        (events.service_started(again=True), "service", "Service restarted", {}),
        (
            events.slot_write_started("rootfs.1", transaction=TRANSACTION, bundle_hash="h"),
            "writeslot",
            "Updating slot rootfs.1",
            {"SLOT_NAME": "rootfs.1"},
        ),
    ],
    ids=lambda value: value.text if isinstance(value, Event) else "",
)
def test_what_rauc_tells_is_told_in_its_words(
    event: Event, kind: str, text: str, fields: dict[str, str]
) -> None:
    entries = dict(event.entries())
    assert (event.type, event.text) == (kind, text)
    assert entries["GLIB_DOMAIN"] == "rauc-event"
    assert entries["RAUC_EVENT_TYPE"] == kind
    assert entries["MESSAGE_ID"] == event.id.value
    assert entries["PRIORITY"] == str(event.priority)
    assert fields.items() <= entries.items()


@pytest.mark.parametrize(
    ("code", "message_id"),
    [
        ("installed", Id.INSTALL_SUCCEEDED),
        ("failed", Id.INSTALL_FAILED),
        ("cancelled", Id.INSTALL_FAILED),
        ("refused", Id.INSTALL_REJECTED),
        ("confirmed", Id.CONFIRMED),
        ("fallback", Id.FELL_BACK),
        ("rollback", Id.ROLLED_BACK),
    ],
)
def test_each_end_of_an_update_has_its_id(code: str, message_id: Id) -> None:
    assert ended(code).id == message_id


def test_what_is_no_end_is_no_event() -> None:
    for code in ("hook", "excused", ""):
        assert events.ended(replace(OUTCOME, code=code)) is None


def test_text_of_others_is_not_a_format() -> None:
    assert ended("failed", "{0} %s {x}").text.endswith(" failed: {0} %s {x}")
