"""Where the tables of a SquashFS 4.0 image are (kernel: Documentation/filesystems/squashfs.rst)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from updated.bundle.decompress import Compressor
from updated.bundle.squashfs.fault import invalid

SIZE = 96  # bytes, at offset 0
MAGIC = 0x73717368  # "hsqs"
MIN_BLOCK_LOG, MAX_BLOCK_LOG = 12, 20  # 4 KiB to 1 MiB
NO_TABLE = 0xFFFF_FFFF_FFFF_FFFF
FRAGMENTS_PER_BLOCK = 512  # entries of 16 bytes in a metadata block

_LAYOUT = struct.Struct("<5I6H8Q")


@dataclass(frozen=True, slots=True)
class Superblock:
    """The checked fields.  Positions are bytes from the start of the payload."""

    inodes: int
    block_size: int
    block_log: int
    compressor: Compressor
    fragments: int
    root: int  # inode reference
    bytes_used: int
    inode_table: int
    directory_table: int
    directory_end: int
    fragment_index: int  # of no meaning without fragments

    @classmethod
    def parse(cls, data: bytes, data_size: int) -> Superblock:
        """Check the first 96 bytes of a payload of `data_size` bytes; raises BundleError."""
        if len(data) != SIZE:
            raise invalid(f"superblock: expected {SIZE} bytes, got {len(data)}")
        fields = _LAYOUT.unpack(data)
        magic, inodes, _mkfs_time, block_size, fragments = fields[:5]
        compressor, block_log, _flags, ids, major, minor = fields[5:11]
        root, bytes_used, id_index, xattr_index = fields[11:15]
        inode_table, directory_table, fragment_index, export_index = fields[15:]
        if magic != MAGIC:
            raise invalid(f"magic: expected {MAGIC:#010x}, got {magic:#010x}")
        if (major, minor) != (4, 0):
            raise invalid(f"version: expected 4.0, got {major}.{minor}")
        if not MIN_BLOCK_LOG <= block_log <= MAX_BLOCK_LOG or block_size != 1 << block_log:
            raise invalid(
                f"block size: expected a power of two from 4096 to 1048576,"
                f" got {block_size} (logarithm {block_log})"
            )
        if compressor not in set(Compressor):
            raise invalid(f"compressor: expected 1 to 6, got {compressor}")
        if not inodes or not ids:
            raise invalid(f"counts: expected at least one inode and one id, got {inodes} and {ids}")
        if not SIZE <= bytes_used <= data_size:
            raise invalid(f"bytes used: expected {SIZE} to {data_size}, got {bytes_used}")
        if not SIZE <= inode_table < directory_table <= bytes_used:
            raise invalid(
                f"tables: expected {SIZE} <= inodes < directories <= {bytes_used},"
                f" got {inode_table} and {directory_table}"
            )
        if fragments:
            last = fragment_index + 8 * -(-fragments // FRAGMENTS_PER_BLOCK)
            if fragment_index < directory_table or last > bytes_used:
                raise invalid(
                    f"fragment index: expected inside {directory_table} to {bytes_used},"
                    f" got {fragment_index} to {last}"
                )
        later = [table for table in (id_index, xattr_index, export_index) if table != NO_TABLE]
        later += [fragment_index] if fragments else []
        if not all(directory_table <= table <= bytes_used for table in later):
            raise invalid(f"tables: expected inside {directory_table} to {bytes_used}, got {later}")
        return cls(
            inodes=inodes,
            block_size=block_size,
            block_log=block_log,
            compressor=Compressor(compressor),
            fragments=fragments,
            root=root,
            bytes_used=bytes_used,
            inode_table=inode_table,
            directory_table=directory_table,
            directory_end=min(later, default=bytes_used),
            fragment_index=fragment_index,
        )

    def check_stored(self, what: str, start: int, length: int) -> None:
        """Raise BundleError when `length` stored bytes from `start` are not inside the image."""
        if start < SIZE or start + length > self.bytes_used:
            raise invalid(
                f"{what}: expected inside {SIZE} to {self.bytes_used}, got {start} to {start + length}"
            )
