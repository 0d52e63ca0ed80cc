"""Is a server well?  Its status, and the beginning of what it says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from updated.core.link import LinkSettings, origin
from updated.readers.http_link import Link

MAX_BODY: Final = 64 * 1024  # bytes that are read of an answer


class Probe:
    """Who asks is not told, only the client's certificate: `[http]`'s secrets are for the updates' server."""

    def __init__(self, settings: LinkSettings, *, is_local: Callable[[str], bool]) -> None:
        """`is_local`: no proxy leads to that host."""
        self._far_settings = replace(
            settings,
            headers=(),
            bearer="",
            bearer_file="",
            user="",
            password="",
            password_file="",
            netrc="",
            rate_limit=0,
        )
        self._is_local = is_local
        self._users = 0  # who waits for an answer
        self._far: Link | None = None
        self._near: Link | None = None

    async def fetch(self, url: str, timeout: float) -> tuple[int, bytes]:
        """Status, and up to MAX_BODY bytes: those that have come after `timeout` seconds.

        Redirects are not followed: a login page is no answer.  Raises SourceError, ConfigError, and
        TimeoutError if not even a status has come.
        """
        body = bytearray()
        status = 0
        self._users += 1
        try:
            async with asyncio.timeout(timeout):
                # A new connection each time: that the server takes it is a part of the answer.
                once = {"Connection": "close"}
                async with await self._link(url).get(url, headers=once, follow=False) as response:
                    status = response.status
                    while len(body) < MAX_BODY and (data := await response.read()):
                        body += data
        except TimeoutError:
            if not status:
                raise
        finally:
            self._users -= 1
        return status, bytes(body[:MAX_BODY])

    async def close(self) -> None:
        """All connections, unless somebody waits for an answer; the next `fetch` makes others."""
        if self._users:
            return
        links, self._far, self._near = (self._far, self._near), None, None
        for link in links:
            if link is not None:
                await link.close()

    def _link(self, url: str) -> Link:
        if self._is_local(origin(url)[1]):
            self._near = self._near or Link(replace(self._far_settings, proxy=""))
            return self._near
        self._far = self._far or Link(self._far_settings)
        return self._far
