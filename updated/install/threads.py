"""Blocking work in threads that a cancelled task does not leave behind."""

from __future__ import annotations

import asyncio
import contextlib
import math
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
    items: Iterable[S],
    work: Callable[[S], Awaitable[T]],
    ahead: int,
    *,
    weigh: Callable[[S], int] = lambda _: 0,
    load: float = math.inf,
) -> AsyncGenerator[T, None]:
    """`work` over `items`, at most `ahead` of them at a time, results in the order of the items.

    Items that `weigh` something are at most as heavy as `load` together; one may always go alone.
    The first error in that order ends it; whatever else runs is cancelled and waited for.
    Close it (`contextlib.aclosing`) if it is not read to its end.
    """
    window: deque[tuple[asyncio.Task[T], int]] = deque()
    weights = 0

    async def start(item: S) -> T:
        return await work(item)

    try:
        for item in items:
            weight = weigh(item)
            while window and (len(window) >= ahead or weights + weight > load):
                yield await window[0][0]
                weights -= window.popleft()[1]
            window.append((asyncio.create_task(start(item)), weight))
            weights += weight
        while window:
            yield await window[0][0]
            window.popleft()
    finally:
        for task, _ in window:
            task.cancel()
        for task, _ in window:
            await settled(task)
