"""Files that events are written to (RAUC's `[log.*]`): which events, in which format, rotated by size.

A log that cannot be written never keeps an update from going on.  RAUC gives such a log up until its next
start; here each event tries again, and the trouble is said once.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from updated.core.events import Event
from updated.event_log.formats import formatted

MODE = 0o644  # RAUC's


class LogConfig(Protocol):
    """One `[log.<name>]` section."""

    @property
    def name(self) -> str: ...
    @property
    def filename(self) -> Path: ...
    @property
    def format(self) -> str:
        """readable | short | json | json-pretty"""
        ...

    @property
    def events(self) -> Sequence[str]:
        """Types of events, or "all"."""
        ...

    @property
    def max_size(self) -> int:
        """Bytes; 0: it is never rotated."""
        ...

    @property
    def max_files(self) -> int:
        """With the one that is written to; at least 1."""
        ...


class EventLogs:
    """All of them.  Methods block: call them from a thread, one at a time."""

    def __init__(self, configs: Sequence[LogConfig], warn: Callable[[str], None]) -> None:
        """Touches nothing yet."""
        self._logs = [_Log(config, warn) for config in configs]

    def __bool__(self) -> bool:
        return bool(self._logs)

    def write(self, event: Event, time: str) -> None:
        """`time`: when it happened, %Y-%m-%dT%H:%M:%SZ.  Never raises."""
        for log in self._logs:
            log.write(event, time)


class _Log:
    """One file.  It is open only while it is written to, so that anybody may take it away."""

    def __init__(self, config: LogConfig, warn: Callable[[str], None]) -> None:
        self._config = config
        self._warn = warn
        self._broken = False

    def write(self, event: Event, time: str) -> None:
        wanted = self._config.events
        if "all" not in wanted and event.type not in wanted:
            return
        try:
            self._append(formatted(event, self._config.format, time))
        except OSError as error:
            self._complain(error.strerror or str(error))
        except ValueError as error:  # a name with a NUL
            self._complain(str(error))
        else:
            self._broken = False

    def _append(self, data: bytes) -> None:
        with self._opened() as handle:
            size = os.fstat(handle).st_size
            if not size or not self._config.max_size or size + len(data) <= self._config.max_size:
                _add(handle, size, data)
                return
        self._rotate()
        with self._opened() as handle:
            _add(handle, os.fstat(handle).st_size, data)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        # O_NONBLOCK: a FIFO must not hang the service.
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        handle = os.open(self._config.filename, flags, MODE)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise OSError(errno.EINVAL, "not a regular file")
            yield handle
        finally:
            os.close(handle)

    def _rotate(self) -> None:
        """`name` becomes `name.1`, that `name.2`, and the last goes."""
        name, last = self._config.filename, self._config.max_files - 1
        if not last:
            name.unlink(missing_ok=True)
            return
        for number in range(last, 0, -1):
            older = name.with_name(f"{name.name}.{number - 1}") if number > 1 else name
            try:
                older.replace(name.with_name(f"{name.name}.{number}"))
            except FileNotFoundError:
                continue

    def _complain(self, reason: str) -> None:
        if self._broken:
            return
        self._broken = True
        self._warn(
            f"[log.{self._config.name}] {self._config.filename} cannot be written ({reason}): "
            "events are missing in it; each that comes is tried again"
        )


def _add(handle: int, size: int, data: bytes) -> None:
    """Append all of `data` in one write, or nothing.  A line that a power cut has torn ends here."""
    if size and os.pread(handle, 1, size - 1) != b"\n":
        data = b"\n" + data
    written = os.write(handle, data)
    if written < len(data):
        os.ftruncate(handle, size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.fdatasync(handle)  # who looks for the cause of a reset needs what was said just before it
