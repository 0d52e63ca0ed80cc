"""The bytes of an image, from what this device has and from the bundle: the work of an adaptive install."""

from __future__ import annotations

import asyncio
import logging
import mmap
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import ExitStack, aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from updated.bundle.block_index import CHUNK
from updated.core.model import Reader
from updated.errors import DeviceError
from updated.finish import to_its_end
from updated.install.assemble import Assembler, Draft
from updated.install.index_cache import IndexCache
from updated.install.payload import Payload
from updated.install.pipeline import ZEROS, unpack
from updated.install.runs import RUN, BlockRuns, Run, run_size, runs
from updated.install.survey import AHEAD, Lookup, Survey
from updated.install.threads import in_order, in_thread, threads
from updated.readers.around import ReaderAround

if TYPE_CHECKING:
    from updated.bundle.squashfs import FileLayout

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Stats:
    """Bytes of the image by where they came from, so far."""

    seeds: int = 0
    zeros: int = 0
    fetched: int = 0
    late: int = 0  # of `fetched`: a seed did not have what it was thought to

    def __add__(self, other: Stats) -> Stats:
        return Stats(
            self.seeds + other.seeds,
            self.zeros + other.zeros,
            self.fetched + other.fetched,
            self.late + other.late,
        )

    @property
    def saved(self) -> float:
        """Part of the bytes that was not fetched, 0 to 1."""
        total = self.seeds + self.zeros + self.fetched
        return 1 - self.fetched / total if total else 1.0


class Adaptive:
    """One image on its way into one slot.  Made by `open_adaptive`; `keep` or `drop` ends it."""

    def __init__(
        self,
        payload: Payload,
        lookup: Lookup,
        plan: Survey,
        cache: IndexCache,
        handles: ExitStack,
        *,
        sha256: str,
        old: str | None,
        workers: int | None,
    ) -> None:
        self.survey = plan
        self.stats = Stats()
        self._payload = payload
        self._lookup = lookup
        self._cache = cache
        self._handles = handles
        self._sha256 = sha256
        self._old = old
        self._workers = workers
        self._used = False

    async def parts_from(self, layout: FileLayout, start: int) -> AsyncGenerator[memoryview, None]:
        """The bytes of the image from `start`, as its index has them, one view for each run; valid until the
        next is asked for, when the last one must have been written.

        Asked a second time, it trusts nobody: what came of the first time was wrong, so all is fetched.
        Raises BundleError, SourceError or DeviceError.  Close it (`contextlib.aclosing`) if it is not read to
        its end.
        """
        reader, verifier = self._payload.reader, self._payload.verifier
        size = run_size(reader)
        self._lookup.start = start // CHUNK
        if self._used:
            self.survey.needed[:] = b"\1" * len(self.survey.needed)
        self._used = True
        cut = _Cut(layout, start, size)
        assembler = Assembler(layout, self._lookup, self.survey)
        buffers: list[memoryview] = []
        with threads(1, "seeds") as pool:

            async def prepare(run: Run) -> tuple[Draft, memoryview | None]:
                draft = await in_thread(pool, assembler.draft, run)
                if draft.nothing_here or draft.all_zeros:
                    return draft, None
                buffer = buffers.pop() if buffers else _buffer()
                await in_thread(pool, assembler.fill, draft, buffer)
                if draft.failed:
                    await self._fetch_failed(layout, cut, draft, buffer)
                return draft, buffer

            async with (
                aclosing(
                    unpack(layout, verifier, reader, workers=self._workers, runs=cut(self.survey.needed))
                ) as fetched,
                aclosing(in_order(runs(layout, start, size=size), prepare, AHEAD)) as drafts,
            ):
                try:
                    await in_thread(pool, self._begin)
                    async for draft, buffer in drafts:
                        yield await self._complete(cut, draft, buffer, fetched)
                        if buffer is not None:
                            buffers.append(buffer)
                except OSError as error:
                    raise DeviceError(f"Failed to use a hash index: {error}") from error

    async def keep(self) -> None:
        """The slot holds the image now, proved by its SHA-256: keep the index for the next install."""
        await to_its_end(asyncio.to_thread(self._keep))

    async def drop(self, *, distrust: bool = False) -> None:
        """The install failed.  `distrust`: what was written had another SHA-256 than the image, and maybe
        the index is to blame: then it is taken from the bundle the next time.

        Otherwise it stays, so that it is not fetched again.
        """
        await to_its_end(asyncio.to_thread(self._drop, distrust))

    async def _fetch_failed(self, layout: FileLayout, cut: _Cut, draft: Draft, out: memoryview) -> None:
        """Fetch what a seed did not have after all: out of order, so it takes longer."""
        failed = bytearray(len(self.survey.needed))
        for block in draft.failed:
            failed[block.number] = 1
        reader = _Unannounced(self._payload.reader)
        pieces = list(cut(failed))
        async with aclosing(
            unpack(layout, self._payload.verifier, reader, workers=1, runs=pieces)
        ) as fetched:
            await _copy(cut, pieces, fetched, draft, out)

    async def _complete(
        self, cut: _Cut, draft: Draft, buffer: memoryview | None, fetched: AsyncGenerator[memoryview, None]
    ) -> memoryview:
        """The run with the blocks that had to be fetched."""
        late = sum(block.size for block in draft.failed)
        here = draft.run.size - sum(block.size for block in draft.planned) - late
        self.stats.fetched += draft.run.size - here
        self.stats.late += late
        self.stats.zeros += draft.zeros
        self.stats.seeds += here - draft.zeros
        if draft.all_zeros:
            return ZEROS[: draft.run.size]
        if buffer is None:
            return await anext(fetched)
        planned = cut(self.survey.needed, draft.blocks[0].number, draft.blocks[-1].number + 1)
        await _copy(cut, planned, fetched, draft, buffer)
        return buffer[: draft.run.size]

    def _begin(self) -> None:
        old, self._old = self._old, None
        try:
            self._cache.begin(old)
        except OSError as error:  # an index that is out of date is found out
            log.warning("Failed to rename a hash index: %s", error)

    def _keep(self) -> None:
        try:
            self._cache.keep(self._sha256, self._lookup.image)
        except OSError as error:  # the next install takes longer, this one is good
            log.warning("Continuing after failure to write new hash index: %s", error)
        finally:
            self._handles.close()

    def _drop(self, distrust: bool) -> None:
        self._handles.close()
        if not distrust:
            return
        try:
            self._cache.forget(self._sha256)
        except OSError as error:
            log.warning("Failed to remove a hash index that may be wrong: %s", error)


class _Cut:
    """Cuts what is to be fetched into runs.

    None of them crosses the border of two runs of the image: an image run all of which is fetched is one of
    them, and used where it was unpacked.  For the wire it is no matter: neighbours are streamed as one.
    """

    def __init__(self, layout: FileLayout, start: int, size: int) -> None:
        self._blocks = layout.blocks
        self._first = start // layout.block_size
        self._many = max(1, size // layout.block_size)
        self._run = BlockRuns(layout)
        self.block_size = layout.block_size

    def __call__(self, wanted: bytearray, first: int = 0, end: int | None = None) -> Iterator[Run]:
        """The runs of the blocks whose byte in `wanted` is 1, from `first` to before `end`."""
        block = max(first, self._first)
        while (block := wanted.find(1, block, end)) >= 0:
            if block == self._blocks:
                tail = self._run.tail()
                assert tail is not None  # `wanted` has a byte for it
                yield tail
                return
            border = block + self._many - (block - self._first) % self._many
            border = min(border, self._blocks)
            stop = wanted.find(0, block, border)
            stop = border if stop < 0 else stop
            yield self._run(range(block, stop))
            block = stop


async def _copy(
    cut: _Cut, pieces: Iterable[Run], fetched: AsyncGenerator[memoryview, None], draft: Draft, out: memoryview
) -> None:
    """Put the next of `fetched`, which are `pieces`, where they belong in the run."""
    for piece in pieces:
        part = await anext(fetched)
        start = 0 if piece.tail else (piece.blocks.start - draft.run.blocks.start) * cut.block_size
        out[start : start + len(part)] = part


class _Unannounced(ReaderAround[Reader]):
    """A `Reader` that leaves alone what another one has announced."""

    def expect(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Nothing: the announced reads go on."""

    async def close(self) -> None:
        """Nothing: it is not ours."""


def _buffer() -> memoryview:
    """RUN bytes at a page's border, so that a slot can be written with O_DIRECT."""
    return memoryview(mmap.mmap(-1, RUN, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
