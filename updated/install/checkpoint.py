"""Where an interrupted install can go on: how far a slot surely holds an image, remembered on disk.

One log for each slot, `<folder>/<slot name>.log`: a line of JSON that says which image is written where, then
records of one size, each after the medium gave back what it was given:

    header "\\n" | offset (8 bytes), SHA-256 of the image's first `offset` bytes (32), checksum (8) | ...

The log is believed in nothing.  Before an install goes on, the slot is read from its start and hashed, and
the last record that agrees is where it goes on; the signed SHA-256 of the whole image has the last word.  A
log that is torn, foreign or missing costs time, never correctness.

The header names the device by its path as configured: numbers change from boot to boot.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import quote

from updated.bundle.manifest import Image
from updated.core.model import Slot, SlotWriter
from updated.durable import sync_folder, write_durably
from updated.errors import DeviceError
from updated.install.readback import PIECE, Begun
from updated.install.threads import in_thread, threads

log = logging.getLogger(__name__)

FORMAT: Final = 1
MAX_LOG: Final = 8 << 20  # bytes; one record for each MiB of 170 GiB
ROOM: Final = 48 << 10  # bytes of zeros laid out for records to come: a sync of data alone is cheap

_RECORD = struct.Struct("<Q32s")
_CHECKSUM = 8  # bytes
_SIZE = _RECORD.size + _CHECKSUM


class Record(NamedTuple):
    """The medium gave back the first `offset` bytes of the image, and this was their SHA-256."""

    offset: int
    digest: bytes


class Checkpoints:
    """The log of one slot while one image is written to it.  Made by `open_checkpoints`.

    Where it cannot be written, an install goes on without it, and a warning says so once.
    """

    def __init__(self, path: Path, header: bytes, image_size: int) -> None:
        self._path = path
        self._header = header
        self._image_size = image_size
        self._records: list[Record] = []
        self._room = 0  # bytes of the file
        self._broken = False  # cannot be written

    @property
    def reached(self) -> int:
        """Bytes of the image that the slot holds if the log is right."""
        return self._records[-1].offset if self._records else 0

    async def resume(
        self, writer: SlotWriter, block_size: int, on_bytes: Callable[[int], None] = lambda _: None
    ) -> Begun:
        """How much of the image the slot holds for sure: a multiple of `block_size`, or all of it.

        Reads the slot as far as the log goes; `on_bytes` is called in the event loop with the bytes read so
        far, once per MiB.  What the log says of more than that is forgotten.  Raises no error.
        """
        begun, proven = Begun(), 0
        with threads(1, "resume") as pool:
            held = Begun()
            for count, record in enumerate(self._records, start=1):
                try:
                    while held.position < record.offset:
                        length = min(PIECE, record.offset - held.position)
                        await in_thread(pool, _hash_back, writer, held, length)
                        on_bytes(held.position)
                except DeviceError as error:  # it may well take what is written there again
                    log.warning("%s", error)
                    break
                if held.digest.digest() != record.digest:
                    log.warning("the slot has changed before byte %d since it was written", record.offset)
                    break
                if record.offset == self._image_size or not record.offset % block_size:
                    begun, proven = Begun(held.position, held.digest.copy()), count
        await asyncio.to_thread(self._cut, proven)
        return begun

    async def restart(self) -> None:
        """Forget all records: what they led to was wrong."""
        await asyncio.to_thread(self._cut, 0)

    async def clear(self) -> None:
        """The image is complete and its slot status says so, or is known to be bad: nothing to go on with."""
        await asyncio.to_thread(self._remove)

    def append(self, offset: int, digest: bytes) -> None:
        """The medium holds the first `offset` bytes, with this SHA-256.  Blocks.  Raises no error."""
        record = Record(offset, digest)
        end = len(self._header) + _SIZE * len(self._records)
        if self._broken or end + _SIZE > MAX_LOG:
            return
        data = _encode(record)
        if end + _SIZE > self._room:
            data += bytes(ROOM)
        try:
            handle = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                _write(handle, data, end)
                os.fdatasync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            self._give_up(error)
            return
        self._records.append(record)
        self._room = max(self._room, end + len(data))

    def load(self) -> None:
        """Read the log; begin a new one if it is of something else or there is none.  Blocks."""
        try:
            found = _read(self._path)
        except OSError:
            found = b""
        if found.startswith(self._header):
            self._records = list(_records(found[len(self._header) :], self._image_size))
            self._room = len(found)
            return
        self._begin()

    def _begin(self) -> None:
        self._records, self._room = [], len(self._header)
        try:
            try:
                self._path.parent.mkdir(mode=0o700)
                sync_folder(self._path.parent.parent)
            except FileExistsError:
                pass
            write_durably(self._path, self._header, mode=0o600)
        except OSError as error:
            self._give_up(error)

    def _cut(self, count: int) -> None:
        """Keep `count` records.  A power cut may bring the others back: they are no more believed then."""
        if count == len(self._records):
            return
        del self._records[count:]
        self._room = len(self._header) + _SIZE * count
        try:
            os.truncate(self._path, self._room)
        except OSError as error:
            self._give_up(error)

    def _remove(self) -> None:
        self._records = []
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        if not self._broken:
            log.warning(
                "%s cannot be written (%s): an interrupted install begins anew", self._path, error.strerror
            )
        self._broken = True


async def open_checkpoints(folder: Path, slot: Slot, image: Image) -> Checkpoints:
    """The log in `folder` for writing `image` to `slot`: that of an earlier attempt, or a new one.

    `folder` is made if only it is missing.  Raises no error.
    """
    about = {
        "format": FORMAT,
        "slot": slot.name,
        "device": slot.device,
        "image": image.sha256,
        "size": image.size,
    }
    path = folder / f"{quote(slot.name, safe='')}.log"
    checkpoints = Checkpoints(path, json.dumps(about).encode() + b"\n", image.size)
    await asyncio.to_thread(checkpoints.load)
    return checkpoints


def _hash_back(writer: SlotWriter, held: Begun, length: int) -> None:
    held.digest.update(writer.read_back(held.position, length))
    held.position += length


def _encode(record: Record) -> bytes:
    body = _RECORD.pack(*record)
    return body + _checksum(body)


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()[:_CHECKSUM]


def _records(data: bytes, image_size: int) -> Iterator[Record]:
    """As far as they are whole and make sense."""
    behind = 0
    for start in range(0, len(data) - _SIZE + 1, _SIZE):
        body = data[start : start + _RECORD.size]
        record = Record(*_RECORD.unpack(body))
        if data[start + _RECORD.size : start + _SIZE] != _checksum(body):
            return
        if not behind < record.offset <= image_size:
            return
        behind = record.offset
        yield record


def _read(path: Path) -> bytes:
    """At most MAX_LOG bytes of a regular file, b"" of anything else.  Raises OSError."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(handle, "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_LOG + ROOM:
            return b""
        return file.read(MAX_LOG + ROOM)


def _write(handle: int, data: bytes, offset: int) -> None:
    while data:
        written = os.pwrite(handle, data, offset)
        data, offset = data[written:], offset + written
