"""Real images made by mksquashfs, once per session, and crafted ones."""

from __future__ import annotations

import random
import struct
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

Tree = dict[str, "bytes | str | None"]  # bytes: a file; str: a symlink's target; None: a directory
MakeImage = Callable[..., bytes]


def compressible(size: int, seed: int = 1) -> bytes:
    """`size` bytes that every compressor makes shorter, quickly."""
    dice = random.Random(seed)
    words = [dice.randbytes(32) for _ in range(64)]
    return b"".join(dice.choices(words, k=size // 32 + 1))[:size]


def sample_tree(block: int) -> Tree:
    """Files of all lengths around one block of `block` bytes."""
    dice = random.Random(2)
    return {
        "empty": b"",
        "manifest.raucm": b"[update]\ncompatible=rig\n",
        "one-byte": b"x",
        "short": compressible(block - 1, 3),
        "exact": compressible(block, 4),
        "exact-random": dice.randbytes(block),
        "longer": compressible(block + 1, 5),
        "long": compressible(2 * block + block // 2, 6),
        "half-random": compressible(block, 7) + dice.randbytes(block // 2),
        "twin-a": compressible(block + 77, 8),
        "twin-b": compressible(block + 77, 8),
        "sparse": bytes(block) + compressible(100, 9) + bytes(3 * block),
        "zeros": bytes(2 * block),
        "link": "manifest.raucm",
        "sub": None,
        "sub/deeper": None,
        "sub/deeper/file": compressible(1000, 10),
        "sub/nothing": None,
        "ünïcode": b"name",
    }


def write_tree(root: Path, tree: Tree) -> None:
    root.mkdir(parents=True)
    for name, content in tree.items():
        path = root / name
        if content is None:
            path.mkdir()
        elif isinstance(content, str):
            path.symlink_to(content)
        else:
            path.write_bytes(content)


def mksquashfs(source: Path, image: Path, *options: str) -> bytes:
    subprocess.run(
        [
            "mksquashfs",
            source,
            image,
            "-noappend",
            "-no-progress",
            "-all-root",
            "-no-xattrs",
            "-quiet",
            *options,
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    return image.read_bytes()


@dataclass(slots=True)
class Images:
    """Makes images, each only once."""

    directory: Path
    made: dict[tuple[object, ...], bytes] = field(default_factory=dict)

    def tree(self, block: int) -> Tree:
        return sample_tree(block)

    def sample(self, block: int, *options: str) -> bytes:
        """An image of `tree(block)`."""
        source = self.directory / f"sample-{block}"
        if not source.exists():
            write_tree(source, sample_tree(block))
            (source / "hardlink").hardlink_to(source / "long")
        return self.make(source, "-b", str(block), *options)

    def of(self, name: str, tree: Tree, *options: str) -> bytes:
        """An image of another tree, known as `name`."""
        source = self.directory / name
        if not source.exists():
            write_tree(source, tree)
        return self.make(source, *options)

    def make(self, source: Path, *options: str) -> bytes:
        """An image of what is in the directory `source`."""
        key = (source, *options)
        if key not in self.made:
            self.made[key] = mksquashfs(source, self.directory / "image", *options)
        return self.made[key]


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    return Images(tmp_path_factory.mktemp("squashfs"))


@dataclass(slots=True)
class Craft:
    """An image put together by hand; every part may be replaced by a lie.

    Metadata is not compressed.  Default: a root with the file `f` of two blocks of 4 KiB and a tail.
    """

    block_size: int = 4096
    block_log: int = 12
    magic: int = 0x73717368
    version: tuple[int, int] = (4, 0)
    compressor: int = 1
    inode_count: int = 2
    id_count: int = 1
    fragments: int = 1
    data: bytes = b"A" * 4096 + b"B" * 4096 + b"0123456789"
    words: tuple[int, ...] = (1 << 24 | 4096, 1 << 24 | 4096)
    size: int = 8192 + 5
    start: int = 96
    fragment: int = 0
    fragment_offset: int = 5
    fragment_start: int = 96 + 8192
    fragment_word: int = 1 << 24 | 10
    file_type: int = 2
    file_number: int = 2
    file_inode: bytes | None = None
    inodes: list[bytes] | None = None  # unpacked metadata blocks of the inode table, the root first
    root_reference: int = 0
    root_type: int = 1
    listing_size: int | None = None
    listing_block: int = 0
    listing_offset: int = 0
    listing: bytes | None = None
    raw_inodes: bytes | None = None
    raw_directories: bytes | None = None
    raw_fragments: bytes | None = None
    superblock: dict[str, int] = field(default_factory=dict)

    @staticmethod
    def stored(block: bytes) -> bytes:
        """A metadata block that is not compressed."""
        return struct.pack("<H", 0x8000 | len(block)) + block

    @staticmethod
    def header(count: int, block: int = 0, number: int = 1) -> bytes:
        return struct.pack("<3I", count - 1, block, number)

    @staticmethod
    def entry(name: bytes, offset: int = 32, kind: int = 2, length: int | None = None) -> bytes:
        length = len(name) if length is None else length
        return struct.pack("<HhHH", offset, 1, kind, length - 1) + name

    @staticmethod
    def inode(kind: int, body: bytes, number: int = 2) -> bytes:
        return struct.pack("<4H2I", kind, 0o644, 0, 0, 0, number) + body

    def build(self) -> bytes:
        listing = self.listing
        if listing is None:
            listing = self.header(1) + self.entry(b"f", offset=40 if self.root_type == 8 else 32)
        size = len(listing) + 3 if self.listing_size is None else self.listing_size
        if self.root_type == 8:
            body = struct.pack("<4I2HI", 2, size, self.listing_block, 3, 0, self.listing_offset, 0xFFFFFFFF)
        else:
            body = struct.pack("<2I2HI", self.listing_block, 2, size, self.listing_offset, 3)
        root = self.inode(self.root_type, body, 1)
        file = self.file_inode
        if file is None:
            tail = (self.fragment, self.fragment_offset)
            if self.file_type == 9:
                body = struct.pack("<3Q4I", self.start, self.size, 0, 1, *tail, 0xFFFFFFFF)
            else:
                body = struct.pack("<4I", self.start, *tail, self.size)
            file = self.inode(self.file_type, body, self.file_number)
            file += struct.pack(f"<{len(self.words)}I", *self.words)
        inodes = self.raw_inodes
        if inodes is None:
            inodes = b"".join(self.stored(block) for block in self.inodes or [root + file])
        directories = self.raw_directories
        if directories is None:
            directories = self.stored(listing) if listing else b""
        inode_table = 96 + len(self.data)
        directory_table = inode_table + len(inodes)
        fragment_table = directory_table + len(directories)
        fragments = self.raw_fragments
        if fragments is None:
            fragments = self.stored(struct.pack("<Q2I", self.fragment_start, self.fragment_word, 0))
        fragment_index = fragment_table + len(fragments)
        ids = fragment_index + 8
        fields = {
            "bytes_used": ids + 14,
            "id_index": ids + 6,
            "xattr_index": 0xFFFFFFFFFFFFFFFF,
            "inode_table": inode_table,
            "directory_table": directory_table,
            "fragment_index": fragment_index,
            "export_index": 0xFFFFFFFFFFFFFFFF,
            "fragment_pointer": fragment_table,
        } | self.superblock
        head = struct.pack(
            "<5I6H8Q",
            *(self.magic, self.inode_count, 0, self.block_size, self.fragments),
            *(self.compressor, self.block_log, 0x2C0, self.id_count, *self.version),
            *(self.root_reference, fields["bytes_used"], fields["id_index"], fields["xattr_index"]),
            *(fields["inode_table"], fields["directory_table"]),
            *(fields["fragment_index"], fields["export_index"]),
        )
        tables = inodes + directories + fragments + struct.pack("<Q", fields["fragment_pointer"])
        id_table = self.stored(bytes(4)) + struct.pack("<Q", ids)
        return head + self.data + tables + id_table


@pytest.fixture
def craft() -> type[Craft]:
    return Craft
