"""GRUB with RAUC's variables: ORDER, <bootname>_OK, <bootname>_TRY in grubenv.

`grub-editenv set` opens the file with O_TRUNC: a power cut there leaves it empty, and GRUB without an order.
So the block is rewritten in place here: same inode, same size, one write, flushed and read back.  Only the
bytes of changed values differ, and those are all in the first sector of an ordinary block.

Source of the rules: RAUC's integration guide, "GRUB", and src/bootloaders/grub.c.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from updated.boot import envblock, order
from updated.boot.envblock import EnvBlock
from updated.errors import DeviceError

DEFAULT_GRUBENV = Path("/boot/grub/grubenv")  # RAUC's default for `grubenv=`
SECTOR = 512  # bytes

_NUMBER = re.compile(r"\s*\+?(\d{1,20})")


class Grub:
    """A `Bootloader`.  A slot is good with OK=1 and TRY=0; GRUB's script counts TRY up at every start."""

    def __init__(self, grubenv: Path, bootnames: Sequence[str]) -> None:
        """`grubenv`: path of the block, symbolic links are followed; `bootnames`: all that are configured."""
        self._path = grubenv
        self._bootnames = tuple(bootnames)

    async def get_primary(self) -> str | None:
        """First of ORDER that is good, None if there is none.  Raises DeviceError."""
        block = await asyncio.to_thread(self._read)
        names = order.parse(_value(block, "ORDER"))
        return next((name for name in names if name in self._bootnames and _good(block, name)), None)

    async def set_primary(self, bootname: str) -> None:
        def changes(block: EnvBlock) -> dict[str, str]:
            names = order.parse(block.get("ORDER") or "")
            wanted = order.with_all(order.with_first(bootname, names), self._bootnames)
            return {f"{bootname}_OK": "1", f"{bootname}_TRY": "0", **_order(names, wanted)}

        await asyncio.to_thread(self._change, changes)

    async def get_state(self, bootname: str) -> bool:
        """Good: listed in ORDER with OK=1 and TRY=0.  Raises DeviceError."""
        block = await asyncio.to_thread(self._read)
        return bootname in order.parse(block.get("ORDER") or "") and _good(block, bootname)

    async def set_state(self, bootname: str, good: bool) -> None:
        """Set OK and TRY.  What is marked good and stands nowhere in ORDER gets the last place.

        RAUC leaves it out, so that its `mark-good` succeeds and the slot stays bad.
        """

        def changes(block: EnvBlock) -> dict[str, str]:
            changes = {f"{bootname}_OK": "1" if good else "0", f"{bootname}_TRY": "0"}
            if not good:
                return changes
            names = order.parse(block.get("ORDER") or "")
            wanted = order.with_all(names or order.with_all([bootname], self._bootnames), [bootname])
            return changes | _order(names, wanted)

        await asyncio.to_thread(self._change, changes)

    async def get_current(self) -> str | None:
        """GRUB does not tell; the kernel command line does."""
        return None

    def _read(self) -> EnvBlock:
        with self._open(os.O_RDONLY) as handle:
            return _parse(os.pread(handle, envblock.MAX_SIZE, 0))

    def _change(self, changes: Callable[[EnvBlock], Mapping[str, str]]) -> None:
        """Read, change and rewrite the block; a block that would stay the same is not written."""
        with self._open(os.O_RDWR) as handle:
            old = os.pread(handle, envblock.MAX_SIZE, 0)
            block = _parse(old)
            new = block.replace(changes(block)).render()
            if new == old:
                return
            written = os.pwrite(handle, new, 0)
            os.fdatasync(handle)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            if written != len(new) or os.pread(handle, envblock.MAX_SIZE, 0) != new:
                raise DeviceError(
                    f"GRUB environment {self._path} does not hold what was written",
                    hint="The medium may be failing.",
                )

    @contextlib.contextmanager
    def _open(self, flags: int) -> Iterator[int]:
        """The block's file, checked to be one; an OSError inside becomes a DeviceError."""
        try:
            # O_NONBLOCK: a FIFO must not hang the service.
            handle = os.open(self._path, flags | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                _check(self._path, os.fstat(handle))
                yield handle
            finally:
                os.close(handle)
        except OSError as error:
            action = "read" if flags == os.O_RDONLY else "write"
            raise DeviceError(
                f"Failed to {action} GRUB environment {self._path}: {error.strerror}",
                hint="Is the partition that holds it mounted, and writable?",
            ) from error


def _check(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise DeviceError(f"GRUB environment {path} is not a regular file")
    if status.st_size > envblock.MAX_SIZE:
        raise DeviceError(
            f"GRUB environment {path} is too large:"
            f" at most {envblock.MAX_SIZE} bytes expected, got {status.st_size}"
        )


def _parse(data: bytes) -> EnvBlock:
    """GRUB writes whole sectors: a file that ends elsewhere has lost its end, and maybe variables with it."""
    block = envblock.parse(data)
    if block.size % SECTOR:
        raise DeviceError(
            f"GRUB environment block is cut short: expected whole sectors of {SECTOR} bytes, got"
            f" {block.size} bytes",
            hint=envblock.NEW_BLOCK,
        )
    return block


def _order(found: list[str], wanted: list[str]) -> dict[str, str]:
    """The change of ORDER, if it is one: other blanks are none."""
    return {} if found == wanted else {"ORDER": order.render(wanted)}


def _value(block: EnvBlock, name: str) -> str:
    value = block.get(name)
    if value is None:
        raise DeviceError(
            f"Variable {name} not set in grub environment",
            hint=f"Set it with `grub-editenv FILE set {name}=...`, or mark a slot active.",
        )
    return value


def _good(block: EnvBlock, bootname: str) -> bool:
    return _number(_value(block, f"{bootname}_OK")) == 1 and _number(_value(block, f"{bootname}_TRY")) == 0


def _number(text: str) -> int:
    """As strtoull: leading digits, else 0."""
    found = _NUMBER.match(text)
    return int(found[1]) if found else 0
