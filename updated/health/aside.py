"""Blocking work that may hang for ever: a dead disk, a server of names that is gone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import ParamSpec, TypeVar

from updated.errors import DeviceError

P = ParamSpec("P")
T = TypeVar("T")


class Aside:
    """A thread of its own for each piece of work, but only one at a time.

    asyncio's own threads are few, all else waits for them, and the process does for their end.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None

    async def run(self, timeout: float, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `function` returns, or raises.

        Raises DeviceError if it takes longer than `timeout` seconds, or that of before still hangs.
        """
        if self._thread is not None and self._thread.is_alive():
            raise DeviceError("the look before has not come back yet")
        result: Future[T] = Future()

        def work() -> None:
            try:
                found = function(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
                _settle(result, error=error)
            else:
                _settle(result, found)

        self._thread = threading.Thread(target=work, name="health", daemon=True)
        self._thread.start()
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.wrap_future(result)
        except TimeoutError as error:
            if result.done() and not result.cancelled():
                raise  # it is the function's own
            raise DeviceError(f"no answer within {timeout:g} s") from error


def _settle(result: Future[T], found: T | None = None, *, error: BaseException | None = None) -> None:
    """Unless nobody waits any more."""
    if not result.set_running_or_notify_cancel():
        return
    if error is not None:
        result.set_exception(error)
    else:
        result.set_result(found)  # type: ignore[arg-type]
