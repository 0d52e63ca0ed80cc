"""The end of a bundle, where reading begins: `payload | CMS | 64-bit big-endian size of the CMS`.

Source: RAUC src/bundle.c (check_bundle), with its texts.  Nothing here is trusted yet.
"""

from __future__ import annotations

from dataclasses import dataclass

from updated.bundle import verity
from updated.bundle.manifest import Manifest
from updated.bundle.plan import Plan, Range
from updated.bundle.verity import BLOCK, VerityParams
from updated.errors import BundleError

TRAILER = 8  # bytes
DEFAULT_MAX_SIGNATURE_SIZE = 64 * 1024  # bytes; `max-bundle-signature-size` of system.conf
FIRST_READ = DEFAULT_MAX_SIGNATURE_SIZE + TRAILER  # bytes; brings trailer and CMS in one request
MAX_PLAIN_PAYLOAD = 2**31 - 1  # bytes; RAUC's limit since CVE-2026-34155
_ALIGNMENT_HELP = (
    "https://rauc.readthedocs.io/en/latest/faq.html#what-causes-a-payload-size-that-is-not-a-multiple-of-4kib"
)


@dataclass(frozen=True, slots=True)
class Tail:
    """What the end of a bundle says; the payload is the first `payload_size` bytes."""

    payload_size: int  # bytes, hash tree included
    cms: bytes


def read_tail(size: int, max_signature_size: int = DEFAULT_MAX_SIGNATURE_SIZE) -> Plan[Tail]:
    """Find the CMS of a bundle of `size` bytes; one read unless the CMS is larger than 64 KiB.

    Raises BundleError with RAUC's text.
    """
    if size < TRAILER:
        raise _invalid(f"Bundle size ({size}) is too small")
    wanted = min(size, FIRST_READ)
    end = yield Range(size - wanted, wanted)
    if len(end) != wanted:
        raise _invalid(f"expected {wanted} bytes at its end, got {len(end)}")
    cms_size = int.from_bytes(end[-TRAILER:], "big")
    _check_signature_size(cms_size, size - TRAILER, max_signature_size)
    payload_size = size - TRAILER - cms_size
    if cms_size <= wanted - TRAILER:
        return Tail(payload_size, end[-TRAILER - cms_size : -TRAILER])
    missing = cms_size - (wanted - TRAILER)
    begin = yield Range(payload_size, missing)
    if len(begin) != missing:
        raise _invalid(f"expected {missing} bytes of signature, got {len(begin)}")
    return Tail(payload_size, begin + end[:-TRAILER])


def check_verity_geometry(manifest: Manifest, payload_size: int) -> VerityParams:
    """Do the sizes of a verity or crypt bundle belong together?  The manifest must be verified and checked.

    RAUC compares them nowhere and fails later; a wrong size here is a wrong bundle in any case.
    Raises BundleError.
    """
    assert manifest.verity_hash is not None and manifest.verity_salt is not None
    if payload_size % BLOCK:
        raise BundleError(f"Payload size ({payload_size}) is not a multiple of 4KiB. See {_ALIGNMENT_HELP}")
    data_size = payload_size - manifest.verity_size
    if manifest.verity_size % BLOCK or data_size < 2 * BLOCK:
        raise BundleError(
            f"Hash tree of {manifest.verity_size} bytes does not fit into a payload of {payload_size} bytes"
        )
    params = VerityParams(manifest.verity_hash, manifest.verity_salt, data_size)
    expected = verity.tree_size(data_size)
    if manifest.verity_size != expected:
        raise BundleError(
            f"Hash tree of {data_size} bytes of data must have {expected} bytes, got {manifest.verity_size}"
        )
    return params


def check_plain_geometry(payload_size: int) -> None:
    """Raises BundleError for a plain payload that RAUC refuses.  It may be unaligned: RAUC 1.4 wrote such."""
    if payload_size > MAX_PLAIN_PAYLOAD:
        raise BundleError(
            f"Bundle payload size {payload_size} exceeds maximum for bundles using plain format (2 GiB)",
            hint="Make the bundle in verity format.",
        )


def _check_signature_size(cms_size: int, available: int, limit: int) -> None:
    if cms_size == 0:
        raise _invalid("Signature size is 0")
    if cms_size > available:
        raise _invalid(f"Signature size ({cms_size}) exceeds bundle size")
    if cms_size > limit:
        raise _invalid(f"Signature size ({cms_size}) exceeds max-bundle-signature-size ({limit})")


def _invalid(message: str) -> BundleError:
    return BundleError(f"Invalid bundle format: {message}", hint="Is this a RAUC bundle, and is it whole?")
