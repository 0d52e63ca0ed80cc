"""What `status` prints (RAUC src/main.c, `r_status_formatter_*`).  Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from updated.api.port import SlotReport, SystemInfo
from updated.cli import render
from updated.cli.render import BLUE, BOLD, GREEN, NORMAL, RED, printable
from updated.core.model import SlotStatus

FORMATS = ("readable", "shell", "json", "json-pretty")

_PRIMARY, _OTHER = "⏺", "○"  # with UTF-8
_PRIMARY_ASCII, _OTHER_ASCII = f"{BOLD}x{NORMAL}", "o"


@dataclass(frozen=True, slots=True)
class Status:
    """What the service said about the system."""

    system: SystemInfo
    primary: str | None  # name of the slot that starts next
    slots: Sequence[SlotReport]
    artifacts: Sequence[object] | None = None  # repositories; None: the service knows none


def status(found: Status, output_format: str, *, detailed: bool, utf8: bool) -> str:
    """The status in one of `FORMATS`, without the last newline."""
    if output_format == "shell":
        return render.shell(_variables(found, detailed))
    if output_format.startswith("json"):
        return render.json_text(_json(found, detailed), pretty=output_format == "json-pretty")
    return "\n".join(_readable(found, detailed, utf8))


def _readable(found: Status, detailed: bool, utf8: bool) -> Iterator[str]:
    booted = next((each.slot.name for each in found.slots if each.state == "booted"), None)
    primary = next((each.slot for each in found.slots if each.slot.name == found.primary), None)
    yield "=== System Info ==="
    yield f"Compatible:  {printable(found.system.compatible)}"
    yield f"Variant:     {printable(found.system.variant)}"
    yield f"Booted from: {printable(booted)} ({printable(found.system.boot_slot)})"
    yield ""
    yield "=== Bootloader ==="
    yield f"Activated: {f'{primary.name} ({printable(primary.bootname)})' if primary else 'none'}"
    yield ""
    yield "=== Slot States ==="
    roots = [each for each in found.slots if each.slot.parent is None]
    for number, root in enumerate(_by_class(roots)):
        if number:
            yield ""
        yield from _readable_slot(root, found, detailed, utf8)
        for child in found.slots:
            if child is not root and _root_name(child, found.slots) == root.slot.name:
                yield from _readable_slot(child, found, detailed, utf8)


def _by_class(slots: Sequence[SlotReport]) -> list[SlotReport]:
    """Slots of one class together, otherwise in the order the service named them."""
    classes = list(dict.fromkeys(each.slot.slot_class for each in slots))
    return sorted(slots, key=lambda each: classes.index(each.slot.slot_class))


def _root_name(report: SlotReport, slots: Sequence[SlotReport]) -> str:
    parents = {each.slot.name: each.slot.parent for each in slots}
    name = report.slot.name
    for _ in slots:  # a service that names parents in a circle does not hang us
        parent = parents.get(name)
        if parent is None:
            break
        name = parent
    return name


def _readable_slot(report: SlotReport, found: Status, detailed: bool, utf8: bool) -> Iterator[str]:
    slot = report.slot
    mark = " "
    if slot.bootname is not None:
        primary, other = (_PRIMARY, _OTHER) if utf8 else (_PRIMARY_ASCII, _OTHER_ASCII)
        mark = primary if slot.name == found.primary else other
    indent = "   " if slot.parent is not None else " "
    booted = report.state == "booted"
    color = {"booted": GREEN + GREEN, "active": GREEN}.get(report.state, "")
    state = f"{BOLD if booted else ''}{report.state}{NORMAL}"
    place = f"{printable(slot.device)}, {printable(slot.type)}, {state}"
    yield f"{mark}{indent}{color}{BOLD}[{printable(slot.name)}]{NORMAL} ({place})"
    if slot.bootname is not None:
        yield f"      bootname: {BLUE}{printable(slot.bootname)}{NORMAL}"
    if slot.description:
        yield f"      description: {printable(slot.description)}"
    if report.mountpoint is not None:
        yield f"      mounted: {printable(report.mountpoint)}"
    if slot.bootname is not None:
        boot_status = report.boot_status or "unknown"
        yield f"      boot status: {GREEN if boot_status == 'good' else RED}{boot_status}{NORMAL}"
    if detailed:
        yield from _readable_details(report.status)


def _readable_details(status: SlotStatus) -> Iterator[str]:
    yield "      slot status:"
    yield "          bundle:"
    yield f"              compatible={printable(status.bundle_compatible)}"
    optional = {
        "version": status.bundle_version,
        "description": status.bundle_description,
        "build": status.bundle_build,
        "hash": status.bundle_hash,
    }
    yield from (
        f"              {key}={printable(value)}" for key, value in optional.items() if value is not None
    )
    if status.sha256 is not None:
        yield "          checksum:"
        yield f"              sha256={printable(status.sha256)}"
        yield f"              size={render.size(status.size)}"
    yield "          installed:"
    if status.installed_timestamp is not None:
        yield f"              timestamp={printable(status.installed_timestamp)}"
        yield f"              count={status.installed_count}"
    if status.installed_transaction is not None:
        yield f"              transaction={printable(status.installed_transaction)}"
    if status.activated_timestamp is not None:
        yield "          activated:"
        yield f"              timestamp={printable(status.activated_timestamp)}"
        yield f"              count={status.activated_count}"
    if status.status is not None:
        yield f"          status={printable(status.status)}"


def _variables(found: Status, detailed: bool) -> Iterator[tuple[str, str | int | None]]:
    yield "RAUC_SYSTEM_COMPATIBLE", found.system.compatible
    yield "RAUC_SYSTEM_VARIANT", found.system.variant
    yield "RAUC_SYSTEM_VERSION", found.system.system_version
    yield "RAUC_SYSTEM_BOOTED_BOOTNAME", found.system.boot_slot
    yield "RAUC_BOOT_PRIMARY", "(null)" if found.primary is None else found.primary
    yield "RAUC_SYSTEM_SLOTS", " ".join(each.slot.name for each in found.slots)
    yield "RAUC_SLOTS", " ".join(str(number) for number in range(1, len(found.slots) + 1))
    for number, report in enumerate(found.slots, 1):
        slot = report.slot
        yield f"RAUC_SLOT_STATE_{number}", report.state
        yield f"RAUC_SLOT_CLASS_{number}", slot.slot_class
        yield f"RAUC_SLOT_DEVICE_{number}", slot.device
        yield f"RAUC_SLOT_TYPE_{number}", slot.type
        yield f"RAUC_SLOT_BOOTNAME_{number}", slot.bootname
        yield f"RAUC_SLOT_PARENT_{number}", slot.parent
        yield f"RAUC_SLOT_MOUNTPOINT_{number}", report.mountpoint
        yield f"RAUC_SLOT_BOOT_STATUS_{number}", _boot_status(report)
        if detailed:
            yield from _variables_of_status(report.status, number)
    yield "RAUC_REPOS", " ".join(str(number) for number in range(1, len(found.artifacts or ()) + 1))


def _variables_of_status(status: SlotStatus, number: int) -> Iterator[tuple[str, str | int | None]]:
    yield f"RAUC_SLOT_STATUS_BUNDLE_COMPATIBLE_{number}", status.bundle_compatible
    yield f"RAUC_SLOT_STATUS_BUNDLE_VERSION_{number}", status.bundle_version
    yield f"RAUC_SLOT_STATUS_BUNDLE_DESCRIPTION_{number}", status.bundle_description
    yield f"RAUC_SLOT_STATUS_BUNDLE_BUILD_{number}", status.bundle_build
    yield f"RAUC_SLOT_STATUS_BUNDLE_HASH_{number}", status.bundle_hash
    yield f"RAUC_SLOT_STATUS_CHECKSUM_SHA256_{number}", status.sha256
    yield f"RAUC_SLOT_STATUS_CHECKSUM_SIZE_{number}", status.size
    yield f"RAUC_SLOT_STATUS_INSTALLED_TIMESTAMP_{number}", status.installed_timestamp
    yield f"RAUC_SLOT_STATUS_INSTALLED_COUNT_{number}", status.installed_count
    yield f"RAUC_SLOT_STATUS_ACTIVATED_TIMESTAMP_{number}", status.activated_timestamp
    yield f"RAUC_SLOT_STATUS_ACTIVATED_COUNT_{number}", status.activated_count
    yield f"RAUC_SLOT_STATUS_STATUS_{number}", status.status


def _json(found: Status, detailed: bool) -> dict[str, object]:
    members: dict[str, object] = {
        "compatible": found.system.compatible,
        "variant": found.system.variant,
        "system_version": found.system.system_version,
        "booted": found.system.boot_slot,
        "boot_primary": found.primary,
        "slots": [{each.slot.name: _json_slot(each, detailed)} for each in found.slots],
    }
    if found.artifacts is not None:
        members["artifact-repositories"] = list(found.artifacts)
    return members


def _json_slot(report: SlotReport, detailed: bool) -> dict[str, object]:
    slot = report.slot
    members: dict[str, object] = {
        "class": slot.slot_class,
        "device": slot.device,
        "type": slot.type,
        "bootname": slot.bootname,
        "state": report.state,
        "parent": slot.parent,
        "mountpoint": report.mountpoint,
        "boot_status": _boot_status(report),
    }
    if detailed:
        members["slot_status"] = _json_status(report.status)
    return members


def _json_status(status: SlotStatus) -> dict[str, object]:
    bundle = {
        "version": status.bundle_version,
        "description": status.bundle_description,
        "build": status.bundle_build,
        "hash": status.bundle_hash,
    }
    checksum = {"sha256": status.sha256, "size": status.size}
    installed = {
        "transaction": status.installed_transaction,
        "timestamp": status.installed_timestamp,
        "count": status.installed_count,
    }
    activated = {"timestamp": status.activated_timestamp, "count": status.activated_count}
    return render.without_none(
        {
            "bundle": {"compatible": status.bundle_compatible, **render.without_none(bundle)},
            "checksum": checksum if status.sha256 is not None else None,
            "installed": render.without_none(installed) if status.installed_timestamp is not None else None,
            "activated": activated if status.activated_timestamp is not None else None,
            "status": status.status,
        }
    )


def _boot_status(report: SlotReport) -> str | None:
    return None if report.slot.bootname is None else report.boot_status or "unknown"
