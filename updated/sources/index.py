"""The channel index: a JSON document that names the current bundle of each channel.

    {"latest": "1.3.0",
     "channels": {"stable": {"version": "1.3.0", "compatible": "board", "bundle_url": "1.3.0/board.raucb",
                             "bundle_sha256": "...", "bundle_size": 524288000, "release_notes": "https://..."}}}

An entry may also be a list of entries: the first that applies to a device is the one for it.  Keys that are
not known here are ignored; those that are must have the right type.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import urljoin, urlsplit

import msgspec
from msgspec import Meta

from updated.core.polling import DIFFERENT, HIGHER, NO_CANDIDATE
from updated.core.rollout import Rollout, why_not
from updated.core.version import Version, VersionError, parse
from updated.errors import SourceError

MAX_INDEX: Final = 256 * 1024  # bytes; one of a hundred channels has 50 KB; hostile JSON swells
MAX_NAMES: Final = 20  # channels that an error names, reasons that are told
MAX_TEXT: Final = 4096  # characters of one text

T = TypeVar("T")
Text = Annotated[str, Meta(min_length=1, max_length=MAX_TEXT)]
Moment = Annotated[datetime, Meta(tz=True)]  # RFC 3339
Percent = Annotated[float, Meta(ge=0, le=100)]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Size = Annotated[int, Meta(ge=1, le=2**63 - 1)]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-fA-F]{64}\Z")]


class Staged(msgspec.Struct, frozen=True):
    """`rollout`: only a part of the devices, or only from some time on."""

    percent: Percent = 100.0
    start: Moment | None = None


class Versions(msgspec.Struct, frozen=True):
    """`from_versions`: only for devices that run a version between these two, they included."""

    min: Text | None = None
    max: Text | None = None


class Entry(msgspec.Struct, frozen=True):
    """A bundle."""

    version: Text
    compatible: Text
    bundle_url: Text  # absolute, or relative to where the index came from
    bundle_sha256: Sha256 | None = None  # of the whole file
    bundle_size: Size | None = None  # bytes
    release_notes: str | None = None
    rollout: Staged | None = None
    architectures: Annotated[tuple[Text, ...], Meta(max_length=100)] | None = None  # as `uname -m`
    from_versions: Versions | None = None


class Index(msgspec.Struct, frozen=True):
    """The whole document."""

    channels: dict[str, Any]  # other channels may be of another shape
    latest: str | None = None
    issued: Moment | None = None  # when it was made
    expires: Moment | None = None  # when there should have been a newer one
    counter: Count | None = None  # greater in each index


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """What an index is compared with."""

    compatible: str
    version: str  # that runs; "" if nothing is known
    machine_id: str  # "" if there is none
    architecture: str  # as `uname -m`


@dataclass(frozen=True, slots=True)
class Choice:
    """What an index has for a device."""

    entry: Entry | None
    reasons: tuple[str, ...]  # why not the others that are above what runs
    summary: str  # RAUC's words


def read_index(body: bytes) -> Index:
    """Decode it.  Raises SourceError that says which key is wrong, and how."""
    try:
        text = body.decode()
        document = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise _not_json(f"it is not UTF-8 (byte {error.start})", body) from error
    except RecursionError as error:
        raise _not_json("it is nested too deeply", body) from error
    except ValueError as error:  # also an integer of thousands of digits
        raise _not_json(str(error).partition(";")[0], body) from error
    return _converted(document, Index, "")


def choose(index: Index, channel: str, device: DeviceFacts, now: datetime) -> Choice:
    """The entry of `channel` for this device.

    Raises SourceError if there is no such channel, its entry is malformed, or all is for other devices.
    """
    entries = _entries(index, channel)
    ours = [entry for entry in entries if entry.compatible == device.compatible]
    if entries and not ours:
        raise SourceError(
            f"channel {channel!r} of the index is for {_names(entry.compatible for entry in entries)}, "
            f"expected {device.compatible!r}",
            hint="Does [ota] of updated.toml name the right index and channel?",
        )
    reasons: list[str] = []
    for entry in ours:
        if not _is_above(entry.version, device.version):
            continue
        reason = _why_not(entry, device, now)
        if not reason:
            summary = DIFFERENT if _version(device.version) is None else HIGHER
            return Choice(entry, _some(reasons), summary)
        reasons.append(f"Version {entry.version[:100]!r} is not for this device: {reason[:500]}")
    return Choice(None, _some(reasons), NO_CANDIDATE)


def _some(reasons: Sequence[str]) -> tuple[str, ...]:
    """Each is a line of the log, and an index has room for thousands."""
    more = len(reasons) - MAX_NAMES
    return (*reasons[:MAX_NAMES], *((f"{more} more versions are not for this device",) if more > 0 else ()))


def bundle_url(written: str, base: str) -> str:
    """Where the bundle is; `base`: the URL the index came from.  Raises SourceError."""
    if not written.isprintable() or " " in written:
        raise SourceError(f"bundle_url of the index is {written[:200]!r}, expected a URL without blanks")
    try:
        url = urljoin(base, written)
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise SourceError(
            f"bundle_url of the index is {written[:200]!r}, expected http://, https:// or a relative URL"
        )
    return url


def _entries(index: Index, channel: str) -> Sequence[Entry]:
    if channel not in index.channels:
        raise SourceError(
            f"the index has no channel {channel!r}, it has {_names(index.channels)}",
            hint="`channel` in [ota] of updated.toml names the one to follow.",
        )
    found, path = index.channels[channel], f"channels.{channel}"
    if isinstance(found, list):
        entries = [_converted(one, Entry, f"{path}[{number}]") for number, one in enumerate(found)]
    else:
        entries = [_converted(found, Entry, path)]
    for entry in entries:
        _check(entry, path)
    return entries


def _check(entry: Entry, path: str) -> None:
    """What types cannot say."""
    versions = entry.from_versions or Versions()
    written = {"version": entry.version, "min": versions.min, "max": versions.max}
    for key, version in written.items():
        if version is None:
            continue
        if not version.isprintable():
            raise SourceError(f"{key} of {path} in the index is {version[:200]!r}, expected printable text")
        try:
            parse(version)
        except VersionError as error:
            raise SourceError(f"{key} of {path} in the index: {error}") from error


def _why_not(entry: Entry, device: DeviceFacts, now: datetime) -> str:
    """ "": it is for this device."""
    if entry.architectures is not None and device.architecture not in entry.architectures:
        return f"it is for {_names(entry.architectures)}, this is {device.architecture!r}"
    if entry.from_versions is not None and not _is_within(device.version, entry.from_versions):
        low, high = entry.from_versions.min or "any", entry.from_versions.max or "any"
        return f"it is for devices that run {low!r} to {high!r}, this one runs {device.version!r}"
    if entry.rollout is None:
        return ""
    staged = Rollout(entry.rollout.percent, entry.rollout.start)
    return why_not(staged, device.machine_id, entry.version, now)


def _is_above(version: str, running: str) -> bool:
    """A running version that cannot be compared is below all, unless it is the very same."""
    now = _version(running)
    return version != running if now is None else parse(version) > now


def _is_within(running: str, versions: Versions) -> bool:
    now = _version(running)
    if now is None:
        return False
    low, high = _version(versions.min or ""), _version(versions.max or "")
    return (low is None or low <= now) and (high is None or now <= high)


def _version(text: str) -> Version | None:
    try:
        return parse(text) if text else None
    except VersionError:
        return None


def _unique(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key {key[:100]!r} is there twice")
            seen.add(key)
    return found


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is no number in JSON")


def _not_json(reason: str, body: bytes) -> SourceError:
    start = body.lstrip()[:1]
    hint = "Is that a login page? The URL must lead to the index itself." if start == b"<" else ""
    return SourceError(f"the index is no JSON: {reason}", hint=hint)


def _converted(value: object, kind: type[T], path: str) -> T:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise SourceError(f"the index is malformed: {_readable(str(error), path)}") from error


def _readable(message: str, path: str) -> str:
    """msgspec's "Expected `int`, got `str` - at `$.counter`" with the key first."""
    reason, _, place = message.partition(" - at `$")
    key = path + place.rstrip("`")
    return f"{key.lstrip('.')}: {reason}" if key else reason


def _names(names: Iterator[str] | Sequence[str] | Mapping[str, Any]) -> str:
    different = [repr(name[:100]) for name in dict.fromkeys(names)]
    more = f" and {len(different) - MAX_NAMES} more" if len(different) > MAX_NAMES else ""
    return (", ".join(different[:MAX_NAMES]) or "none") + more
