"""Blocking work in threads that a cancelled task does not leave behind."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from updated.finish import settled

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S")


@contextlib.contextmanager
def threads(count: int, name: str) -> Iterator[ThreadPoolExecutor]:
    """A pool for `in_thread`, which sees to it that no thread works at the end; they go by themselves."""
    pool = ThreadPoolExecutor(count, thread_name_prefix=name)
    try:
        yield pool
    finally:
        pool.shutdown(wait=False)


async def in_thread(
    pool: ThreadPoolExecutor, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Run `function` in `pool`.  Cancelled, it waits until the thread is out of `function`, then goes.

    (`run_in_executor` would leave the thread behind, writing to a slot that nobody owns any more.)
    """
    job = pool.submit(function, *args, **kwargs)
    waiter = asyncio.wrap_future(job)
    try:
        return await asyncio.shield(waiter)
    except asyncio.CancelledError:
        if not job.cancel():  # it runs already
            await settled(waiter)
        raise


async def in_order(
    items: Iterable[S], work: Callable[[S], Awaitable[T]], ahead: int
) -> AsyncGenerator[T, None]:
    """`work` over `items`, at most `ahead` of them at a time, results in the order of the items.

    The first error in that order ends it; whatever else runs is cancelled and waited for.
    Close it (`contextlib.aclosing`) if it is not read to its end.
    """
    window: deque[asyncio.Task[T]] = deque()

    async def start(item: S) -> T:
        return await work(item)

    try:
        for item in items:
            window.append(asyncio.create_task(start(item)))
            if len(window) >= ahead:
                yield await window[0]
                window.popleft()
        while window:
            yield await window[0]
            window.popleft()
    finally:
        for task in window:
            task.cancel()
        for task in window:
            await settled(task)
