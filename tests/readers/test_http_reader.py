"""Reading by ranges: expected and unexpected reads, broken connections, objects that change."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager

import pytest

from tests.fakes.web import Fault, Server
from updated.errors import SourceError, UpdatedError
from updated.readers.http import HttpClient, HttpError, HttpReader

Connect = Callable[..., AbstractAsyncContextManager[HttpClient]]
TAIL = 65544
PIECE = 100_000
WINDOW = 2 << 20


@contextlib.asynccontextmanager
async def reading(
    connect: Connect, content: bytes, *faults: Fault, **settings: object
) -> AsyncIterator[tuple[Server, HttpReader]]:
    """A reader of `content`; the faults begin after its first request, with number 2."""
    async with Server({"/b": content}, {"/b": faults}) as server, connect(**settings) as client:
        reader = await client.open(server.url("/b"))
        try:
            yield server, reader
        finally:
            await reader.close()


def pieces(content: bytes, size: int = PIECE) -> list[tuple[int, int]]:
    return [(offset, min(size, len(content) - offset)) for offset in range(0, len(content), size)]


async def read_all(
    reader: HttpReader, ranges: list[tuple[int, int]], content: bytes, *, at_once: int = 5
) -> None:
    """Read `ranges` in order, some at once, and compare."""
    waiting = iter(ranges)

    async def reads() -> None:
        for offset, length in waiting:
            assert await reader.read(offset, length) == content[offset : offset + length]

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(reads())


async def asked(server: Server, count: int) -> None:
    """So many requests have come."""
    while server.counts["/b"] < count:  # noqa: ASYNC110
        await asyncio.sleep(0.005)


def test_what_is_expected_comes_with_one_request(connect: Connect, bundle: bytes) -> None:
    async def main() -> None:
        async with reading(connect, bundle) as (server, reader):
            reader.expect(pieces(bundle))
            await read_all(reader, pieces(bundle), bundle)
            assert server.counts["/b"] == 2
            assert server.connections == 1
            assert reader.fetched == server.sent["/b"]
            assert reader.fetched <= len(bundle) + TAIL

    asyncio.run(main())


@pytest.mark.parametrize("at_once", [1, 2, 6])
@pytest.mark.parametrize("size", [1000, 4096, 65536, 300_000, 2_500_000, 4_000_000])
def test_pieces_of_any_size_arrive_whole(connect: Connect, bundle: bytes, size: int, at_once: int) -> None:
    async def main() -> None:
        async with reading(connect, bundle) as (_, reader):
            reader.expect(pieces(bundle, size))
            await read_all(reader, pieces(bundle, size), bundle, at_once=at_once)

    asyncio.run(main())


def test_overlaps_gaps_jumps_and_repetitions_are_fetched_as_few_times_as_can_be(
    connect: Connect, bundle: bytes
) -> None:
    ranges = [
        (0, 5000),
        (4096, 8192),  # overlaps
        (4096, 100),  # inside of the last one
        (5000, 70_000),
        (80_000, 10),  # after a small gap
        (1_000_000, 200_000),  # after a large one: another request
        (500, 1000),  # back: another request
        (500, 1000),  # again
        (2_000_000, 300_000),
        (2_000_000, 0),
    ]

    async def main() -> None:
        async with reading(connect, bundle) as (server, reader):
            reader.expect(ranges)
            await read_all(reader, ranges, bundle, at_once=1)
            asked = [request.headers["range"] for request in server.requests]
            assert asked[1:4] == ["bytes=0-80009", "bytes=1000000-1199999", "bytes=500-1499"]
            assert len(asked) == 5

    asyncio.run(main())


def test_any_plan_is_read_right(connect: Connect, bundle: bytes) -> None:
    """Random plans, read in order by several at once, with other reads in between, some left out."""

    async def main() -> None:
        async with reading(connect, bundle) as (_, reader):
            for seed in range(12):
                choose = random.Random(seed)
                plan, at = [], 0
                for _ in range(60):
                    at = max(0, at + choose.choice([0, 0, 0, -4000, 3000, 200_000, -300_000]))
                    at = min(at, len(bundle) - 1)
                    length = min(choose.choice([1, 4096, 50_000, 400_000]), len(bundle) - at)
                    plan.append((at, length))
                    at += length
                reader.expect(iter(plan))
                reads = [item for item in plan if choose.random() < 0.8]
                for _ in range(choose.choice([0, 3])):
                    reads.insert(choose.randrange(len(reads)), (choose.randrange(len(bundle) - 9), 9))
                await read_all(reader, reads, bundle, at_once=choose.choice([1, 4, 6]))

    asyncio.run(main())


def test_ranges_are_taken_from_their_iterator_as_they_are_needed(connect: Connect) -> None:
    content = bytes(8 << 20)
    taken = 0

    def ranges() -> Iterator[tuple[int, int]]:
        nonlocal taken
        for offset in range(0, 1 << 40, 1024):  # no end
            taken += 1
            yield offset % (4 << 20), 1024

    async def main() -> None:
        async with reading(connect, content) as (_, reader):
            reader.expect(ranges())
            for offset in range(0, 1 << 20, 1024):
                assert await reader.read(offset, 1024) == bytes(1024)
            reader.expect(())
            assert taken < 10_000

    asyncio.run(main())


def test_not_more_than_the_window_is_fetched_before_somebody_reads(connect: Connect) -> None:
    content = random.Random(2).randbytes(24 << 20)

    async def main() -> None:
        async with reading(connect, content) as (_, reader):
            reader.expect(pieces(content))
            before = -1
            while before != reader.fetched:  # until nothing comes any more
                before = reader.fetched
                await asyncio.sleep(0.1)
            assert TAIL < before <= TAIL + WINDOW + (1 << 20)
            await read_all(reader, pieces(content), content)

    asyncio.run(main())


def test_pieces_that_nobody_reads_do_not_block_those_behind(connect: Connect) -> None:
    content = random.Random(3).randbytes(12 << 20)
    ranges = pieces(content)

    async def main() -> None:
        async with reading(connect, content) as (server, reader):
            reader.expect(ranges)
            for offset, length in ranges[50::20]:  # each is known by then: it is among those ahead
                assert await reader.read(offset, length) == content[offset : offset + length]
            offset, length = ranges[1]  # left out, and wanted in the end
            assert await reader.read(offset, length) == content[offset : offset + length]
            assert server.counts["/b"] <= 5

    asyncio.run(main())


def test_an_unexpected_read_is_served_in_the_middle_and_the_stream_goes_on(
    connect: Connect, bundle: bytes
) -> None:
    ranges = pieces(bundle)

    async def main() -> None:
        async with reading(connect, bundle) as (server, reader):
            reader.expect(ranges)
            await read_all(reader, ranges[:3], bundle)
            async with asyncio.TaskGroup() as group:
                group.create_task(read_all(reader, ranges[3:], bundle))
                for offset in (2_000_000, 7, 1_000_001):
                    group.create_task(read_all(reader, [(offset, 5000)], bundle))
            assert server.counts["/b"] <= 2 + 3 + 3
            # what was there before the interruption is not fetched again, apart from what was on its way
            assert reader.fetched < len(bundle) + TAIL + 15_000 + 3 * PIECE

    asyncio.run(main())


def test_without_any_hint_everything_is_served_too(connect: Connect, bundle: bytes) -> None:
    async def main() -> None:
        async with reading(connect, bundle) as (server, reader):
            await read_all(reader, pieces(bundle), bundle)
            assert server.connections == 1  # kept alive

    asyncio.run(main())


def test_a_new_hint_replaces_the_last_one_and_who_waits_is_served(connect: Connect, bundle: bytes) -> None:
    async def main() -> None:
        async with reading(connect, bundle, Fault(first=2, last=2, cut=10_000, how="stall")) as (
            server,
            reader,
        ):
            reader.expect(pieces(bundle))
            first = asyncio.create_task(reader.read(0, PIECE))
            await asked(server, 2)
            reader.expect([(PIECE, 10), (PIECE + 10, 10)])
            assert await reader.read(PIECE, 10) == bundle[PIECE : PIECE + 10]
            assert await first == bundle[:PIECE]
            reader.expect(())
            assert await reader.read(PIECE + 10, 10) == bundle[PIECE + 10 : PIECE + 20]

    asyncio.run(main())


def test_a_cancelled_read_hurts_nobody(connect: Connect, bundle: bytes) -> None:
    ranges = pieces(bundle)

    async def main() -> None:
        async with reading(connect, bundle, Fault(first=2, cut=250_000, how="stall"), stall_timeout=0.05) as (
            _,
            reader,
        ):
            reader.expect(ranges)
            waiting = [asyncio.create_task(reader.read(*item)) for item in ranges[:5]]
            alone = asyncio.create_task(reader.read(3, 300_000))
            await asyncio.sleep(0.02)
            waiting[3].cancel()
            alone.cancel()
            done = await asyncio.gather(*waiting, alone, return_exceptions=True)
            assert isinstance(done[3], asyncio.CancelledError)
            assert isinstance(done[5], asyncio.CancelledError)
            assert (
                b"".join(part for part in done if isinstance(part, bytes))
                == bundle[:300_000] + bundle[400_000:500_000]
            )
            await read_all(reader, ranges[3:], bundle)  # the cancelled one, too

    asyncio.run(main())


def test_closing_ends_the_reads_that_wait(connect: Connect, bundle: bytes) -> None:
    async def main() -> None:
        async with reading(connect, bundle, Fault(first=2, cut=10, how="stall")) as (server, reader):
            reader.expect(pieces(bundle))
            waiting = [asyncio.create_task(reader.read(*item)) for item in pieces(bundle)[:3]]
            waiting += [asyncio.create_task(reader.read(5, 50)), asyncio.create_task(reader.read(6, 60))]
            await asked(server, 3)
            await reader.close()
            for found in await asyncio.gather(*waiting, return_exceptions=True):
                assert isinstance(found, SourceError)
                assert "closed meanwhile" in str(found)
            with pytest.raises(SourceError, match="closed meanwhile"):
                await reader.read(0, 1)
            reader.expect([(0, 1)])  # no effect
            await reader.close()
            assert len(asyncio.all_tasks()) <= 3  # this one, and the server's

    asyncio.run(main())


def test_a_plan_that_fails_fails_the_read(connect: Connect, bundle: bytes) -> None:
    def ranges() -> Iterator[tuple[int, int]]:
        yield 0, 10
        raise UpdatedError("no more plan")

    async def main() -> None:
        async with reading(connect, bundle) as (_, reader):
            reader.expect(ranges())
            with pytest.raises(UpdatedError, match="no more plan"):
                await reader.read(0, 10)
            assert await reader.read(0, 10) == bundle[:10]

    asyncio.run(main())


BREAKS = {
    "closed": Fault(first=2, cut=300_000, how="close"),
    "reset": Fault(first=2, cut=300_000, how="reset"),
    "stalled": Fault(first=2, cut=900_000, how="stall"),
    "closed in chunks": Fault(first=2, cut=300_000, chunked=True),
    "busy": Fault(first=2, last=4, status=503),
    "busy and says how long": Fault(first=2, last=3, status=429, headers={"Retry-After": "3600"}),
    "without a strong etag": Fault(first=2, cut=300_000, etag='W/"weak"'),
}


@pytest.mark.parametrize("expected", [True, False], ids=["expected", "unexpected"])
@pytest.mark.parametrize("name", BREAKS)
def test_what_breaks_goes_on_at_the_next_byte(
    connect: Connect, bundle: bytes, name: str, expected: bool
) -> None:
    ranges = pieces(bundle, 700_000)

    async def main() -> None:
        first, fault = Fault(last=1, etag=BREAKS[name].etag), BREAKS[name]
        async with reading(connect, bundle, first, fault, stall_timeout=0.15) as (_, reader):
            if expected:
                reader.expect(ranges)
            await read_all(reader, ranges, bundle)
            assert reader.fetched <= len(bundle) + TAIL + 600_000

    asyncio.run(main())


@pytest.mark.parametrize(
    ("fault", "pin"),
    [
        (Fault(etag='"strong"'), '"strong"'),
        (Fault(etag='W/"weak"'), "Sat, 01 Aug 2026 00:00:00 GMT"),
        (Fault(etag=""), "Sat, 01 Aug 2026 00:00:00 GMT"),
        (Fault(etag="", modified=""), None),
        (Fault(etag='W/"weak"', modified=""), None),
    ],
)
def test_later_requests_are_pinned_to_the_first_answer(
    connect: Connect, bundle: bytes, fault: Fault, pin: str | None
) -> None:
    async def main() -> None:
        async with reading(connect, bundle, fault) as (server, reader):
            assert await reader.read(0, 10) == bundle[:10]
            assert server.requests[1].headers.get("if-range") == pin

    asyncio.run(main())


OTHER = b"hsqs" + bytes(range(256)) * 13000


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("another version", Fault(first=2, content=OTHER)),
        ("another version, ranges whatever was asked", Fault(first=2, etag='"other"', headers={"X": "y"})),
        ("another date, no tags", Fault(first=2, etag="", modified="Sun, 02 Aug 2026 00:00:00 GMT")),
        ("another size, no tags", Fault(first=2, content=OTHER, etag="", modified="")),
        ("shorter than before", Fault(first=2, status=416, headers={"Content-Range": "bytes */5"})),
        ("precondition failed", Fault(first=2, status=412)),
    ],
)
@pytest.mark.parametrize("expected", [True, False], ids=["expected", "unexpected"])
def test_an_object_that_changes_is_an_error_and_no_mixture(
    connect: Connect, bundle: bytes, name: str, fault: Fault, expected: bool
) -> None:
    first = Fault(
        last=1, etag=fault.etag if fault.etag == "" else None, modified=fault.modified and Fault().modified
    )

    async def main() -> None:
        async with reading(connect, bundle, first, fault) as (server, reader):
            if expected:
                reader.expect(pieces(bundle))
            with pytest.raises(SourceError, match="changed while it was read"):
                await reader.read(0, PIECE)
            assert server.counts["/b"] == 2

    asyncio.run(main())


def test_the_same_object_without_ranges_is_not_taken_for_another(connect: Connect, bundle: bytes) -> None:
    async def main() -> None:
        async with reading(connect, bundle, Fault(last=1), Fault(first=2, ranges=False)) as (_, reader):
            with pytest.raises(SourceError, match="the server sends all of it instead of a part"):
                await reader.read(0, PIECE)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (Fault(first=2, shift=1), "instead of"),
        (Fault(first=2, shift=-1), "instead of"),
        (Fault(first=2, shift=4096), "instead of"),
        (Fault(first=2, total=1), "changed"),
        (Fault(first=2, length=7), "instead of"),
        (Fault(first=2, length=-7), "instead of"),
        (Fault(first=2, headers={"Content-Range": "bytes */*"}), "Content-Range"),
        (Fault(first=2, headers={"Content-Range": f"bytes 0-{10**30}/{10**31}"}), "Content-Range"),
        (Fault(first=2, multipart=True), "Content-Range"),
        (Fault(first=2, gzip=True), "gzip"),
        (Fault(first=2, endless=True), "more bytes than it promised"),
        (Fault(first=2, status=404), "Not found"),
        (Fault(first=2, status=403), "Forbidden"),
        (Fault(first=2, status=204), "204"),
        (Fault(first=2, status=302), "302"),
    ],
)
def test_lies_in_the_middle_are_told_at_once(
    connect: Connect, bundle: bytes, fault: Fault, text: str
) -> None:
    async def main() -> None:
        # What lies behind an expected piece is none of its reader's business.
        for expected in (False,) if fault.endless else (True, False):
            async with reading(connect, bundle, fault) as (server, reader):
                if expected:
                    reader.expect([(10, PIECE)])
                with pytest.raises(SourceError) as caught:
                    await reader.read(10, PIECE)
                assert text in str(caught.value) or "not HTTP" in str(caught.value.__cause__)
                assert server.counts["/b"] <= 3

    asyncio.run(main())


def test_a_server_without_validators_that_forgets_ranges_is_told(connect: Connect, bundle: bytes) -> None:
    async def main() -> None:
        plain = Fault(last=1, etag="", modified="")
        async with reading(connect, bundle, plain, Fault(ranges=False)) as (_, reader):
            with pytest.raises(SourceError, match="all of it instead of a part"):
                await reader.read(0, 10)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (Fault(first=2, cut=0), "ended too early; 5 tries"),
        (Fault(first=2, cut=0, how="reset"), "5 tries brought nothing"),
        (Fault(first=2, cut=100, how="stall"), "no data within 0.05 s; 5 tries"),
        (Fault(first=2, drip=0.03), "no data within 0.05 s; 5 tries"),
        (Fault(first=2, status=500), "Internal Server Error"),
    ],
)
def test_tries_without_progress_come_to_an_end(
    connect: Connect, bundle: bytes, fault: Fault, text: str
) -> None:
    async def main() -> None:
        async with reading(connect, bundle, fault, stall_timeout=0.05) as (server, reader):
            reader.expect(pieces(bundle))
            with pytest.raises(SourceError) as caught:
                await reader.read(0, PIECE)
            assert text in str(caught.value)
            assert server.counts["/b"] == 1 + 5
            assert caught.value.passing

    asyncio.run(main())


def test_many_short_connections_are_progress(connect: Connect, bundle: bytes) -> None:
    async def main() -> None:
        async with reading(connect, bundle, Fault(first=2, cut=5000)) as (server, reader):
            assert await reader.read(0, 100_000) == bundle[:100_000]
            assert server.counts["/b"] == 1 + 20

    asyncio.run(main())


def test_a_slow_reader_is_no_stall(connect: Connect) -> None:
    content = random.Random(5).randbytes(12 << 20)
    ranges = pieces(content, 1 << 20)

    async def main() -> None:
        async with reading(connect, content, stall_timeout=0.1) as (server, reader):
            reader.expect(ranges)
            for offset, length in ranges:
                assert await reader.read(offset, length) == content[offset : offset + length]
                if offset in (1 << 20, 5 << 20):
                    await asyncio.sleep(0.3)  # a slot that is busy
            assert server.counts["/b"] == 2

    asyncio.run(main())


def test_an_error_of_the_server_keeps_its_kind(connect: Connect, bundle: bytes) -> None:
    async def main() -> None:
        async with reading(connect, bundle, Fault(first=2, status=410)) as (_, reader):
            with pytest.raises(HttpError) as caught:
                await reader.read(0, 10)
            assert caught.value.status == 410

    asyncio.run(main())


def test_bytes_that_were_bad_are_asked_for_again(connect: Connect, bundle: bytes) -> None:
    async def main() -> None:
        async with reading(connect, bundle) as (server, reader):
            reader.expect(pieces(bundle)[:10])
            await read_all(reader, pieces(bundle)[:1], bundle)
            while reader.fetched < TAIL + 10 * PIECE:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            reader.forget(PIECE + 1, 1)
            await read_all(reader, pieces(bundle)[1:10], bundle)
            asked = [
                (request.headers["range"], request.headers.get("cache-control"))
                for request in server.requests
            ]
            assert asked[2:] == [("bytes=100000-199999", "no-cache")]
            reader.forget(len(bundle) - 1, 1)
            assert await reader.read(len(bundle) - 8, 8) == bundle[-8:]
            assert server.counts["/b"] == 4

    asyncio.run(main())
