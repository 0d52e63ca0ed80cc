"""Which blocks of an image have to be fetched, because this device does not have all of their chunks.

Only digests are read here, of the image and of what the device is thought to have; the chunks themselves are
read, and hashed, when they are used.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from updated.bundle.block_index import CHUNK, DIGEST, MAX_CHUNKS, ZERO
from updated.bundle.chunk_table import ChunkTable, prefixes
from updated.bundle.squashfs import FileLayout
from updated.install.runs import Run, runs
from updated.install.seeds import Index, Seed

AHEAD: Final = 4  # runs that are put together before the first of them is written
BATCH: Final = 512  # chunks looked at with one read of each index
STEP: Final = 32  # batches between two signs of life
ZERO_PREFIX: Final = prefixes(ZERO)[0]


class Source(IntEnum):
    """Where chunks are; also the number of a seed in a place."""

    WRITTEN = 0  # the target, where it holds the new image already
    TARGET = 1  # the target, where it is still as it was
    ACTIVE = 2


PLACES: Final = MAX_CHUNKS + 1  # of one source

Here = dict[Source, bytes]
"""The digests of what is at the position of a run now, the best source first."""


@dataclass(slots=True)
class Survey:
    """For each block of the image, and its tail as the last one, whether it must be fetched."""

    needed: bytearray  # 1: fetch it
    to_fetch: int = 0  # bytes of the bundle for them
    stored: int = 0  # bytes of the bundle for all blocks that are still to be written

    @property
    def saved(self) -> float:
        """Part of the bytes that need not be fetched, 0 to 1."""
        return 1 - self.to_fetch / self.stored if self.stored else 1.0


@dataclass(slots=True)
class Lookup:
    """Where each chunk of an image may be found.  Its methods block, and raise OSError."""

    image: Index
    seeds: dict[Source, Seed]
    lag: int  # chunks that may be on their way between the target and the run that is put together
    start: int = 0  # chunks that the target held already at the beginning
    table: ChunkTable = field(default_factory=lambda: ChunkTable(0))

    def build(self) -> Iterator[None]:
        """Make the table of what is not simply at the same position.  Yields now and then."""
        wanted = 0
        for first, digests in self._batches():
            wanted += len(self._elsewhere(first, digests))
            yield
        self.table = ChunkTable(wanted)
        for first, digests in self._batches():
            for number, prefix in self._elsewhere(first, digests):
                self.table.want(prefix, place_of(Source.WRITTEN, first + number))
            yield
        if not wanted:
            return
        offers = [(Source.WRITTEN, self.image, self.start)] if self.start else []
        # The best is the last: the active slot stays as it is.
        offers += [
            (source, seed.index, seed.index.chunks)
            for source, seed in sorted(self.seeds.items())
            if source != Source.WRITTEN
        ]
        for source, index, count in offers:
            for first in range(0, count, BATCH):
                self.table.offer(index.read(first, min(BATCH, count - first)), place_of(source, first))
                if not first % (BATCH * STEP):
                    yield

    def candidates(
        self, chunk: int, digest: bytes, run_start: int, here: Here
    ) -> Iterator[tuple[Source, int]]:
        """Where `chunk` may be, the likeliest first, while the run from `run_start` is put together."""
        at = (chunk - run_start) * DIGEST
        for source, digests in here.items():
            if digests[at : at + DIGEST] == digest:
                yield source, chunk
        found = self.elsewhere(digest, run_start)
        if found is not None:
            yield found

    def elsewhere(self, digest: bytes | memoryview, run_start: int) -> tuple[Source, int] | None:
        """What the table says, if that can still be read."""
        place = self.table.place(digest)
        if place < 0:
            return None
        source, chunk = Source(place // PLACES), place % PLACES
        if source == Source.TARGET and chunk < run_start:
            if self.image.read(chunk, 1) != digest:
                return None  # written over by now
            source = Source.WRITTEN  # with the same
        if source == Source.WRITTEN and chunk >= max(self.start, run_start - self.lag):
            return None  # not written yet
        return (source, chunk) if source in self.seeds else None

    def here(self, first: int, count: int) -> Here:
        """The digests of what is at the same position now."""
        return {
            source: self.seeds[source].index.read(first, count)
            for source in (Source.ACTIVE, Source.TARGET)
            if source in self.seeds
        }

    def _batches(self) -> Iterator[tuple[int, bytes]]:
        for first in range(self.start, self.image.chunks, BATCH):
            yield first, self.image.read(first, BATCH)

    def _elsewhere(self, first: int, digests: bytes) -> list[tuple[int, int]]:
        """(number in the batch, prefix) of the chunks that are not zeros and not at the same position."""
        here = self.here(first, BATCH).values()
        if digests in here:
            return []
        left = [(number, prefix) for number, prefix in enumerate(prefixes(digests)) if prefix != ZERO_PREFIX]
        for there in map(prefixes, here):
            end = len(there)
            left = [(number, prefix) for number, prefix in left if number >= end or there[number] != prefix]
        return left


def survey(layout: FileLayout, lookup: Lookup, start: int, *, size: int) -> Iterator[Survey]:
    """Decide about the blocks behind the first `start` bytes.  Yields now and then, the last time with all.

    `size` is that of the runs in which they will be put together.

    Blocks.  Raises OSError.
    """
    result = Survey(bytearray(b"\1") * (layout.blocks + (layout.tail is not None)))
    for _ in lookup.build():
        yield result
    for number, run in enumerate(runs(layout, start, size=size)):
        first, chunks = chunks_of_run(layout, run)
        digests = lookup.image.read(first, chunks)
        here = lookup.here(first, chunks)
        for block, at, count in blocks_of_run(layout, run):
            wanted = digests[at * DIGEST : (at + count) * DIGEST]
            stored = layout.stored(block) if block < layout.blocks else run.stored
            result.stored += stored
            found = any(wanted == there[at * DIGEST : (at + count) * DIGEST] for there in here.values())
            if found or _all_here(lookup, wanted, at, here, first):
                result.needed[block] = 0
            else:
                result.to_fetch += stored
        if not number % STEP:
            yield result
    yield result


def _all_here(lookup: Lookup, wanted: bytes, at: int, here: Here, first: int) -> bool:
    """Is each chunk of a block zeros, at its position in a seed, or somewhere else?"""
    for start in range(0, len(wanted), DIGEST):
        digest = wanted[start : start + DIGEST]
        if digest == ZERO:
            continue
        there = at * DIGEST + start
        if any(digests[there : there + DIGEST] == digest for digests in here.values()):
            continue
        if lookup.elsewhere(digest, first) is None:
            return False
    return True


def chunks_of_run(layout: FileLayout, run: Run) -> tuple[int, int]:
    """(number of the first chunk, how many)."""
    block = run.blocks.start if run.tail is None else layout.blocks
    return block * layout.block_size // CHUNK, run.size // CHUNK


def blocks_of_run(layout: FileLayout, run: Run) -> Iterator[tuple[int, int, int]]:
    """(number of the block, its first chunk in the run, how many) for each; a tail counts as the last."""
    if run.tail is not None:
        yield layout.blocks, 0, run.size // CHUNK
        return
    each = layout.block_size // CHUNK
    for position, block in enumerate(run.blocks):
        yield block, position * each, layout.output(block) // CHUNK


def place_of(source: Source, chunk: int) -> int:
    """The number of a chunk among those of all sources."""
    return source * PLACES + chunk
