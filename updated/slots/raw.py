"""Write an image byte for byte into a slot: a block device or a regular file.

A regular file is a slot as large as it is: RAUC lets it grow, we refuse an image that is larger than what the
administrator laid out, the same as for a partition.  Nothing is ever truncated.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import stat
import struct
import threading

from updated.core.model import Slot
from updated.errors import DeviceError, NotSupportedError
from updated.slots import holders

TYPES = ("raw", "ext4", "vfat")  # slot types whose images are written byte for byte
READ_SIZE = 4 << 20  # bytes read back at a time: large enough for any medium's full speed
ALIGNMENT = 4096  # bytes; a multiple of every logical block size, for O_DIRECT

_BLKROGET = 0x125E  # linux/fs.h


def open_slot(slot: Slot, *, image_size: int) -> RawSlot:
    """Open `slot` for an image of `image_size` bytes; nothing is written yet.

    A block device is claimed (O_EXCL) until `close`.  Raises DeviceError if it is missing, busy, read-only or
    too small, NotSupportedError for a way of writing that we do not know.
    """
    _refuse_unsupported(slot)
    try:
        handle = _open(slot)
    except OSError as error:
        raise _cannot_open(slot, error) from error
    try:
        capacity = _capacity(slot, handle)
        if image_size > capacity:
            raise DeviceError(
                f"Slot {slot.name} ({slot.device}) is too small for the image:"
                f" {image_size} bytes needed, {capacity} available",
                hint="Enlarge the partition, or the file with `truncate -s`, or build a smaller image.",
            )
        return RawSlot(slot.device, handle, capacity, image_size)
    except OSError as error:
        os.close(handle)
        raise _cannot_open(slot, error) from error
    except DeviceError:
        os.close(handle)
        raise


class RawSlot:
    """A `SlotWriter`.  Offsets count from the start of the image, which is the start of the slot.

    Several threads may write at once; reading back takes turns.
    """

    def __init__(self, device: str, handle: int, capacity: int, image_size: int) -> None:
        """Takes over `handle`, open for reading and writing."""
        self._device = device
        self._handle = handle
        self._capacity = capacity
        self._image_size = image_size
        self._direct = _open_direct(handle)
        self._buffer: mmap.mmap | None = None  # page aligned, as O_DIRECT wants it
        self._reading = threading.Lock()

    @property
    def capacity(self) -> int:
        """Bytes the slot can take."""
        return self._capacity

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write all of `data` at `offset`.  Raises DeviceError, also for what lies outside of the image.

        Whole blocks from page-aligned memory go past the page cache: half the copying, and the programs of
        the running system keep their pages.
        """
        view = memoryview(data).cast("B")
        self._check_range(offset, len(view))
        while view:
            try:
                written = self._pwrite(view, offset)
            except OSError as error:
                raise self._failed("write", offset, len(view), error) from error
            if not written:
                raise DeviceError(f"'{self._device}' takes no more data at {offset}")
            view = view[written:]
            offset += written

    def _pwrite(self, view: memoryview, offset: int) -> int:
        if self._direct >= 0 and not offset % ALIGNMENT and not len(view) % ALIGNMENT:
            try:
                return os.pwrite(self._direct, view, offset)
            except OSError as error:
                if error.errno != errno.EINVAL:  # EINVAL: memory that is not aligned
                    raise
        return os.pwrite(self._handle, view, offset)

    def flush_hint(self, offset: int, length: int) -> None:
        """Start writing this range to the medium, and forget the part that is there already; does not wait.

        Called after each large piece, it keeps the last `sync` short and the page cache small.
        """
        # posix_fadvise(2), mm/fadvise.c: DONTNEED starts writeback of dirty pages and drops clean ones.
        try:
            os.posix_fadvise(self._handle, offset, length, os.POSIX_FADV_DONTNEED)
        except OSError as error:
            raise self._failed("flush", offset, length, error) from error

    def sync(self) -> None:
        """Flush what was written to the medium.  Raises DeviceError."""
        try:
            os.fdatasync(self._handle)
        except OSError as error:
            raise self._failed("flush", 0, self._image_size, error) from error

    def read_back(self, offset: int, length: int) -> bytes:
        """What the medium holds, past the page cache where the kernel can.  Call `sync` before.

        Fastest in pieces of READ_SIZE at multiples of ALIGNMENT.  Raises DeviceError.
        """
        self._check_range(offset, length)
        with self._reading:
            pieces = []
            while length:
                piece = self._read_piece(offset, min(length, READ_SIZE))
                pieces.append(piece)
                offset += len(piece)
                length -= len(piece)
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        """Release the device; more than once is fine."""
        for handle in (self._handle, self._direct):
            if handle >= 0:
                os.close(handle)
        self._handle = self._direct = -1
        if self._buffer is not None:
            self._buffer.close()
            self._buffer = None

    def _read_piece(self, offset: int, length: int) -> bytes:
        """At most READ_SIZE bytes, through the aligned buffer."""
        start = offset - offset % ALIGNMENT
        end = offset + length + -(offset + length) % ALIGNMENT
        if self._buffer is None:
            self._buffer = mmap.mmap(-1, READ_SIZE + 2 * ALIGNMENT)
        try:
            with memoryview(self._buffer) as buffer, buffer[: end - start] as aligned:
                count = self._read_aligned(aligned, start)
                wanted = bytes(aligned[offset - start : min(count, offset - start + length)])
        except OSError as error:
            raise self._failed("read", offset, length, error) from error
        if len(wanted) != length:
            raise DeviceError(
                f"'{self._device}' is shorter than what was written:"
                f" {length} bytes expected at {offset}, got {len(wanted)}"
            )
        return wanted

    def _read_aligned(self, buffer: memoryview, start: int) -> int:
        """Fill `buffer` from `start`; the number of bytes read.  Raises OSError."""
        if self._direct >= 0:
            try:
                return _read(self._direct, buffer, start, step=ALIGNMENT)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                    raise
        # A file system without O_DIRECT: clean pages are dropped, so that they are read again.
        os.posix_fadvise(self._handle, start, len(buffer), os.POSIX_FADV_DONTNEED)
        return _read(self._handle, buffer, start, step=1)

    def _check_range(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self._image_size:
            raise DeviceError(
                f"Outside of the image for '{self._device}':"
                f" bytes {offset} to {offset + length} of {self._image_size}"
            )

    def _failed(self, action: str, offset: int, length: int, error: OSError) -> DeviceError:
        return DeviceError(
            f"Failed to {action} {length} bytes at {offset} of '{self._device}': {error.strerror}",
            hint="The medium may be failing; see the kernel log." if error.errno == errno.EIO else "",
        )


def _open_direct(handle: int) -> int:
    """The same file again with O_DIRECT; -1 where its file system has no such thing.  Raises OSError."""
    path = f"/proc/self/fd/{handle}"  # the same file, whatever its name means by now
    try:
        return os.open(path, os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
        return -1


def _read(handle: int, buffer: memoryview, start: int, *, step: int) -> int:
    """Read until `buffer` is full or the file ends; a count that is no multiple of `step` is its end."""
    done = 0
    while done < len(buffer):
        count = os.preadv(handle, [buffer[done:]], start + done)
        done += count
        if not count or done % step:
            break
    return done


def _refuse_unsupported(slot: Slot) -> None:
    if slot.type not in TYPES:
        raise NotSupportedError(
            f"Slot {slot.name} has the type '{slot.type}', which cannot be written yet",
            hint=f"Types that can: {', '.join(TYPES)}.",
        )
    if slot.region_start is not None or slot.region_size is not None:
        raise NotSupportedError(f"Slot {slot.name}: region-start and region-size cannot be used yet")
    if slot.readonly:
        raise DeviceError(f"Slot {slot.name} is configured as read-only")


def _open(slot: Slot) -> int:
    """Raises OSError; DeviceError for a thing that cannot be a slot."""
    mode = os.stat(slot.device).st_mode  # noqa: PTH116 - slots are given through links
    if stat.S_ISBLK(mode):
        return os.open(slot.device, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC)
    if not stat.S_ISREG(mode):
        raise DeviceError(f"Destination device '{slot.device}' is neither a block device nor a regular file")
    point = holders.mount_point(slot.device)
    if point is not None:
        raise _mounted(slot, f"mounted at {point}")
    return os.open(slot.device, os.O_RDWR | os.O_CLOEXEC)


def _capacity(slot: Slot, handle: int) -> int:
    """Bytes.  Raises OSError, and DeviceError if the device is read-only."""
    if stat.S_ISBLK(os.fstat(handle).st_mode):
        readonly = struct.unpack("i", fcntl.ioctl(handle, _BLKROGET, b"\0\0\0\0"))[0]
        if readonly:
            raise _readonly(slot)
    size = os.lseek(handle, 0, os.SEEK_END)
    return size if slot.size_limit is None else min(size, slot.size_limit)


def _cannot_open(slot: Slot, error: OSError) -> DeviceError:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return DeviceError(f"Destination device '{slot.device}' for slot '{slot.name}' not found")
    if error.errno == errno.EBUSY:
        return _mounted(slot, holders.holder(slot.device))
    if error.errno == errno.EROFS:
        return _readonly(slot)
    return DeviceError(f"Opening output device {slot.device} failed: {error.strerror}")


def _mounted(slot: Slot, holder: str) -> DeviceError:
    if not holder or holder.startswith("mounted"):
        text = f"Destination device '{slot.device}' already mounted"
    else:
        text = f"Destination device '{slot.device}' is busy"
    return DeviceError(f"{text} ({holder})" if holder else text, hint="Unmount it, and see what mounts it.")


def _readonly(slot: Slot) -> DeviceError:
    return DeviceError(
        f"Destination device '{slot.device}' is read-only",
        hint="See `blockdev --getro`, the write protection of the medium, or the mount that holds the file.",
    )
