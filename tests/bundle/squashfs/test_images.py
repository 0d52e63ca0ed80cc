"""What mksquashfs writes is read back byte for byte."""

from __future__ import annotations

import struct
import subprocess
import tracemalloc
from array import array
from pathlib import Path
from typing import Any

import pytest

from updated.bundle.decompress import decompressor
from updated.bundle.plan import Plan, Range, T, run_on_bytes
from updated.bundle.squashfs import FileLayout, Inode, SquashFS, open_image
from updated.errors import BundleError

COMPRESSORS = {
    "gzip": ["-comp", "gzip"],
    "xz": ["-comp", "xz"],
    "xz-bcj": ["-comp", "xz", "-Xbcj", "x86"],
    "zstd": ["-comp", "zstd", "-Xcompression-level", "3"],
    "lz4": ["-comp", "lz4"],
    "lz4-hc": ["-comp", "lz4", "-Xhc"],
    "lzo": ["-comp", "lzo"],
    "lzo1x-1": ["-comp", "lzo", "-Xalgorithm", "lzo1x_1"],
    "gzip-strategies": ["-comp", "gzip", "-Xcompression-level", "1", "-Xwindow-size", "9"],
}
OPTIONS: dict[str, list[str]] = {
    "plain-metadata": ["-noI", "-noD", "-noF", "-noX"],
    "plain-data": ["-noD"],
    "plain-fragments": ["-noF"],
    "no-fragments": ["-no-fragments"],
    "always-fragments": ["-always-use-fragments"],
    "no-duplicates": ["-no-duplicates"],
    "no-exports": ["-no-exports"],
    "no-sparse": ["-no-sparse"],
    "no-hardlinks": ["-no-hardlinks"],
    "everything-off": ["-no-fragments", "-no-exports", "-no-duplicates", "-noI", "-nopad"],
}


def content(layout: FileLayout, image: bytes) -> bytes:
    """The file as the streaming engine makes it."""
    unpacker = decompressor(layout.compressor, layout.block_size)
    view = memoryview(image)
    pieces = []
    at = layout.start
    for index in range(layout.blocks):
        stored = layout.stored(index)
        piece = layout.unpack(unpacker, index, view[at : at + stored])
        assert len(piece) == layout.output(index)
        pieces.append(piece)
        at += stored
    assert at == layout.start + layout.stored_bytes
    if tail := layout.tail:
        block = tail.unpack(unpacker, view[tail.start : tail.start + tail.stored], layout.block_size)
        pieces.append(tail.cut(block))
    return b"".join(pieces)


def opened(image: bytes) -> SquashFS:
    return run_on_bytes(open_image(len(image)), image)


def check_tree(image: bytes, tree: dict[str, bytes | str | None]) -> None:
    fs = opened(image)
    found = run_on_bytes(fs.walk(), image)
    assert [path for path, _ in found] == sorted(
        tree, key=lambda path: [part.encode() for part in path.split("/")]
    )
    for path, inode in found:
        expected = tree[path]
        if expected is None:
            assert inode.kind == "directory"
        elif isinstance(expected, str):
            assert (inode.kind, inode.target) == ("symlink", expected)
        else:
            assert (inode.kind, inode.size) == ("file", len(expected))
            assert inode == run_on_bytes(fs.lookup(path), image)
            layout = run_on_bytes(fs.file(inode), image)
            assert layout.size == len(expected)
            assert content(layout, image) == expected, path
            assert run_on_bytes(fs.read_file(inode, len(expected)), image) == expected


@pytest.mark.parametrize("block", [4096, 131072, 1 << 20])
@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_every_compressor_and_block_size(images: Any, compressor: str, block: int) -> None:
    image = images.sample(block, *COMPRESSORS[compressor])
    check_tree(image, images.tree(block) | {"hardlink": images.tree(block)["long"]})


@pytest.mark.parametrize("block", [4096, 131072])
@pytest.mark.parametrize("option", OPTIONS)
def test_every_option(images: Any, option: str, block: int) -> None:
    image = images.sample(block, *OPTIONS[option])
    check_tree(image, images.tree(block) | {"hardlink": images.tree(block)["long"]})


def test_hard_links_are_one_inode_and_twins_share_their_blocks(images: Any) -> None:
    image = images.sample(4096)
    fs = opened(image)
    assert run_on_bytes(fs.lookup("hardlink"), image) == run_on_bytes(fs.lookup("long"), image)
    twins = [run_on_bytes(fs.lookup(name), image) for name in ("twin-a", "twin-b")]
    layouts = [run_on_bytes(fs.file(inode), image) for inode in twins]
    assert twins[0].number != twins[1].number
    assert layouts[0] == layouts[1]


def test_a_sparse_file_stores_only_what_is_not_zero(images: Any) -> None:
    image = images.sample(131072)
    fs = opened(image)
    layout = run_on_bytes(fs.file(run_on_bytes(fs.lookup("sparse"), image)), image)
    assert [bool(word) for word in layout.words] == [False, True, False, False, False]
    zeros = run_on_bytes(fs.file(run_on_bytes(fs.lookup("zeros"), image)), image)
    assert (zeros.stored_bytes, list(zeros.words)) == (0, [0, 0])


@pytest.mark.parametrize("compressor", ["gzip", "zstd"])
def test_more_entries_than_a_header_counts(images: Any, compressor: str) -> None:
    tree: dict[str, bytes | str | None] = {"many": None}
    tree |= {f"many/{number:04}-{'n' * (number % 200)}": b"%d" % number for number in range(300)}
    tree |= {f"d{number}": None for number in range(40)}
    tree |= {f"d{number}/f": b"same" for number in range(40)}
    check_tree(images.of("many", tree, "-comp", compressor), tree)


def test_a_long_chain_of_directories(images: Any) -> None:
    tree: dict[str, bytes | str | None] = {"/".join("d" * (depth + 1)): None for depth in range(40)}
    check_tree(images.of("deep", tree), tree)


def test_an_empty_root(images: Any) -> None:
    check_tree(images.of("nothing", {}), {})


def test_modes_times_and_special_files(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    pseudo = [
        "dev c 600 0 0 1 3",
        "disk b 660 0 0 8 0",
        "pipe i 644 0 0 f",
        "sock i 644 0 0 s",
        "su m 4755 0 0",
    ]
    (tmp_path / "source" / "su").write_bytes(b"")
    options = ["-quiet", "-no-progress", "-all-time", "1234567890"]
    options += [argument for line in pseudo for argument in ("-p", line)]
    subprocess.run(
        ["mksquashfs", str(tmp_path / "source"), str(tmp_path / "image"), *options],
        check=True,
        capture_output=True,
        timeout=60,
    )
    image = (tmp_path / "image").read_bytes()
    fs = opened(image)
    found = dict(run_on_bytes(fs.walk(), image))
    assert {name: (inode.kind, inode.mode) for name, inode in found.items()} == {
        "dev": ("character device", 0o600),
        "disk": ("block device", 0o660),
        "pipe": ("fifo", 0o644),
        "sock": ("socket", 0o644),
        "su": ("file", 0o4755),
    }
    assert {inode.mtime for inode in found.values()} == {1234567890}
    with pytest.raises(BundleError, match="'dev' in bundle: expected a regular file, got a character device"):
        run_on_bytes(fs.lookup("dev"), image)
    with pytest.raises(BundleError, match="expected a file, got a fifo"):
        run_on_bytes(fs.file(found["pipe"]), image)


def lookup(image: bytes, path: str) -> Inode:
    return run_on_bytes(opened(image).lookup(path), image)


def test_lookup(images: Any) -> None:
    image = images.sample(4096)
    assert lookup(image, "link") == lookup(image, "manifest.raucm")
    assert lookup(image, "sub/deeper").kind == "directory"
    assert lookup(image, "") == opened(image).root
    for path in (
        "absent",
        "sub/absent",
        "manifest.raucm/x",
        "/manifest.raucm",
        "sub/",
        "sub/../long",
        "./long",
        "\ud800",
    ):
        with pytest.raises(BundleError, match=r"not found in bundle"):
            lookup(image, path)


def test_links_lead_to_a_sibling_once(images: Any) -> None:
    tree: dict[str, bytes | str | None] = {
        "file": b"x",
        "sub": None,
        "sub/file": b"y",
        "good": "file",
        "twice": "good",
        "away": "sub/file",
        "up": "../file",
        "absolute": "/file",
        "itself": "itself",
        "sub/good": "file",
    }
    image = images.of("links", tree)
    assert lookup(image, "good") == lookup(image, "file")
    assert lookup(image, "sub/good") == lookup(image, "sub/file")
    for path in ("away", "up", "absolute"):
        with pytest.raises(BundleError, match=f"'{path} -> .*' not found in bundle"):
            lookup(image, path)
    for path in ("twice", "itself"):
        with pytest.raises(BundleError, match="expected a regular file, got a symlink"):
            lookup(image, path)


def test_read_file_keeps_its_limit(images: Any) -> None:
    image = images.sample(4096)
    fs = opened(image)
    inode = run_on_bytes(fs.lookup("long"), image)
    with pytest.raises(BundleError, match="expected at most 100 bytes, got 10240"):
        run_on_bytes(fs.read_file(inode, 100), image)


def ranges(plan: Plan[T], data: bytes) -> tuple[T, list[Range]]:
    wanted: list[Range] = []
    try:
        wanted.append(next(plan))
        while True:
            wanted.append(plan.send(data[wanted[-1].offset : wanted[-1].offset + wanted[-1].length]))
    except StopIteration as stop:
        return stop.value, wanted


def test_two_reads_are_enough_for_all_metadata(images: Any) -> None:
    image = images.sample(131072)
    fs, wanted = ranges(open_image(len(image)), image)
    assert len(wanted) == 2
    inode, wanted = ranges(fs.lookup("manifest.raucm"), image)
    assert not wanted
    layout, wanted = ranges(fs.file(inode), image)
    assert not wanted
    assert layout.tail
    text, wanted = ranges(fs.read_file(inode, 1000), image)
    assert text.startswith(b"[update]")
    assert wanted == [Range(layout.tail.start, layout.tail.stored)]
    neighbour, wanted = ranges(fs.lookup("one-byte"), image)
    assert ranges(fs.read_file(neighbour, 1), image) == (b"x", []), "both lie in one fragment block"


def test_many_blocks_of_a_real_image(images: Any, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with (source / "big").open("wb") as file:
        file.truncate(10_000 * 4096 - 7)
        for place in (0, 5_000 * 4096, 9_999 * 4096):
            file.seek(place)
            file.write(b"data")
    image = images.make(source, "-b", "4096")
    fs = opened(image)
    layout = run_on_bytes(fs.file(run_on_bytes(fs.lookup("big"), image)), image)
    assert [index for index, word in enumerate(layout.words) if word] == [0, 5_000, 9_999]
    assert (layout.blocks, layout.output(9_999)) == (10_000, 4089)


def test_block_words_take_four_bytes_each(craft: Any) -> None:
    count = 100_000
    words = array("I", (number % 64 + 1 for number in range(count)))
    body = struct.pack("<3Q4I", 96, count * 4096, 0, 1, 0xFFFFFFFF, 0, 0xFFFFFFFF) + words.tobytes()
    root = craft.inode(1, struct.pack("<2I2HI", 0, 2, 12 + 9 + 3, 0, 3), 1)
    table = root + craft.inode(9, body)
    blocks = [table[at : at + 8192] for at in range(0, len(table), 8192)]
    image = craft(inodes=blocks, data=bytes(sum(words))).build()
    fs = opened(image)
    inode = run_on_bytes(fs.lookup("f"), image)
    tracemalloc.start()
    layout, wanted = ranges(fs.file(inode), image)
    _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert layout.words == words
    assert layout.stored_bytes == sum(words)
    assert len(wanted) <= 2 + len(table) // 65536
    assert peak < 4 * count + 500_000, "words, and a cache of bounded size"
