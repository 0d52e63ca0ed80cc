"""A file in a SquashFS image, cut into runs: what one call of a worker unpacks."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

from updated.bundle.squashfs import FileLayout, Fragment
from updated.bundle.squashfs.layout import LENGTH_MASK
from updated.core.model import Reader

RUN = 1 << 20  # bytes of the file in one run: the largest block, and large enough to pay for changing threads
REMOTE_RUN = 1 << 19  # the same for a network: what is under way is lost when it breaks


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive blocks of a file, or its tail: unpacked by one call of a worker.  At most RUN bytes."""

    start: int  # payload offset of the stored bytes
    stored: int  # how many they are; 0: all blocks are zeros
    size: int  # bytes of the file
    blocks: range  # indexes of the blocks
    tail: Fragment | None = None


def run_size(reader: Reader) -> int:
    """Bytes of the file in one run of an image behind `reader`; a larger block is a run of its own."""
    return REMOTE_RUN if reader.remote else RUN


def runs(layout: FileLayout, start: int = 0, *, size: int = RUN) -> Iterator[Run]:
    """Cut a file into runs of about `size` bytes; a tail in a fragment is one of its own.

    `start` is where the first one begins in the file: a border of blocks, or the end.
    """
    if start >= layout.size:
        return
    first, rest = divmod(start, layout.block_size)
    if rest:
        raise ValueError(f"no border of blocks: {start}")
    many = max(1, size // layout.block_size)
    position = layout.start + sum(map(layout.stored, range(first)))
    for index in range(first, layout.blocks, many):
        blocks = range(index, min(index + many, layout.blocks))
        stored = sum(word & LENGTH_MASK for word in layout.words[blocks.start : blocks.stop])
        yield Run(position, stored, _size(layout, blocks), blocks)
        position += stored
    if tail := layout.tail:
        yield Run(tail.start, tail.stored, tail.length, range(0), tail)


class BlockRuns:
    """Makes runs of any consecutive blocks of one file: `BlockRuns(layout)(range(3, 7))`.

    Memory: 8 bytes a block.
    """

    def __init__(self, layout: FileLayout) -> None:
        stored = map(layout.stored, range(layout.blocks))
        self._layout = layout
        self._starts = array("Q", accumulate(stored, initial=layout.start))

    def __call__(self, blocks: range) -> Run:
        """The run of `blocks`, which have RUN bytes of the file at most."""
        layout = self._layout
        size = _size(layout, blocks)
        if not blocks or blocks.step != 1 or blocks.stop > layout.blocks or size > RUN:
            raise ValueError(f"not one run: blocks {blocks} of {layout.blocks}")
        start = self._starts[blocks.start]
        return Run(start, self._starts[blocks.stop] - start, size, blocks)

    def tail(self) -> Run | None:
        """The run of the tail, which comes behind all blocks."""
        tail = self._layout.tail
        return Run(tail.start, tail.stored, tail.length, range(0), tail) if tail else None


def _size(layout: FileLayout, blocks: range) -> int:
    return min(blocks.stop * layout.block_size, layout.size) - blocks.start * layout.block_size
