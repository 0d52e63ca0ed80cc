"""Bundles and small documents from HTTP servers.

aiohttp is imported and a connection made when the first request is.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, asynccontextmanager

from updated.core.link import Answer, LinkSettings
from updated.errors import SourceError
from updated.readers import http_first
from updated.readers.http_body import HttpBody, whole
from updated.readers.http_errors import HttpError, Interrupted, NoContent, NoRanges, Unchanged, shown
from updated.readers.http_link import Link
from updated.readers.http_object import HttpObject
from updated.readers.http_pace import Retries
from updated.readers.http_reader import HttpReader

__all__ = [
    "HttpBody",
    "HttpClient",
    "HttpError",
    "HttpReader",
    "Interrupted",
    "NoContent",
    "NoRanges",
    "Retries",
    "Unchanged",
    "shown",
]

TAIL = 64 * 1024 + 8  # bytes; where reading a bundle begins (bundle/tail.py)


class HttpClient:
    """One way to servers.  Raises ConfigError from its first request on if a file of `settings` is wrong."""

    def __init__(self, settings: LinkSettings, *, retries: Retries | None = None) -> None:
        self._link = Link(settings)
        self._retries = retries or Retries()

    async def get(self, url: str, *, limit: int, headers: Mapping[str, str]) -> Answer:
        """A small document; any status is an answer (`core.link.Fetch`).

        Raises SourceError if none comes, or one with more than `limit` bytes.
        """
        async with await self._link.get(url, own=headers) as response:
            response.check_plain()
            if (response.length or 0) > limit:
                raise _too_large(url, limit)
            parts: list[bytes] = []
            left = limit
            while data := await response.read():
                left -= len(data)
                if left < 0:
                    raise _too_large(url, limit)
                parts.append(data)
            found = {name.lower(): value for name, value in response.headers.items()}
            return Answer(response.status, found, b"".join(parts), response.url)

    async def open(
        self,
        url: str,
        *,
        headers: Mapping[str, str] = {},
        etag: str = "",
        tail: int = TAIL,
        expected_size: int = 0,
    ) -> HttpReader:
        """Ask for the last `tail` bytes of an object, and with them for all that is to be known of it.

        `headers` go to the origin of `url`, with each request.  With `etag` the object is only wanted if it
        has another one by now.  `expected_size` in bytes; 0: any.

        Raises Unchanged (304), NoContent (204), NoRanges, HttpError for other refusals, Interrupted,
        and SourceError for a server that lies or sends what is no bundle.
        """
        source = HttpObject(self._link, url, headers, self._retries)
        return await http_first.open_by_its_end(source, etag, tail, expected_size)

    @asynccontextmanager
    async def body(
        self, url: str, *, start: int = 0, etag: str = "", headers: Mapping[str, str] = {}
    ) -> AsyncGenerator[HttpBody, None]:
        """The whole object, in order, from `start` on if it still has this (strong) `etag`.

            async with client.body(url, start=done, etag=etag) as body:
                if body.start != done: ...      # it comes from its beginning
                async for chunk in body: ...

        A connection that breaks is made again where the server can go on.  Raises like `open`.
        """
        source = HttpObject(self._link, url, headers, self._retries)
        first, response = await http_first.ask_from(source, start, etag)
        async with aclosing(whole(source, first, response)) as chunks:
            yield HttpBody(first, source.size, source.etag, source.at, source.modified, chunks)

    async def close(self) -> None:
        """Close all connections.  More than once is fine."""
        await self._link.close()


def _too_large(url: str, limit: int) -> SourceError:
    return SourceError(f"Failed to read {shown(url)}: it has more than {limit} bytes")
