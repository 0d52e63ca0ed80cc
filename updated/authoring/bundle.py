"""Making a bundle of a folder, as `rauc bundle` does: for build hosts, it blocks.

SquashFS of the folder, for verity the hash tree behind it, then the CMS and its size (RAUC src/bundle.c,
create_bundle).
"""

from __future__ import annotations

import hashlib
import os
import secrets
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import BinaryIO

from updated.authoring import content, signing, squashfs
from updated.authoring.manifest_render import render
from updated.authoring.verity_tree import TreeBuilder
from updated.bundle import keyfile, manifest_parse
from updated.bundle.manifest import Manifest
from updated.bundle.tail import DEFAULT_MAX_SIGNATURE_SIZE, TRAILER, check_plain_geometry
from updated.bundle.verity import BLOCK
from updated.durable import sync_folder
from updated.errors import BundleError, DeviceError

PIECE = 1 << 20  # bytes read at once


Sign = Callable[..., bytes]  # signing.sign with certificate, key and time filled in


def create(
    folder: Path,
    output: Path,
    *,
    certificate: bytes,
    key: bytes,
    passphrase: bytes | None = None,
    intermediates: Sequence[bytes] = (),
    mksquashfs_args: Sequence[str] = (),
    max_signature_size: int = DEFAULT_MAX_SIGNATURE_SIZE,
) -> Manifest:
    """Make the bundle `output` (mode 0644) of `folder` and return its manifest; the folder is not changed.

    Certificates and key are PEM.  Either the whole bundle is there at the end or nothing of it.  With
    SOURCE_DATE_EPOCH (seconds) in the environment, the same folder gives the same bytes, but for signatures
    with a random part (ECDSA).  Raises BundleError with RAUC's texts, SignatureError, NotSupportedError,
    DeviceError.
    """
    if output.exists() or output.is_symlink():
        raise BundleError(f"bundle {output} already exists", hint="Remove it, or choose another name.")
    sign = partial(
        signing.sign,
        certificate_pem=certificate,
        key_pem=key,
        passphrase=passphrase,
        intermediates_pem=intermediates,
        signing_time=_source_date() or datetime.now(UTC),
    )
    algorithm = signing.digest_algorithm(certificate)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as scratch:
            bundle = Path(scratch) / "bundle"
            manifest, data = _make_payload(folder, Path(scratch) / "work", bundle, mksquashfs_args)
            with bundle.open("r+b") as file:
                if manifest.format == "plain":
                    cms = _sign_plain(file, data, sign, algorithm)
                else:
                    data = _append_tree(file, manifest)
                    cms = sign(content=data)
                _append_signature(file, cms, max_signature_size)
            bundle.rename(output)
            sync_folder(output.parent)
    except OSError as error:
        raise DeviceError(f"Failed to create bundle: {error}") from error
    return manifest_parse.parse(data, inline=manifest.format != "plain")


def _make_payload(
    folder: Path, work: Path, image: Path, mksquashfs_args: Sequence[str]
) -> tuple[Manifest, bytes]:
    """Make the SquashFS `image`; the completed manifest and its bytes, as they are in it."""
    manifest, original = content.read_manifest(folder)
    work.mkdir(mode=0o700)
    content.stage(folder, work)
    manifest = content.complete(manifest, folder, work)
    bundle_group = keyfile.parse(original).group("bundle")
    data = render(manifest, explicit_format=bundle_group is not None and "format" in bundle_group)
    (work / content.MANIFEST).write_bytes(data)
    squashfs.make(work, image, mksquashfs_args)
    return manifest, data


def _sign_plain(file: BinaryIO, data: bytes, sign: Sign, algorithm: str) -> bytes:
    _check(data, inline=False)
    check_plain_geometry(file.seek(0, os.SEEK_END))
    return sign(digest=_digest(file, algorithm))


def _append_tree(file: BinaryIO, manifest: Manifest) -> bytes:
    """Append the hash tree; the manifest that names it, to be signed."""
    size = file.seek(0, os.SEEK_END)
    if size % BLOCK:
        raise BundleError(f"squashfs size ({size}) is not a multiple of 4096 bytes")
    if size <= BLOCK:
        raise BundleError(
            f"squashfs size ({size}) must be larger than 4096 bytes",
            hint="Add a few KiB of content that does not compress.",
        )
    # A salt need not be secret; one that follows from the payload keeps bundles reproducible.
    salt = secrets.token_bytes(32) if _source_date() is None else _digest(file, "sha256")
    builder = TreeBuilder(salt)
    file.seek(0)
    while piece := file.read(PIECE):
        builder.feed(piece)
    root, tree = builder.finish()
    file.write(tree)
    data = render(replace(manifest, verity_hash=root, verity_salt=salt, verity_size=len(tree)))
    _check(data, inline=True)
    return data


def _append_signature(file: BinaryIO, cms: bytes, limit: int) -> None:
    if len(cms) > limit:
        raise BundleError(
            f"Signature size ({len(cms)}) exceeds max-bundle-signature-size ({limit})",
            hint="The manifest is in it: shorten it, or raise the limit here and in system.conf.",
        )
    file.seek(0, os.SEEK_END)
    file.write(cms + len(cms).to_bytes(TRAILER, "big"))
    file.flush()
    os.fchmod(file.fileno(), 0o644)
    os.fsync(file.fileno())


def _check(data: bytes, *, inline: bool) -> None:
    """Read the manifest as a device will: what it would refuse must not be signed."""
    try:
        manifest_parse.parse(data, inline=inline)
    except BundleError as error:
        raise BundleError(f"cannot sign inconsistent manifest: {error}", hint=error.hint) from error


def _digest(file: BinaryIO, algorithm: str) -> bytes:
    file.seek(0)
    digest = hashlib.new(algorithm)
    while piece := file.read(PIECE):
        digest.update(piece)
    return digest.digest()


def _source_date() -> datetime | None:
    text = os.environ.get("SOURCE_DATE_EPOCH")
    if not text:
        return None
    try:
        return datetime.fromtimestamp(int(text), UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise BundleError(f"SOURCE_DATE_EPOCH must be a number of seconds, got '{text}'") from error
