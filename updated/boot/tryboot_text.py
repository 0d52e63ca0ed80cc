"""The Raspberry Pi firmware's autoboot.txt and config.txt: bytes to settings and back.  No I/O.

Lines of `key=value` without blanks around the `=`; a comment begins with `#` at the start of a line.  A
filter in brackets holds for the lines below it, `[all]` ends all of them, and filters of different kinds add
up.  Of two lines for one key that apply the later counts.  autoboot.txt may have 512 bytes.
Source: Raspberry Pi documentation, "autoboot.txt" and "Conditional filters".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from updated.errors import DeviceError

MAX_SIZE: Final = 512  # bytes that the firmware reads of autoboot.txt
FULL_SIZE: Final = 480  # bytes that we make it long: room for what we add, and clear of the limit
MARK: Final = "# updated: on trial"
"""The comment that tells a trial that is prepared from another system that is merely there."""

NORMAL: Final[frozenset[str]] = frozenset()
TRIAL: Final = frozenset({"tryboot"})

_FILTER = re.compile(r"\s*\[([^\]]*)\]\s*")
_NUMBER = re.compile(r"[1-9][0-9]{0,2}")


@dataclass(frozen=True, slots=True)
class Setting:
    """A line `key=value`."""

    line: int  # from 0
    filters: frozenset[str]  # that hold for it; none: it always applies
    value: str


def split(data: bytes, name: str) -> tuple[str, ...]:
    """Lines without their line feeds.  Raises DeviceError for what is no text (a power cut, a dying card)."""
    if b"\0" in data:
        raise _bad(name, f"zero byte at {data.index(0)}")
    return tuple(data.decode(errors="surrogateescape").split("\n"))


def join(lines: Sequence[str]) -> bytes:
    return "\n".join(lines).encode(errors="surrogateescape")


def find(lines: Sequence[str], key: str, name: str) -> list[Setting]:
    """All settings of `key`, strictly: a line that the firmware may take in another way is refused."""
    found = []
    for number, filters, line in _filtered(lines):
        if re.match(rf"\s*{re.escape(key)}\b", line) is None:
            continue
        if not line.startswith(f"{key}="):
            raise _bad(name, f"line {line.strip()!r} is not {key}=value")
        found.append(Setting(number, filters, line.partition("=")[2].rstrip()))
    return found


def single(lines: Sequence[str], key: str, name: str) -> Setting | None:
    """The one setting of `key`, which has to apply always; None if there is none.  Raises DeviceError."""
    found = find(lines, key, name)
    if len(found) > 1 or (found and found[0].filters != NORMAL):
        raise _bad(name, f"{key}= has to be there once, and below no filter but [all]")
    return found[0] if found else None


def with_value(lines: Sequence[str], setting: Setting, key: str, value: str) -> tuple[str, ...]:
    """The same lines with another value; a carriage return stays."""
    ending = "\r" if lines[setting.line].endswith("\r") else ""
    return (*lines[: setting.line], f"{key}={value}{ending}", *lines[setting.line + 1 :])


@dataclass(frozen=True, slots=True)
class Autoboot:
    """A parsed autoboot.txt."""

    lines: tuple[str, ...]  # all of them, what we do not know included; the last one is empty
    normal: int  # partition that is started
    trial: int | None  # partition that is started with the tryboot flag; None: the same
    pending: bool  # the trial is what is wanted next
    whole_partition: bool  # tryboot_a_b=1: that partition's config.txt counts, not its tryboot.txt

    def selecting(self, normal: int, trial: int, *, pending: bool) -> Autoboot:
        """The same file with other partitions; every other line stays as it is, where it is."""
        lines = tuple(line for line in self.lines if line.rstrip() != MARK)
        for setting in find(lines, "boot_partition", "autoboot.txt"):
            value = trial if setting.filters == TRIAL else normal
            lines = with_value(lines, setting, "boot_partition", str(value))
        if self.trial is None and trial != normal:
            lines = (*_without_blank_end(lines), "[all]", "[tryboot]", f"boot_partition={trial}")
        marked = (*_without_blank_end(lines), MARK) if pending else lines
        return _parsed(marked)

    def render(self, size: int) -> bytes:
        """At least `size` bytes, filled up with line feeds.  Raises DeviceError if it gets too long."""
        text = join(self.lines)
        if len(text) > MAX_SIZE:
            raise DeviceError(
                f"autoboot.txt would have {len(text)} bytes, the firmware reads {MAX_SIZE}",
                hint="Nothing was changed. Take comments out of it.",
            )
        fitting = (length for length in (size, FULL_SIZE, MAX_SIZE) if len(text) <= length)
        return text.ljust(next(fitting), b"\n")


def parse(data: bytes) -> Autoboot:
    """Read an autoboot.txt, strictly: what may mean something else to the firmware is refused.

    Zeros at the end are no damage: a power cut while the file got longer may have left its length and no
    more.  Linear in time and memory.  Raises DeviceError.
    """
    if len(data) > MAX_SIZE:
        raise _bad("autoboot.txt", f"more than {MAX_SIZE} bytes, and the firmware reads no more")
    return _parsed(split(data.rstrip(b"\0"), "autoboot.txt"))


def _parsed(text: Sequence[str]) -> Autoboot:
    name = "autoboot.txt"
    lines = (*_without_blank_end(text), "")
    normal = trial = None
    for setting in find(lines, "boot_partition", name):
        if not _NUMBER.fullmatch(setting.value):
            raise _bad(name, f"boot_partition={setting.value} is no number of a partition")
        if setting.filters == NORMAL and normal is None and trial is None:
            normal = int(setting.value)
        elif setting.filters == TRIAL and normal is not None and trial is None:
            trial = int(setting.value)
        else:
            raise _bad(name, "boot_partition= has to be there once below [all] and then once below [tryboot]")
    if normal is None:
        raise _bad(name, "no boot_partition= below [all]")
    a_b = single(lines, "tryboot_a_b", name)
    return Autoboot(
        lines,
        normal,
        trial,
        pending=trial is not None and any(line.rstrip() == MARK for line in lines),
        whole_partition=a_b is not None and a_b.value == "1",
    )


def _filtered(lines: Sequence[str]) -> Iterator[tuple[int, frozenset[str], str]]:
    filters = NORMAL
    for number, line in enumerate(lines):
        found = _FILTER.fullmatch(line)
        if found is None:
            yield number, filters, line
        else:
            filters = NORMAL if found[1] == "all" else filters | {found[1]}


def _without_blank_end(lines: Sequence[str]) -> tuple[str, ...]:
    end = len(lines)
    while end and not lines[end - 1].strip():
        end -= 1
    return tuple(lines[:end])


def _bad(name: str, reason: str) -> DeviceError:
    return DeviceError(
        f"{name} is not understood: {reason}",
        hint="Nothing was changed. docs/tryboot.md shows how it has to look.",
    )
