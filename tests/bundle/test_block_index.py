"""The block hash index: sizes, digests, and the table that finds chunks by their digests."""

from __future__ import annotations

import hashlib
import random
import sys

import pytest

from updated.bundle.block_index import CHUNK, DIGEST, MAX_CHUNKS, ZERO, chunks_of, digests_of
from updated.bundle.chunk_table import MAX_PROBES, ChunkTable, prefixes
from updated.errors import BundleError


def test_sizes() -> None:
    assert chunks_of(CHUNK) == 1
    assert chunks_of(CHUNK * MAX_CHUNKS) == MAX_CHUNKS


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "image/partition is empty"),
        (5000, "image/partition size (5000) is not a multiple of 4096 bytes"),
        (CHUNK * (MAX_CHUNKS + 1), f"image/partition size ({CHUNK * (MAX_CHUNKS + 1)}) is too large"),
    ],
)
def test_sizes_that_have_no_index(size: int, text: str) -> None:
    with pytest.raises(BundleError) as caught:
        chunks_of(size)
    assert str(caught.value) == text


def test_digests() -> None:
    assert ZERO.hex() == "ad7facb2586fc6e966c004d7d1d16b024f5805ff7cb47c7a85dabd8b48892ca7"
    data = bytes(CHUNK) + b"x" * CHUNK
    assert digests_of(data) == ZERO + hashlib.sha256(b"x" * CHUNK).digest()
    assert digests_of(memoryview(data)[CHUNK:]) == hashlib.sha256(b"x" * CHUNK).digest()
    assert digests_of(b"") == b""


def test_the_table_finds_what_was_offered_for_what_was_wanted() -> None:
    dice = random.Random(1)
    digests = [dice.randbytes(DIGEST) for _ in range(2000)]
    table = ChunkTable(1000)
    for place, digest in enumerate(digests[:1000]):
        table.want(prefixes(digest)[0], place)
    table.offer(b"".join(digests[500:1500]), 70_000)
    assert [table.place(digest) for digest in digests[:500]] == list(range(500))
    assert [table.place(digest) for digest in digests[500:1000]] == list(range(70_000, 70_500))
    assert {table.place(digest) for digest in digests[1000:]} == {-1}


def test_of_the_same_digest_the_first_is_wanted_and_the_last_offer_counts() -> None:
    table = ChunkTable(2)
    digest = hashlib.sha256(b"").digest()
    table.want(prefixes(digest)[0], 3)
    table.want(prefixes(digest)[0], 9)
    assert table.place(digest) == 3
    table.offer(digest * 3, 20)
    assert table.place(digest) == 22


def test_digests_made_to_collide_end_the_search() -> None:
    """They are signed, so nobody should make them; it must not take for ever all the same."""
    table = ChunkTable(1000)
    entries = 1501
    digests = [
        (n * entries << 29).to_bytes(8, sys.byteorder) + bytes(DIGEST - 8) for n in range(1, MAX_PROBES + 10)
    ]
    for place, digest in enumerate(digests):
        table.want(prefixes(digest)[0], place)
    places = [table.place(digest) for digest in digests]
    assert places[:MAX_PROBES] == list(range(MAX_PROBES))
    assert set(places[MAX_PROBES:]) == {-1}
    table.offer(b"".join(digests), 5)
    assert table.place(digests[0]) == 5


def test_an_empty_table() -> None:
    table = ChunkTable(0)
    table.offer(ZERO, 0)
    assert table.place(ZERO) == -1
