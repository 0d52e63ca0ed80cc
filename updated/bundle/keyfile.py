"""GLib's key files (GKeyFile, flags NONE): manifests, system.conf and slot status are written in it.

Grammar and error texts: GLib 2.74, gkeyfile.c.  A stock INI parser differs in almost every rule: duplicate
groups merge, duplicate keys stay visible, trailing blanks count, nothing but `#` starts a comment.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from updated.errors import UpdatedError

T = TypeVar("T")

BLANKS = b" \t\f\r"  # what GLib skips; \v is not among them
UINT64_MAX = 2**64 - 1
INT32_MAX = 2**31 - 1

_GROUP = re.compile(rb"\[([^\]]*)\][ \t]*")
_GROUP_NAME = re.compile(r"[^\[\]\x00-\x1f\x7f]+")
_KEY_NAME = re.compile(r"[^=\[\]]*[^=\[\] ](\[[\w.@-]*\])?")
_NUMBER = re.compile(rb"[ \t\f\r\n]*([+-]?)([0-9]+)")
_ESCAPE = re.compile(r"\\(.?)", re.DOTALL)
_TOKEN = re.compile(r"[^\\;]+|;|\\.?", re.DOTALL)
_ESCAPES = {"s": " ", "n": "\n", "t": "\t", "r": "\r", "\\": "\\"}
_LIST_ESCAPES = {**_ESCAPES, ";": ";"}


class KeyFileError(UpdatedError):
    """A key file is malformed; the caller says which file that makes bad.  `line` counts from 1, 0: none."""

    def __init__(self, message: str, *, line: int = 0, hint: str = "") -> None:
        super().__init__(message, hint=hint or (f"See line {line}." if line else ""))
        self.line = line


class KeyNotFoundError(KeyFileError):
    """The group has no such key."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One `key=value` line; `raw` is the value with its escapes, not yet known to be UTF-8."""

    key: str
    raw: bytes
    line: int


@dataclass(frozen=True, slots=True)
class Group:
    """All entries of a group, in file order, a repeated key once for each line."""

    name: str
    entries: tuple[Entry, ...]
    line: int

    def find(self, key: str) -> Entry | None:
        """The entry that counts: the last one."""
        return next((entry for entry in reversed(self.entries) if entry.key == key), None)

    def __contains__(self, key: str) -> bool:
        return self.find(key) is not None

    def get_string(self, key: str) -> str:
        """The value without its escapes; an unknown escape is taken literally, as RAUC does.

        Raises KeyNotFoundError, or KeyFileError if the value is not UTF-8.
        """
        return _ESCAPE.sub(_unescape, self._text(key))

    def get_list(self, key: str) -> tuple[str, ...]:
        """Items separated (or ended) by `;`; blanks and empty items are kept.

        Raises KeyNotFoundError, or KeyFileError for a value that is not UTF-8 or has an unknown escape.
        """
        items: list[str] = []
        item = ""
        for token in _TOKEN.findall(self._text(key)):
            if token == ";":
                items.append(item)
                item = ""
            elif token[0] != "\\":
                item += token
            elif token[1:] in _LIST_ESCAPES:
                item += _LIST_ESCAPES[token[1:]]
            else:
                raise self._uninterpretable(key)
        return (*items, item) if item else tuple(items)

    def get_uint64(self, key: str) -> int:
        """An unsigned decimal; `-1` is 2^64-1 and too large numbers saturate there, as in GLib.

        Raises KeyNotFoundError, or KeyFileError for anything else.
        """
        entry = self.entry(key)
        found = _NUMBER.fullmatch(entry.raw)
        if found is None:
            text = entry.raw.decode(errors="replace")
            raise self._error(
                key, f"Key “{key}” in group “{self.name}” has value “{text}” where uint64 was expected"
            )
        digits = found[2].lstrip(b"0") or b"0"
        if len(digits) > 20 or int(digits) > UINT64_MAX:
            return UINT64_MAX
        value = int(digits)
        return -value % 2**64 if found[1] == b"-" else value

    def get_integer(self, key: str) -> int:
        """A signed 32-bit decimal.  Raises KeyNotFoundError, or KeyFileError for anything else."""
        entry = self.entry(key)
        found = _NUMBER.fullmatch(entry.raw.rstrip(BLANKS))
        if found is None or len(found[2].lstrip(b"0")) > 10:
            raise self._uninterpretable(key, f" in group “{self.name}”")
        value = -int(found[2]) if found[1] == b"-" else int(found[2])
        if not -INT32_MAX - 1 <= value <= INT32_MAX:
            raise self._uninterpretable(key, f" in group “{self.name}”")
        return value

    def get_boolean(self, key: str) -> bool:
        """`true`, `1`, `false` or `0`.  Raises KeyNotFoundError, or KeyFileError for anything else."""
        value = self.entry(key).raw.rstrip(BLANKS)
        if value not in (b"true", b"1", b"false", b"0"):
            raise self._uninterpretable(key)
        return value in (b"true", b"1")

    def entry(self, key: str) -> Entry:
        """Like `find`, but raises KeyNotFoundError."""
        entry = self.find(key)
        if entry is None:
            raise KeyNotFoundError(f"Key file does not have key “{key}” in group “{self.name}”")
        return entry

    def _text(self, key: str) -> str:
        raw = self.entry(key).raw
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            text = raw.decode(errors="replace")
            raise self._error(
                key, f"Key file contains key “{key}” with value “{text}” which is not UTF-8"
            ) from error

    def _error(self, key: str, message: str) -> KeyFileError:
        return KeyFileError(message, line=self.entry(key).line)

    def _uninterpretable(self, key: str, where: str = "") -> KeyFileError:
        return self._error(
            key, f"Key file contains key “{key}”{where} which has a value that cannot be interpreted."
        )


@dataclass(frozen=True, slots=True)
class KeyFile:
    """The groups of a key file in order of first appearance, each name once."""

    groups: tuple[Group, ...]

    def group(self, name: str) -> Group | None:
        return next((group for group in self.groups if group.name == name), None)


class Consumer:
    """Takes known keys out of a group, so that `finish` can refuse what is left (RAUC's strictness)."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self._left = list(group.entries)
        self._known: list[str] = []

    def string(self, key: str) -> str:
        """A value that must be there and not be empty.  Raises KeyFileError."""
        value = self._take(key, self.group.get_string)
        if not value:
            raise KeyFileError(f"Missing value for key '{key}'", line=self.group.entry(key).line)
        return value

    def optional_string(self, key: str) -> str | None:
        """None if the key is absent or empty.  Raises KeyFileError if the value is not UTF-8."""
        return self._optional(key, self.group.get_string) or None

    def optional_list(self, key: str) -> tuple[str, ...] | None:
        """None if the key is absent or its escapes are wrong (RAUC ignores that error)."""
        try:
            return self._optional(key, self.group.get_list)
        except KeyFileError:
            return None

    def optional_uint64(self, key: str) -> int | None:
        return self._optional(key, self.group.get_uint64)

    def optional_integer(self, key: str) -> int | None:
        return self._optional(key, self.group.get_integer)

    def optional_boolean(self, key: str) -> bool | None:
        return self._optional(key, self.group.get_boolean)

    def ignore(self, key: str) -> None:
        """Accept `key` without looking at its value."""
        self._optional(key, self.group.entry)

    @property
    def left(self) -> tuple[Entry, ...]:
        """What nobody has taken; a repeated key leaves all but its last entry here."""
        return tuple(self._left)

    def finish(self) -> None:
        """Raises KeyFileError for the first entry that nobody took, with the nearest known key as a hint."""
        for entry in self._left:
            raise KeyFileError(
                f"Invalid key '{entry.key}' in group '[{self.group.name}]'",
                line=entry.line,
                hint=self._hint(entry.key),
            )

    def _hint(self, key: str) -> str:
        if key not in self._known:
            return suggest(key, self._known)
        repeated = sum(entry.key == key for entry in self.group.entries) > 1
        return "The key is there more than once." if repeated else "Its value cannot be read."

    def _optional(self, key: str, get: Callable[[str], T]) -> T | None:
        try:
            return self._take(key, get)
        except KeyNotFoundError:
            return None

    def _take(self, key: str, get: Callable[[str], T]) -> T:
        self._known.append(key)
        value = get(key)
        entry = self.group.entry(key)
        self._left = [left for left in self._left if left is not entry]
        return value


def suggest(name: str, known: Iterable[str]) -> str:
    """A hint "Did you mean 'x'?", or "" if nothing known is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"Did you mean '{near[0]}'?" if near else ""


def parse(data: bytes) -> KeyFile:
    """Read a key file.  Linear in time and memory.  Raises KeyFileError with GLib's text and the line."""
    groups: dict[str, tuple[int, list[Entry]]] = {}
    entries: list[Entry] | None = None
    first: list[Entry] | None = None
    lines = data.split(b"\n")
    for number, piece in enumerate(lines, 1):
        complete = piece[:-1] if piece.endswith(b"\r") and number < len(lines) else piece
        whole = complete.partition(b"\0")[0]
        line = whole.lstrip(BLANKS)
        if not line or line.startswith(b"#"):
            continue
        if header := _GROUP.fullmatch(line):
            name = _group_name(header[1], number)
            entries = groups.setdefault(name, (number, []))[1]
            first = entries if first is None else first
            continue
        if line.find(b"=") < 1:
            text = whole.decode(errors="replace")
            message = f"Key file contains line “{text}” which is not a key-value pair, group, or comment"
            raise KeyFileError(message, line=number)
        if entries is None:
            raise KeyFileError("Key file does not start with a group", line=number)
        entry = _entry(line, number, in_first=entries is first)
        if entry is not None:
            entries.append(entry)
    return KeyFile(tuple(Group(name, tuple(found), line) for name, (line, found) in groups.items()))


def _group_name(raw: bytes, line: int) -> str:
    name = raw.decode(errors="replace")
    if not _GROUP_NAME.fullmatch(name):
        raise KeyFileError(f"Invalid group name: {name}", line=line)
    return name


def _entry(line: bytes, number: int, *, in_first: bool) -> Entry | None:
    """The entry of a `key=value` line; None for a translation."""
    raw_key, _, raw = line.partition(b"=")
    key = raw_key.rstrip(BLANKS).decode(errors="replace")
    if not _KEY_NAME.fullmatch(key):
        raise KeyFileError(f"Invalid key name: {key}", line=number)
    value = raw.lstrip(BLANKS)
    if in_first and key == "Encoding" and value.upper() != b"UTF-8":
        text = value.decode(errors="replace")
        raise KeyFileError(f"Key file contains unsupported encoding “{text}”", line=number)
    if key.endswith("]") and not key.endswith("[]"):
        return None
    return Entry(key, value, number)


def _unescape(escape: re.Match[str]) -> str:
    return _ESCAPES.get(escape[1], escape[0] if escape[1] else "")


Value = str | bytes | bool | int | Sequence[str]
"""What `render` writes: bytes are a raw value (escapes included), a sequence of strings is a list."""


def render(groups: Iterable[tuple[str, Iterable[tuple[str, Value]]]]) -> bytes:
    """The bytes that g_key_file_to_data writes for these groups: one empty line between groups."""
    texts = []
    for name, entries in groups:
        lines = [
            f"[{name}]\n".encode(),
            *(key.encode() + b"=" + _raw(value) + b"\n" for key, value in entries),
        ]
        texts.append(b"".join(lines))
    return b"\n".join(texts)


def _raw(value: Value) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, bool):
        return b"true" if value else b"false"
    if isinstance(value, int):
        return b"%d" % value
    if isinstance(value, str):
        return _escape(value, separator="").encode()
    return "".join(_escape(item, separator=";") + ";" for item in value).encode()


def _escape(text: str, *, separator: str) -> str:
    """Escapes as g_key_file_parse_string_as_value: blanks only where a reader would drop them."""
    out = []
    leading = True
    for character in text:
        if character in " \t" and leading:
            out.append({" ": "\\s", "\t": "\\t"}[character])
            continue
        if character == separator:
            out.append("\\" + character)
            leading = True
            continue
        leading = leading and character in "\n\r"
        out.append({"\n": "\\n", "\r": "\\r", "\\": "\\\\"}.get(character, character))
    return "".join(out)
