"""A bundle of which any byte was changed, or that was cut anywhere, is refused by the chain of checks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Protocol

import pytest

from updated.authoring.bundle import create
from updated.bundle import manifest_parse, verity
from updated.bundle.chunks import ChunkDigestsBuilder
from updated.bundle.plan import run_on_bytes
from updated.bundle.signature import parse_signed_data
from updated.bundle.tail import check_plain_geometry, check_verity_geometry, read_tail
from updated.bundle.trust import Keyring, KeyringPolicy
from updated.errors import BundleError


class Keys(Protocol):
    certificate: Path
    key: Path


Bundle = tuple[bytes, Keyring]


@pytest.fixture(params=["plain", "verity"])
def bundle(
    request: pytest.FixtureRequest, content: Callable[[str], Path], keys: Keys, tmp_path: Path
) -> Bundle:
    certificate, key = keys.certificate.read_bytes(), keys.key.read_bytes()
    folder = content(request.param)
    (folder / "rootfs.img").write_bytes(Random(2).randbytes(128 << 10))  # hashed hundreds of times below
    create(folder, tmp_path / "bundle", certificate=certificate, key=key)
    return (tmp_path / "bundle").read_bytes(), Keyring.load([certificate], KeyringPolicy())


def verify(data: bytes, keyring: Keyring) -> tuple[bytes | None, bytes]:
    """All that a device checks, and what it then believes: inline manifest, payload.  Raises BundleError."""
    tail = run_on_bytes(read_tail(len(data)), data)
    message = parse_signed_data(tail.cms)
    message.verify(keyring, datetime.now(UTC))
    payload = data[: tail.payload_size]
    if message.content is None:
        check_plain_geometry(tail.payload_size)
        message.check_digest(hashlib.new(message.digest_algorithm, payload).digest())
        return None, payload
    params = check_verity_geometry(manifest_parse.parse(message.content, inline=True), tail.payload_size)
    tree = run_on_bytes(verity.load(params), data)
    wanted = tree.digests(0, params.data_size)
    tree.check(0, data[: params.data_size], data[wanted.offset : wanted.offset + wanted.length])
    return message.content, payload


def test_as_it_was_made_it_is_accepted(bundle: Bundle) -> None:
    verify(*bundle)


def test_any_changed_byte_is_refused(bundle: Bundle) -> None:
    """Each region: SquashFS, hash tree, CMS, size.

    Some bytes of a CMS mean nothing (version numbers, absent parameters): then the same is believed.
    """
    data, keyring = bundle
    random = Random(4)
    cms = len(data) - 8 - int.from_bytes(data[-8:], "big")
    positions = {*range(0, cms, 4096), *range(4095, cms, 4096), *random.sample(range(cms, len(data)), 150)}
    believed = verify(data, keyring)
    refused = 0
    for position in sorted(positions | set(range(len(data) - 8, len(data)))):
        changed = bytearray(data)
        changed[position] ^= 1 << random.randrange(8)
        try:
            assert verify(bytes(changed), keyring) == believed
        except BundleError:
            refused += 1
    assert refused > len(positions) - 10


def test_cut_anywhere_it_is_refused(bundle: Bundle) -> None:
    data, keyring = bundle
    for length in {*range(0, len(data), 5003), *range(len(data) - 20, len(data))}:
        with pytest.raises(BundleError):
            verify(data[:length], keyring)


def test_bytes_in_between_or_behind_are_refused(bundle: Bundle) -> None:
    data, keyring = bundle
    cms = len(data) - 8 - int.from_bytes(data[-8:], "big")
    for position in (0, 4096, cms, len(data)):
        with pytest.raises(BundleError):
            verify(data[:position] + bytes(4096) + data[position:], keyring)


def test_what_changes_after_the_check_of_a_plain_bundle_is_refused(bundle: Bundle) -> None:
    data, _ = bundle
    builder = ChunkDigestsBuilder()
    builder.feed(data)
    verifier = builder.finish()
    changed = bytearray(data)
    changed[70_000] ^= 1
    verifier.check(0, data, b"")
    with pytest.raises(BundleError, match="bundle payload is corrupted"):
        verifier.check(0, bytes(changed), b"")
