"""The way of an image into a slot: read, check, decompress, hash, write, and prove that it arrived.

    reader ──▶ check + decompress (some threads, runs of 1 MiB) ──▶ in order: write
                                                one stretch behind: sync, read back, SHA-256

What is hashed is what the medium holds: if that is what the manifest promises, all before it was right, too.

Nothing is decompressed before the verifier accepted it.  At most `workers + AHEAD` runs are under way, with
some 2 MiB each, so the memory does not depend on the size of the image.
"""

from __future__ import annotations

import hashlib
import math
import mmap
import os
import threading
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import aclosing

from updated.bundle.decompress import Buffer, Decompressor, decompressor
from updated.bundle.squashfs import FileLayout
from updated.bundle.verifier import Verifier
from updated.core.model import Reader, SlotWriter
from updated.install.fetch import Fetcher, Group, Job, in_groups, insist, is_good
from updated.install.readback import Begun, ReadBack
from updated.install.runs import RUN, BlockRuns, Run, run_size, runs
from updated.install.threads import in_order, in_thread, threads

__all__ = [
    "RUN",
    "BlockRuns",
    "Run",
    "image_digest",
    "new_buffer",
    "run_size",
    "runs",
    "stream_image",
    "unpack",
]

AHEAD = 2  # runs that are read or wait for their turn while every worker has one
MAX_WORKERS = 4  # more would outrun any flash, and cost memory
REMOTE_LOAD = 3 << 19  # stored bytes under way from a network: they are lost when it breaks


def new_buffer() -> memoryview:
    """RUN bytes of zeros at a page's border, so that a slot can be written with O_DIRECT."""
    return memoryview(mmap.mmap(-1, RUN, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


ZEROS = new_buffer().toreadonly()


async def stream_image(
    parts: AsyncGenerator[memoryview, None],
    writer: SlotWriter,
    *,
    begun: Begun | None = None,
    on_bytes: Callable[[int], None] = lambda _: None,
    on_durable: Callable[[int, bytes], None] = lambda _offset, _digest: None,
    fetched: Callable[[], int] = lambda: 0,
) -> bytes:
    """Write `parts` to `writer`, one behind the other, make them durable, read them back; closes `parts`.

    `begun` is what the slot holds already, and used up: the first part belongs behind it.
    Returns the SHA-256 (32 bytes) of all that the slot holds of the image now.

    `on_bytes` is called in the event loop with the image's bytes written so far, after each part.
    `on_durable` is called in a thread with what the medium holds for sure, and its SHA-256; `fetched` says
    how much was taken from a network so far: the more, the sooner (`readback.FETCHED`).
    Raises what `parts` raises (the writer holds a prefix of the image then) or DeviceError.
    Cancelled, it returns when no thread of it uses the writer any more.
    """
    begun = begun or Begun()
    written = begun.position
    with threads(2, "slot") as pool:  # write, read back
        async with (
            ReadBack(writer, pool, begun, on_durable=on_durable, fetched=fetched) as proof,
            aclosing(parts),
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
    layout: FileLayout,
    verifier: Verifier,
    reader: Reader,
    *,
    workers: int | None = None,
    runs: Iterable[Run] | None = None,
) -> AsyncGenerator[memoryview, None]:
    """The verified bytes of `runs` of a file, one view for each, in order, valid until the next is asked for.

    `runs` are all of the file by default; they are asked for up to 64 MiB ahead.  What is not good is read
    again before it counts as bad.  `workers` is the number of unpacking threads.
    Raises BundleError or SourceError.  Close it (`contextlib.aclosing`) if it is not read to its end.
    """
    workers = workers or default_workers()
    wanted = _whole(layout, reader) if runs is None else runs
    unpacker = _Unpacker(layout)
    fetcher = Fetcher(verifier, reader)

    def check_and_unpack(job: Job, pieces: list[bytes], digests: bytes) -> memoryview | None:
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if not is_good(verifier, job.offset, data, digests):
            return None
        return unpacker.unpack(job.run, memoryview(data)[job.run.start - job.offset :][: job.run.stored])

    with threads(workers, "unpack") as pool:

        async def work(item: tuple[Group, Job]) -> memoryview:
            group, job = item
            if not job.run.stored:
                return ZEROS[: job.run.size]

            async def attempt(again: bool) -> memoryview | None:
                fetched = await (fetcher.fetch_again(job) if again else fetcher.fetch(group, job))
                return await in_thread(pool, check_and_unpack, job, *fetched)

            return await insist(attempt, reader.name, job.offset, job.length)

        load = REMOTE_LOAD if reader.remote else math.inf
        try:
            async with aclosing(
                in_order(in_groups(verifier, wanted), work, workers + AHEAD, weigh=_weight, load=load)
            ) as parts:
                async for part in parts:
                    yield part
                    unpacker.give_back(part)
        finally:
            reader.expect(())


def _whole(layout: FileLayout, reader: Reader) -> Iterator[Run]:
    return runs(layout, size=run_size(reader))


def _weight(item: tuple[Group, Job]) -> int:
    return item[1].run.stored


def default_workers() -> int:
    """Unpacking threads: one per processor we may use."""
    return min(len(os.sched_getaffinity(0)), MAX_WORKERS)


class _Unpacker:
    """Unpacks runs into buffers that are used again and again: malloc has nothing to fragment."""

    def __init__(self, layout: FileLayout) -> None:
        self._layout = layout
        self._threads = threading.local()
        self._free: list[memoryview] = []

    def unpack(self, run: Run, stored: memoryview) -> memoryview:
        """The bytes of `run` out of its stored ones.  Raises BundleError.  Called in the workers."""
        out = (self._free.pop() if self._free else new_buffer())[: run.size]
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
