"""Whole objects in order, for the spool."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest

from tests.fakes.web import Fault, Server
from updated.errors import SourceError
from updated.readers.http import HttpBody, HttpClient, HttpError, NoContent

Connect = Callable[..., AbstractAsyncContextManager[HttpClient]]


def taken(
    connect: Connect, content: bytes, *faults: Fault, start: int = 0, etag: str = "", **settings: object
) -> tuple[HttpBody, bytes, Server]:
    async def main() -> tuple[HttpBody, bytes, Server]:
        async with (
            Server({"/b": content}, {"/b": faults}) as server,
            connect(**settings) as client,
            client.body(server.url("/b"), start=start, etag=etag) as body,
        ):
            return body, b"".join([chunk async for chunk in body]), server

    return asyncio.run(main())


def test_the_whole_object_comes_with_one_request(connect: Connect, bundle: bytes) -> None:
    body, data, server = taken(connect, bundle)
    assert data == bundle
    assert (body.start, body.size, body.modified) == (0, len(bundle), 1785542400)
    assert body.etag.startswith('"')
    assert body.url == server.url("/b")
    assert "range" not in server.requests[0].headers


@pytest.mark.parametrize(
    "fault", [Fault(chunked=True), Fault(ranges=False), Fault(ranges=False, chunked=True)]
)
def test_a_server_without_ranges_or_sizes_is_good_enough(
    connect: Connect, bundle: bytes, fault: Fault
) -> None:
    body, data, _ = taken(connect, bundle, fault)
    assert data == bundle
    assert body.size == (0 if fault.chunked else len(bundle))


def test_it_goes_on_where_it_was_left(connect: Connect, bundle: bytes) -> None:
    etag = taken(connect, bundle)[0].etag
    body, data, server = taken(connect, bundle, start=1_000_000, etag=etag)
    assert (body.start, body.size) == (1_000_000, len(bundle))
    assert data == bundle[1_000_000:]
    assert server.sent["/b"] == len(bundle) - 1_000_000
    body, data, _ = taken(connect, bundle, start=len(bundle), etag=etag)
    assert (body.start, body.size, data) == (len(bundle), len(bundle), b"")


@pytest.mark.parametrize(
    ("etag", "fault"),
    [
        ('"an older one"', Fault()),
        ('W/"weak"', Fault(etag='W/"weak"')),
        ("", Fault()),
        ('"x"', Fault(etag='"x"', ranges=False)),
    ],
)
def test_it_begins_anew_where_it_cannot_go_on(
    connect: Connect, bundle: bytes, etag: str, fault: Fault
) -> None:
    body, data, _ = taken(connect, bundle, fault, start=1000, etag=etag)
    assert body.start == 0
    assert data == bundle


@pytest.mark.parametrize("how", ["close", "reset", "stall"])
def test_a_broken_connection_is_made_again(connect: Connect, bundle: bytes, how: str) -> None:
    fault = Fault(cut=1_000_000, how=how)  # type: ignore[arg-type]
    _, data, server = taken(connect, bundle, fault, stall_timeout=0.1)
    assert data == bundle
    assert all(request.headers["if-range"].startswith('"') for request in server.requests[1:])


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (Fault(ranges=False, cut=100_000), "all of it instead of a part"),
        (Fault(ranges=False, cut=100_000, etag="", modified=""), "all of it instead of a part"),
        (Fault(ranges=False, cut=100_000, chunked=True), "ended too early"),
        (Fault(length=1000, ranges=False), "all of it instead of a part"),
        (Fault(gzip=True), "gzip"),
        (Fault(headers={"Content-Type": "text/html"}), "a login page?"),
        (Fault(status=206, headers={"Content-Range": "bytes 0-0/1"}), "another part"),
        (Fault(status=503), "503"),
    ],
)
def test_what_cannot_be_had_is_an_error(connect: Connect, bundle: bytes, fault: Fault, text: str) -> None:
    with pytest.raises(SourceError, match=text):
        taken(connect, bundle, fault)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(etag='"x"', shift=1),
        Fault(etag='"x"', total=1),
        Fault(status=416, headers={"Content-Range": "bytes */999"}),
        Fault(status=416),
    ],
)
def test_lies_about_where_it_goes_on_are_errors(connect: Connect, bundle: bytes, fault: Fault) -> None:
    with pytest.raises(SourceError):
        taken(connect, bundle, fault, start=1000, etag='"x"')


def test_nothing_there_is_told(connect: Connect, bundle: bytes) -> None:
    with pytest.raises(NoContent):
        taken(connect, bundle, Fault(status=204))
    with pytest.raises(HttpError, match="Not found"):
        taken(connect, bundle, Fault(status=404))


def test_who_has_enough_may_stop(connect: Connect, bundle: bytes) -> None:
    async def main() -> None:
        async with Server({"/b": bundle}, {"/b": [Fault(endless=True)]}) as server, connect() as client:
            got = 0
            async with client.body(server.url("/b")) as body:
                async for chunk in body:
                    got += len(chunk)
                    if got > 5_000_000:
                        break
            assert (await client.get(server.url("/none"), limit=10, headers={})).status == 404

    asyncio.run(main())
