"""The tail: found with one read, and refused with RAUC's texts."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from updated.bundle.manifest import Manifest
from updated.bundle.plan import Range, run_on_bytes
from updated.bundle.tail import FIRST_READ, Tail, check_plain_geometry, check_verity_geometry, read_tail
from updated.errors import BundleError

BLOCK = 4096


def bundle(payload: int, cms: bytes, cms_size: int | None = None) -> bytes:
    return bytes(payload) + cms + (len(cms) if cms_size is None else cms_size).to_bytes(8, "big")


def test_one_read_is_enough_for_a_usual_bundle() -> None:
    data = bundle(200_000, b"c" * 2000)
    plan = read_tail(len(data))
    wanted = next(plan)
    assert wanted == Range(len(data) - FIRST_READ, FIRST_READ)
    with pytest.raises(StopIteration) as stop:
        plan.send(data[wanted.offset :])
    assert stop.value.value == Tail(200_000, b"c" * 2000)


@pytest.mark.parametrize(("payload", "cms"), [(0, 1), (1, 1), (4096, 65536), (0, 65536), (10_000, 65536)])
def test_found(payload: int, cms: int) -> None:
    data = bundle(payload, b"c" * cms)
    assert run_on_bytes(read_tail(len(data)), data) == Tail(payload, b"c" * cms)


def test_a_larger_limit_costs_a_second_read_of_what_is_missing() -> None:
    cms = bytes(range(250)) * 400
    data = bundle(5000, cms)
    plan = read_tail(len(data), 100_000)
    first = next(plan)
    second = plan.send(data[first.offset :])
    assert second == Range(5000, len(cms) - 65536)
    assert run_on_bytes(read_tail(len(data), 100_000), data) == Tail(5000, cms)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"1234", "Bundle size (4) is too small"),
        (b"", "Bundle size (0) is too small"),
        (bytes(8), "Signature size is 0"),
        (bytes(100_000), "Signature size is 0"),
        (bundle(10, b"c" * 10, 21), "Signature size (21) exceeds bundle size"),
        (bundle(10, b"", 2**64 - 1), "Signature size (18446744073709551615) exceeds bundle size"),
        (bundle(10, b"c" * 65536, 65537), "Signature size (65537) exceeds max-bundle-signature-size (65536)"),
        (bundle(10, b"c" * 10, 65537), "Signature size (65537) exceeds bundle size"),
    ],
)
def test_refused(data: bytes, message: str) -> None:
    with pytest.raises(BundleError) as caught:
        run_on_bytes(read_tail(len(data)), data)
    assert str(caught.value) == f"Invalid bundle format: {message}"


@given(st.binary(max_size=30), st.integers(0, 40))
def test_any_bytes_are_refused_or_read(data: bytes, claimed: int) -> None:
    """Even when the file is shorter than its size said."""
    with contextlib.suppress(BundleError):
        assert run_on_bytes(read_tail(claimed), data).payload_size <= claimed


@given(st.binary(max_size=66_000), st.integers(0, 70_000))
def test_a_file_that_shrinks_is_refused(data: bytes, claimed: int) -> None:
    whole = data + (70_000).to_bytes(8, "big")
    with contextlib.suppress(BundleError):
        tail = run_on_bytes(read_tail(len(whole) + claimed, 100_000), whole)
        assert len(tail.cms) == 70_000


MANIFEST = Manifest("Test", format="verity", verity_hash=bytes(32), verity_salt=bytes(32))


@pytest.mark.parametrize(
    ("blocks", "tree_blocks"), [(2, 1), (128, 1), (129, 3), (257, 4), (16384, 129), (16385, 132)]
)
def test_the_tree_has_the_size_that_the_data_needs(blocks: int, tree_blocks: int) -> None:
    manifest = replace(MANIFEST, verity_size=tree_blocks * BLOCK)
    params = check_verity_geometry(manifest, (blocks + tree_blocks) * BLOCK)
    assert params.data_size == blocks * BLOCK


@pytest.mark.parametrize(
    ("payload", "verity_size", "message"),
    [
        (3 * BLOCK + 1, BLOCK, "Payload size (12289) is not a multiple of 4KiB."),
        (2 * BLOCK, BLOCK, "Hash tree of 4096 bytes does not fit into a payload of 8192 bytes"),
        (BLOCK, BLOCK, "Hash tree of 4096 bytes does not fit into a payload of 4096 bytes"),
        (0, BLOCK, "Hash tree of 4096 bytes does not fit into a payload of 0 bytes"),
        (
            3 * BLOCK,
            2**63,
            "Hash tree of 9223372036854775808 bytes does not fit into a payload of 12288 bytes",
        ),
        (5 * BLOCK, 2 * BLOCK, "Hash tree of 12288 bytes of data must have 4096 bytes, got 8192"),
    ],
)
def test_sizes_that_do_not_belong_together_are_refused(payload: int, verity_size: int, message: str) -> None:
    with pytest.raises(BundleError) as caught:
        check_verity_geometry(replace(MANIFEST, verity_size=verity_size), payload)
    assert str(caught.value).startswith(message)


def test_a_plain_payload_has_a_limit_but_needs_no_alignment() -> None:
    check_plain_geometry(2**31 - 1)
    with pytest.raises(BundleError) as caught:
        check_plain_geometry(2**31)
    assert str(caught.value) == (
        "Bundle payload size 2147483648 exceeds maximum for bundles using plain format (2 GiB)"
    )
