"""Unpack single SquashFS blocks: hostile bytes in, at most `limit` bytes out, or BundleError.

Every block of a SquashFS image is compressed on its own: zlib streams (RFC 1950), whole .xz files,
zstd frames, raw LZ4 and LZO1X blocks (kernel: fs/squashfs/*_wrapper.c).  All libraries used here
release the GIL.
"""

from __future__ import annotations

import importlib
import lzma
import zlib
from collections.abc import Callable
from enum import IntEnum
from types import ModuleType

from updated.errors import BundleError, NotSupportedError

Buffer = bytes | memoryview
Unpack = Callable[[Buffer, int], bytes]
"""(packed, limit) -> at most `limit` bytes; raises for longer output and for garbage behind the data."""

METADATA_SIZE = 8192  # bytes a metadata block unpacks to, whatever the block size of the image


class Compressor(IntEnum):
    """The compressor ids of the superblock."""

    GZIP = 1
    LZMA = 2
    LZO = 3
    XZ = 4
    LZ4 = 5
    ZSTD = 6


class Decompressor:
    """Unpacks the blocks of one image.  It keeps state between calls: make one per thread."""

    __slots__ = ("_errors", "_name", "_unpack")

    def __init__(self, name: str, unpack: Unpack, errors: tuple[type[Exception], ...]) -> None:
        self._name = name
        self._unpack = unpack
        self._errors = errors

    def block(self, data: Buffer, expected: int) -> bytes:
        """The `expected` bytes packed in `data`; raises BundleError when they are more, fewer or broken."""
        unpacked = self.up_to(data, expected)
        if len(unpacked) != expected:
            raise BundleError(
                f"Invalid squashfs: {self._name} block: expected {expected} bytes, got {len(unpacked)}"
            )
        return unpacked

    def up_to(self, data: Buffer, limit: int) -> bytes:
        """The 1 to `limit` bytes in `data`: for fragment and metadata blocks, whose size nobody stores.

        Raises BundleError.
        """
        try:
            unpacked = self._unpack(data, limit)
        except self._errors as error:
            raise BundleError(
                f"Invalid squashfs: {self._name} block of {len(data)} bytes"
                f" does not unpack to {limit} bytes or fewer: {error}"
            ) from error
        if not unpacked:
            raise BundleError(f"Invalid squashfs: {self._name} block of {len(data)} bytes unpacks to nothing")
        return unpacked


def decompressor(compressor_id: int, block_size: int) -> Decompressor:
    """A new decompressor for images with this compressor id and block size (bytes).

    Raises BundleError for ids that Linux cannot mount, NotSupportedError where a library is not installed.
    """
    try:
        compressor = Compressor(compressor_id)
    except ValueError:
        raise BundleError(f"Invalid squashfs: compressor: expected 1 to 6, got {compressor_id}") from None
    match compressor:
        case Compressor.GZIP:
            return _gzip()
        case Compressor.XZ:
            return _xz(block_size)
        case Compressor.ZSTD:
            return _zstd(block_size)
        case Compressor.LZ4:
            return _lz4()
        case Compressor.LZO:
            return _lzo()
        case Compressor.LZMA:
            raise BundleError(
                "Invalid squashfs: compressor lzma (2) cannot be read by Linux",
                hint="build the bundle with `-comp xz`",
            )


class _WrongLength(Exception):
    """The block is longer or shorter than its stream says."""


def _gzip() -> Decompressor:
    fast = _optional("isal.isal_zlib")  # about twice as fast as zlib
    library = fast or zlib
    new = library.decompressobj

    def unpack(data: Buffer, limit: int) -> bytes:
        stream = new()
        # One more byte than allowed: only then the library looks at the checksum behind a full output.
        unpacked: bytes = stream.decompress(data, limit + 1)
        return _whole(unpacked, limit, stream.eof, stream.unused_data)

    return Decompressor("gzip", unpack, (library.error, _WrongLength))


def _xz(block_size: int) -> Decompressor:
    # Linux allocates a dictionary of one block; liblzma's own state is some 100 KiB.
    memory = max(block_size, METADATA_SIZE) + (1 << 20)

    def unpack(data: Buffer, limit: int) -> bytes:
        stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=memory)
        unpacked = stream.decompress(data, limit + 1)
        return _whole(unpacked, limit, stream.eof, stream.unused_data)

    return Decompressor("xz", unpack, (lzma.LZMAError, _WrongLength))


def _whole(unpacked: bytes, limit: int, eof: bool, unused: bytes) -> bytes:
    if len(unpacked) > limit:
        raise _WrongLength(f"more than {limit} bytes")
    if not eof:
        raise _WrongLength(f"cut short after {len(unpacked)} bytes")
    if unused:
        raise _WrongLength(f"{len(unused)} bytes behind its end")
    return unpacked


def _zstd(block_size: int) -> Decompressor:
    import zstandard

    # Linux refuses windows larger than a block, too.
    context = zstandard.ZstdDecompressor(max_window_size=max(block_size, METADATA_SIZE))

    def unpack(data: Buffer, limit: int) -> bytes:
        # The library allocates what the frame promises, so look first.
        promised = zstandard.frame_content_size(data)
        if promised > limit:
            raise _WrongLength(f"{promised} bytes")
        return context.decompress(data, max_output_size=limit, allow_extra_data=False)

    return Decompressor("zstd", unpack, (zstandard.ZstdError, _WrongLength))


def _lz4() -> Decompressor:
    import lz4.block

    decompress = lz4.block.decompress

    def unpack(data: Buffer, limit: int) -> bytes:
        unpacked: bytes = decompress(data, uncompressed_size=limit)
        return unpacked

    return Decompressor("lz4", unpack, (lz4.block.LZ4BlockError,))


def _lzo() -> Decompressor:
    library = _optional("lzo")
    if library is None:
        raise NotSupportedError(
            "This bundle is compressed with lzo, and the package python-lzo is not installed",
            hint="install `updated[lzo]`, or build the bundle with another compressor",
        )
    decompress = library.decompress

    def unpack(data: Buffer, limit: int) -> bytes:
        # The library takes nothing but bytes; raw LZO1X, without its own header.
        unpacked: bytes = decompress(bytes(data), False, limit)
        return unpacked

    return Decompressor("lzo", unpack, (library.error,))


def _optional(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None
