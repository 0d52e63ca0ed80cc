"""Work that a cancelled task finishes first."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Do `work` to its end, however often the caller is cancelled meanwhile; the result counts then.

    For the moments that must not stop half-way, and end soon.  `stop_if_cancelled` follows where the
    cancellation shall count after all.
    """
    task = asyncio.ensure_future(work)
    await settled(task)
    return task.result()


def stop_if_cancelled() -> None:
    """Raises CancelledError if the current task was cancelled during `to_its_end`."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def settled(future: asyncio.Future[T]) -> None:
    """Wait until `future` is over, however often the caller is cancelled meanwhile, whatever it ends with.

    Only for what ends soon, before the caller raises the error or the cancellation that it has already.
    """
    while not future.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([future])
    if not future.cancelled():
        future.exception()  # seen: asyncio shall not complain that nobody looked
