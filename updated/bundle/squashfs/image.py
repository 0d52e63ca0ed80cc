"""A SquashFS image: names to inodes, inodes to bytes."""

from __future__ import annotations

from updated.bundle.decompress import Buffer, Decompressor, decompressor
from updated.bundle.plan import Plan, Range
from updated.bundle.squashfs import superblock as sb
from updated.bundle.squashfs.directory import MAX_ENTRIES, MAX_LISTING, Entry, parse_listing
from updated.bundle.squashfs.fault import invalid
from updated.bundle.squashfs.inodes import Inode, read_inode
from updated.bundle.squashfs.layout import FileLayout, Fragment, read_layout
from updated.bundle.squashfs.metadata import Cursor, Metadata, Table
from updated.bundle.squashfs.superblock import Superblock
from updated.errors import BundleError

MAX_DEPTH = 64  # directories inside each other
MAX_PATH = 4095  # characters of a path; Linux: PATH_MAX
MAX_PATHS = 16 << 20  # characters of all paths and targets of a walk


def open_image(data_size: int) -> Plan[SquashFS]:
    """Open the image in a payload of `data_size` bytes (without hash tree); raises BundleError.

    Offsets of the ranges are from the start of the payload, and the bytes sent must already be verified.
    """
    superblock = Superblock.parse((yield Range(0, sb.SIZE)), data_size)
    unpacker = decompressor(superblock.compressor, superblock.block_size)
    image = SquashFS(superblock, unpacker)
    yield from image.read_root()
    return image


class SquashFS:
    """An open image.  Keeps a small cache and a decompressor: drive one plan at a time.

    All plans raise BundleError for malformed images, in bounded time and memory.
    """

    def __init__(self, superblock: Superblock, unpacker: Decompressor) -> None:
        self.superblock = superblock
        self.root: Inode
        self._decompressor = unpacker
        self._inodes = Table("inode table", superblock.inode_table, superblock.directory_table)
        self._directories = Table("directory table", superblock.directory_table, superblock.directory_end)
        self._metadata = Metadata(superblock.inode_table, superblock.bytes_used, unpacker)
        # The last fragment block unpacked: small files share it.
        self._fragment: tuple[tuple[int, int], Buffer] | None = None

    def read_root(self) -> Plan[None]:
        """Read the root directory's inode; `open_image` does."""
        self.root = yield from self._inode(self.superblock.root)
        if self.root.kind != "directory":
            raise invalid(f"root: expected a directory, got a {self.root.kind}")

    def lookup(self, path: str) -> Plan[Inode]:
        """The regular file or directory at `path` (relative to the root, "/" between names, "" is the root).

        A file may be a symlink to a file beside it, once.
        """
        self._metadata.begin()
        inode = self.root
        entries: list[Entry] = []
        for name in path.split("/") if path else ():
            entries = (yield from self._entries(inode)) if inode.kind == "directory" else []
            inode = yield from self._named(entries, name, path)
        if inode.kind == "symlink":
            # `entries` is still the directory that holds the link.
            inode = yield from self._named(entries, inode.target, f"{path} -> {inode.target}")
        if inode.kind not in ("file", "directory"):
            raise BundleError(f"{path!r} in bundle: expected a regular file, got a {inode.kind}")
        return inode

    def walk(self) -> Plan[list[tuple[str, Inode]]]:
        """Everything below the root, each directory before what is in it, names in ascending order.

        At most 65 536 entries, 64 directories deep.
        """
        self._metadata.begin()
        found: list[tuple[str, Inode]] = []
        characters = 0
        seen = {self.root.reference}
        # Names with the directory they are in, the next one last.
        todo = [("", entry) for entry in reversed((yield from self._entries(self.root)))]
        while todo:
            parent, entry = todo.pop()
            path = parent + entry.name
            inode = yield from self._entry_inode(entry)
            found.append((path, inode))
            characters += len(path) + len(inode.target)
            if len(found) + len(todo) > MAX_ENTRIES or characters > MAX_PATHS:
                raise invalid(
                    f"tree: expected at most {MAX_ENTRIES} entries, {MAX_PATHS} characters of paths"
                )
            if inode.kind != "directory":
                continue
            if inode.reference in seen:
                raise invalid(f"directory {path!r}: expected one place in the tree, got a second or a loop")
            if path.count("/") >= MAX_DEPTH or len(path) > MAX_PATH:
                raise invalid(f"directory: expected {MAX_DEPTH} levels and {MAX_PATH} characters at most")
            seen.add(inode.reference)
            parent = f"{path}/"
            todo += [(parent, entry) for entry in reversed((yield from self._entries(inode)))]
        return found

    def file(self, inode: Inode) -> Plan[FileLayout]:
        """Where the content of a regular file is.  Compare `inode.size` with what is expected before."""
        self._metadata.begin()
        if inode.kind != "file":
            raise invalid(f"content: expected a file, got a {inode.kind}")
        return (yield from read_layout(self._metadata, self._inodes, self.superblock, inode))

    def read_file(self, inode: Inode, limit: int) -> Plan[bytes]:
        """The content of a small file; raises BundleError when it is longer than `limit` bytes."""
        if inode.size > limit:
            raise BundleError(
                f"File in bundle is too large: expected at most {limit} bytes, got {inode.size}"
            )
        layout = yield from self.file(inode)
        pieces: list[Buffer] = []
        position = layout.start
        for index in range(layout.blocks):
            stored = layout.stored(index)
            data = (yield from _fetch(position, stored)) if stored else b""
            pieces.append(layout.unpack(self._decompressor, index, data))
            position += stored
        if layout.tail:
            pieces.append(layout.tail.cut((yield from self._fragment_block(layout.tail))))
        return b"".join(pieces)

    def _fragment_block(self, tail: Fragment) -> Plan[Buffer]:
        key = (tail.start, tail.word)
        if self._fragment is None or self._fragment[0] != key:
            data = yield from _fetch(tail.start, tail.stored)
            self._fragment = key, tail.unpack(self._decompressor, data, self.superblock.block_size)
        return self._fragment[1]

    def _inode(self, reference: int) -> Plan[Inode]:
        return (yield from read_inode(self._metadata, self._inodes, self.superblock, reference))

    def _entry_inode(self, entry: Entry) -> Plan[Inode]:
        inode = yield from self._inode(entry.reference)
        if inode.kind != entry.kind:
            raise invalid(f"{entry.name!r}: expected a {entry.kind}, got a {inode.kind}")
        return inode

    def _entries(self, directory: Inode) -> Plan[list[Entry]]:
        if directory.size > MAX_LISTING:
            raise invalid(
                f"directory: expected a listing of at most {MAX_LISTING} bytes, got {directory.size}"
            )
        if not directory.size:
            return []
        cursor = Cursor(self._metadata, self._directories, directory.content)
        return parse_listing((yield from cursor.read(directory.size)))

    def _named(self, entries: list[Entry], name: str, path: str) -> Plan[Inode]:
        for entry in entries:
            if entry.name == name:
                return (yield from self._entry_inode(entry))
        raise BundleError(f"{path!r} not found in bundle")


def _fetch(start: int, length: int) -> Plan[bytes]:
    data = yield Range(start, length)
    if len(data) != length:
        raise invalid(f"data at {start}: expected {length} bytes, got {len(data)}")
    return data
