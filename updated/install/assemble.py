"""Puts runs of an image together out of what this device has.  Every chunk is hashed after it was read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from updated.bundle.block_index import CHUNK, DIGEST, ZERO, digests_of
from updated.bundle.squashfs import FileLayout
from updated.install.runs import Run
from updated.install.survey import Here, Lookup, Source, Survey, blocks_of_run, chunks_of_run

Extent = tuple[Source, int, int, int]
"""(source, its first chunk, start and end in the run)"""


@dataclass(frozen=True, slots=True)
class Block:
    """A block of a run: where its chunks are in the run, and what their digests should be."""

    number: int
    start: int  # bytes, in the run
    size: int  # bytes
    chunk: int  # number of its first chunk in the image
    digests: bytes

    @property
    def end(self) -> int:
        return self.start + self.size


@dataclass(slots=True)
class Draft:
    """A run as far as it could be put together."""

    run: Run
    blocks: list[Block]
    here: Here
    planned: list[Block] = field(default_factory=list)  # to be fetched, as was known before
    failed: list[Block] = field(default_factory=list)  # were not what their digests say
    zeros: int = 0  # bytes

    @property
    def all_zeros(self) -> bool:
        return self.zeros == self.run.size

    @property
    def nothing_here(self) -> bool:
        return len(self.planned) == len(self.blocks)


class Assembler:
    """Blocks; for one thread at a time."""

    def __init__(self, layout: FileLayout, lookup: Lookup, survey: Survey) -> None:
        self._layout = layout
        self._lookup = lookup
        self._needed = survey.needed

    def draft(self, run: Run) -> Draft:
        """What is known of a run before anything is read.  Raises OSError if the index cannot be read."""
        first, chunks = chunks_of_run(self._layout, run)
        digests = self._lookup.image.read(first, chunks)
        blocks = [
            Block(number, at * CHUNK, count * CHUNK, first + at, digests[at * DIGEST : (at + count) * DIGEST])
            for number, at, count in blocks_of_run(self._layout, run)
        ]
        draft = Draft(run, blocks, self._lookup.here(first, chunks))
        for block in blocks:
            if self._needed[block.number]:
                draft.planned.append(block)
            elif block.digests == ZERO * (block.size // CHUNK):
                draft.zeros += block.size
        return draft

    def fill(self, draft: Draft, out: memoryview) -> None:
        """Put all blocks that need not be fetched into `out`, or note that they could not be."""
        zeros: list[Block] = []
        wanted: list[Block] = []
        for block in draft.blocks:
            if self._needed[block.number]:
                continue
            (zeros if block.digests == ZERO * (block.size // CHUNK) else wanted).append(block)
        for block in zeros:
            out[block.start : block.end] = bytes(block.size)
        for source, chunk, start, end in self._extents(wanted, draft):
            self._lookup.seeds[source].read(chunk, out[start:end])
        for block in wanted:
            with out[block.start : block.end] as part:
                if not self._check(block, part, draft):
                    draft.failed.append(block)

    def _extents(self, blocks: list[Block], draft: Draft) -> Iterator[Extent]:
        """Reads, as long as possible."""
        extent: Extent | None = None
        for found in self._found(blocks, draft):
            if extent and _continues(extent, found):
                extent = (*extent[:3], found[3])
                continue
            if extent:
                yield extent
            extent = found
        if extent:
            yield extent

    def _found(self, blocks: list[Block], draft: Draft) -> Iterator[Extent]:
        """Where blocks are, or else their chunks; those of zeros are nowhere."""
        for block in blocks:
            at = block.start // CHUNK * DIGEST
            for source, there in draft.here.items():
                if there[at : at + len(block.digests)] == block.digests:
                    yield source, block.chunk, block.start, block.end
                    break
            else:
                yield from self._chunks(block, draft)

    def _chunks(self, block: Block, draft: Draft) -> Iterator[Extent]:
        for number, start in enumerate(range(block.start, block.end, CHUNK)):
            digest = block.digests[number * DIGEST : (number + 1) * DIGEST]
            if digest == ZERO:
                continue
            found = next(self._candidates(block.chunk + number, digest, draft), None)
            if found is not None:
                yield *found, start, start + CHUNK

    def _check(self, block: Block, part: memoryview, draft: Draft) -> bool:
        """Is `part` what it should be?  Chunks that are not are looked for in other places."""
        found = digests_of(part)
        if found == block.digests:
            return True
        for at in range(0, len(found), DIGEST):
            digest = block.digests[at : at + DIGEST]
            if found[at : at + DIGEST] != digest:
                number = at // DIGEST
                with part[number * CHUNK : (number + 1) * CHUNK] as chunk:
                    if not self._other(block.chunk + number, digest, draft, chunk):
                        return False
        return True

    def _other(self, number: int, digest: bytes, draft: Draft, chunk: memoryview) -> bool:
        if digest == ZERO:
            chunk[:] = bytes(CHUNK)
            return True
        for source, place in self._candidates(number, digest, draft):
            self._lookup.seeds[source].read(place, chunk)
            if digests_of(chunk) == digest:
                return True
        return False

    def _candidates(self, chunk: int, digest: bytes, draft: Draft) -> Iterator[tuple[Source, int]]:
        return self._lookup.candidates(chunk, digest, draft.blocks[0].chunk, draft.here)


def _continues(extent: Extent, found: Extent) -> bool:
    source, chunk, start, end = extent
    return found[0] == source and found[2] == end and found[1] == chunk + (end - start) // CHUNK
