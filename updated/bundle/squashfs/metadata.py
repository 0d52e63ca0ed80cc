"""Metadata blocks: inode, directory and fragment tables are cut into blocks of 8 KiB, each packed on its own.

A block is a `u16` header (bit 15: stored as it is; bits 0-14: stored length) and its bytes.
Raw bytes are fetched in pages, so that an ordinary bundle needs one read for all of its metadata.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from updated.bundle.decompress import METADATA_SIZE, Decompressor
from updated.bundle.plan import Plan, Range
from updated.bundle.squashfs.fault import invalid

PAGE = 64 << 10  # bytes fetched at once; holds all metadata of nearly every bundle
PAGES = 4  # kept, raw: 256 KiB
BLOCKS = 16  # kept, unpacked: 128 KiB
MAX_BLOCKS = 1 << 14  # unpacked for one operation, 128 MiB; 60 000 inodes need fewer than 1000
HEADER = 2  # bytes
STORED = 0x8000  # flag in the header: not compressed


class Table(NamedTuple):
    """Where the blocks of one table lie: bytes [start, end) of the payload."""

    name: str
    start: int
    end: int


class Block(NamedTuple):
    """An unpacked block, and where the next one begins."""

    data: bytes
    next: int


class Metadata:
    """Reads the metadata region [start, end) of an image through a small cache."""

    def __init__(self, start: int, end: int, decompressor: Decompressor) -> None:
        self._start = start
        self._end = end
        self._decompressor = decompressor
        self._pages: OrderedDict[int, bytes] = OrderedDict()
        self._blocks: OrderedDict[int, Block] = OrderedDict()
        self._budget = MAX_BLOCKS

    def begin(self) -> None:
        """A new operation: it may unpack MAX_BLOCKS blocks."""
        self._budget = MAX_BLOCKS

    def raw(self, position: int, length: int) -> Plan[bytes]:
        """`length` bytes from `position`, which the caller has checked to lie inside the region."""
        pieces = []
        end = position + length
        while position < end:
            number, offset = divmod(position - self._start, PAGE)
            page = yield from self._page(number)
            piece = page[offset : offset + end - position]
            pieces.append(piece)
            position += len(piece)
        return b"".join(pieces)

    def _page(self, number: int) -> Plan[bytes]:
        if number in self._pages:
            self._pages.move_to_end(number)
            return self._pages[number]
        start = self._start + number * PAGE
        length = min(PAGE, self._end - start)
        page = yield Range(start, length)
        if len(page) != length:
            raise invalid(f"metadata at {start}: expected {length} bytes, got {len(page)}")
        self._pages[number] = page
        if len(self._pages) > PAGES:
            self._pages.popitem(last=False)
        return page

    def block(self, table: Table, position: int) -> Plan[Block]:
        """Unpack the block of `table` whose header is at `position`."""
        if not table.start <= position <= table.end - HEADER:
            raise invalid(f"{table.name}: expected a block in {table.start} to {table.end}, got {position}")
        if position in self._blocks:
            self._blocks.move_to_end(position)
            block = self._blocks[position]
        else:
            block = yield from self._unpack(position)
            self._blocks[position] = block
            if len(self._blocks) > BLOCKS:
                self._blocks.popitem(last=False)
        if block.next > table.end:
            raise invalid(f"{table.name}: expected to end at {table.end}, got a block until {block.next}")
        return block

    def _unpack(self, position: int) -> Plan[Block]:
        if not self._budget:
            raise invalid(f"metadata: expected to read at most {MAX_BLOCKS} blocks, got more")
        self._budget -= 1
        header = int.from_bytes((yield from self.raw(position, HEADER)), "little")
        length = header & ~STORED
        start = position + HEADER
        if not 1 <= length <= METADATA_SIZE:
            raise invalid(f"metadata block at {position}: expected 1 to {METADATA_SIZE} bytes, got {length}")
        if start + length > self._end:
            raise invalid(
                f"metadata block at {position}: expected to end at {self._end}, got {start + length}"
            )
        data = yield from self.raw(start, length)
        if not header & STORED:
            data = self._decompressor.up_to(data, METADATA_SIZE)
        return Block(data, start + length)


class Cursor:
    """Reads a table forwards, over the borders of its blocks."""

    def __init__(self, metadata: Metadata, table: Table, reference: int) -> None:
        """`reference`: (block position from the start of the table << 16) | offset in the unpacked block."""
        self._metadata = metadata
        self._table = table
        self._position = table.start + (reference >> 16)
        self._offset = reference & 0xFFFF
        if self._offset >= METADATA_SIZE:
            raise invalid(f"{table.name}: expected an offset below {METADATA_SIZE}, got {self._offset}")

    @property
    def reference(self) -> int:
        """Where the next byte is, in the form the constructor takes."""
        return (self._position - self._table.start) << 16 | self._offset

    @property
    def can_hold(self) -> int:
        """Bytes that blocks from here to the end of the table can hold at most."""
        blocks = (self._table.end - self._position) // (HEADER + 1)
        return blocks * METADATA_SIZE - self._offset

    def read(self, length: int) -> Plan[bytes]:
        """The next `length` bytes; raises BundleError where the table ends before."""
        if length > self.can_hold:
            raise invalid(
                f"{self._table.name}: expected {length} bytes more, at most {self.can_hold} are there"
            )
        pieces = []
        while length:
            block = yield from self._metadata.block(self._table, self._position)
            piece = block.data[self._offset : self._offset + length]
            pieces.append(piece)
            length -= len(piece)
            self._offset += len(piece)
            if self._offset >= len(block.data):
                self._enter_next(block, more=length > 0)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _enter_next(self, block: Block, *, more: bool) -> None:
        if len(block.data) != METADATA_SIZE:
            if more or self._offset > len(block.data):
                raise invalid(
                    f"{self._table.name}: expected {METADATA_SIZE} bytes in the block at {self._position},"
                    f" got {len(block.data)}"
                )
            return  # the end of the table, exactly
        self._position = block.next
        self._offset = 0
