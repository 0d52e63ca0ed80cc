"""What is behind a URL: the first answer of honest and of lying servers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager

import pytest

from tests.fakes.web import MODIFIED, Fault, Server
from updated.core.model import Reader
from updated.errors import BundleError, SourceError, UpdatedError
from updated.readers.http import (
    HttpClient,
    HttpError,
    HttpReader,
    Interrupted,
    NoContent,
    NoRanges,
    Unchanged,
)

Connect = Callable[..., AbstractAsyncContextManager[HttpClient]]
TAIL = 65544


@contextlib.asynccontextmanager
async def served(
    connect: Connect, content: bytes, *faults: Fault, **settings: object
) -> AsyncIterator[tuple[Server, HttpClient]]:
    async with Server({"/b": content}, {"/b": faults}) as server, connect(**settings) as client:
        yield server, client


def opened(connect: Connect, content: bytes, *faults: Fault, **how: object) -> HttpReader:
    async def main() -> HttpReader:
        async with served(connect, content, *faults) as (server, client):
            return await client.open(server.url("/b"), **how)  # type: ignore[arg-type]

    return asyncio.run(main())


def refused(connect: Connect, content: bytes, *faults: Fault, **how: object) -> UpdatedError:
    with pytest.raises(UpdatedError) as caught:
        opened(connect, content, *faults, **how)
    return caught.value


def test_one_request_tells_everything_and_brings_the_end(connect: Connect, bundle: bytes) -> None:
    async def main() -> None:
        async with served(connect, bundle) as (server, client):
            reader: Reader = await client.open(server.url("/b"))
            assert (reader.size, reader.name, reader.remote) == (len(bundle), server.url("/b"), True)
            assert await reader.read(len(bundle) - TAIL, TAIL) == bundle[-TAIL:]
            assert await reader.read(len(bundle) - 8, 8) == bundle[-8:]
            assert await reader.read(len(bundle), 0) == b""
            assert server.counts["/b"] == 1
            assert server.requests[0].headers["range"] == "bytes=-65544"
            assert server.requests[0].headers["accept-encoding"] == "identity"
            assert reader.fetched == server.sent["/b"] == TAIL

    asyncio.run(main())


def test_what_the_server_says_of_the_object_is_kept(connect: Connect, bundle: bytes) -> None:
    reader = opened(connect, bundle, Fault(etag='"e"'))
    assert (reader.etag, reader.modified) == ('"e"', 1785542400)
    reader = opened(connect, bundle, Fault(etag="", modified=""))
    assert (reader.etag, reader.modified) == ("", 0)
    assert opened(connect, bundle, Fault(modified="the day before")).modified == 0


@pytest.mark.parametrize("size", [1, 100, TAIL - 1, TAIL])
@pytest.mark.parametrize("fault", [Fault(), Fault(ranges=False), Fault(ranges=False, chunked=True)])
def test_a_small_object_is_read_whole_with_or_without_ranges(
    connect: Connect, bundle: bytes, size: int, fault: Fault
) -> None:
    reader = opened(connect, bundle[:size], fault)  # the server is gone when it is read
    assert reader.size == size
    assert asyncio.run(reader.read(0, size)) == bundle[:size]


@pytest.mark.parametrize(
    ("fault", "size"), [(Fault(ranges=False), True), (Fault(ranges=False, chunked=True), False)]
)
def test_a_server_without_ranges_is_told_with_what_it_said(
    connect: Connect, bundle: bytes, fault: Fault, size: bool
) -> None:
    error = refused(connect, bundle, fault)
    assert isinstance(error, NoRanges)
    assert error.size == (len(bundle) if size else 0)
    assert error.etag.startswith('"')
    assert error.url.endswith("/b")


def test_an_old_server_that_refuses_a_range_from_the_end_has_no_ranges(
    connect: Connect, bundle: bytes
) -> None:
    fault = Fault(status=416, headers={"Content-Range": f"bytes */{len(bundle)}"})
    assert isinstance(refused(connect, bundle, fault), NoRanges)


def test_an_empty_object_is_refused_by_its_size(connect: Connect) -> None:
    error = refused(connect, b"")
    assert isinstance(error, HttpError)
    assert error.status == 416


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=200, headers={"Content-Type": "text/html; charset=utf-8"}, body=b"<p>log in</p>"),
        Fault(status=200, headers={"Content-Type": "text/plain"}, body=b"\r\n <!DOCTYPE html><p>log in</p>"),
        Fault(ranges=False, headers={"Content-Type": "text/html"}),
    ],
    ids=["by type", "by content", "large"],
)
def test_a_login_page_is_no_bundle(connect: Connect, bundle: bytes, fault: Fault) -> None:
    error = refused(connect, bundle, fault)
    assert isinstance(error, SourceError)
    assert not isinstance(error, NoRanges)
    assert "expected a bundle, got text/html: a login page?" in str(error)


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (Fault(shift=1), "another part"),
        (Fault(shift=-1), "another part"),
        (Fault(total=1), "another part"),
        (Fault(total=-5), "another part"),
        (Fault(length=-1), "not HTTP"),  # a byte is left over
        (Fault(length=1), "another part"),
        (Fault(headers={"Content-Range": "bytes 0-9/*"}), "Content-Range"),
        (Fault(headers={"Content-Range": "9" * 4000}), "Content-Range"),
        (Fault(headers={"Content-Range": "bytes 5-1/7"}), "another part"),
        (Fault(multipart=True), "Content-Range"),
        (Fault(gzip=True), "'gzip'"),
        (Fault(gzip=True, ranges=False), "'gzip'"),
        (Fault(endless=True), "more bytes than it promised"),
        (Fault(chunked=True, cut=1000, first=1, last=1), ""),
    ],
)
def test_lies_are_errors_of_the_source(connect: Connect, bundle: bytes, fault: Fault, text: str) -> None:
    if not text:  # not a lie: the rest is asked for
        reader = opened(connect, bundle, fault)
        assert asyncio.run(reader.read(len(bundle) - TAIL, TAIL)) == bundle[-TAIL:]
        return
    error = refused(connect, bundle, fault)
    assert isinstance(error, SourceError)
    assert not isinstance(error, HttpError | NoRanges)
    assert text in str(error)
    assert error.passing


@pytest.mark.parametrize("how", ["close", "reset"])
def test_an_end_that_breaks_off_goes_on_at_the_next_byte(connect: Connect, bundle: bytes, how: str) -> None:
    async def main() -> None:
        async with served(connect, bundle, Fault(last=1, cut=40000, how=how)) as (server, client):  # type: ignore[arg-type]
            reader = await client.open(server.url("/b"))
            assert await reader.read(len(bundle) - TAIL, TAIL) == bundle[-TAIL:]
            assert server.requests[1].headers["if-range"] == reader.etag

    asyncio.run(main())


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 418, 429, 500, 503, 599])
def test_a_refusal_is_told_at_once_with_its_number(connect: Connect, bundle: bytes, status: int) -> None:
    async def main() -> None:
        async with served(connect, bundle, Fault(status=status, body=b"no")) as (server, client):
            with pytest.raises(HttpError, match=f"{status}") as caught:
                await client.open(server.url("/b"))
            assert (caught.value.status, caught.value.retry_after) == (status, None)
            assert caught.value.passing
            assert server.counts["/b"] == 1

    asyncio.run(main())
    if status in (404, 410):
        assert "Not found" in str(refused(connect, bundle, Fault(status=status)))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        ("Thu, 01 Jan 1970 00:00:10 GMT", 0.0),
        ("soon", None),
        ("-5", None),
        ("9" * 40, None),
    ],
)
def test_retry_after_is_kept_for_who_asks_again(
    connect: Connect, bundle: bytes, text: str, seconds: float | None
) -> None:
    error = refused(connect, bundle, Fault(status=503, headers={"Retry-After": text}))
    assert isinstance(error, HttpError)
    assert error.retry_after == seconds


def test_nothing_new_and_nothing_there_are_told_apart(connect: Connect, bundle: bytes) -> None:
    etag = opened(connect, bundle).etag
    assert isinstance(refused(connect, bundle, etag=etag), Unchanged)
    assert opened(connect, bundle, etag='"an older one"').etag == etag
    assert isinstance(refused(connect, bundle, Fault(status=204)), NoContent)
    assert isinstance(refused(connect, bundle, Fault(status=304)), HttpError)  # nobody asked for that


@pytest.mark.parametrize("fault", [Fault(), Fault(ranges=False), Fault(ranges=False, chunked=True)])
def test_another_size_than_the_index_says_is_an_error(connect: Connect, fault: Fault) -> None:
    assert "expected 999" in str(refused(connect, b"x" * 1000, fault, expected_size=999))
    assert opened(connect, b"x" * 1000, fault, expected_size=1000).size == 1000


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_server_that_hangs_up_is_an_interruption(connect: Connect, how: str) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.transport.abort() if how == "reset" else writer.close()

    assert isinstance(asyncio.run(from_socket(connect, hang_up)), Interrupted)


def test_a_server_that_says_nothing_is_given_up(connect: Connect) -> None:
    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    error = asyncio.run(from_socket(connect, listen, stall_timeout=0.1, connect_timeout=0.1))
    assert "no answer within 0.2 s" in str(error)


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH_9\r\n", b"HTTP/1.1 two hundred\r\n\r\n", b"\0" * 99999])
def test_a_server_that_speaks_something_else_is_an_error(connect: Connect, answer: bytes) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(answer)
        writer.close()

    assert "not HTTP" in str(asyncio.run(from_socket(connect, speak)))


Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]


async def from_socket(connect: Connect, talk: Talk, **settings: object) -> SourceError:
    server = await asyncio.start_server(talk, "127.0.0.1", 0)  # type: ignore[arg-type]
    port = server.sockets[0].getsockname()[1]
    try:
        async with connect(**settings) as client:
            with pytest.raises(SourceError) as caught:
                await client.open(f"http://127.0.0.1:{port}/b")
            return caught.value
    finally:
        server.close()
        await asyncio.sleep(0.01)


def test_nobody_at_the_other_end_is_an_error_with_the_reason(connect: Connect) -> None:
    async def main() -> None:
        async with Server() as server:
            pass
        async with connect() as client:
            with pytest.raises(SourceError, match="Connection refused"):
                await client.open(server.url("/b"))
            with pytest.raises(SourceError, match="name of the server is not known"):
                await client.open("http://no.such.host.invalid/b")

    asyncio.run(main())


@pytest.mark.parametrize(
    "url",
    [
        "",
        "b.raucb",
        "file:///etc/passwd",
        "ftp://h/b",
        "http://",
        "http://:80/",
        "http://h:99999/",
        "http://[::1/",
        "http://h\r\nX: y/",
    ],
)
def test_what_is_no_url_is_an_error_too(connect: Connect, url: str) -> None:
    async def main() -> None:
        async with connect(connect_timeout=0.5) as client:
            with pytest.raises(SourceError):
                await client.open(url)

    asyncio.run(main())


def test_reads_outside_are_a_bad_bundle(connect: Connect, bundle: bytes) -> None:
    reader = opened(connect, bundle)
    for offset, length in ((-1, 1), (0, -1), (0, len(bundle) + 1), (len(bundle), 1), (2**70, 1)):
        with pytest.raises(BundleError, match="cut short"):
            asyncio.run(reader.read(offset, length))


def test_small_documents_come_with_whatever_status(connect: Connect) -> None:
    faults: Mapping[str, Sequence[Fault]] = {
        "/busy": [Fault(status=503, body=b"later", headers={"Retry-After": "7"})],
        "/nothing": [Fault(status=204)],
        "/packed": [Fault(gzip=True)],
        "/moved": [Fault(redirect="/index.json")],
        "/endless": [Fault(endless=True)],
    }
    files = dict.fromkeys(("/index.json", "/packed", "/endless"), b'{"a": 1}')

    async def main() -> None:
        async with Server(files, faults) as server, connect() as client:

            async def get(path: str, limit: int = 1000, **headers: str) -> tuple[int, bytes]:
                answer = await client.get(server.url(path), limit=limit, headers=headers)
                assert answer.url == server.url("/index.json" if path == "/moved" else path)
                return answer.status, answer.body

            assert await get("/index.json", limit=8) == (200, b'{"a": 1}')
            assert await get("/moved") == (200, b'{"a": 1}')
            assert await get("/busy") == (503, b"later")
            assert await get("/nothing") == (204, b"")
            assert await get("/none") == (404, b"")
            answer = await client.get(server.url("/index.json"), limit=99, headers={"X-Id": "7"})
            assert answer.headers["last-modified"] == MODIFIED
            assert server.requests[-1].headers["x-id"] == "7"
            again = {"If-None-Match": answer.headers["etag"]}
            assert (await client.get(server.url("/index.json"), limit=0, headers=again)).status == 304
            for path, limit in (("/index.json", 7), ("/endless", 1000)):
                with pytest.raises(SourceError, match=f"more than {limit} bytes"):
                    await get(path, limit)
            with pytest.raises(SourceError, match="gzip"):
                await get("/packed")

    asyncio.run(main())


def test_closing_twice_is_fine_and_ends_everything(connect: Connect, bundle: bytes) -> None:
    async def main() -> None:
        async with served(connect, bundle) as (server, client):
            await client.open(server.url("/b"))
            await client.close()
            await client.close()
            with pytest.raises(SourceError, match="closed"):
                await client.open(server.url("/b"))

    asyncio.run(main())
