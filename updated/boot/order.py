"""A boot order: bootnames separated by blanks, the first that may be started is the primary.  No I/O."""

from __future__ import annotations

from collections.abc import Sequence


def parse(text: str) -> list[str]:
    """The bootnames of a boot order variable; surplus blanks do not count."""
    return text.split()


def render(order: Sequence[str]) -> str:
    return " ".join(order)


def with_first(bootname: str, order: Sequence[str]) -> list[str]:
    """`order` with `bootname` in front; the others keep their places."""
    return [bootname, *without(bootname, order)]


def without(bootname: str, order: Sequence[str]) -> list[str]:
    return [name for name in order if name != bootname]


def with_all(order: Sequence[str], bootnames: Sequence[str]) -> list[str]:
    """`order` and behind it the `bootnames` that it lacks."""
    return [*order, *(name for name in bootnames if name not in order)]
