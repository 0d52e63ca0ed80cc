"""The slot status: what is on each slot, in RAUC's file format.

A central file (`central.raucs` in the data directory, or `statusfile=`) has a group `[slot.<name>]` for each
slot and `[system]`; with `statusfile=per-slot` each slot's file system holds a `slot.raucs` with `[slot]`.
Source: RAUC src/status_file.c and src/install.c.  Unlike RAUC, `installed.transaction` survives a restart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Literal

from updated.bundle import keyfile
from updated.bundle.keyfile import Group, KeyFile, KeyFileError, Value
from updated.bundle.manifest import Image, Manifest
from updated.core.model import TIMESTAMP, SlotStatus

SLOT_PREFIX = "slot."
SYSTEM_GROUP = "system"
PER_SLOT_GROUP = "slot"
COUNT_MAX = 2**32 - 1  # larger counts read as 0, as in RAUC

_NAMES = {  # field -> key, in the order of the file
    "bundle_compatible": "bundle.compatible",
    "bundle_version": "bundle.version",
    "bundle_description": "bundle.description",
    "bundle_build": "bundle.build",
    "bundle_hash": "bundle.hash",
    "status": "status",
    "sha256": "sha256",
    "size": "size",
    "installed_transaction": "installed.transaction",
    "installed_timestamp": "installed.timestamp",
    "installed_count": "installed.count",
    "activated_timestamp": "activated.timestamp",
    "activated_count": "activated.count",
}
_COUNTS = ("installed_count", "activated_count")
assert list(_NAMES) == [field.name for field in fields(SlotStatus)]


def timestamp(now: datetime) -> str:
    """`now` as `%Y-%m-%dT%H:%M:%SZ` in UTC.  `now` must know its time zone."""
    return now.astimezone(UTC).strftime(TIMESTAMP)


def begun(status: SlotStatus) -> SlotStatus:
    """Before the first byte is written: pending, and no longer known to hold any image."""
    return replace(status, status="pending", sha256=None, size=0)


def finished(
    status: SlotStatus,
    result: Literal["ok", "failed"],
    *,
    manifest: Manifest,
    image: Image,
    transaction: str,
    now: datetime,
) -> SlotStatus:
    """After the install of `image`, or its failure.  The new content was never activated."""
    return SlotStatus(
        bundle_compatible=manifest.compatible,
        bundle_version=manifest.version,
        bundle_description=manifest.description,
        bundle_build=manifest.build,
        bundle_hash=manifest.hash or None,
        status=result,
        sha256=image.sha256,
        size=image.size,
        installed_transaction=transaction or None,
        installed_timestamp=timestamp(now),
        installed_count=min(status.installed_count + 1, COUNT_MAX),
        activated_count=status.activated_count,
    )


def activated(status: SlotStatus, *, now: datetime) -> SlotStatus:
    """After the slot was made primary."""
    count = min(status.activated_count + 1, COUNT_MAX)
    return replace(status, activated_timestamp=timestamp(now), activated_count=count)


def from_group(group: Group) -> tuple[SlotStatus, tuple[str, ...]]:
    """The status in a group, and warnings: a value that cannot be read counts as absent or zero."""
    values: dict[str, str | int] = {}
    warnings = []
    for name, key in _NAMES.items():
        if key not in group:
            continue
        try:
            values[name] = group.get_uint64(key) if name in ("size", *_COUNTS) else group.get_string(key)
        except KeyFileError as error:
            warnings.append(f"{error} - ignored")
    for name in _COUNTS:
        if int(values.get(name, 0)) > COUNT_MAX:
            warnings.append(f"Value of key “{_NAMES[name]}” in group [{group.name}] is too large - ignored")
            del values[name]
    if not values.get("sha256"):
        values.pop("size", None)
    kept = {name: value for name, value in values.items() if value != ""}
    return SlotStatus(**kept), tuple(warnings)  # type: ignore[arg-type]


def to_entries(status: SlotStatus) -> list[tuple[str, Value]]:
    """The lines of a group; what is absent or a zero count has none."""
    entries: list[tuple[str, Value]] = []
    for name, key in _NAMES.items():
        value = getattr(status, name)
        if name == "size":
            value = value if status.sha256 is not None else None
        elif name in _COUNTS:
            value = value or None
        if value is not None:
            entries.append((key, value))
    return entries


def with_group(file: KeyFile, name: str, entries: Sequence[tuple[str, Value]]) -> bytes:
    """The bytes of `file` with the group `name` replaced, or added at the end; other groups survive."""
    groups: dict[str, Sequence[tuple[str, Value]]] = {
        group.name: [(entry.key, entry.raw) for entry in group.entries] for group in file.groups
    }
    return keyfile.render(list({**groups, name: entries}.items()))
