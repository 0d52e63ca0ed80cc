"""The direct stream: a plain bundle goes from the server into the slot without a spool, and is proven last.

The signature of a plain bundle covers the digest of its whole payload, so nothing of it can be believed
before its last byte was seen.  Here the payload passes by once, in order: each byte is hashed, and the images
in it are written on the way to a target that does not boot.  `prove`, at the end, compares the digest of all
that has passed with the signed one; only then may the target be made primary.

Manifest, directory and block lists are needed before: they are read ahead by separate requests, unverified.
Why that is safe: each byte that anybody gets comes from `PassingReader.read`, in whole chunks of 64 KiB.
Whoever reads a chunk first, a request ahead or the pass, leaves its SHA-256; every other time the chunk must
have the same one.  Before the proof succeeds the pass has seen each chunk of the payload once, and hashed it.
So all bytes that were ever used are those of the hashed payload, and this payload is the signed one:
manifest, layout and images are what a reader of the verified bundle would have seen.

What remains is why it is the administrator's choice: unverified bytes are parsed and decompressed, and the
target group is overwritten, before anybody knows that the bundle is good.  Hooks and handlers, which would
run unverified, are refused.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from updated.bundle.chunks import CHUNK
from updated.bundle.manifest import Manifest
from updated.bundle.plan import Range
from updated.errors import Refused
from updated.install.opened import Detached, OpenedBundle, read_manifest
from updated.install.passing import PassingReader
from updated.install.payload import Payload

if TYPE_CHECKING:
    from updated.bundle.squashfs import FileLayout

MAX_IMAGES: Final = 64  # looking one up in unverified directories takes time


async def open_direct(found: Detached) -> OpenedBundle:
    """Open a plain bundle unproven: `prove` must succeed before its target is made primary.

    The images are in the order in which they pass, and none is adaptive: all bytes must come in any case.
    Raises BundleError, SourceError, Refused (rule `plain-over-http`) if something in it wants to be run.
    """
    reader = PassingReader(found)
    payload = PassingPayload(reader, found.payload_size)
    manifest = await read_manifest(payload)
    _refuse_what_runs(manifest)
    reader.metadata_at((await payload.squashfs()).superblock.inode_table)
    places = {name: await payload.place(name) for name in _names(manifest)}
    images = sorted(manifest.images, key=lambda image: places.get(image.filename or "", 0))
    manifest = replace(manifest, images=tuple(replace(image, adaptive=()) for image in images))
    return OpenedBundle(manifest, found.chain, payload, reader.prove)


def _names(manifest: Manifest) -> set[str]:
    names = {image.filename for image in manifest.images if image.filename is not None}
    if len(names) > MAX_IMAGES:
        raise Refused(
            f"A plain bundle with {len(names)} images is not streamed, at most {MAX_IMAGES} are expected",
            rule="plain-over-http",
            hint='Make it in verity format, or set `plain-over-http = "spool"` in [install] of updated.toml.',
        )
    return names


def _refuse_what_runs(manifest: Manifest) -> None:
    hooked = manifest.hooks or manifest.hook_filename or any(image.hooks for image in manifest.images)
    if hooked or manifest.handler_filename is not None:
        raise Refused(
            "A plain bundle with hooks or a handler is not streamed: they would run before it is verified",
            rule="plain-over-http",
            hint='Make it in verity format, or set `plain-over-http = "spool"` in [install] of updated.toml.',
        )


class PassingPayload(Payload):
    """Tells its reader where the images lie that are going to be written."""

    def __init__(self, reader: PassingReader, size: int) -> None:
        super().__init__(reader, Unchecked(size))
        self._passing = reader

    async def find_layout(self, name: str) -> FileLayout | None:
        """As `Payload`."""
        layout = await super().find_layout(name)
        if layout is not None:
            self._passing.stream(layout.start, layout.stored_bytes)
        return layout

    async def place(self, name: str) -> int:
        """Where the file begins; 0 if there is none: whoever needs it will say so."""
        inode = await self.find(name)
        return 0 if inode is None else inode.start


class Unchecked:
    """A `Verifier` that leaves it to `PassingReader` to compare, and to `prove` to tell good from bad."""

    granule = CHUNK

    def __init__(self, data_size: int) -> None:
        self.data_size = data_size

    def digests(self, offset: int, length: int) -> Range | None:
        """Nothing is needed."""
        return None

    def check(self, offset: int, data: bytes | memoryview, digests: bytes) -> None:
        """Accept what `PassingReader` handed out."""
