"""A check of a URL: its status, and what is in its answer."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Collection
from typing import Final

from updated import command
from updated.core.gate import words
from updated.core.health import Look, Rule
from updated.errors import UpdatedError
from updated.health.basis import BasicCheck, bad, good

Fetch = Callable[[str, float], Awaitable[tuple[int, bytes]]]
"""URL and seconds -> status and the beginning of the body.

No redirect is followed.  Raises UpdatedError or TimeoutError if there is no answer.
"""

MIN_SEARCH: Final = 1.0  # seconds at least: another Python has to start
MAX_SEARCH: Final = 5.0  # seconds; a pattern that tries all ways takes years

_SPECIAL: Final = frozenset(r".^$*+?{}[]\|()")
_SEARCH: Final = """\
import re, sys
body = sys.stdin.buffer.read().decode(errors="replace")
sys.exit(0 if re.search(sys.argv[1], body) else 1)
"""


class HttpCheck(BasicCheck):
    """Answers with one of these statuses, and with a body that has the pattern in it."""

    def __init__(
        self,
        rule: Rule,
        *,
        period: float,
        fetch: Fetch,
        url: str,
        status: Collection[int] = (200,),
        body: str = "",
        timeout: float = 10.0,
        close: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`body`: a regular expression; "": any.  `timeout`: seconds for the whole answer."""
        super().__init__(rule, period=period, limit=timeout + MAX_SEARCH)
        self._fetch = fetch
        self._url = url
        self._status = status
        self._pattern = body
        self._timeout = timeout
        self._close = close

    async def look(self) -> Look:
        try:
            status, body = await self._fetch(self._url, self._timeout)
            if status not in self._status:
                return bad(self._wrong_status(status, body))
            if self._pattern and not await self._found(body):
                return bad(f"{self._pattern!r} is not in the answer, which is {_shown(body)!r}")
        except TimeoutError:
            return bad(f"no answer within {self._timeout:g} s")
        except UpdatedError as error:
            return bad(str(error))
        return good(f"status {status}")

    async def close(self) -> None:
        if self._close is not None:
            await self._close()

    async def _found(self, body: bytes) -> bool:
        """Raises DeviceError.

        In a process of its own: Python's `re` holds the interpreter while it tries, and cannot be stopped.
        """
        if not _SPECIAL & set(self._pattern):
            return self._pattern.encode() in body
        argv = [sys.executable or "python3", "-I", "-S", "-X", "utf8", "-c", _SEARCH, self._pattern]
        handle = os.memfd_create("answer")
        try:
            os.write(handle, body)
            os.lseek(handle, 0, os.SEEK_SET)
            timeout = max(MIN_SEARCH, min(self._timeout, MAX_SEARCH))
            result = await command.run(argv, timeout=timeout, stdin=handle)
        finally:
            os.close(handle)
        return result.code == 0

    def _wrong_status(self, status: int, body: bytes) -> str:
        note = " (redirects are not followed)" if 300 <= status <= 399 else ""
        says = f": {_shown(body)}" if body.strip() else ""
        return f"status {status}{note}, expected {' or '.join(map(str, sorted(self._status)))}{says}"


def _shown(body: bytes) -> str:
    return words(body[:400].decode(errors="replace"))
