"""Our dataclasses as the dictionaries that travel on the bus (types: RAUC src/service.c, src/manifest.c)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dbus_fast import Variant

from updated.api.port import Outcome, Quarantined, SlotReport, Snapshot, Transaction
from updated.api.wire import text
from updated.bundle.manifest import Image, Manifest
from updated.core.gate import Hold
from updated.core.health import CheckReport, Judgement
from updated.core.model import SlotStatus
from updated.core.polling import PollStatus
from updated.readers.http_errors import shown

Dict = dict[str, Variant]


def strings(values: Mapping[str, str | None], *, keep_empty: bool = False) -> Dict:
    """Values that are there; a key that has none is left out, never sent as an empty string."""
    return {k: Variant("s", text(v)) for k, v in values.items() if v or (keep_empty and v is not None)}


def place(location: str) -> str:
    """Where a bundle is, for everybody's eyes: of a URL without what may be secret in it."""
    return shown(location) if "://" in location else location


def u32(value: int) -> Variant:
    return Variant("u", min(max(value, 0), 2**32 - 1))


def u64(value: int) -> Variant:
    return Variant("t", min(max(value, 0), 2**64 - 1))


def slot(report: SlotReport) -> Dict:
    """One dictionary of GetSlotStatus."""
    configured = report.slot
    always = {
        "class": configured.slot_class,
        "device": configured.device,
        "type": configured.type,
        "state": report.state,
    }
    optional = {
        "bootname": configured.bootname,
        "boot-status": report.boot_status if configured.bootname is not None else None,
        "description": configured.description,
        "parent": configured.parent,
        "mountpoint": report.mountpoint,
    }
    return strings(always, keep_empty=True) | strings(optional) | slot_status(report.status)


def slot_status(status: SlotStatus) -> Dict:
    known = strings(
        {
            "bundle.compatible": status.bundle_compatible,
            "bundle.version": status.bundle_version,
            "bundle.description": status.bundle_description,
            "bundle.build": status.bundle_build,
            "bundle.hash": status.bundle_hash,
            "status": status.status,
            "installed.transaction": status.installed_transaction,
        }
    )
    if status.sha256:
        known |= strings({"sha256": status.sha256}) | {"size": u64(status.size)}
    if status.installed_timestamp:
        known |= strings({"installed.timestamp": status.installed_timestamp})
        known["installed.count"] = u32(status.installed_count)
    if status.activated_timestamp:
        known |= strings({"activated.timestamp": status.activated_timestamp})
        known["activated.count"] = u32(status.activated_count)
    return known


def _twice(signature: str, value: object) -> Variant:
    """RAUC inserts containers with the format "v": a variant that holds a variant."""
    return Variant("v", Variant(signature, value))


def _texts(values: Sequence[str]) -> Variant:
    return Variant("as", [text(value) for value in values])


def manifest(m: Manifest) -> Dict:
    """The `info` dictionary of InspectBundle."""
    update = {
        "compatible": m.compatible,
        "version": m.version,
        "description": m.description,
        "build": m.build,
    }
    info = {
        "update": _twice("a{sv}", strings(update)),
        "bundle": _twice("a{sv}", _bundle(m)),
        "images": _twice("aa{sv}", [_image(image) for image in m.images]),
        "meta": _twice(
            "a{sa{ss}}",
            {text(k): {text(a): text(b) for a, b in v.items()} for k, v in m.meta.items()},
        ),
    }
    if m.hash:
        info["manifest-hash"] = Variant("s", m.hash)
    if m.hook_filename:
        hooks = strings({"filename": m.hook_filename}) | {
            "hooks": _twice("as", [text(hook) for hook in m.hooks])
        }
        info["hooks"] = _twice("a{sv}", hooks)
    if m.handler_filename:
        handler = strings({"filename": m.handler_filename, "args": m.handler_args})
        info["handler"] = _twice("a{sv}", handler)
    return info


def _bundle(m: Manifest) -> Dict:
    known = strings(
        {
            "format": m.format,
            "verity-hash": m.verity_hash.hex() if m.verity_hash else None,
            "verity-salt": m.verity_salt.hex() if m.verity_salt else None,
        }
    )
    return known | ({"verity-size": u64(m.verity_size)} if m.verity_size else {})


def _image(image: Image) -> Dict:
    known = strings(
        {
            "slot-class": image.slot_class,
            "artifact": image.artifact,
            "variant": image.variant,
            "filename": image.filename,
            "type": image.type,
            "checksum": image.sha256,
        }
    )
    if image.sha256 or image.size:
        known["size"] = u64(image.size)
    known["hooks"] = _texts(image.hooks)
    lists = {"adaptive": image.adaptive, "convert": image.convert, "converted": image.converted}
    return known | {key: _texts(values) for key, values in lists.items() if values}


def transaction(t: Transaction | None) -> Dict:
    """Empty without a transaction."""
    if t is None:
        return {}
    return strings(
        {
            "id": t.id,
            "source": t.source,
            "location": place(t.location),
            "compatible": t.compatible,
            "version": t.version,
            "manifest-hash": t.manifest_hash,
            "target": t.target,
        }
    )


def outcome(o: Outcome | None) -> Dict:
    """Empty before the first transaction has ended."""
    if o is None:
        return {}
    return strings(
        {
            "code": o.code,
            "text": o.text,
            "transaction": o.transaction,
            "source": o.source,
            "location": place(o.location),
            "version": o.version,
            "manifest-hash": o.manifest_hash,
            "target": o.target,
            "time": o.time,
        }
    )


def progress(snapshot: Snapshot) -> Dict:
    """Bytes and times only while bytes are moving; `eta` only when it is known."""
    percentage, message, depth = snapshot.progress
    known = {
        "percentage": Variant("i", percentage),
        "message": Variant("s", text(message)),
        "depth": Variant("i", depth),
    }
    moving = snapshot.transfer
    if moving is None:
        return known
    known |= {
        "bytes-done": u64(moving.done),
        "bytes-total": u64(moving.total),
        "rate": Variant("d", moving.rate),
    }
    if moving.bundle > 0:
        known |= {"fetched": u64(moving.fetched), "bundle": u64(moving.bundle)}
    return known | ({"eta": Variant("d", moving.eta)} if moving.eta >= 0 else {})


def hold(h: Hold | None) -> Dict:
    """Empty if nothing is held; `delay` only where somebody knows when it ends."""
    if h is None:
        return {}
    known = strings({"rule": h.rule, "text": h.text})
    return known | ({"delay": Variant("d", h.delay)} if h.delay is not None else {})


def judgement(j: Judgement | None) -> Dict:
    """Empty if there is no group to judge."""
    if j is None:
        return {}
    words = {
        "state": j.state,
        "group": j.group,
        "version": j.version,
        "boot-id": j.boot_id,
        "time": j.time,
        "decided": j.decided,
        "text": j.text,
    }
    return strings(words) | {"checks": Variant("aa{sv}", [_check(check) for check in j.checks])}


def _check(c: CheckReport) -> Dict:
    state = "unknown" if c.ok is None else "good" if c.ok else "bad"
    words = {"name": c.name, "state": state, "text": c.text, "time": c.time, "excused": c.excused}
    return strings(words) | {"required": Variant("b", c.required)}


def quarantined(q: Quarantined) -> Dict:
    words = {
        "manifest-hash": q.manifest_hash,
        "version": q.version,
        "reason": q.reason,
        "time": q.time,
        "boot-id": q.boot_id,
    }
    lists = {"failed-boots": q.failed_boots, "journal": q.journal}
    return strings(words) | {
        key: Variant("as", [text(line) for line in lines]) for key, lines in lists.items() if lines
    }


def poll_status(p: PollStatus) -> Dict:
    """The property Status of RAUC's Poller (src/polling.c); `manifest` and `bundle` are wrapped once."""
    known = {
        "attempt-count": u64(p.attempts),
        "recent-error-count": u64(p.recent_errors),
        "last-attempt-time": u64(p.last_attempt),
        "last-success-time": u64(p.last_success),
        "update-available": Variant("b", p.update_available),
    }
    known |= strings(
        {"last-error-message": p.last_error, "summary": p.summary, "attempted-hash": p.attempted_hash}
    )
    if p.manifest is not None:
        known["manifest"] = Variant("a{sv}", manifest(p.manifest))
        known["bundle"] = Variant("a{sv}", _polled_bundle(p))
    return known


def _polled_bundle(p: PollStatus) -> Dict:
    numbers = {"size": p.size, "modified-time": p.modified}
    return strings({"effective-url": place(p.effective_url), "etag": p.etag}) | {
        key: u64(value) for key, value in numbers.items() if value > 0
    }
