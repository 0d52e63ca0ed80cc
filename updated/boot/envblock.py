"""GRUB's environment block (grubenv): bytes to variables and back.  No I/O.

A signature line, then lines: `name=value`, or a comment from `#` on; the rest of the block is filled with
`#`.  In a value, a line feed and a backslash stand behind a backslash.  The size of the block never changes:
GRUB writes it in place, sector by sector, without a file system driver.
Source: GRUB manual, "Environment block"; grub-core/lib/envblk.c.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from updated.errors import DeviceError

SIGNATURE = b"# GRUB Environment Block\n"
NEW_BLOCK = "Nothing was changed. Make a new one with `grub-editenv FILE create`, then mark a slot active."
MAX_SIZE = 65536  # bytes; grub-editenv makes 1024, larger ones are made by hand

_LINE = re.compile(rb"(?:[^\\\n]|\\.)*+\n", re.DOTALL)
_VARIABLE = re.compile(rb"([^=\\\n#][^=\\\n]*)=(.*)\n", re.DOTALL)
_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class EnvBlock:
    """A parsed block.  `lines` are raw, each with its line feed, comments and foreign variables included."""

    size: int  # bytes
    lines: tuple[bytes, ...]

    def get(self, name: str) -> str | None:
        """The value of a variable, None if it is not set."""
        key = name.encode()
        for line in self.lines:
            found = _VARIABLE.fullmatch(line)
            if found and found[1] == key:
                return _ESCAPE.sub(rb"\1", found[2]).decode(errors="surrogateescape")
        return None

    def replace(self, changes: Mapping[str, str]) -> EnvBlock:
        """The block with other values; all other lines stay as they are, where they are."""
        left = {name.encode(): _line(name, value) for name, value in changes.items()}
        lines = []
        for line in self.lines:
            found = _VARIABLE.fullmatch(line)
            lines.append(left.pop(found[1], line) if found else line)
        return EnvBlock(self.size, (*lines, *left.values()))

    def render(self) -> bytes:
        """Exactly `size` bytes.  Raises DeviceError if the variables do not fit."""
        text = SIGNATURE + b"".join(self.lines)
        if len(text) > self.size:
            raise DeviceError(
                f"GRUB environment block too small: {len(text)} bytes needed, {self.size} available",
                hint="Remove variables that nobody needs with `grub-editenv FILE unset NAME`.",
            )
        return text.ljust(self.size, b"#")


def parse(data: bytes) -> EnvBlock:
    """Read a block, strictly: what a power cut or a text editor left behind is refused, never repaired.

    Linear in time and memory.  Raises DeviceError.
    """
    if not data.startswith(SIGNATURE):
        raise _bad(_wrong_start(data))
    if b"\0" in data:
        raise _bad(f"zero byte at {data.index(0)}")
    text = data[len(SIGNATURE) :].rstrip(b"#")
    lines = []
    names = set()
    position = 0
    while position < len(text):
        ended = _LINE.match(text, position)
        if ended is None:
            raise _bad("the last line is cut short")
        lines.append(ended[0])
        position = ended.end()
        if ended[0].startswith(b"#"):
            continue
        found = _VARIABLE.fullmatch(ended[0])
        if found is None:
            raise _bad(f"line {ended[0].decode(errors='replace')!r} is not name=value")
        if found[1] in names:
            raise _bad(f"variable {found[1].decode(errors='replace')} is there twice")
        names.add(found[1])
    return EnvBlock(len(data), tuple(lines))


def _line(name: str, value: str) -> bytes:
    escaped = re.sub(rb"([\\\n])", rb"\\\1", value.encode(errors="surrogateescape"))
    return name.encode() + b"=" + escaped + b"\n"


def _wrong_start(data: bytes) -> str:
    if not data:
        return "it is empty"
    return f"it does not start with {SIGNATURE.decode().strip()!r} but with {data[:24]!r}"


def _bad(reason: str) -> DeviceError:
    return DeviceError(
        f"Not a valid GRUB environment block: {reason}",
        hint=NEW_BLOCK,
    )
