"""Single blocks: exactly the expected bytes, or our error."""

from __future__ import annotations

import lzma
import random
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import lz4.block
import lzo
import pytest
import zstandard

from updated.bundle.decompress import Compressor, decompressor
from updated.errors import BundleError

BLOCK = 65536


def xz(data: bytes, dictionary: int = BLOCK) -> bytes:
    chain = [{"id": lzma.FILTER_LZMA2, "dict_size": dictionary}]
    return lzma.compress(data, check=lzma.CHECK_CRC32, filters=chain)


PACK: dict[Compressor, Callable[[bytes], bytes]] = {
    Compressor.GZIP: lambda data: zlib.compress(data, 9),
    Compressor.LZO: lambda data: lzo.compress(data, 9, False),
    Compressor.XZ: xz,
    Compressor.LZ4: lambda data: lz4.block.compress(data, store_size=False),
    Compressor.ZSTD: lambda data: zstandard.ZstdCompressor().compress(data),
}
TEXT = b"".join(b"%d " % number for number in range(20000))[:BLOCK]


@pytest.fixture(params=PACK, ids=lambda compressor: compressor.name)
def compressor(request: pytest.FixtureRequest) -> Compressor:
    chosen: Compressor = request.param
    return chosen


def test_good_blocks(compressor: Compressor) -> None:
    unpacker = decompressor(compressor, BLOCK)
    for size in (1, 100, BLOCK - 1, BLOCK):
        packed = PACK[compressor](TEXT[:size])
        assert unpacker.block(packed, size) == TEXT[:size]
        assert unpacker.block(memoryview(packed), size) == TEXT[:size]
        assert unpacker.up_to(packed, BLOCK) == TEXT[:size]


def test_wrong_lengths(compressor: Compressor) -> None:
    unpacker = decompressor(compressor, BLOCK)
    packed = PACK[compressor](TEXT[:1000])
    for expected in (1, 999, 1001, BLOCK):
        with pytest.raises(BundleError, match=f"^Invalid squashfs: {compressor.name.lower()} block"):
            unpacker.block(packed, expected)
    assert unpacker.block(packed, 1000) == TEXT[:1000], "a refused block does no harm to the next"


def test_garbage_behind_a_block(compressor: Compressor) -> None:
    unpacker = decompressor(compressor, BLOCK)
    packed = PACK[compressor](TEXT[:1000])
    for garbage in (b"\0", b"x", bytes(100), packed):
        with pytest.raises(BundleError, match=r"^Invalid squashfs"):
            unpacker.block(packed + garbage, 1000)


def test_blocks_cut_short_at_every_length(compressor: Compressor) -> None:
    unpacker = decompressor(compressor, BLOCK)
    packed = PACK[compressor](TEXT[:300])
    for length in range(len(packed)):
        with pytest.raises(BundleError, match=r"^Invalid squashfs"):
            unpacker.block(packed[:length], 300)


def test_garbage_instead_of_a_block(compressor: Compressor) -> None:
    unpacker = decompressor(compressor, BLOCK)
    dice = random.Random(1)
    for _ in range(200):
        with pytest.raises(BundleError, match=r"^Invalid squashfs"):
            unpacker.block(dice.randbytes(dice.randrange(1, 200)), BLOCK)


def test_changed_blocks_never_raise_anything_else(compressor: Compressor) -> None:
    unpacker = decompressor(compressor, BLOCK)
    packed = PACK[compressor](TEXT[:600])
    refused = 0
    for place in range(len(packed)):
        broken = bytearray(packed)
        broken[place] ^= 1 << place % 8
        try:
            assert len(unpacker.block(bytes(broken), 600)) == 600
        except BundleError:
            refused += 1
    assert refused > 0


def test_bombs_take_no_memory(compressor: Compressor) -> None:
    unpacker = decompressor(compressor, 4096)
    bomb = PACK[compressor](bytes(32 << 20))
    tracemalloc.start()
    with pytest.raises(BundleError, match=r"^Invalid squashfs"):
        unpacker.block(bomb, 4096)
    _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # The lzo library copies what it is given; the rest stays near one block.
    assert peak < 500_000


def test_an_empty_block(compressor: Compressor) -> None:
    unpacker = decompressor(compressor, BLOCK)
    with pytest.raises(BundleError, match=r"^Invalid squashfs"):
        unpacker.up_to(b"", BLOCK)


def test_bcj_filters_of_xz() -> None:
    chain = [{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "dict_size": BLOCK}]
    packed = lzma.compress(TEXT, check=lzma.CHECK_CRC32, filters=chain)
    assert decompressor(Compressor.XZ, BLOCK).block(packed, BLOCK) == TEXT


def test_an_xz_dictionary_far_larger_than_a_block_is_refused() -> None:
    with pytest.raises(BundleError, match="Memory usage limit"):
        decompressor(Compressor.XZ, BLOCK).block(xz(TEXT, dictionary=1 << 26), BLOCK)


def test_legacy_lzma_streams_are_not_xz() -> None:
    packed = lzma.compress(TEXT, format=lzma.FORMAT_ALONE)
    with pytest.raises(BundleError, match="xz block"):
        decompressor(Compressor.XZ, BLOCK).block(packed, BLOCK)


def test_gzip_files_are_not_zlib_streams() -> None:
    stream = zlib.compressobj(wbits=31)
    packed = stream.compress(TEXT) + stream.flush()
    with pytest.raises(BundleError, match="gzip block"):
        decompressor(Compressor.GZIP, BLOCK).block(packed, BLOCK)


def test_zstd_frames_without_their_size() -> None:
    packed = zstandard.ZstdCompressor(write_content_size=False).compress(TEXT)
    unpacker = decompressor(Compressor.ZSTD, 1 << 21)
    assert unpacker.block(packed, BLOCK) == TEXT
    with pytest.raises(BundleError, match="zstd block"):
        unpacker.block(packed, BLOCK - 1)


def test_zstd_frames_that_promise_too_much_are_not_believed() -> None:
    """The library allocates the promised size; here 2^62 bytes."""
    frame = bytes.fromhex("28b52ffd e0 0000000000000040 010000")
    assert zstandard.frame_content_size(frame) == 1 << 62
    with pytest.raises(BundleError, match=f"{1 << 62} bytes"):
        decompressor(Compressor.ZSTD, BLOCK).block(frame, BLOCK)


def test_compressors_that_cannot_be() -> None:
    with pytest.raises(BundleError, match=r"lzma \(2\) cannot be read by Linux") as caught:
        decompressor(Compressor.LZMA, BLOCK)
    assert "-comp xz" in caught.value.hint
    for number in (0, 7, 65535):
        with pytest.raises(BundleError, match=f"compressor: expected 1 to 6, got {number}"):
            decompressor(number, BLOCK)


def test_one_decompressor_per_thread(compressor: Compressor) -> None:
    packed = PACK[compressor](TEXT)

    def work(_: int) -> bool:
        unpacker = decompressor(compressor, BLOCK)
        return all(unpacker.block(packed, BLOCK) == TEXT for _ in range(20))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


def test_without_the_optional_libraries() -> None:
    """isal has no wheels for 32 bit ARM: zlib must do.  lzo is an extra."""
    program = """
import sys, zlib
sys.modules["isal"] = sys.modules["lzo"] = None
from updated.bundle.decompress import decompressor
from updated.errors import BundleError, NotSupportedError
unpacker = decompressor(1, 4096)
assert type(zlib.decompressobj()).__module__ == "zlib" and "isal.isal_zlib" not in sys.modules
packed = zlib.compress(b"text" * 1000)
assert unpacker.block(memoryview(packed), 4000) == b"text" * 1000
for broken in (packed[:-1], packed + b"x", packed[:-1] + b"x", zlib.compress(bytes(4001)), b"", b"x"):
    try:
        unpacker.block(broken, 4000)
    except BundleError:
        continue
    raise AssertionError(broken)
try:
    decompressor(3, 4096)
except NotSupportedError as error:
    print(error, "|", error.hint)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=30
    )
    assert "python-lzo" in done.stdout
    assert "updated[lzo]" in done.stdout
