"""Where the content of a file is: one run of stored blocks, and perhaps a tail in a fragment block."""

from __future__ import annotations

import struct
import sys
from array import array
from dataclasses import dataclass

from updated.bundle.decompress import METADATA_SIZE, Buffer, Compressor, Decompressor
from updated.bundle.plan import Plan
from updated.bundle.squashfs.fault import invalid
from updated.bundle.squashfs.inodes import NO_FRAGMENT, Inode
from updated.bundle.squashfs.metadata import Cursor, Metadata, Table
from updated.bundle.squashfs.superblock import FRAGMENTS_PER_BLOCK, Superblock

LENGTH_MASK = 0xFF_FFFF  # bits 0-23 of a block word: stored length, 0 = zeros
STORED = 1 << 24  # bit 24: stored as it is
MAX_BLOCKS = 1 << 22  # of a file: 16 MiB of words; 512 GiB of data at 128 KiB, 16 GiB at 4 KiB

_FRAGMENT = struct.Struct("<Q2I")


@dataclass(frozen=True, slots=True)
class Fragment:
    """The tail of a file: `length` bytes from `offset` of an unpacked fragment block."""

    start: int  # payload offset of the stored fragment block
    word: int  # its length and bit 24, as in `FileLayout.words`; never 0
    offset: int
    length: int

    @property
    def stored(self) -> int:
        """Bytes of the stored fragment block."""
        return self.word & LENGTH_MASK

    def unpack(self, decompressor: Decompressor, data: Buffer, block_size: int) -> Buffer:
        """The whole fragment block out of its stored bytes; several files may share it."""
        if len(data) != self.stored:
            raise invalid(f"fragment block: expected {self.stored} stored bytes, got {len(data)}")
        if self.word & STORED:
            return data
        return decompressor.up_to(data, block_size)

    def cut(self, block: Buffer) -> Buffer:
        """The tail out of the unpacked fragment block; raises BundleError."""
        tail = block[self.offset : self.offset + self.length]
        if len(tail) != self.length:
            raise invalid(
                f"fragment block: expected {self.offset + self.length} bytes or more, got {len(block)}"
            )
        return tail


@dataclass(frozen=True, slots=True)
class FileLayout:
    """Block k is stored behind the blocks before it, from `start`; memory is 4 bytes a block."""

    size: int  # bytes of the file
    block_size: int
    compressor: Compressor
    start: int  # payload offset of the first stored block
    words: array[int]  # type code I: bit 24 = stored as it is, bits 0-23 stored length, 0 = zeros
    stored_bytes: int  # sum of the stored lengths: the file's blocks are [start, start + stored_bytes)
    tail: Fragment | None

    @property
    def blocks(self) -> int:
        """How many blocks there are, without the tail."""
        return len(self.words)

    def stored(self, index: int) -> int:
        """Bytes that block `index` takes in the payload."""
        return self.words[index] & LENGTH_MASK

    def output(self, index: int) -> int:
        """Bytes of the file in block `index`."""
        return min(self.block_size, self.size - index * self.block_size)

    def unpack(self, decompressor: Decompressor, index: int, data: Buffer) -> Buffer:
        """The `output(index)` bytes of a block out of its `stored(index)` bytes; raises BundleError.

        What is stored as it is comes back as `data` itself, without a copy.
        """
        word = self.words[index]
        if len(data) != word & LENGTH_MASK:
            raise invalid(f"block {index}: expected {word & LENGTH_MASK} stored bytes, got {len(data)}")
        if not word:
            return bytes(self.output(index))
        if word & STORED:
            return data
        return decompressor.block(data, self.output(index))


def read_layout(metadata: Metadata, inodes: Table, superblock: Superblock, inode: Inode) -> Plan[FileLayout]:
    """Read and check the block words of a file, and its fragment entry."""
    tail = None
    count = -(-inode.size // superblock.block_size)
    if inode.fragment != NO_FRAGMENT:
        count = inode.size // superblock.block_size
        tail = yield from _tail(metadata, superblock, inode)
    if count > MAX_BLOCKS:
        raise invalid(
            f"file of {inode.size} bytes: expected at most {MAX_BLOCKS} blocks"
            f" of {superblock.block_size} bytes, got {count}"
        )
    words: array[int] = array("I")
    stored_bytes = 0
    cursor = Cursor(metadata, inodes, inode.content)
    if 4 * count > cursor.can_hold:
        raise invalid(
            f"file of {count} blocks: expected at most {cursor.can_hold // 4}, the table ends there"
        )
    while len(words) < count:
        some = _words((yield from cursor.read(min(4 * (count - len(words)), METADATA_SIZE))))
        words.extend(some)
        if len(words) == count:
            output = inode.size - (count - 1) * superblock.block_size
            stored_bytes += _stored_sum(some[-1:], superblock.block_size, min(output, superblock.block_size))
            some.pop()
        stored_bytes += _stored_sum(some, superblock.block_size, superblock.block_size)
    if stored_bytes:
        superblock.check_stored("file blocks", inode.start, stored_bytes)
    return FileLayout(
        size=inode.size,
        block_size=superblock.block_size,
        compressor=superblock.compressor,
        start=inode.start,
        words=words,
        stored_bytes=stored_bytes,
        tail=tail,
    )


def _words(raw: bytes) -> array[int]:
    words: array[int] = array("I", raw)
    if sys.byteorder == "big":
        words.byteswap()
    return words


def _stored_sum(words: array[int], block_size: int, output: int) -> int:
    """Sum of the stored lengths of blocks that unpack to `output` bytes each."""
    total = 0
    plain = STORED | output
    for word in words:
        if word > block_size and word != plain:
            raise invalid(
                f"block word: expected a stored length of at most {block_size}"
                f" (exactly {output} when not compressed), got {word:#x}"
            )
        total += word & LENGTH_MASK
    return total


def _tail(metadata: Metadata, superblock: Superblock, inode: Inode) -> Plan[Fragment | None]:
    if inode.fragment >= superblock.fragments:
        raise invalid(f"fragment: expected an index below {superblock.fragments}, got {inode.fragment}")
    length = inode.size % superblock.block_size
    if not length:
        return None
    if inode.fragment_offset + length > superblock.block_size:
        raise invalid(
            f"fragment tail: expected to end at {superblock.block_size} or before,"
            f" got {inode.fragment_offset + length}"
        )
    block, index = divmod(inode.fragment, FRAGMENTS_PER_BLOCK)
    pointer = yield from metadata.raw(superblock.fragment_index + 8 * block, 8)
    table = Table("fragment table", superblock.directory_table, superblock.fragment_index)
    position = int.from_bytes(pointer, "little") - table.start
    if position < 0:
        raise invalid(f"fragment table: expected at {table.start} or behind, got {position + table.start}")
    cursor = Cursor(metadata, table, position << 16 | index * _FRAGMENT.size)
    start, word, _unused = _FRAGMENT.unpack((yield from cursor.read(_FRAGMENT.size)))
    if not 1 <= word & LENGTH_MASK <= superblock.block_size or word >> 25:
        raise invalid(
            f"fragment word: expected a stored length of 1 to {superblock.block_size}, got {word:#x}"
        )
    superblock.check_stored("fragment block", start, word & LENGTH_MASK)
    return Fragment(start, word, inode.fragment_offset, length)
