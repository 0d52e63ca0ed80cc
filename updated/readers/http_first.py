"""The first answer of a server: what is behind a URL, and can it be read in parts?"""

from __future__ import annotations

from contextlib import aclosing

from updated.errors import SourceError
from updated.readers.http_errors import HttpError, NoContent, NoRanges, Unchanged, shown
from updated.readers.http_object import HttpObject
from updated.readers.http_reader import HttpReader
from updated.readers.http_response import Response

_NO_BUNDLES = ("text/html", "application/xhtml+xml", "application/json")  # what portals and proxies answer
_HTML = (b"<!doctype html", b"<html")


async def open_by_its_end(source: HttpObject, etag: str, tail: int, expected_size: int) -> HttpReader:
    """As `HttpClient.open`."""
    headers = {"Range": f"bytes=-{tail}"}
    if etag:
        headers["If-None-Match"] = etag
    async with await source.link.get(source.url, own=source.own, headers=headers) as response:
        source.found(response)
        if response.status == 304 and etag:
            raise Unchanged(f"{source.name} did not change")
        if response.status == 416 and not response.headers.get("Content-Range", "").endswith("/0"):
            raise _no_ranges(source)  # an old server that does not know a range from the end
        _refuse(response, source)
        if response.status == 206:
            first = _check_end(response, source, tail)
            _check_size(source, expected_size)
            async with aclosing(source.stream(first, source.size, response)) as chunks:
                return HttpReader(source, b"".join([chunk async for chunk in chunks]))
        source.size = response.length or 0
        if source.size:
            _check_size(source, expected_size)
        data = await _small(response, source, tail)
        _check_size(source, expected_size)
        return HttpReader(source, data)


async def ask_from(source: HttpObject, start: int, etag: str) -> tuple[int, Response]:
    """The offset where the bytes begin, and the answer that brings them.  As `HttpClient.body`."""
    headers = {}
    if start and etag.startswith('"'):
        headers = {"Range": f"bytes={start}-", "If-Range": etag}
    response = await source.link.get(source.url, own=source.own, headers=headers)
    try:
        source.found(response)
        if headers and response.status == 416:
            # If-Range comes first (RFC 9110, 13.2.2): it is the same object, and `start` its end.
            if response.headers.get("Content-Range", "").strip() != f"bytes */{start}":
                raise HttpError(source.name, response.status)
            source.size = start
            return start, response
        _refuse(response, source)
        if response.status == 206:
            first, last, source.size = source.parse_range(response)
            if not headers or (first, last) != (start, source.size - 1):
                raise _wrong_part(source, response)
            return start, response
        source.size = response.length or 0
    except BaseException:
        response.close()
        raise
    return 0, response


def _refuse(response: Response, source: HttpObject) -> None:
    """Raise for all that brings no part of a bundle."""
    if response.status == 204:
        raise NoContent(f"{source.name} has no content")
    if response.status not in (200, 206):
        raise HttpError(source.name, response.status, response.retry_after)
    response.check_plain()
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if response.status == 200 and kind in _NO_BUNDLES:
        raise _no_bundle(source, kind)


def _check_end(response: Response, source: HttpObject, tail: int) -> int:
    """Of a 206: is it the end that was asked for?  Sets the size; returns where the end begins."""
    first, last, source.size = source.parse_range(response)
    wanted = min(tail, source.size)
    if (first, last) != (source.size - wanted, source.size - 1) or response.length not in (None, wanted):
        raise _wrong_part(source, response)
    return first


async def _small(response: Response, source: HttpObject, tail: int) -> bytes:
    """The body of a 200 if it is not larger than what was asked for.  Raises NoRanges if it is."""
    parts: list[bytes] = []
    got = 0
    while data := await response.read():
        if not parts and data[:512].lstrip().lower().startswith(_HTML):
            raise _no_bundle(source, "text/html")
        parts.append(data)
        got += len(data)
        source.fetched += len(data)
        if got > tail or source.size > tail:
            raise _no_ranges(source)
    source.size = got
    return b"".join(parts)


def _check_size(source: HttpObject, expected: int) -> None:
    if expected and source.size != expected:
        raise SourceError(
            f"{source.name} has {source.size} bytes, expected {expected}",
            hint="The index and the bundle on the server do not belong together (yet).",
        )


def _no_ranges(source: HttpObject) -> NoRanges:
    return NoRanges(source.name, size=source.size, etag=source.etag, url=source.at)


def _no_bundle(source: HttpObject, kind: str) -> SourceError:
    what = "a login page?" if "html" in kind else "the answer of a proxy?"
    at = "" if source.at == source.url else f" from {shown(source.at)}"
    return SourceError(
        f"Failed to read {source.name}: expected a bundle, got {kind}{at}: {what}",
        hint="Is this network open, or does it ask for a login first?",
    )


def _wrong_part(source: HttpObject, response: Response) -> SourceError:
    text = response.headers.get("Content-Range", "")[:80]
    return SourceError(
        f"Failed to read {source.name}: the server sends another part than was asked for ({text!r})",
        hint="The server, or a proxy before it, handles HTTP range requests wrongly.",
    )
