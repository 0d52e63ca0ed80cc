"""Directory listings: headers, each followed by up to 256 entries with names in ascending order."""

from __future__ import annotations

import struct
from typing import NamedTuple

from updated.bundle.squashfs.fault import invalid
from updated.bundle.squashfs.inodes import KINDS, Kind

MAX_ENTRIES = 1 << 16  # of one directory, and of one walk; a root file system has some ten thousand
MAX_LISTING = 4 << 20  # bytes of one listing: MAX_ENTRIES names of 56 bytes
MAX_RUN = 256  # entries after a header
MAX_NAME = 255  # bytes; Linux: NAME_MAX

_HEADER = struct.Struct("<3I")
_ENTRY = struct.Struct("<HhHH")


class Entry(NamedTuple):
    """A name and what it stands for."""

    name: str  # bytes that are not UTF-8 as surrogates
    kind: Kind
    reference: int  # of the inode


def parse_listing(data: bytes) -> list[Entry]:
    """The entries of a whole listing; raises BundleError."""
    entries: list[Entry] = []
    last = b""
    at = 0
    while at < len(data):
        if at + _HEADER.size > len(data):
            raise invalid(f"directory: expected a header of {_HEADER.size} bytes, got {len(data) - at}")
        count, block, _number = _HEADER.unpack_from(data, at)
        count += 1
        at += _HEADER.size
        if count > MAX_RUN:
            raise invalid(f"directory header: expected 1 to {MAX_RUN} entries, got {count}")
        if len(entries) + count > MAX_ENTRIES:
            raise invalid(f"directory: expected at most {MAX_ENTRIES} entries, got more")
        for _ in range(count):
            name, kind_id, offset = _entry(data, at)
            at += _ENTRY.size + len(name)
            # Linux relies on the order; it also keeps duplicates out.
            if name <= last:
                raise invalid(f"directory: expected a name after {last!r}, got {name!r}")
            last = name
            if kind_id not in KINDS:
                raise invalid(f"type of {name!r}: expected 1 to 7, got {kind_id}")
            entries.append(
                Entry(name.decode("utf-8", "surrogateescape"), KINDS[kind_id], block << 16 | offset)
            )
    return entries


def _entry(data: bytes, at: int) -> tuple[bytes, int, int]:
    start = at + _ENTRY.size
    if start > len(data):
        raise invalid(f"directory entry: expected {_ENTRY.size} bytes, got {len(data) - at}")
    offset, _delta, kind_id, length = _ENTRY.unpack_from(data, at)
    length += 1
    name = data[start : start + length]
    if len(name) != length or length > MAX_NAME:
        raise invalid(
            f"directory entry: expected a name of at most {min(MAX_NAME, len(name))} bytes, got {length}"
        )
    if name in (b".", b"..") or b"/" in name or b"\0" in name:
        raise invalid(f"directory entry: expected a plain name, got {name!r}")
    return name, kind_id, offset
