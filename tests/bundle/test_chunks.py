"""Chunk digests: what changed between check and use is found."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from updated.bundle.chunks import CHUNK, ChunkDigests, ChunkDigestsBuilder
from updated.bundle.verifier import Verifier
from updated.errors import BundleError

PAYLOAD = Random(7).randbytes(3 * CHUNK + 1000)


def build(payload: bytes, sizes: list[int]) -> ChunkDigests:
    builder = ChunkDigestsBuilder()
    position, turn = 0, 0
    while position < len(payload):
        size = sizes[turn % len(sizes)]
        builder.feed(memoryview(payload)[position : position + size])
        position, turn = position + size, turn + 1
    return builder.finish()


@given(st.lists(st.integers(1000, 3 * CHUNK), min_size=1, max_size=8))
@settings(max_examples=30)
def test_pieces_of_any_size_give_the_same_digests(sizes: list[int]) -> None:
    verifier: Verifier = build(PAYLOAD, sizes)
    assert (verifier.granule, verifier.data_size) == (CHUNK, len(PAYLOAD))
    assert verifier.digests(0, CHUNK) is None
    verifier.check(0, PAYLOAD, b"")
    verifier.check(CHUNK, memoryview(PAYLOAD)[CHUNK : 3 * CHUNK], b"")
    verifier.check(3 * CHUNK, PAYLOAD[3 * CHUNK :], b"")


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK])
def test_payloads_of_any_size(size: int) -> None:
    verifier = build(PAYLOAD[:size], [5000])
    verifier.check(0, PAYLOAD[:size], b"")
    assert verifier.data_size == size


@pytest.mark.parametrize("position", [0, 1, CHUNK - 1, CHUNK, 3 * CHUNK - 1, 3 * CHUNK, len(PAYLOAD) - 1])
def test_every_changed_byte_is_found(position: int) -> None:
    verifier = build(PAYLOAD, [CHUNK])
    changed = bytearray(PAYLOAD)
    changed[position] ^= 1
    chunk = position // CHUNK * CHUNK
    with pytest.raises(BundleError, match=r"^bundle payload is corrupted$"):
        verifier.check(chunk, memoryview(changed)[chunk : chunk + CHUNK], b"")
    with pytest.raises(BundleError, match=r"^bundle payload is corrupted$"):
        verifier.check(0, bytes(changed), b"")


def test_a_chunk_of_another_place_is_refused() -> None:
    verifier = build(PAYLOAD, [CHUNK])
    with pytest.raises(BundleError, match="corrupted"):
        verifier.check(CHUNK, PAYLOAD[:CHUNK], b"")


@pytest.mark.parametrize(
    ("offset", "length"), [(1, CHUNK), (0, CHUNK - 1), (3 * CHUNK, 999), (3 * CHUNK, 1001)]
)
def test_a_range_that_is_no_chunks_is_a_bug(offset: int, length: int) -> None:
    with pytest.raises(ValueError, match="not a range of chunks"):
        build(PAYLOAD, [CHUNK]).check(offset, bytes(length), b"")
