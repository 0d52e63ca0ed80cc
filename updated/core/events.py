"""What happened, for machines: events of the journal and of RAUC's event logs (`[log.*]`).

Each has an id that never changes (MESSAGE_ID, systemd.journal-fields(7)) and fields that say what it is
about.  Where RAUC has the event, its id, text and fields are RAUC's (src/event_log.c, src/main.c, src/mark.c,
src/install.c); what only this project knows is in fields that begin with `UPDATED_`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

from updated.core.model import Outcome

EventType = Literal["boot", "mark", "install", "service", "writeslot"]
"""What `events=` of a `[log.*]` section chooses by; ours go under the type that they belong to."""

DOMAIN: Final = "rauc-event"  # RAUC's GLIB_DOMAIN of events
ERROR, WARNING, NOTICE = 3, 4, 5  # syslog(3)


class Id(StrEnum):
    """MESSAGE_IDs; each has its entry in units/updated.catalog."""

    # RAUC's
    BOOTED = "e60e0addd3454cb8b796eae0d497af96"
    BOOTED_EXTERNAL = "dd237efdad1945d9b1e471bc2b994532"
    MARKED_GOOD = "3304e15a7a9a447885eb208ba7ae3a05"
    MARKED_BAD = "ccb0e584a47043d7a5316994bce77ae5"
    MARKED_ACTIVE = "8b5e7435e1054d86858278e7544fe6da"
    INSTALL_STARTED = "b05410e8a93345389cd061aab1e9516d"
    INSTALL_SUCCEEDED = "0163db5468ac4237b090d28490c301ed"
    INSTALL_FAILED = "c48141f7fd49443aafff862b4809168f"
    INSTALL_REJECTED = "60bea7e4fea549ccad68af457308b13a"

    # Ours.  RAUC tells the first four, too, but has no ids for them.
    SERVICE_STARTED = "2c42459a0c2f4f48a186df7cf3805939"
    SERVICE_RESTARTED = "69ed74be4f244fcebe338a28ee789579"
    SERVICE_STOPPING = "88c4ce9271ea48b89f2c2bebe103ec5a"
    SLOT_WRITE_STARTED = "131faeae0c304100a86f179c169ad8a5"
    SLOT_WRITTEN = "aaaa8c578fd84334a6f5b6f40fc5efe2"
    CONFIRMED = "316e80f65c6a440ab433f10113822c7c"
    FELL_BACK = "06f7794b28cd4d3f92e84b9eafa2eff7"
    ROLLED_BACK = "54b2f717a92947f49937e664f0c52f1d"
    QUARANTINED = "8b37a65dd8b04d8398bdefc03bae010b"
    LIFTED = "47a51b8f35bf4333971f65f8c7b4a6c1"
    HEALTH_GOOD = "8af200a8c9824e2ba7688ac446b897ce"
    HEALTH_BAD = "848172e5d74a414eb78e8d2a6058296e"
    PING_WITHHELD = "363ffd917b8847f5b8b2c7119f79b84d"
    REBOOT_ASKED = "91eee7f39dcd4dd98ad4553e95caad3e"
    REBOOT_ESCALATED = "ed9dd282c93447b4bdbff2d6bbf1eb03"
    DEGRADED = "d47f364d86c34463b3491d1a8ebd5b4d"
    CLOCK_NOT_BELIEVED = "e7542b97a08047b282366faa4e67111d"
    HOOK_FAILED = "8bc39a231cda4a2195bca19076806442"


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened.  Goes with a log record: `log.info(..., extra={"event": event})`."""

    id: Id
    type: EventType
    text: str  # a sentence
    fields: tuple[tuple[str, str], ...] = ()  # NAME, value; names as journald takes them
    priority: int = NOTICE

    def entries(self) -> Iterator[tuple[str, str]]:
        """All of it but the text, as fields of the journal, in RAUC's order."""
        yield "MESSAGE_ID", self.id.value
        yield "PRIORITY", str(self.priority)
        yield "GLIB_DOMAIN", DOMAIN
        yield "RAUC_EVENT_TYPE", self.type
        yield from self.fields


# Boot and service


def booted(slot: str, bootname: str, *, boot_id: str, bundle_hash: str) -> Event:
    """Once in each boot; `bundle_hash` of what runs, "" if that is not known."""
    fields = (
        ("SLOT_NAME", slot),
        ("SLOT_BOOTNAME", bootname),
        ("BOOT_ID", boot_id),
        ("BUNDLE_HASH", bundle_hash or "unknown"),
    )
    return Event(Id.BOOTED, "boot", f"Booted into {slot} ({bootname})", fields)


def booted_external(boot_id: str) -> Event:
    """What runs is in no slot."""
    return Event(Id.BOOTED_EXTERNAL, "boot", "Booted from external source", (("BOOT_ID", boot_id),))


def service_started(*, again: bool) -> Event:
    """`again`: not for the first time in this boot."""
    if again:
        return Event(Id.SERVICE_RESTARTED, "service", "Service restarted")
    return Event(Id.SERVICE_STARTED, "service", "Service started")


def service_stopping() -> Event:
    return Event(Id.SERVICE_STOPPING, "service", "Service stopping")


# Marks; `by`: "request" (a person or a program over D-Bus), "install", or "updated" itself


def marked_good(slot: str, bootname: str, *, by: str) -> Event:
    return Event(Id.MARKED_GOOD, "mark", f"Marked slot {slot} as good", _mark(slot, bootname, by))


def marked_bad(slot: str, bootname: str, *, by: str) -> Event:
    return Event(Id.MARKED_BAD, "mark", f"Marked slot {slot} as bad", _mark(slot, bootname, by))


def marked_active(slot: str, bootname: str, *, bundle_hash: str, by: str) -> Event:
    """It is what starts next; `bundle_hash` of what is on it, "" if that is not known."""
    fields = (*_mark(slot, bootname, by), ("BUNDLE_HASH", bundle_hash))
    return Event(Id.MARKED_ACTIVE, "mark", f"Marked slot {slot} as active", fields)


def _mark(slot: str, bootname: str, by: str) -> tuple[tuple[str, str], ...]:
    return ("SLOT_NAME", slot), ("SLOT_BOOTNAME", bootname), ("UPDATED_BY", by)


# An update from its start to its end


def install_started(transaction: str, *, source: str, location: str) -> Event:
    fields = (("TRANSACTION_ID", transaction), ("BUNDLE_NAME", location), ("UPDATED_SOURCE", source))
    return Event(Id.INSTALL_STARTED, "install", f"Installation {transaction:.8} started", fields)


def slot_write_started(slot: str, *, transaction: str, bundle_hash: str) -> Event:
    fields = _write(slot, transaction, bundle_hash)
    return Event(Id.SLOT_WRITE_STARTED, "writeslot", f"Updating slot {slot}", fields)


def slot_written(slot: str, *, transaction: str, bundle_hash: str) -> Event:
    """The slot holds the image, and that is proven."""
    fields = _write(slot, transaction, bundle_hash)
    return Event(Id.SLOT_WRITTEN, "writeslot", f"Updating slot {slot} done", fields)


def _write(slot: str, transaction: str, bundle_hash: str) -> tuple[tuple[str, str], ...]:
    return ("SLOT_NAME", slot), ("TRANSACTION_ID", transaction), ("BUNDLE_HASH", bundle_hash)


_ENDS: Final[dict[str, tuple[Id, EventType, int, str]]] = {
    "installed": (Id.INSTALL_SUCCEEDED, "install", NOTICE, "Installation {} succeeded"),
    "failed": (Id.INSTALL_FAILED, "install", ERROR, "Installation {} failed: {}"),
    "cancelled": (Id.INSTALL_FAILED, "install", NOTICE, "Installation {} failed: {}"),
    "refused": (Id.INSTALL_REJECTED, "install", NOTICE, "Installation {} rejected: {}"),
    "confirmed": (Id.CONFIRMED, "install", NOTICE, "Update {} confirmed: {}"),
    "fallback": (Id.FELL_BACK, "boot", ERROR, "Update {} fell back: {}"),
    "rollback": (Id.ROLLED_BACK, "install", WARNING, "Update {} rolled back: {}"),
}


def ended(outcome: Outcome) -> Event | None:
    """How an update ended: the event of a line of the history; None: that line tells something else."""
    if outcome.code not in _ENDS:
        return None
    message_id, kind, priority, text = _ENDS[outcome.code]
    fields = (
        ("BUNDLE_HASH", outcome.manifest_hash),
        ("BUNDLE_VERSION", outcome.version),
        ("BUNDLE_NAME", outcome.location),
        ("TRANSACTION_ID", outcome.transaction),
        ("SLOT_NAME", outcome.target),
        ("UPDATED_SOURCE", outcome.source),
        ("UPDATED_CODE", outcome.code),
        ("UPDATED_REASON", outcome.text),
    )
    return Event(message_id, kind, text.format(outcome.transaction[:8], outcome.text), fields, priority)


def quarantined(bundle_hash: str, version: str, reason: str) -> Event:
    fields = (("BUNDLE_HASH", bundle_hash), ("BUNDLE_VERSION", version), ("UPDATED_REASON", reason))
    text = f"Bundle {bundle_hash:.8} (version {version}) is quarantined: {reason}"
    return Event(Id.QUARANTINED, "install", text, fields, WARNING)


def lifted(bundle_hash: str, version: str) -> Event:
    fields = (("BUNDLE_HASH", bundle_hash), ("BUNDLE_VERSION", version))
    text = f"Bundle {bundle_hash:.8} (version {version}) is out of quarantine"
    return Event(Id.LIFTED, "install", text, fields)


def judged(slot: str, *, good: bool, check: str, text: str) -> Event:
    """The verdict on what runs.  `check`: which one decided, "" where all held."""
    fields = (("SLOT_NAME", slot), ("UPDATED_CHECK", check), ("UPDATED_REASON", text))
    if good:
        return Event(Id.HEALTH_GOOD, "service", f"The system in {slot} is healthy: {text}", fields)
    return Event(Id.HEALTH_BAD, "service", f"The system in {slot} is not healthy: {text}", fields, ERROR)


# The service in trouble, and the reboot


def ping_withheld(reason: str) -> Event:
    """systemd ends the service, if that goes on."""
    fields = (("UPDATED_REASON", reason),)
    return Event(Id.PING_WITHHELD, "service", f"No watchdog ping: {reason}", fields, ERROR)


def reboot_asked(way: str, reason: str) -> Event:
    """`way`: logind, a command, ..."""
    fields = (("UPDATED_WAY", way), ("UPDATED_REASON", reason))
    return Event(Id.REBOOT_ASKED, "service", f"Reboot by {way}: {reason}", fields)


def reboot_escalated(way: str, waited: float) -> Event:
    """`waited`: seconds since the last way was tried."""
    fields = (("UPDATED_WAY", way), ("UPDATED_SECONDS", f"{waited:.0f}"))
    text = f"The reboot did not come within {waited:.0f} s; now by {way}"
    return Event(Id.REBOOT_ESCALATED, "service", text, fields, WARNING)


def degraded(reason: str) -> Event:
    """There is nothing good to go back to, so the device goes on with what runs."""
    return Event(Id.DEGRADED, "service", f"Degraded: {reason}", (("UPDATED_REASON", reason),), ERROR)


def clock_not_believed(clock: str, used: str) -> Event:
    """`clock`: what it says; `used`: the time that certificates are checked against.  ISO 8601, UTC."""
    fields = (("UPDATED_CLOCK", clock), ("UPDATED_TIME", used))
    text = f"The clock says {clock}, which cannot be; certificates are checked against {used}"
    return Event(Id.CLOCK_NOT_BELIEVED, "service", text, fields, WARNING)


def hook_failed(name: str, reason: str, *, transaction: str) -> Event:
    """`name`: its key in updated.toml."""
    fields = (("UPDATED_HOOK", name), ("UPDATED_REASON", reason), ("TRANSACTION_ID", transaction))
    return Event(Id.HOOK_FAILED, "install", f"Hook {name} failed: {reason}", fields, WARNING)
