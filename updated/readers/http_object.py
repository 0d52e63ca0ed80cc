"""One object on a server, pinned: all that is read of it belongs to the same version, however often the
connection has to be made again.

Source: RFC 9110, sections 13.1.5 (If-Range), 14.2 (Range), 14.4 (Content-Range).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field

from updated.errors import SourceError
from updated.readers.http_errors import HttpError, Interrupted, shown
from updated.readers.http_link import Link
from updated.readers.http_pace import Retries, Tries
from updated.readers.http_response import Response, http_date

_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")
_BUSY = (408, 425, 429, 500, 502, 503, 504)
_EXPIRED = (400, 401, 403, 410)  # what signed URLs answer when their time is over; S3 says 400 for a token


@dataclass(eq=False)
class HttpObject:
    """How to ask for an object, and after `found` what it is."""

    link: Link
    url: str  # as it was asked for
    own: Mapping[str, str]  # headers for its origin
    retries: Retries
    at: str = field(default="", init=False)  # where it was found, after redirects
    size: int = field(default=0, init=False)  # bytes
    etag: str = field(default="", init=False)
    last_modified: str = field(default="", init=False)  # as the server writes it
    fresh: bool = field(default=False, init=False)  # what caches between us and the server hold is bad
    fetched: int = field(default=0, init=False)  # bytes taken from the server

    @property
    def name(self) -> str:
        """Its URL, for messages."""
        return shown(self.url)

    @property
    def modified(self) -> int:
        """Seconds since 1970; 0: not known."""
        return http_date(self.last_modified)

    def found(self, response: Response) -> None:
        """This is the version that all later answers must bring."""
        self.at = response.url
        self.etag = response.etag
        self.last_modified = response.headers.get("Last-Modified", "")

    async def stream(
        self, start: int, stop: int, response: Response | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Bytes `start` to `stop` as they come, in pieces of any size.  Close it (`contextlib.aclosing`).

        What breaks goes on at the next byte.  `response` brings the first of them.  Raises SourceError
        (HttpError), when the object changed, the server lies, or several tries brought nothing.
        """
        tries = Tries(self.retries)
        while start < stop or response is not None:
            try:
                response = response or await self._ask(start, stop, tries)
                while start < stop and (data := await response.read()):
                    start += len(data)
                    self.fetched += len(data)
                    tries.progress(len(data))
                    if start > stop:
                        raise self._lies("more bytes than it promised")
                    yield data
                if start < stop:
                    raise Interrupted(self.name, "the connection ended too early")
                await self._check_end(response)
            except Interrupted as error:
                wait = self._wait(tries, start, error)
            except HttpError as error:
                if error.status not in _BUSY:
                    raise
                wait = self._wait(tries, start, error)
            else:
                return
            finally:
                if response is not None:
                    response.close()
                    response = None
            await asyncio.sleep(wait)

    async def _check_end(self, response: Response) -> None:
        """All is there: see the end of the answer, so that its connection is kept."""
        try:
            rest = await response.read()
        except Interrupted:
            return
        if rest:
            raise self._lies("more bytes than it promised")

    def _wait(self, tries: Tries, start: int, error: Interrupted | HttpError) -> float:
        wait = tries.again(error.retry_after if isinstance(error, HttpError) else None)
        if wait is not None:
            return wait
        if isinstance(error, HttpError):
            raise error
        raise SourceError(
            f"Failed to read {self.name} from byte {start} on: {error.reason};"
            f" {tries.failed} tries brought nothing",
            hint=error.hint or "Check the network.",
        ) from error

    async def _ask(self, start: int, stop: int, tries: Tries) -> Response:
        headers = {"Range": f"bytes={start}-{stop - 1}"}
        if pin := self.pin:
            headers["If-Range"] = pin
        if self.fresh:
            headers["Cache-Control"] = "no-cache"
        # A server that does not answer may have been taken out of use: see where the URL leads now.
        at = self.at if tries.failed <= 2 else ""
        response = await self.link.get(self.url, own=self.own, headers=headers, at=at)
        if response.status in _EXPIRED and not tries.resolved and (self.at != self.url or "?" in self.at):
            response.close()
            tries.resolved = True
            response = await self.link.get(self.url, own=self.own, headers=headers)
        try:
            self._check(response, start, stop)
        except BaseException:
            response.close()
            raise
        self.at = response.url
        return response

    @property
    def pin(self) -> str:
        """Value of If-Range: only strong tags are allowed there, dates are."""
        return self.etag if self.etag.startswith('"') else self.last_modified

    def _check(self, response: Response, start: int, stop: int) -> None:
        if response.status == 200 and (not self.pin or self.etag == response.etag != ""):
            raise self._lies("all of it instead of a part")
        if response.status in (200, 412, 416):
            raise self._changed()
        if response.status != 206:
            raise HttpError(self.name, response.status, response.retry_after)
        response.check_plain()
        if self._is_other(response):
            raise self._changed()
        first, last, total = self.parse_range(response)
        if total != self.size:
            raise self._changed()
        if (first, last) != (start, stop - 1):
            raise self._lies(f"bytes {first} to {last} instead of {start} to {stop - 1}")
        if response.length not in (None, stop - start):
            raise self._lies(f"{response.length} bytes instead of {stop - start}")

    def parse_range(self, response: Response) -> tuple[int, int, int]:
        """First byte, last byte and size of the object, of a 206.  Raises SourceError."""
        text = response.headers.get("Content-Range", "")
        found = _CONTENT_RANGE.fullmatch(text.strip())
        if found is None:
            raise self._lies(f"a part without a good Content-Range ({text[:80]!r})")
        first, last, total = map(int, found.groups())
        return first, last, total

    def _is_other(self, response: Response) -> bool:
        if self.etag and response.etag:
            return response.etag.removeprefix("W/") != self.etag.removeprefix("W/")
        modified = response.headers.get("Last-Modified", "")
        return bool(self.last_modified and modified) and modified != self.last_modified

    def _changed(self) -> SourceError:
        return SourceError(
            f"Bundle {self.name} changed while it was read",
            hint="Give each bundle a URL of its own: then nothing changes under those who still read it.",
        )

    def _lies(self, what: str) -> SourceError:
        return SourceError(
            f"Failed to read {self.name}: the server sends {what}",
            hint="The server, or a proxy before it, handles HTTP range requests wrongly.",
        )
