"""Malformed images: refused with our error, in bounded time and memory."""

from __future__ import annotations

import re
import struct
import time
import tracemalloc
import zlib
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from updated.bundle.plan import Plan, run_on_bytes
from updated.bundle.squashfs import FileLayout, open_image
from updated.errors import BundleError

WHOLE = 1 << 24  # block word: stored as it is
NO_TABLE = 0xFFFFFFFFFFFFFFFF


def everything(size: int) -> Plan[dict[str, bytes]]:
    """Open, list, and read all files of at most 1 MiB."""
    fs = yield from open_image(size)
    found = yield from fs.walk()
    contents = {}
    for path, inode in found:
        if inode.kind == "file":
            contents[path] = yield from fs.read_file(inode, 1 << 20)
    return contents


def refused(image: bytes, text: str, size: int | None = None) -> None:
    """`text` is literal; the whole message starts as all of ours do."""
    with pytest.raises(BundleError, match=f"^Invalid squashfs: .*{re.escape(text)}"):
        run_on_bytes(everything(len(image) if size is None else size), image)


def layout_of(image: bytes) -> FileLayout:
    fs = run_on_bytes(open_image(len(image)), image)
    return run_on_bytes(fs.file(run_on_bytes(fs.lookup("f"), image)), image)


def test_the_crafted_image_is_good(craft: Any) -> None:
    image = craft().build()
    assert run_on_bytes(everything(len(image)), image) == {"f": b"A" * 4096 + b"B" * 4096 + b"56789"}
    for variant in (
        craft(file_type=9),
        craft(root_type=8),
        craft(superblock={"xattr_index": NO_TABLE, "export_index": NO_TABLE}),
    ):
        image = variant.build()
        assert run_on_bytes(everything(len(image)), image)["f"].startswith(b"AAAA")


@pytest.mark.parametrize(
    ("lie", "text"),
    [
        ({"magic": 0x68737173}, "magic: expected 0x73717368, got 0x68737173"),
        ({"version": (3, 1)}, "version: expected 4.0, got 3.1"),
        ({"version": (4, 1)}, "version: expected 4.0, got 4.1"),
        ({"block_size": 8192}, "block size: expected a power of two"),
        ({"block_size": 2048, "block_log": 11}, "block size: expected"),
        ({"block_size": 1 << 21, "block_log": 21}, "got 2097152"),
        ({"block_size": 0, "block_log": 65535}, "block size: expected"),
        ({"compressor": 0}, "compressor: expected 1 to 6, got 0"),
        ({"compressor": 7}, "compressor: expected 1 to 6, got 7"),
        ({"compressor": 2}, "compressor lzma (2)"),
        ({"inode_count": 0}, "at least one inode"),
        ({"id_count": 0}, "at least one inode and one id"),
        ({"inode_count": 1}, "inode number: expected 1 to 1, got 2"),
        ({"file_number": 0}, "inode number: expected 1 to 2, got 0"),
        ({"superblock": {"bytes_used": 1 << 40}}, "bytes used"),
        ({"superblock": {"bytes_used": 95}}, "bytes used"),
        ({"superblock": {"inode_table": 95}}, "tables"),
        ({"superblock": {"inode_table": 1 << 63}}, "tables"),
        ({"superblock": {"directory_table": 96}}, "tables"),
        ({"superblock": {"directory_table": NO_TABLE}}, "tables"),
        ({"superblock": {"fragment_index": 96}}, "fragment index"),
        ({"superblock": {"fragment_index": NO_TABLE}}, "fragment index"),
        ({"superblock": {"id_index": 96}}, "tables"),
        ({"superblock": {"export_index": 1 << 40}}, "tables"),
        ({"superblock": {"xattr_index": 0}}, "tables"),
        ({"fragments": 0xFFFFFFFF}, "fragment index"),
        ({"root_reference": 8192}, "inode table: expected an offset below 8192"),
        ({"root_reference": 100}, "inode table"),
        ({"root_reference": 1 << 63}, "inode table"),
        ({"root_reference": 32}, "root: expected a directory, got a file"),
    ],
)
def test_superblock(craft: Any, lie: dict[str, Any], text: str) -> None:
    refused(craft(**lie).build(), text)


@pytest.mark.parametrize(
    ("lie", "text"),
    [
        ({"file_type": 0}, "inode type: expected 1 to 14, got 0"),
        ({"file_type": 15}, "inode type: expected 1 to 14, got 15"),
        ({"file_type": 6}, "'f': expected a file, got a fifo"),
        ({"words": ()}, "inode table: expected 8192 bytes in the block"),
        ({"words": (WHOLE | 4096, 4097)}, "block word"),
        ({"words": (WHOLE | 4096, WHOLE)}, "block word"),
        ({"words": (WHOLE | 4095, WHOLE | 4096)}, "block word"),
        ({"words": (WHOLE | 4096, WHOLE | 4095)}, "block word"),
        ({"words": (1 << 25, WHOLE | 4096)}, "block word"),
        ({"words": (0xFFFFFFFF, 0)}, "block word"),
        ({"words": (WHOLE | 4097, WHOLE | 4096)}, "block word"),
        ({"words": (WHOLE | 100, 100), "fragment": 0xFFFFFFFF, "size": 4196}, "block word"),
        ({"start": 95}, "file blocks: expected inside 96"),
        ({"start": 0xFFFFFFFF}, "file blocks: expected inside 96"),
        ({"start": 96 + 8192 + 200}, "file blocks: expected inside 96"),
        ({"file_type": 9, "start": NO_TABLE}, "file blocks: expected inside 96"),
        ({"fragment": 1}, "fragment: expected an index below 1, got 1"),
        ({"fragments": 0}, "fragment: expected an index below 0, got 0"),
        ({"fragment_offset": 6}, "fragment block: expected 11 bytes or more, got 10"),
        ({"fragment_offset": 4092}, "fragment tail: expected to end at 4096"),
        ({"fragment_offset": 0xFFFFFFFF}, "fragment tail: expected to end at 4096"),
        ({"fragment_word": 0}, "fragment word"),
        ({"fragment_word": WHOLE}, "fragment word"),
        ({"fragment_word": WHOLE | 4097}, "fragment word"),
        ({"fragment_word": 1 << 25 | 10}, "fragment word"),
        ({"fragment_start": 0}, "fragment block: expected inside 96"),
        ({"fragment_start": NO_TABLE}, "fragment block: expected inside 96"),
        ({"fragment_word": 10}, "gzip block of 10 bytes"),
        ({"superblock": {"fragment_pointer": 96}}, "fragment table"),
        ({"superblock": {"fragment_pointer": NO_TABLE}}, "fragment table"),
        ({"raw_fragments": b""}, "fragment table"),
        ({"raw_fragments": b"\x01\x80x"}, "fragment table"),
    ],
)
def test_file(craft: Any, lie: dict[str, Any], text: str) -> None:
    refused(craft(**lie).build(), text)


@pytest.mark.parametrize(
    "size", [1 << 63, (1 << 64) - 1, 1 << 44, 4096 * ((1 << 22) + 1), 4096 * 5000, 4096 * (1 << 21)]
)
@pytest.mark.parametrize("fragment", [0, 0xFFFFFFFF])
def test_giant_sparse_files_are_refused_before_memory_is_taken(craft: Any, size: int, fragment: int) -> None:
    image = craft(file_type=9, size=size, words=(0, 0), fragment=fragment).build()
    tracemalloc.start()
    with pytest.raises(BundleError, match=r"^Invalid squashfs: .*expected"):
        layout_of(image)
    _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 500_000


def test_a_bomb_of_block_words_is_bounded(craft: Any) -> None:
    """Metadata blocks of zeros are tiny; the words they unpack to are limited all the same."""
    zeros = zlib.compress(bytes(8192), 9)
    packed = struct.pack("<H", len(zeros)) + zeros
    root = craft.inode(1, struct.pack("<2I2HI", 0, 2, 12 + 9 + 3, 0, 3), 1)
    body = struct.pack("<3Q4I", 96, 4096 * (1 << 22), 0, 1, 0xFFFFFFFF, 0, 0xFFFFFFFF)
    first = (root + craft.inode(9, body)).ljust(8192, b"\0")
    image = craft(raw_inodes=craft.stored(first) + packed * 2100).build()
    layout = layout_of(image)
    assert (layout.blocks, layout.stored_bytes, len(layout.words) * 4) == (1 << 22, 0, 16 << 20)


def listing(craft: Any, *names: bytes, **how: int) -> bytes:
    header: bytes = craft.header(len(names))
    return header + b"".join(craft.entry(name, **how) for name in names)


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([b"b", b"a"], "directory: expected a name after b'b', got b'a'"),
        ([b"a", b"a"], "directory: expected a name after b'a', got b'a'"),
        ([b"."], "expected a plain name, got b'.'"),
        ([b".."], "expected a plain name, got b'..'"),
        ([b"a/b"], "expected a plain name, got b'a/b'"),
        ([b"a\0"], r"expected a plain name, got b'a\x00'"),
        ([b"n" * 256], "expected a name of at most 255 bytes, got 256"),
    ],
)
def test_names(craft: Any, names: list[bytes], text: str) -> None:
    refused(craft(listing=listing(craft, *names)).build(), text)


def test_names_that_are_not_utf8_are_kept(craft: Any) -> None:
    image = craft(listing=listing(craft, b"\xff\xfe", b"\xff\xff")).build()
    fs = run_on_bytes(open_image(len(image)), image)
    assert [path for path, _ in run_on_bytes(fs.walk(), image)] == ["\udcff\udcfe", "\udcff\udcff"]


def test_listings(craft: Any) -> None:
    good = listing(craft, b"f")
    refused(craft(listing=craft.header(257) + good[12:]).build(), "expected 1 to 256 entries, got 257")
    refused(craft(listing=struct.pack("<3I", 0xFFFFFFFF, 0, 1) + good[12:]).build(), "1 to 256 entries")
    refused(craft(listing=craft.header(2) + good[12:]).build(), "directory entry: expected 8 bytes, got 0")
    refused(craft(listing=good + b"x").build(), "expected a header of 12 bytes, got 1")
    refused(craft(listing=good[:-1]).build(), "directory entry: expected a name of at most 0 bytes, got 1")
    refused(
        craft(listing=craft.header(1) + craft.entry(b"f", length=200)).build(),
        "expected a name of at most 1 bytes, got 200",
    )
    refused(craft(listing=listing(craft, b"f", kind=0)).build(), "type of b'f': expected 1 to 7, got 0")
    refused(craft(listing=listing(craft, b"f", kind=8)).build(), "type of b'f': expected 1 to 7, got 8")
    refused(craft(listing=listing(craft, b"f", kind=3)).build(), "'f': expected a symlink, got a file")
    refused(craft(listing=listing(craft, b"f", offset=8192)).build(), "expected an offset below 8192")
    refused(craft(listing=listing(craft, b"f", offset=9)).build(), "inode")
    refused(
        craft(listing=craft.header(1, block=1 << 31) + craft.entry(b"f")).build(),
        "inode table: expected",
    )
    refused(craft(listing=good, listing_size=len(good) + 4).build(), "directory table: expected")
    refused(craft(listing=good, listing_size=0xFFFF).build(), "directory table: expected")
    refused(
        craft(listing=good, listing_size=0xFFFFFFFF, root_type=8).build(), "expected a listing of at most"
    )
    refused(craft(listing=good, listing_offset=9000).build(), "expected an offset below 8192")
    refused(craft(listing=good, listing_offset=500).build(), "directory table: expected 8192 bytes")
    refused(craft(listing=good, listing_block=0xFFFFFFFF).build(), "directory table: expected")


def test_a_directory_size_below_three_is_empty_as_for_linux(craft: Any) -> None:
    for size in range(4):
        image = craft(listing_size=size).build()
        assert run_on_bytes(everything(len(image)), image) == {}


def test_directory_loops(craft: Any) -> None:
    loop = craft(listing=listing(craft, b"d", offset=0, kind=1))
    refused(loop.build(), "directory 'd': expected one place in the tree, got a second or a loop")
    image = loop.build()
    fs = run_on_bytes(open_image(len(image)), image)
    assert run_on_bytes(fs.lookup("d/" * 50 + "d"), image) == fs.root, (
        "bounded by the path that was asked for"
    )
    # The same directory under two names, not above itself.
    body = struct.pack("<2I2HI", 0, 2, 3, 0, 3)
    twice = craft(listing=listing(craft, b"d", b"e", kind=1), file_inode=craft.inode(1, body))
    refused(twice.build(), "directory 'e': expected one place")


def test_a_chain_of_directories_deeper_than_allowed(craft: Any) -> None:
    """Directory k holds directory k + 1."""
    count = 100
    size = 12 + 9
    listings = b"".join(
        craft.header(1) + craft.entry(b"d", offset=32 * (k + 1), kind=1) for k in range(count)
    )
    inodes = b"".join(
        craft.inode(1, struct.pack("<2I2HI", 0, 2, size + 3 if k < count else 3, size * k, 3), k + 1)
        for k in range(count + 1)
    )
    refused(
        craft(inode_count=count + 1, listing=listings, inodes=[inodes]).build(),
        "directory: expected 64 levels",
    )


@pytest.mark.parametrize(("names", "allowed"), [(256, True), (258, False)])
def test_too_many_entries(craft: Any, names: int, allowed: bool) -> None:
    """254 directories that share one listing: legal for the format, and a multiplication."""
    leaf = b"".join(craft.header(1) + craft.entry(b"%03d" % number) for number in range(names))
    top = craft.header(254) + b"".join(
        craft.entry(b"%03d" % number, offset=64 + 32 * number, kind=1) for number in range(254)
    )
    root = craft.inode(1, struct.pack("<2I2HI", 0, 2, len(top) + 3, 0, 3), 1)
    file = craft.inode(2, struct.pack("<4I", 0, 0xFFFFFFFF, 0, 0))
    shared = craft.inode(1, struct.pack("<2I2HI", 0, 2, len(leaf) + 3, len(top), 3), 1)
    table = top + leaf
    blocks = b"".join(craft.stored(table[at : at + 8192]) for at in range(0, len(table), 8192))
    image = craft(raw_directories=blocks, inodes=[root + file + shared * 254]).build()
    if allowed:
        assert len(run_on_bytes(walked(len(image)), image)) == 254 + 254 * names
    else:
        refused(image, "tree: expected at most 65536 entries")


def walked(size: int) -> Plan[list[Any]]:
    fs = yield from open_image(size)
    return (yield from fs.walk())


def test_symlink_targets(craft: Any) -> None:
    def link(target: bytes, length: int | None = None) -> bytes:
        inode: bytes = craft.inode(
            3, struct.pack("<2I", 1, len(target) if length is None else length) + target
        )
        image: bytes = craft(listing=listing(craft, b"f", kind=3), file_inode=inode, words=()).build()
        return image

    assert run_on_bytes(walked(len(link(b"x"))), link(b"x"))[0][1].target == "x"
    refused(link(b""), "symlink target: expected 1 to 4096 bytes, got 0")
    refused(link(b"x", 0xFFFFFFFF), "symlink target: expected 1 to 4096 bytes, got 4294967295")
    refused(link(b"x" * 4097), "symlink target: expected 1 to 4096 bytes, got 4097")
    refused(link(b"x", 4000), "inode table: expected")
    refused(link(b"x\0y"), "symlink target: expected no NUL")


def test_long_targets_of_many_links_are_bounded(craft: Any) -> None:
    """20 000 names of one link: 80 MB of targets, from an image of half a megabyte."""
    link = craft.inode(3, struct.pack("<2I", 1, 4096) + b"x" * 4096)
    table = b"".join(craft.header(1) + craft.entry(b"%05d" % number, 40, 3) for number in range(20000))
    root = craft.inode(8, struct.pack("<4I2HI", 2, len(table) + 3, 0, 3, 0, 0, 0xFFFFFFFF), 1)
    blocks = b"".join(craft.stored(table[at : at + 8192]) for at in range(0, len(table), 8192))
    refused(craft(inodes=[root + link], raw_directories=blocks).build(), "characters of paths")


def test_metadata_blocks(craft: Any) -> None:
    good = craft().build()
    table = struct.unpack_from("<Q", good, 64)[0]
    length = struct.unpack_from("<H", good, table)[0] & 0x7FFF
    inodes = good[table + 2 : table + 2 + length]
    packed = zlib.compress(inodes)
    image = craft(raw_inodes=struct.pack("<H", len(packed)) + packed).build()
    assert "f" in run_on_bytes(everything(len(image)), image)
    for raw, text in (
        (b"", "tables"),
        (b"\x01", "inode table: expected 16 bytes more"),
        (struct.pack("<H", 0) + inodes, "expected 1 to 8192 bytes, got 0"),
        (struct.pack("<H", 0x8000) + inodes, "expected 1 to 8192 bytes, got 0"),
        (struct.pack("<H", 8193) + bytes(8193), "expected 1 to 8192 bytes, got 8193"),
        (struct.pack("<H", 0x8000 | len(inodes) + 1) + inodes, "inode table: expected to end at"),
        (struct.pack("<H", 0x8000 | 8000) + inodes, "expected to end at"),
        (struct.pack("<H", len(inodes)) + inodes, "gzip block"),
        (struct.pack("<H", len(packed) + 1) + packed + b"\0", "behind its end"),
        (struct.pack("<H", len(packed) - 1) + packed[:-1], "cut short"),
        (craft.stored(inodes[:40]) + craft.stored(inodes[40:]), "expected 8192 bytes in the block"),
        (craft.stored(zlib.compress(bytes(1 << 20)))[2:], "metadata block"),
    ):
        refused(craft(raw_inodes=raw).build(), text)
    bomb = zlib.compress(bytes(1 << 20), 9)
    refused(craft(raw_inodes=struct.pack("<H", len(bomb)) + bomb).build(), "more than 8192 bytes")


def test_one_operation_unpacks_a_bounded_number_of_blocks(craft: Any) -> None:
    """Entries that jump between many small blocks cannot make a walk slow without end."""
    names = [b"%05d" % number for number in range(20000)]
    file = craft.inode(2, struct.pack("<4I", 0, 0xFFFFFFFF, 0, 0))
    blocks = [craft.stored(file)] * 64  # more than are kept
    table = b""
    for at in range(0, len(names), 1):
        table += craft.header(1, block=(at * 17 % 64) * len(blocks[0])) + craft.entry(names[at], offset=0)
    root = craft.inode(8, struct.pack("<4I2HI", 2, len(table) + 3, 0, 3, 0, 0, 0xFFFFFFFF), 1)
    cut = [table[at : at + 8192] for at in range(0, len(table), 8192)]
    image = craft(
        raw_inodes=b"".join(blocks) + craft.stored(root),
        root_reference=sum(map(len, blocks)) << 16,
        raw_directories=b"".join(craft.stored(block) for block in cut),
    ).build()
    refused(image, "metadata: expected to read at most 16384 blocks")


def test_bytes_that_do_not_come(craft: Any) -> None:
    image = craft().build()
    for length in range(len(image)):
        refused(image[:length], "expected", size=len(image))


def test_an_image_cut_short_at_every_length(craft: Any) -> None:
    image = craft().build()
    for length in range(len(image)):
        refused(image[:length], "expected")


TINY: dict[str, bytes | str | None] = {
    "a": bytes(range(256)) * 40,
    "b": b"b" * 9000,
    "d": None,
    "d/e": b"small",
    "l": "a",
}


@pytest.mark.parametrize("compressor", ["gzip", "xz", "zstd", "lz4", "lzo"])
@pytest.mark.parametrize("options", [(), ("-noI",)], ids=["packed", "plain"])
def test_flipped_bytes(images: Any, compressor: str, options: tuple[str, ...]) -> None:
    """Parses, or raises our error, never anything else, in bounded time."""
    image = images.of("tiny", TINY, "-comp", compressor, "-b", "4096", "-nopad", *options)
    # Mostly where the structure is: superblock and tables.
    tables = struct.unpack_from("<Q", image, 64)[0]
    places = st.one_of(
        st.integers(0, 95), st.integers(tables, len(image) - 1), st.integers(0, len(image) - 1)
    )

    @settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=4), st.integers(0, 20))
    def flip(changes: list[tuple[int, int]], cut: int) -> None:
        broken = bytearray(image)
        for place, value in changes:
            broken[place] = value
        if cut < 3:
            del broken[len(broken) * cut // 3 :]
        start = time.monotonic()
        try:
            contents = run_on_bytes(everything(len(image)), bytes(broken))
        except BundleError as error:
            assert str(error)
        else:
            assert all(len(content) <= 1 << 20 for content in contents.values())
        assert time.monotonic() - start < 5

    flip()


def test_every_bit_of_a_crafted_image(craft: Any) -> None:
    image = craft().build()
    for place in [*range(96), *range(96 + 8192, len(image))]:
        for bit in range(8):
            broken = bytearray(image)
            broken[place] ^= 1 << bit
            try_all(bytes(broken))


def try_all(image: bytes) -> None:
    try:
        run_on_bytes(everything(len(image)), image)
    except BundleError as error:
        assert "expected" in str(error) or "squashfs" in str(error)
