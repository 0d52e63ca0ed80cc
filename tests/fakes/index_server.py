"""A small web server with documents that tests put there, and a `Fetch` for it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256

import aiohttp
from aiohttp import web

from updated.core.link import Answer
from updated.errors import SourceError


@dataclass
class IndexServer:
    """`documents`: path -> what is there; `answers`: path -> status and headers instead."""

    documents: dict[str, bytes] = field(default_factory=dict)
    answers: dict[str, tuple[int, dict[str, str]]] = field(default_factory=dict)
    validator: str = "ETag"  # or Last-Modified, or "": none
    requests: list[str] = field(default_factory=list)  # paths with queries
    url: str = ""  # of its root, without a slash at the end

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[IndexServer]:
        application = web.Application()
        application.router.add_get("/{path:.*}", self._get)
        runner = web.AppRunner(application)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            port = runner.addresses[0][1]
            self.url = f"http://127.0.0.1:{port}"
            yield self
        finally:
            await runner.cleanup()

    async def _get(self, request: web.Request) -> web.Response:
        self.requests.append(request.path_qs)
        if request.path in self.answers:
            status, headers = self.answers[request.path]
            return web.Response(status=status, headers=headers)
        document = self.documents.get(request.path)
        if document is None:
            return web.Response(status=404)
        return self._answer(request, document)

    def _answer(self, request: web.Request, document: bytes) -> web.Response:
        if self.validator == "ETag":
            etag = f'"{sha256(document).hexdigest()[:16]}"'
            if request.headers.get("If-None-Match") == etag:
                return web.Response(status=304)
            return web.Response(body=document, headers={"ETag": etag})
        if self.validator == "Last-Modified":
            date = "Mon, 01 Jun 2026 12:00:00 GMT"
            if request.headers.get("If-Modified-Since") == date:
                return web.Response(status=304)
            return web.Response(body=document, headers={"Last-Modified": date})
        return web.Response(body=document)


async def fetch(url: str, *, limit: int, headers: Mapping[str, str]) -> Answer:
    """Behind `updated.core.link.Fetch`."""
    try:
        async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as response:
            body = await response.content.read(limit + 1)
            while len(body) <= limit and (more := await response.content.read(limit + 1)):
                body += more
            if len(body) > limit:
                raise SourceError(f"{url} has more than {limit} bytes")
            names = {name.lower(): value for name, value in response.headers.items()}
            return Answer(response.status, names, body, str(response.url))
    except aiohttp.ClientError as error:
        raise SourceError(f"{url}: {error}") from error
