"""Putting a bundle into a channel index, and signing the index (its format: sources/index.py)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from updated.authoring.signing import digest_algorithm, sign
from updated.core.model import TIMESTAMP
from updated.durable import write_durably
from updated.errors import ConfigError, DeviceError, SourceError
from updated.sources.index import MAX_INDEX, DeviceFacts, bundle_url, choose, read_index

NOWHERE: Final = "https://example.com/manifest.json"  # a relative URL is as good as what it is relative to


@dataclass(frozen=True, slots=True)
class Release:
    """A bundle, as an index describes it."""

    version: str
    compatible: str
    url: str  # absolute, or relative to the index
    sha256: str  # of the whole file, lower-case hex
    size: int  # bytes
    release_notes: str = ""  # URL


def add(
    old: bytes | None,
    release: Release,
    *,
    channel: str,
    now: datetime,
    percent: float | None = None,
    expires: datetime | None = None,
) -> bytes:
    """The index with `release` in `channel`; everything else in `old` stays.

    With `percent` it is for that part of all devices, and the others get what was there before; without, it
    takes the place of whatever was there for the same kind of device.  `counter` becomes greater than any
    before, also if the old index is lost: it is at least the time.
    Times have a time zone.  Raises SourceError if the old or the new index is malformed.
    """
    document = _read(old, now)
    channels = document["channels"]
    before = channels.get(channel, [])
    entries = before if isinstance(before, list) else [before]
    new = [_entry(release, percent), *(each for each in entries if _stays(each, release, percent))]
    document["channels"] = {**channels, channel: new[0] if len(new) == 1 else new}
    if channel == "stable" or "latest" not in document:
        document["latest"] = release.version
    document["counter"] = max(document.get("counter", 0) + 1, int(now.timestamp()))
    document["issued"] = _written(now)
    document.pop("expires", None)
    if expires is not None:
        document["expires"] = _written(expires)
    body = json.dumps(document, indent=2).encode() + b"\n"
    _check(body, release, channel, now)
    return body


def write(
    path: Path,
    body: bytes,
    *,
    certificate: bytes,
    key: bytes,
    passphrase: bytes | None,
    intermediates: list[bytes],
    now: datetime,
) -> Path:
    """Write the index and its signature, each as a whole; returns where the signature is.

    `certificate`, `key` and `intermediates` are PEM.  Blocks.  Raises SignatureError, DeviceError.
    """
    signature = sign(
        digest=hashlib.new(digest_algorithm(certificate), body).digest(),
        certificate_pem=certificate,
        key_pem=key,
        passphrase=passphrase,
        intermediates_pem=intermediates,
        signing_time=now,
    )
    beside = path.with_name(f"{path.name}.p7s")
    for file, data in ((beside, signature), (path, body)):
        try:
            write_durably(file, data)
        except OSError as error:
            raise DeviceError(f"Failed to write {file}: {error.strerror}") from error
    return beside


def read_old(path: Path) -> bytes | None:
    """None: there is no index yet.  Blocks.  Raises ConfigError."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_INDEX + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"Failed to read {path}: {error.strerror}") from error


def _read(old: bytes | None, now: datetime) -> dict[str, Any]:
    if old is None:
        return {"channels": {}}
    index = read_index(old)
    if index.issued is not None and index.issued > now:
        raise ConfigError(
            f"the index was issued at {index.issued.isoformat()}, after now ({now.isoformat()})",
            hint="Devices refuse an index that is older than the last one: set the clock.",
        )
    document: dict[str, Any] = json.loads(old)
    return document


def _entry(release: Release, percent: float | None) -> Mapping[str, Any]:
    notes = {"release_notes": release.release_notes} if release.release_notes else {}
    staged = {"rollout": {"percent": percent}} if percent is not None else {}
    return {
        "version": release.version,
        "compatible": release.compatible,
        "bundle_url": release.url,
        "bundle_sha256": release.sha256,
        "bundle_size": release.size,
        **notes,
        **staged,
    }


def _stays(entry: object, release: Release, percent: float | None) -> bool:
    """Entries for other kinds of devices do, and during a rollout what was there before it."""
    if not isinstance(entry, dict) or entry.get("compatible") != release.compatible:
        return True
    return percent is not None and entry.get("version") != release.version


def _check(body: bytes, release: Release, channel: str, now: datetime) -> None:
    """Nothing is published that devices would refuse."""
    if len(body) > MAX_INDEX:
        raise SourceError(f"the index has {len(body)} bytes, expected at most {MAX_INDEX}")
    choose(read_index(body), channel, DeviceFacts(release.compatible, "", "", ""), now)
    bundle_url(release.url, NOWHERE)


def _written(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime(TIMESTAMP)
