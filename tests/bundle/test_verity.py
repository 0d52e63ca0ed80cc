"""The hash tree: built, read from the top down, and every changed byte is found."""

from __future__ import annotations

import hashlib
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from updated.authoring.verity_tree import TreeBuilder
from updated.bundle import verity
from updated.bundle.plan import Range, run_on_bytes
from updated.bundle.verifier import Verifier
from updated.bundle.verity import BLOCK, VerityParams, VerityTree, tree_size
from updated.errors import BundleError

SALT = bytes(range(32))
ONE_LEVEL, TWO_LEVELS, THREE_LEVELS = 100, 300, 16385 + 127


def make(blocks: int) -> tuple[VerityParams, bytes]:
    """Data of that many different blocks, followed by its tree."""
    data = b"".join(number.to_bytes(4, "big") * (BLOCK // 4) for number in range(blocks))
    builder = TreeBuilder(SALT)
    builder.feed(data)
    root, tree = builder.finish()
    assert len(tree) == tree_size(len(data))
    return VerityParams(root, SALT, len(data)), data + tree


@pytest.fixture(scope="module")
def large() -> tuple[VerityParams, bytes]:
    return make(THREE_LEVELS)


def check(tree: Verifier, payload: bytes, offset: int, length: int) -> None:
    wanted = tree.digests(offset, length)
    assert wanted is not None
    tree.check(
        offset, payload[offset : offset + length], payload[wanted.offset : wanted.offset + wanted.length]
    )


@pytest.mark.parametrize("blocks", [2, 127, 128, 129, 257])
def test_all_data_is_accepted(blocks: int) -> None:
    params, payload = make(blocks)
    tree = run_on_bytes(verity.load(params), payload)
    assert (tree.granule, tree.data_size) == (BLOCK, blocks * BLOCK)
    check(tree, payload, 0, params.data_size)
    for offset in range(0, params.data_size, BLOCK):
        check(tree, payload, offset, BLOCK)


def test_three_levels(large: tuple[VerityParams, bytes]) -> None:
    """Order on disk: level 3, level 2, level 1; only 3 and 2 are read by `load`."""
    params, payload = large
    plan = verity.load(params)
    top = next(plan)
    assert top == Range(params.data_size, BLOCK)
    second = plan.send(payload[top.offset : top.offset + top.length])
    assert second == Range(params.data_size + BLOCK, 2 * BLOCK)
    tree = run_on_bytes(verity.load(params), payload)
    assert tree.digests(0, BLOCK) == Range(params.data_size + 3 * BLOCK, BLOCK)
    assert tree.digests(127 * BLOCK, 2 * BLOCK) == Range(params.data_size + 3 * BLOCK, 2 * BLOCK)
    check(tree, payload, 0, params.data_size)


@given(data=st.data())
@settings(max_examples=50)
def test_any_run_of_blocks_can_be_checked(data: st.DataObject, large: tuple[VerityParams, bytes]) -> None:
    params, payload = large
    tree = run_on_bytes(verity.load(params), payload)
    first = data.draw(st.integers(0, THREE_LEVELS - 1))
    count = data.draw(st.integers(1, min(300, THREE_LEVELS - first)))
    check(tree, payload, first * BLOCK, count * BLOCK)


def test_one_level_reads_nothing_to_load() -> None:
    params, _ = make(ONE_LEVEL)
    plan = verity.load(params)
    with pytest.raises(StopIteration) as stop:
        next(plan)
    assert isinstance(stop.value.value, VerityTree)


@pytest.mark.parametrize("blocks", [2, TWO_LEVELS])
def test_every_changed_byte_is_found(blocks: int) -> None:
    """One byte in each block of data and tree, the spare area of the tree included."""
    params, payload = make(blocks)
    random = Random(3)
    for block in range(len(payload) // BLOCK):
        for position in (0, random.randrange(BLOCK), BLOCK - 1):
            changed = bytearray(payload)
            changed[block * BLOCK + position] ^= 1 << random.randrange(8)
            with pytest.raises(BundleError, match=r"^bundle payload is corrupted$"):
                check_all(params, bytes(changed), around=block)


def check_all(params: VerityParams, payload: bytes, *, around: int) -> None:
    tree = run_on_bytes(verity.load(params), payload)
    data_blocks = params.data_size // BLOCK
    if around < data_blocks:
        check(tree, payload, around * BLOCK, BLOCK)
        return
    for first in range(0, data_blocks, 128):
        check(tree, payload, first * BLOCK, BLOCK)


@pytest.mark.parametrize("changed", [VerityParams(bytes(32), SALT, 0), VerityParams(b"", bytes(32), 0)])
def test_another_root_or_salt_is_found(changed: VerityParams) -> None:
    params, payload = make(TWO_LEVELS)
    other = VerityParams(changed.root or params.root, changed.salt, params.data_size)
    with pytest.raises(BundleError, match="corrupted"):
        run_on_bytes(verity.load(other), payload)


def test_blocks_of_another_place_are_refused() -> None:
    params, payload = make(TWO_LEVELS)
    tree = run_on_bytes(verity.load(params), payload)
    wanted = tree.digests(0, BLOCK)
    digests = payload[wanted.offset : wanted.offset + wanted.length]
    with pytest.raises(BundleError, match="corrupted"):
        tree.check(0, payload[BLOCK : 2 * BLOCK], digests)
    other = tree.digests(128 * BLOCK, BLOCK)
    with pytest.raises(BundleError, match="corrupted"):
        tree.check(0, payload[:BLOCK], payload[other.offset : other.offset + other.length])


@pytest.mark.parametrize("length", [0, 1, BLOCK - 1, BLOCK])
def test_cut_short_it_is_refused(length: int) -> None:
    params, payload = make(TWO_LEVELS)
    tree = run_on_bytes(verity.load(params), payload)
    wanted = tree.digests(0, 200 * BLOCK)
    digests = payload[wanted.offset : wanted.offset + length]
    with pytest.raises(BundleError, match="corrupted"):
        tree.check(0, payload[: 200 * BLOCK], digests)
    with pytest.raises(BundleError, match="corrupted"):
        run_on_bytes(verity.load(params), payload[: params.data_size + min(length, BLOCK - 1)])
    if length % BLOCK:
        with pytest.raises(BundleError, match="corrupted"):
            tree.check(0, payload[:length], payload[wanted.offset : wanted.offset + BLOCK])


def test_a_range_outside_of_the_data_is_a_bug() -> None:
    params, payload = make(2)
    tree = run_on_bytes(verity.load(params), payload)
    for offset in (1, 2 * BLOCK):
        with pytest.raises(ValueError, match="not a range of data blocks"):
            tree.check(offset, payload[:BLOCK], b"")


@given(st.integers(2, 300), st.lists(st.integers(1, 3 * BLOCK), min_size=1, max_size=20))
@settings(max_examples=20)
def test_the_builder_takes_pieces_of_any_size(blocks: int, sizes: list[int]) -> None:
    params, payload = make(blocks)
    builder = TreeBuilder(SALT)
    position, turn = 0, 0
    while position < params.data_size:
        end = min(position + sizes[turn % len(sizes)] + BLOCK * (turn > 60), params.data_size)
        builder.feed(payload[position:end])
        position, turn = end, turn + 1
    assert builder.finish() == (params.root, payload[params.data_size :])


def test_the_smallest_tree_by_hand() -> None:
    params, payload = make(2)
    leaf = b"".join(hashlib.sha256(SALT + payload[i : i + BLOCK]).digest() for i in (0, BLOCK)).ljust(
        BLOCK, b"\0"
    )
    assert payload[2 * BLOCK :] == leaf
    assert params.root == hashlib.sha256(SALT + leaf).digest()


@pytest.mark.parametrize("size", [0, 1, BLOCK + 1])
def test_the_builder_refuses_parts_of_blocks(size: int) -> None:
    builder = TreeBuilder(SALT)
    builder.feed(bytes(size))
    with pytest.raises(ValueError, match="not a multiple"):
        builder.finish()
