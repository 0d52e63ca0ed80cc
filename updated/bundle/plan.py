"""How pure code reads: it yields the `Range` it needs and is sent the bytes.

A parser written so does not know whether its bytes come from a file, a verified view or an HTTP server,
and tests feed it whole, byte by byte or cut short.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import NamedTuple, TypeVar

T = TypeVar("T")


class Range(NamedTuple):
    """`length` bytes from `offset`."""

    offset: int
    length: int


Plan = Generator[Range, bytes, T]
"""Yields ranges, is sent exactly the bytes of each, returns its result or raises BundleError."""


def run_on_bytes(plan: Plan[T], data: bytes) -> T:
    """Drive `plan` over bytes in memory; a range outside of them yields what is there (maybe nothing)."""
    try:
        wanted = next(plan)
        while True:
            wanted = plan.send(data[wanted.offset : wanted.offset + wanted.length])
    except StopIteration as stop:
        result: T = stop.value
        return result


async def run(plan: Plan[T], read: Callable[[int, int], Awaitable[bytes]]) -> T:
    """Drive `plan` over an asynchronous `read(offset, length)`."""
    try:
        wanted = next(plan)
        while True:
            wanted = plan.send(await read(wanted.offset, wanted.length))
    except StopIteration as stop:
        result: T = stop.value
        return result
