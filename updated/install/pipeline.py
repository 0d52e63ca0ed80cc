"""The way of an image into a slot: read, check, decompress, hash, write, and prove that it arrived.

    reader ──▶ check + decompress (some threads, runs of 1 MiB) ──▶ in order: write
                                                one stretch behind: sync, read back, SHA-256

What is hashed is what the medium holds: if that is what the manifest promises, all before it was right, too.

Nothing is decompressed before the verifier accepted it.  At most `workers + AHEAD` runs are under way, with
some 2 MiB each, so the memory does not depend on the size of the image.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass

from updated.bundle.decompress import Buffer, Decompressor, decompressor
from updated.bundle.squashfs import FileLayout, Fragment
from updated.bundle.verifier import Verifier
from updated.core.model import Reader, SlotWriter
from updated.install.payload import aligned
from updated.install.readback import ReadBack
from updated.install.threads import in_order, in_thread, threads

RUN = 1 << 20  # bytes of the file in one run: the largest block, and large enough to pay for changing threads
AHEAD = 2  # runs that are read or wait for their turn while every worker has one
MAX_WORKERS = 4  # more would outrun any flash, and cost memory


def _buffer() -> memoryview:
    """RUN bytes of zeros at a page's border, so that a slot can be written with O_DIRECT."""
    return memoryview(mmap.mmap(-1, RUN, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


ZEROS = _buffer().toreadonly()


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive blocks of a file, or its tail: unpacked by one call of a worker."""

    start: int  # payload offset of the stored bytes
    stored: int  # how many they are; 0: all blocks are zeros
    size: int  # bytes of the file
    blocks: range  # indexes of the blocks
    tail: Fragment | None = None


async def stream_image(
    layout: FileLayout,
    verifier: Verifier,
    reader: Reader,
    writer: SlotWriter,
    *,
    workers: int | None = None,
    on_bytes: Callable[[int], None] = lambda _: None,
) -> bytes:
    """Write the file of `layout` to `writer`, make it durable, read it back.

    Returns the SHA-256 (32 bytes) of what the slot holds now.

    `on_bytes` is called in the event loop with the bytes written so far, about once per MiB.  `workers` is
    the number of unpacking threads.  Raises BundleError (the writer holds a prefix of the image then),
    SourceError or DeviceError.
    Cancelled, it returns when no thread of it uses the writer any more.
    """
    written = 0
    with threads(2, "slot") as pool:  # write, read back
        async with (
            ReadBack(writer, pool) as proof,
            aclosing(unpack(layout, verifier, reader, workers=workers)) as parts,
        ):
            async for part in parts:
                await in_thread(pool, writer.write, written, part)
                written += len(part)
                on_bytes(written)
                await proof.up_to(written)
            return await proof.finish(written)


async def image_digest(
    layout: FileLayout, verifier: Verifier, reader: Reader, *, workers: int | None = None
) -> bytes:
    """The SHA-256 (32 bytes) of the file as the bundle has it.  Raises BundleError, SourceError."""
    digest = hashlib.sha256()
    with threads(1, "hash") as pool:
        async with aclosing(unpack(layout, verifier, reader, workers=workers)) as parts:
            async for part in parts:
                await in_thread(pool, digest.update, part)
    return digest.digest()


async def unpack(
    layout: FileLayout, verifier: Verifier, reader: Reader, *, workers: int | None = None
) -> AsyncGenerator[memoryview, None]:
    """The verified bytes of a file in order, up to 1 MiB at a time, valid until the next are asked for.

    Raises BundleError or SourceError.  Close it (`contextlib.aclosing`) if it is not read to its end.
    """
    workers = workers or default_workers()
    unpacker = _Unpacker(layout)
    with threads(workers, "unpack") as pool:

        def check_and_unpack(run: Run, offset: int, data: bytes, digests: bytes) -> memoryview:
            verifier.check(offset, data, digests)
            return unpacker.unpack(run, memoryview(data)[run.start - offset :][: run.stored])

        async def work(run: Run) -> memoryview:
            if not run.stored:
                return ZEROS[: run.size]
            offset, length = aligned(verifier, run.start, run.stored)
            data = await reader.read(offset, length)
            proof = verifier.digests(offset, length)
            digests = await reader.read(*proof) if proof else b""
            return await in_thread(pool, check_and_unpack, run, offset, data, digests)

        async with aclosing(in_order(runs(layout), work, workers + AHEAD)) as parts:
            async for part in parts:
                yield part
                unpacker.give_back(part)


def default_workers() -> int:
    """Unpacking threads: one per processor we may use."""
    return min(len(os.sched_getaffinity(0)), MAX_WORKERS)


def runs(layout: FileLayout) -> Iterator[Run]:
    """Cut a file into runs of about 1 MiB; a tail in a fragment is one of its own."""
    many = max(1, RUN // layout.block_size)
    start = layout.start
    for first in range(0, layout.blocks, many):
        blocks = range(first, min(first + many, layout.blocks))
        stored = sum(map(layout.stored, blocks))
        yield Run(start, stored, sum(map(layout.output, blocks)), blocks)
        start += stored
    if tail := layout.tail:
        yield Run(tail.start, tail.stored, tail.length, range(0), tail)


class _Unpacker:
    """Unpacks runs into buffers that are used again and again: malloc has nothing to fragment."""

    def __init__(self, layout: FileLayout) -> None:
        self._layout = layout
        self._threads = threading.local()
        self._free: list[memoryview] = []

    def unpack(self, run: Run, stored: memoryview) -> memoryview:
        """The bytes of `run` out of its stored ones.  Raises BundleError.  Called in the workers."""
        out = (self._free.pop() if self._free else _buffer())[: run.size]
        done = 0
        for block in self._blocks(run, stored):
            out[done : done + len(block)] = block
            done += len(block)
        return out

    def give_back(self, part: memoryview) -> None:
        """`part` is done with: its buffer may be used again."""
        if not part.readonly:
            self._free.append(memoryview(part.obj))

    def _blocks(self, run: Run, stored: memoryview) -> Iterator[Buffer]:
        layout, unpacker = self._layout, self._decompressor()
        if run.tail:
            yield run.tail.cut(run.tail.unpack(unpacker, stored, layout.block_size))
        for index in run.blocks:
            length = layout.stored(index)
            yield layout.unpack(unpacker, index, stored[:length])
            stored = stored[length:]

    def _decompressor(self) -> Decompressor:
        try:
            found: Decompressor = self._threads.decompressor
        except AttributeError:
            found = decompressor(self._layout.compressor, self._layout.block_size)
            self._threads.decompressor = found
        return found
