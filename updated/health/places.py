"""Checks of file systems: something is mounted, and there is room."""

from __future__ import annotations

import os
import posixpath
from typing import Final

from updated.core.health import Look, Rule
from updated.devices import Mount, read_mounts
from updated.errors import DeviceError
from updated.health.aside import Aside
from updated.health.basis import MIB, BasicCheck, bad, good

TIMEOUT: Final = 10.0  # seconds; a file system that hangs longer is no good one

_READ_ONLY: Final = frozenset(("ro", "emergency_ro"))


class MountCheck(BasicCheck):
    """Something is mounted right there.

    `writable` looks at the file system itself, not at the mount: what is read-only for us may only be so in
    the sandbox of this service.
    """

    def __init__(self, rule: Rule, *, period: float, path: str, writable: bool) -> None:
        super().__init__(rule, period=period, limit=TIMEOUT + 1)
        self._path = posixpath.normpath(path)
        self._writable = writable
        self._aside = Aside()

    async def look(self) -> Look:
        try:
            mounts = await self._aside.run(TIMEOUT, read_mounts)
        except DeviceError as error:
            return bad(f"{self._path}: {error}")
        here = [mount for mount in mounts if mount.mountpoint == self._path]
        if not here:
            return bad(f"nothing is mounted on {self._path}")
        return self._judge(here[-1])  # on top of the others

    def _judge(self, mount: Mount) -> Look:
        what = f"{mount.source} ({mount.fstype})"
        if self._writable and _READ_ONLY & set(mount.options.split(",")):
            return bad(f"{what} on {self._path} is read-only, expected writable")
        return good(f"{what} is mounted on {self._path}")


class SpaceCheck(BasicCheck):
    """So many bytes are free for everybody; what is reserved for root does not count."""

    def __init__(self, rule: Rule, *, period: float, path: str, min_free: int) -> None:
        super().__init__(rule, period=period, limit=TIMEOUT + 1)
        self._path = path
        self._min_free = min_free
        self._aside = Aside()

    async def look(self) -> Look:
        try:
            found = await self._aside.run(TIMEOUT, os.statvfs, self._path)
        except OSError as error:
            return bad(f"{self._path}: {error.strerror}")
        except DeviceError as error:
            return bad(f"{self._path}: {error}")
        free = found.f_bavail * found.f_frsize
        text = f"{free / MIB:.1f} MiB are free in {self._path}"
        if free >= self._min_free:
            return good(text)
        return bad(f"{text}, expected {self._min_free / MIB:.1f} MiB")
