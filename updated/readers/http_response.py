"""One answer of a server: its head, and its body as it comes."""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from time import time
from types import TracebackType
from typing import TYPE_CHECKING

from updated.core.link import LinkSettings
from updated.errors import SourceError
from updated.readers.http_errors import Interrupted, shown
from updated.readers.http_pace import Patience, RateLimit

if TYPE_CHECKING:
    import aiohttp

READ_AHEAD = 256 * 1024  # bytes; aiohttp holds up to twice as many that nobody asked for yet


class Response:
    """Close it when it is done with; if it was read to its end, its connection is kept."""

    def __init__(self, raw: aiohttp.ClientResponse, settings: LinkSettings, rate: RateLimit) -> None:
        self.status = raw.status
        self.headers: Mapping[str, str] = raw.headers  # names in any case
        self.url = str(raw.url)
        self._raw = raw
        self._rate = rate
        self._patience = Patience(settings.stall_timeout)
        self._stall_timeout = settings.stall_timeout
        if rate.chunk:
            _shrink_window(raw, rate.chunk)

    async def __aenter__(self) -> Response:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def length(self) -> int | None:
        """Content-Length in bytes; None: not said."""
        text = self.headers.get("Content-Length", "")
        return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None

    @property
    def etag(self) -> str:
        return self.headers.get("ETag", "")

    @property
    def retry_after(self) -> float | None:
        """Seconds that the server asks to be left alone; None: it does not say (RFC 9110, 10.2.3)."""
        text = self.headers.get("Retry-After", "").strip()
        if re.fullmatch(r"[0-9]{1,9}", text):
            return float(text)
        when = http_date(text)
        return max(0.0, when - time()) if when else None

    def check_plain(self) -> None:
        """Raises SourceError if the body is packed although that was not asked for."""
        encoding = self.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("identity", ""):
            raise SourceError(
                f"Failed to read {shown(self.url)}: expected its own bytes, got them in {encoding[:40]!r}",
                hint="Turn off compression for bundles in the server or in the proxy before it.",
            )

    async def read(self) -> bytes:
        """The next bytes of the body, as many as there are; none: it is at its end.  Raises Interrupted."""
        import aiohttp

        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(self._patience.left):
                data = await self._chunk()
        except TimeoutError as error:
            raise Interrupted(shown(self.url), f"no data within {self._stall_timeout:g} s") from error
        except (aiohttp.ClientError, OSError, ValueError, RuntimeError) as error:
            raise Interrupted(shown(self.url), reason(error)) from error
        self._patience.waited(loop.time() - began, len(data))
        await self._rate.take(len(data))
        return data

    def close(self) -> None:
        """Whatever of the body has not come is not wanted: the connection ends at once."""
        connection = self._raw.connection  # None: all has come, and the connection was given back
        if connection is not None and connection.transport is not None:
            connection.transport.abort()  # a TLS goodbye would wait for the rest of the body
        self._raw.close()

    async def _chunk(self) -> bytes:
        content = self._raw.content
        if self._rate.chunk:
            return await content.read(self._rate.chunk)
        while True:
            data, end_of_chunk = await content.readchunk()  # as the parser made them: nothing is joined
            if data or not end_of_chunk or content.at_eof():
                return data


def http_date(text: str) -> int:
    """Seconds since 1970 of an HTTP date; 0: it is none."""
    try:
        return max(0, int(parsedate_to_datetime(text).timestamp()))
    except (ValueError, OverflowError, TypeError, IndexError):
        return 0


def reason(error: Exception) -> str:
    """What happened, without URLs: they may hold secrets."""
    import aiohttp

    match error:
        case aiohttp.ClientConnectorDNSError():
            return f"the name of the server is not known ({error.os_error.strerror or 'no address'})"
        case aiohttp.ClientConnectorError():
            return _os_reason(error.os_error)
        case aiohttp.ServerDisconnectedError():
            return "the server closed the connection without an answer"
        case aiohttp.ClientPayloadError():
            return "the connection ended too early"
        case aiohttp.ClientResponseError():
            return "the answer is not HTTP"
        case OSError():
            return _os_reason(error)
        case _:
            return f"connection error ({type(error).__name__})"


def _os_reason(error: OSError) -> str:
    if error.errno is not None and error.errno > 0:  # asyncio puts addresses into strerror
        return os.strerror(error.errno)
    return error.strerror or "no connection"


def _shrink_window(raw: aiohttp.ClientResponse, size: int) -> None:
    """What the kernel takes ahead counts, too: without this megabytes would come at once."""
    transport = raw.connection.transport if raw.connection else None
    connection = transport.get_extra_info("socket") if transport else None
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, max(4096, min(size, READ_AHEAD)))
