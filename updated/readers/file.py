"""A bundle in a local file: on a stick that is pulled, a disk that dies.  No mmap; each read is checked."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import stat
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from updated.errors import BundleError, SourceError

log = logging.getLogger(__name__)

T = TypeVar("T")

EIO_RETRIES = 3  # a worn cell or a loose contact may yield its bytes to another try
EIO_PAUSE = 0.2  # seconds before each of them: the time a USB reset takes

# RAUC's words for a bundle that cannot be opened; the second half is GLib's (g_file_read).
_CANNOT_OPEN = "Invalid bundle format: Failed to open bundle for reading: Error opening file {path}: {reason}"


class FileReader:
    """A `Reader` of one local file or block device.  Make it with `open_file`.

    Reads run in one thread of its own, in the order they were asked for: a slow medium is read front to back
    and never stalls anybody else's threads.
    """

    def __init__(self, handle: int, name: str, size: int) -> None:
        self._handle = handle
        self._name = name
        self._size = size
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reader")
        self._closed = False
        self._fetched = 0

    @property
    def size(self) -> int:
        """Size of the whole bundle in bytes."""
        return self._size

    @property
    def name(self) -> str:
        """Path as it was given."""
        return self._name

    @property
    def remote(self) -> bool:
        return False

    @property
    def fetched(self) -> int:
        """Bytes read so far."""
        return self._fetched

    def expect(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Nothing to do: the kernel reads ahead."""

    async def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`.

        Raises BundleError for a range that is not inside the file (only a bundle's own words lead there), and
        SourceError when the medium fails or the file is changed meanwhile.
        """
        if offset < 0 or length < 0 or offset + length > self._size:
            raise BundleError(
                f"Bundle is cut short: bytes {offset} to {offset + length} of {self._name} are needed,"
                f" but it has {self._size}"
            )
        data = await asyncio.get_running_loop().run_in_executor(self._thread, self._pread, offset, length)
        self._fetched += length
        return data

    def forget(self, offset: int, length: int) -> None:
        """Drop these bytes from the page cache, before any later read."""
        if not self._closed:
            self._thread.submit(self._drop, offset, length)

    async def close(self) -> None:
        """Close the file, after the read that may still run.  More than once is fine."""
        if self._closed:
            return
        self._closed = True
        self._thread.submit(os.close, self._handle)
        self._thread.shutdown(wait=False)

    def _pread(self, offset: int, length: int) -> bytes:
        try:
            data = self._insist(offset, length)
            size = _size(self._handle)
        except OSError as error:
            raise self._failed(offset, length, error) from error
        if size != self._size or len(data) < length:
            raise SourceError(
                f"Bundle {self._name} changed while it was read: it had {self._size} bytes, now {size}",
                hint="Write bundles under another name and rename them when they are complete.",
            )
        return data

    def _insist(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes; EIO is tried again, past the page cache.  Raises OSError."""
        for left in reversed(range(EIO_RETRIES)):
            try:
                return _read(self._handle, offset, length)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                log.warning(
                    "medium error: %d bytes at %d of %s cannot be read, trying again (%d tries left)",
                    length,
                    offset,
                    self._name,
                    left + 1,
                )
            time.sleep(EIO_PAUSE)
            self._drop(offset, length)
        return _read(self._handle, offset, length)

    def _drop(self, offset: int, length: int) -> None:
        with contextlib.suppress(OSError):
            os.posix_fadvise(self._handle, offset, length, os.POSIX_FADV_DONTNEED)

    def _failed(self, offset: int, length: int, error: OSError) -> SourceError:
        what = " (medium error)" if error.errno == errno.EIO else ""
        return SourceError(
            f"Failed to read {length} bytes at {offset} of {self._name}: {error.strerror}{what}",
            hint="The medium may be damaged or was removed. Copy the bundle again and retry.",
        )


async def open_file(path: str, *, follow_symlinks: bool = True) -> FileReader:
    """Open the bundle at `path`; nothing of it is read yet.

    `follow_symlinks=False` refuses a link as last component: a folder that others may write into must not
    lead elsewhere.  Raises SourceError if `path` cannot be opened or is neither a file nor a block device.
    """
    # A thread of the loop's pool: opening may spin up a disk or wait for an automounter.
    opening = asyncio.ensure_future(asyncio.to_thread(_open, path, follow_symlinks))
    try:
        handle, size = await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close_unused)
        raise
    return FileReader(handle, path, size)


def _close_unused(opening: asyncio.Future[tuple[int, int]]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        os.close(opening.result()[0])


def _open(path: str, follow_symlinks: bool) -> tuple[int, int]:
    # O_NONBLOCK: do not wait for the writer of a FIFO; it means nothing for files and disks.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    if not follow_symlinks:
        flags |= os.O_NOFOLLOW
    try:
        handle = os.open(path, flags)
    except OSError as error:
        raise SourceError(_CANNOT_OPEN.format(path=path, reason=error.strerror)) from error
    except ValueError as error:  # a NUL in the path
        raise SourceError(_CANNOT_OPEN.format(path=repr(path), reason="Invalid file name")) from error
    try:
        mode = os.fstat(handle).st_mode
        if stat.S_ISDIR(mode):
            raise SourceError(_CANNOT_OPEN.format(path=path, reason="Is a directory"))
        if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
            raise SourceError(_CANNOT_OPEN.format(path=path, reason="Not a regular file"))
        size = _size(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    except OSError as error:  # files of procfs have no end, and others no size
        os.close(handle)
        raise SourceError(_CANNOT_OPEN.format(path=path, reason=error.strerror)) from error
    except BaseException:
        os.close(handle)
        raise
    return handle, size


def _read(handle: int, offset: int, length: int) -> bytes:
    """Up to `length` bytes; fewer only where the file ends.  Raises OSError."""
    data = os.pread(handle, length, offset)
    while len(data) < length:
        more = os.pread(handle, length - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data


def _size(handle: int) -> int:
    # A block device has st_size 0; nobody uses the file position, so moving it is harmless.
    return os.lseek(handle, 0, os.SEEK_END)
