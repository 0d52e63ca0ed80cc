"""The payload of a bundle, verified at the moment it is used: names to files, files to bytes."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from updated.bundle.plan import run
from updated.bundle.verifier import Verifier
from updated.core.model import Reader
from updated.errors import BundleError
from updated.install.fetch import read_verified

if TYPE_CHECKING:
    from updated.bundle.squashfs import FileLayout, Inode, SquashFS


class Payload:
    """Its methods are for one task at a time; `reader` stays the caller's."""

    def __init__(self, reader: Reader, verifier: Verifier) -> None:
        self.reader = reader
        self.verifier = verifier
        self._squashfs: SquashFS | None = None
        self._layouts: dict[str, FileLayout] = {}

    async def read(self, offset: int, length: int) -> bytes:
        """`length` verified bytes from `offset`: for metadata, as it all happens in the event loop.

        Raises BundleError or SourceError.
        """
        return await read_verified(self.verifier, self.reader, offset, length)

    async def squashfs(self) -> SquashFS:
        """The SquashFS image, opened when first asked for: `info` does not need it.

        Drive its plans with `plan.run(plan, payload.read)`.  Raises BundleError or SourceError.
        """
        from updated.bundle.squashfs import open_image

        if self._squashfs is None:
            self._squashfs = await run(open_image(self.verifier.data_size), self.read)
        return self._squashfs

    async def find(self, name: str) -> Inode | None:
        """The regular file `name`, None if there is none.  Raises BundleError or SourceError."""
        squashfs = await self.squashfs()
        try:
            inode = await run(squashfs.lookup(name), self.read)
        except BundleError as error:
            if str(error).endswith("not found in bundle"):
                return None
            raise
        if inode.kind != "file":
            raise BundleError(f"'{name}' in bundle is a {inode.kind}, expected a regular file")
        return inode

    async def layout(self, inode: Inode) -> FileLayout:
        """Where the bytes of a file are, for `pipeline.unpack`.  Raises BundleError or SourceError."""
        return await run((await self.squashfs()).file(inode), self.read)

    async def find_layout(self, name: str) -> FileLayout | None:
        """The same for the file `name`, None if there is none; kept, as a server gives metadata slowly.

        Raises BundleError or SourceError.
        """
        if name not in self._layouts:
            inode = await self.find(name)
            if inode is None:
                return None
            self._layouts[name] = await self.layout(inode)
        return self._layouts[name]

    async def read_file(self, name: str, limit: int) -> bytes:
        """The content of a small file, a hook or an index.

        Raises BundleError if it is not there or has more than `limit` bytes, SourceError.
        """
        from updated.install.pipeline import unpack

        inode = await self.find(name)
        if inode is None:
            raise BundleError(f"File '{name}' not found in bundle")
        if inode.size > limit:
            raise BundleError(f"File '{name}' in bundle has {inode.size} bytes, expected at most {limit}")
        content = bytearray()
        layout = await self.layout(inode)
        async with aclosing(unpack(layout, self.verifier, self.reader, workers=1)) as parts:
            async for part in parts:
                content += part
        return bytes(content)
