"""Open a bundle: from bytes that nobody trusts to a verified manifest and a way to read verified files.

Steps 1 and 2 of the trust order.  `verity`: the manifest is inside the signature, and each block of
the payload is checked when it is used.  `plain`: the signature covers the payload, which is read once as a
whole first; the digests taken on the way check every later read, whoever may change the file meanwhile.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from contextlib import AbstractContextManager, aclosing, nullcontext
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from updated.bundle import manifest_parse, tail
from updated.bundle.chunks import ChunkDigests, ChunkDigestsBuilder
from updated.bundle.manifest import Image, Manifest
from updated.bundle.plan import run
from updated.core.model import Reader, SlotWriter
from updated.errors import BundleError, DeviceError, NotSupportedError, Refused
from updated.install.fetch import load_tree
from updated.install.payload import Payload
from updated.install.readback import Begun
from updated.install.threads import in_order, in_thread, threads

if TYPE_CHECKING:  # heavy: paid when first used
    from updated.bundle.chain import SignerChain
    from updated.bundle.signature import SignedMessage
    from updated.bundle.squashfs import FileLayout
    from updated.bundle.trust import Keyring
    from updated.install.checkpoint import Checkpoints

log = logging.getLogger(__name__)

PartsFrom = Callable[["FileLayout", int], AsyncGenerator[memoryview, None]]
"""The bytes of an image from an offset (a border of its blocks) to its end, in parts of whole blocks, up to
1 MiB each and valid until the next is asked for."""
Proof = Callable[[], Awaitable[None]]
OnStep = Callable[[str], AbstractContextManager[None]]

MANIFEST = "manifest.raucm"
MAX_MANIFEST = 1 << 20  # bytes; inside a signature it could have 64 KiB
PIECE = 1 << 20  # bytes of a plain payload hashed at once
PIECES_AHEAD = 3  # being read while one is hashed


@dataclass(frozen=True, slots=True)
class Detached:
    """A plain bundle whose CMS is good in all that it says by itself; its payload is not known yet."""

    reader: Reader
    payload_size: int  # bytes
    message: SignedMessage  # its `check_digest` wants the digest of the payload
    chain: SignerChain


@dataclass(frozen=True, slots=True)
class OpenedBundle:
    """A bundle whose signature is good.  Its methods are for one task at a time."""

    manifest: Manifest
    chain: SignerChain
    payload: Payload
    proof: Proof | None = None  # what is missing to believe the manifest and the images

    @property
    def proven(self) -> bool:
        """False: nothing of the manifest may be remembered before `prove` (`install/direct.py`)."""
        return self.proof is None

    async def prove(self) -> None:
        """To be awaited after the last image is written and before the target becomes primary.

        Nothing to do unless the payload was streamed unverified.  Raises SignatureError, SourceError.
        """
        if self.proof is not None:
            await self.proof()

    async def image_layout(self, image: Image) -> FileLayout:
        """Where the file of `image` lies.

        Raises BundleError if it is not there or not as large as the manifest says, SourceError.
        """
        assert image.filename is not None
        layout = await self.payload.find_layout(image.filename)
        if layout is None:
            raise BundleError(f"Source image '{image.filename}' not found in bundle")
        if layout.size != image.size:
            raise BundleError(
                f"Image '{image.filename}' has {layout.size} bytes in the bundle,"
                f" but the manifest says {image.size}"
            )
        return layout

    async def write_image(
        self,
        image: Image,
        writer: SlotWriter,
        *,
        workers: int | None = None,
        on_bytes: Callable[[int], None] = lambda _: None,
        checkpoints: Checkpoints | None = None,
        parts_from: PartsFrom | None = None,
    ) -> None:
        """Write `image` to a slot, durably, read back, and with the SHA-256 that the manifest promises.

        With `checkpoints` it goes on where an earlier attempt ended, and leaves them for the next one.
        `parts_from` is where the bytes come from; by default all are read from the bundle.
        `on_bytes` is called with the image's bytes that are checked or written so far, about once per MiB.
        Raises BundleError, SourceError or DeviceError.
        Cancelled, it returns when no thread uses `writer` any more.
        """
        from updated.install.pipeline import image_digest

        layout = await self.image_layout(image)
        verifier, reader = self.payload.verifier, self.payload.reader
        stream = _Stream(self.payload, layout, writer, workers, on_bytes, parts_from)
        if not self.proven:
            checkpoints = None
        begun = Begun()
        if checkpoints is not None:
            begun = await checkpoints.resume(writer, layout.block_size, on_bytes)
        resumed = begun.position
        found = await stream.write(begun, checkpoints)
        if (resumed or parts_from) and found.hex() != image.sha256:
            log.warning("what was here already is not what the image has: beginning anew")
            if checkpoints is not None:
                await checkpoints.restart()
            found = await stream.write(Begun(), checkpoints)
        if found.hex() == image.sha256:
            return
        if checkpoints is not None:
            await checkpoints.clear()
        # Whose fault is it?  Read the image once more, and do not write it.
        bundled = await image_digest(layout, verifier, reader, workers=workers)
        if bundled.hex() != image.sha256:
            raise BundleError(
                f"Image '{image.filename}' has the SHA-256 {bundled.hex()},"
                f" but the manifest says {image.sha256}"
            )
        raise DeviceError(
            f"Slot holds other bytes than were written to it: SHA-256 of the {image.size} bytes read back is"
            f" {found.hex()}, expected {image.sha256}",
            hint="The storage of this device is failing: look for I/O errors in the kernel's log.",
        )

    async def read_file(self, name: str, limit: int) -> bytes:
        """The content of a small file, a hook or an index.

        Raises BundleError if it is not there or has more than `limit` bytes, SourceError.
        """
        return await self.payload.read_file(name, limit)


@dataclass(frozen=True, slots=True)
class _Stream:
    """An image on its way into a slot."""

    payload: Payload
    layout: FileLayout
    writer: SlotWriter
    workers: int | None
    on_bytes: Callable[[int], None]
    parts_from: PartsFrom | None

    async def write(self, begun: Begun, checkpoints: Checkpoints | None) -> bytes:
        """Write what follows `begun`; the SHA-256 of what the slot holds of the image then."""
        from updated.install.pipeline import stream_image

        reader = self.payload.reader
        return await stream_image(
            self._parts(begun.position),
            self.writer,
            begun=begun,
            on_bytes=self.on_bytes,
            on_durable=checkpoints.append if checkpoints else lambda _offset, _digest: None,
            fetched=lambda: reader.fetched if reader.remote else 0,
        )

    def _parts(self, start: int) -> AsyncGenerator[memoryview, None]:
        from updated.install.pipeline import run_size, runs, unpack

        layout, reader = self.layout, self.payload.reader
        if self.parts_from is not None and start < layout.size:
            return self.parts_from(layout, start)
        return unpack(
            layout,
            self.payload.verifier,
            reader,
            workers=self.workers,
            runs=runs(layout, start, size=run_size(reader)),
        )


async def open_plain(found: Detached) -> OpenedBundle:
    """Read the whole payload: is it what was signed?  Raises BundleError (SignatureError), SourceError."""
    payload = Payload(found.reader, await _hash_payload(found))
    return OpenedBundle(await read_manifest(payload), found.chain, payload)


async def read_manifest(payload: Payload) -> Manifest:
    """The manifest that lies in a plain payload.  Raises BundleError, SourceError."""
    return manifest_parse.parse(await payload.read_file(MANIFEST, MAX_MANIFEST), inline=False)


async def open_bundle(
    reader: Reader,
    *,
    keyring: Keyring,
    formats: Collection[str],
    now: datetime,
    max_signature_size: int = tail.DEFAULT_MAX_SIGNATURE_SIZE,
    on_step: OnStep = lambda _: nullcontext(),
    plain: Callable[[Detached], Awaitable[OpenedBundle]] = open_plain,
) -> OpenedBundle:
    """Verify the bundle behind `reader` against `keyring` at the moment `now` (with a time zone).

    `reader` stays the caller's to close.  `formats` are those that `bundle-formats` allows,
    `max_signature_size` is in bytes.  `on_step` is entered for RAUC's step "Verifying signature"
    (`Progress.step` fits).  `plain` opens what turns out to be a plain bundle.  Raises BundleError
    (SignatureError), Refused (rule `bundle-formats`), NotSupportedError for encrypted bundles, SourceError.
    """
    end = await run(tail.read_tail(reader.size, max_signature_size), reader.read)
    with on_step("Verifying signature"):
        # In a thread: the first use imports OpenSSL and cryptography, some 100 ms.
        message, chain = await asyncio.to_thread(_verify, end.cms, keyring, now)
        if message.content is None:
            _check_format("plain", formats)
            tail.check_plain_geometry(end.payload_size)
            return await plain(Detached(reader, end.payload_size, message, chain))
    manifest = manifest_parse.parse(message.content, inline=True)
    _check_format(manifest.format, formats)
    if manifest.format == "crypt":
        raise _not_yet("Bundle format 'crypt' cannot be read yet")
    tree = await load_tree(tail.check_verity_geometry(manifest, end.payload_size), reader)
    return OpenedBundle(manifest, chain, Payload(reader, tree))


def _verify(cms: bytes, keyring: Keyring, now: datetime) -> tuple[SignedMessage, SignerChain]:
    """All that the CMS says by itself; errors of the chain come before those of the content, as with RAUC."""
    from updated.bundle.cms import read_content_type, type_name
    from updated.bundle.signature import parse_signed_data

    if type_name(read_content_type(cms)) == "pkcs7-envelopedData":
        raise _not_yet("Encrypted bundle detected: it cannot be decrypted yet")
    message = parse_signed_data(cms)
    return message, message.verify(keyring, now)


async def _hash_payload(found: Detached) -> ChunkDigests:
    """Read the payload of a plain bundle: is it what was signed?  Raises SignatureError or SourceError."""
    reader, message = found.reader, found.message
    whole, chunks = hashlib.new(message.digest_algorithm), ChunkDigestsBuilder()
    offsets = range(0, found.payload_size, PIECE)

    def piece_at(offset: int) -> tuple[int, int]:
        return offset, min(PIECE, found.payload_size - offset)

    async def read(offset: int) -> bytes:
        return await reader.read(*piece_at(offset))

    reader.expect(map(piece_at, offsets))
    with threads(2, "hash") as pool:
        async with aclosing(in_order(offsets, read, PIECES_AHEAD)) as pieces:
            async for piece in pieces:
                await asyncio.gather(
                    in_thread(pool, whole.update, piece), in_thread(pool, chunks.feed, piece)
                )
    reader.expect(())
    message.check_digest(whole.digest())
    return chunks.finish()


def _check_format(bundle_format: str, formats: Collection[str]) -> None:
    if bundle_format not in formats:
        raise Refused(
            f"Bundle format '{bundle_format}' not allowed",
            rule="bundle-formats",
            hint=f"bundle-formats in system.conf allows: {', '.join(sorted(formats))}.",
        )


def _not_yet(message: str) -> NotSupportedError:
    return NotSupportedError(message, hint="Make the bundle with `format=verity`, which is not encrypted.")
