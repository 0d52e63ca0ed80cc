"""Inodes: what a name stands for, and where its content is described."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Literal

from updated.bundle.plan import Plan
from updated.bundle.squashfs.fault import invalid
from updated.bundle.squashfs.metadata import Cursor, Metadata, Table
from updated.bundle.squashfs.superblock import Superblock

Kind = Literal["directory", "file", "symlink", "block device", "character device", "fifo", "socket"]

# Basic types as directory entries name them; an extended inode has the same plus 7.
KINDS: dict[int, Kind] = {
    1: "directory",
    2: "file",
    3: "symlink",
    4: "block device",
    5: "character device",
    6: "fifo",
    7: "socket",
}
EXTENDED = 7
MAX_TARGET = 4096  # bytes of a symlink's target; Linux: PATH_MAX
NO_FRAGMENT = 0xFFFF_FFFF

_HEADER = struct.Struct("<4H2I")
_DIRECTORY = struct.Struct("<2I2HI")
_EXTENDED_DIRECTORY = struct.Struct("<4I2HI")
_FILE = struct.Struct("<4I")
_EXTENDED_FILE = struct.Struct("<3Q4I")
_SYMLINK = struct.Struct("<2I")


@dataclass(frozen=True, slots=True)
class Inode:
    """`size`: bytes of a file; of a directory its listing, of a symlink its target; 0 for the rest."""

    kind: Kind
    mode: int  # permission bits, with setuid, setgid and sticky
    mtime: int  # seconds since 1970
    number: int
    reference: int  # where the inode is: two names with the same are hard links
    size: int = 0
    target: str = ""  # of a symlink; bytes that are not UTF-8 as surrogates
    content: int = (
        0  # reference: listing of a directory (directory table), block words of a file (inode table)
    )
    start: int = 0  # payload offset of a file's first stored block
    fragment: int = NO_FRAGMENT  # index of the fragment block that holds a file's tail
    fragment_offset: int = 0  # bytes into the unpacked fragment block


def read_inode(metadata: Metadata, table: Table, superblock: Superblock, reference: int) -> Plan[Inode]:
    """The inode at `reference`; its block words and its listing are not read yet."""
    cursor = Cursor(metadata, table, reference)
    kind_id, mode, _uid, _gid, mtime, number = _HEADER.unpack((yield from cursor.read(_HEADER.size)))
    extended = kind_id > EXTENDED
    kind = KINDS.get(kind_id - EXTENDED if extended else kind_id)
    if kind is None:
        raise invalid(f"inode type: expected 1 to 14, got {kind_id}")
    if not 1 <= number <= superblock.inodes:
        raise invalid(f"inode number: expected 1 to {superblock.inodes}, got {number}")
    mode &= 0o7777
    if kind == "directory":
        size, content = yield from _directory(cursor, extended)
        return Inode(kind, mode, mtime, number, reference, size=size, content=content)
    if kind == "file":
        start, size, fragment, offset = yield from _file(cursor, extended)
        return Inode(
            *(kind, mode, mtime, number, reference),
            size=size,
            content=cursor.reference,
            start=start,
            fragment=fragment,
            fragment_offset=offset,
        )
    if kind == "symlink":
        target = yield from _target(cursor)
        return Inode(
            *(kind, mode, mtime, number, reference),
            size=len(target),
            target=target.decode("utf-8", "surrogateescape"),
        )
    return Inode(kind, mode, mtime, number, reference)


def _directory(cursor: Cursor, extended: bool) -> Plan[tuple[int, int]]:
    """Bytes of the listing, and where it is."""
    if extended:
        raw = yield from cursor.read(_EXTENDED_DIRECTORY.size)
        _links, size, block, _parent, _indexes, offset, _xattr = _EXTENDED_DIRECTORY.unpack(raw)
    else:
        raw = yield from cursor.read(_DIRECTORY.size)
        block, _links, size, offset, _parent = _DIRECTORY.unpack(raw)
    # The size counts 3 bytes for "." and "..", which are not stored.
    return max(size - 3, 0), block << 16 | offset


def _file(cursor: Cursor, extended: bool) -> Plan[tuple[int, int, int, int]]:
    if extended:
        raw = yield from cursor.read(_EXTENDED_FILE.size)
        start, size, _sparse, _links, fragment, offset, _xattr = _EXTENDED_FILE.unpack(raw)
    else:
        start, fragment, offset, size = _FILE.unpack((yield from cursor.read(_FILE.size)))
    return start, size, fragment, offset


def _target(cursor: Cursor) -> Plan[bytes]:
    _links, length = _SYMLINK.unpack((yield from cursor.read(_SYMLINK.size)))
    if not 1 <= length <= MAX_TARGET:
        raise invalid(f"symlink target: expected 1 to {MAX_TARGET} bytes, got {length}")
    target = yield from cursor.read(length)
    if b"\0" in target:
        raise invalid(f"symlink target: expected no NUL, got {target!r}")
    return target
