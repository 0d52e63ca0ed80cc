"""What all output formats share.  Pure: data in, text out.

The texts are RAUC's, byte for byte where that can be, since scripts read them (RAUC src/main.c,
GLib's `g_shell_quote` and `g_format_size_full`, json-glib's generator).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

BOLD = "\033[1m"
RED = "\033[31m"
GREEN = "\033[32m"
YELLOW = "\033[33m"
BLUE = "\033[34m"
NORMAL = "\033[0m"

_COLORS = (BOLD, RED, GREEN, YELLOW, BLUE, NORMAL)
_UNITS = ("kB", "MB", "GB", "TB", "PB", "EB")
_NO_BREAK_SPACE = "\u00a0"  # GLib puts it between number and unit


def plain(text: str) -> str:
    """`text` without our colors."""
    for color in _COLORS:
        text = text.replace(color, "")
    return text


def printable(text: str | None) -> str:
    """`text` for a terminal: what could move the cursor or forge a line is shown as `\\x1b`.

    None is `(null)`, as C prints it.
    """
    if text is None:
        return "(null)"
    return "".join(c if c.isprintable() or c in "\u00a0\u3000" else f"\\x{ord(c):02x}" for c in text)


def lines(text: str) -> str:
    """Like `printable`, but lines stay lines."""
    return "\n".join(printable(line.replace("\t", " ")) for line in text.split("\n"))


def shell_quote(text: str) -> str:
    """Quote for a POSIX shell as `g_shell_quote` does: always, with single quotes."""
    return "'" + text.replace("'", "'\\''") + "'"


def shell(variables: Iterable[tuple[str, str | int | None]]) -> str:
    """`NAME='value'` lines; None is an empty value."""
    return "\n".join(
        f"{name}={shell_quote('' if value is None else str(value))}" for name, value in variables
    )


def json_text(data: object, *, pretty: bool) -> str:
    """JSON as json-glib writes it: one line without blanks, or indented by two with ` : ` after keys."""
    if pretty:
        text = json.dumps(data, ensure_ascii=False, indent=2, separators=(",", " : "))
    else:
        text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return text.replace("\x7f", "\\u007f")


def size(count: int) -> str:
    """`1048576` -> `1.0 MB (1048576 bytes)`, with decimal units and a no-break space."""
    if count < 1000:
        return "1 byte" if count == 1 else f"{count} bytes"
    power = min((len(str(count)) - 1) // 3, len(_UNITS))
    return f"{count / 1000**power:.1f}{_NO_BREAK_SPACE}{_UNITS[power - 1]} ({count} bytes)"


def env_key(name: str) -> str | None:
    """`name` as a part of a variable's name, None if it cannot be one (RAUC src/utils.c)."""
    key = name.upper().replace("-", "_")
    return key if all(c == "_" or (c.isascii() and c.isalnum()) for c in key) else None


def without_none(pairs: Mapping[str, object]) -> dict[str, object]:
    """Only the keys that have a value."""
    return {key: value for key, value in pairs.items() if value is not None}
