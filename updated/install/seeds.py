"""What this device has already: slots as places to take chunks from, and the digests of their chunks.

Nothing here is trusted: devices may be mounted and change, indexes may be of something else by now.  So a
chunk is hashed after it was read, and what cannot be read is a chunk that is not there.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from updated.bundle.block_index import CHUNK, DIGEST, MAX_CHUNKS, digests_of

PIECE: Final = 1 << 20  # bytes of a device hashed at once
SAMPLES: Final = 64  # chunks that tell whether an index is of this device at all
STEP: Final = 8 << 20  # bytes hashed between two signs of life


@dataclass(frozen=True, slots=True)
class Index:
    """A file of digests, read in pieces: one of a large image has tens of MiB.  Blocks."""

    handle: int
    chunks: int

    def read(self, first: int, count: int) -> bytes:
        """The digests of `count` chunks from `first`, or of fewer at the end.  Raises OSError."""
        count = min(count, self.chunks - first)
        return read_up_to(self.handle, first * DIGEST, count * DIGEST) if count > 0 else b""


@dataclass(frozen=True, slots=True)
class Seed:
    """Chunk k of `device` had the digest k of `index` when that was made."""

    device: int  # handle, read only
    index: Index

    def read(self, chunk: int, into: memoryview) -> None:
        """Fill `into` from `chunk`; what cannot be read is left as it was.  Blocks."""
        start = chunk * CHUNK
        try:
            done = 0
            while done < len(into) and (count := os.preadv(self.device, [into[done:]], start + done)):
                done += count
            # Read once, and not worth the place of what running programs need.
            os.posix_fadvise(self.device, start, len(into), os.POSIX_FADV_DONTNEED)
        except OSError:
            return  # a bad sector under old content is no reason to fail


def read_up_to(handle: int, offset: int, length: int) -> bytes:
    """`length` bytes from `offset`, or fewer at the end.  Raises OSError.  Blocks."""
    data = os.pread(handle, length, offset)
    while len(data) < length and (more := os.pread(handle, length - len(data), offset + len(data))):
        data += more
    return data


def open_index(path: Path) -> Index:
    """The index in the file `path`; its caller closes the handle.  Raises OSError, ValueError."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode) or not found.st_size or found.st_size % DIGEST:
            raise ValueError(f"{path} is not a hash index: {found.st_size} bytes")
        if found.st_size // DIGEST > MAX_CHUNKS:
            raise ValueError(f"{path} is too large: {found.st_size} bytes")
    except BaseException:
        os.close(handle)
        raise
    return Index(handle, found.st_size // DIGEST)


def open_device(path: str) -> int:
    """A handle of a slot's device or file, which may be in use.  Raises OSError, ValueError."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    mode = os.fstat(handle).st_mode
    if not stat.S_ISBLK(mode) and not stat.S_ISREG(mode):
        os.close(handle)
        raise ValueError(f"{path} is neither a block device nor a regular file")
    return handle


def scratch_file(folder: Path) -> int:
    """A handle of a file without a name: it leaves nothing behind, whatever happens.  Raises OSError."""
    with tempfile.TemporaryFile(dir=folder) as file:
        return os.dup(file.fileno())


def is_plausible(seed: Seed) -> bool:
    """False: the index is of something else, as some chunks from all over the device show.

    Raises OSError.  Blocks, for a hundred reads.
    """
    wrong = 0
    chunks = range(0, seed.index.chunks, max(1, seed.index.chunks // SAMPLES))
    for chunk in chunks:
        data = bytearray(CHUNK)
        seed.read(chunk, memoryview(data))
        wrong += digests_of(data) != seed.index.read(chunk, 1)
    return wrong <= len(chunks) // 8


def hash_device(device: int, size: int, into: int) -> Iterator[int]:
    """Write the index of the first `size` bytes, or of all there are, to the empty file `into`.

    Yields every some MiB how many chunks it has so far.  Raises OSError.  Blocks: 1 s per GB at best.
    """
    size = min(size, os.lseek(device, 0, os.SEEK_END)) // CHUNK * CHUNK
    done = 0
    with memoryview(bytearray(min(size, PIECE))) as buffer:
        while done < size:
            count = os.preadv(device, [buffer[: size - done]], done) // CHUNK * CHUNK
            if not count:
                break
            write_all(into, digests_of(buffer[:count]), done // CHUNK * DIGEST)
            os.posix_fadvise(device, done, count, os.POSIX_FADV_DONTNEED)
            done += count
            if not done % STEP:
                yield done // CHUNK
    yield done // CHUNK


def write_all(handle: int, data: bytes | memoryview, offset: int) -> None:
    """Raises OSError."""
    view = memoryview(data)
    while view:
        count = os.pwrite(handle, view, offset)
        view, offset = view[count:], offset + count
