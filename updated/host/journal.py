"""Structured entries for systemd's journal, by its native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL).

Without libsystemd.  Nothing here blocks or raises: what the journal does not take at once goes to stderr, and
what that does not take is lost.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
import socket
import stat
import sys
from array import array
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from updated.core.events import Event

SOCKET: Final = Path("/run/systemd/journal/socket")
IDENTIFIER: Final = "updated"
SEND_BUFFER: Final = 8 << 20  # bytes; what sd_journal_send(3) asks for, the kernel gives what it may

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")  # journalctl shows no text that has any of these
_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_ERROR, _WARNING, _INFO, _DEBUG = 3, 4, 6, 7  # syslog(3)


def tell(log: logging.Logger, event: Event) -> None:
    """Log `event` with its own text, from where this is called."""
    level = {_ERROR: logging.ERROR, _WARNING: logging.WARNING}.get(event.priority, logging.INFO)
    log.log(level, "%s", event.text, extra={"event": event}, stacklevel=2)


def event_of(record: logging.LogRecord) -> Event | None:
    """What goes with it as `extra={"event": event}`."""
    event = getattr(record, "event", None)
    return event if isinstance(event, Event) else None


def stderr_handler() -> logging.Handler:
    """The handler for this process's stderr: a terminal, a file or pipe, or the journal."""
    if stderr_is_journal() and SOCKET.is_socket():
        return JournalHandler()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter() if sys.stderr.isatty() else PriorityFormatter())
    return handler


def stderr_is_journal(environ: Mapping[str, str] = os.environ, descriptor: int = 2) -> bool:
    """Whether systemd has connected `descriptor` to the journal (JOURNAL_STREAM, systemd.exec(5))."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


class PriorityFormatter(logging.Formatter):
    """`<n>` before each line is its priority (sd-daemon(3)); the journal adds time and name."""

    def format(self, record: logging.LogRecord) -> str:
        priority = _priority(record)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).splitlines())


class JournalHandler(logging.Handler):
    """Each log record becomes one entry, with the fields of its event, if it has one."""

    def __init__(self, path: Path = SOCKET, *, stderr: int = 2) -> None:
        """`path`: where journald listens.  `stderr`: its stream, for what it does not take there."""
        super().__init__()
        self._path = str(path)
        self._text = logging.Formatter()
        self._stderr = _Stream(stderr)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._send(encode(self._fields(record)))
        except OSError:  # not there, or busy
            self._stderr.write(PriorityFormatter().format(record))
        except Exception:  # noqa: BLE001 - a bad format string; logging tells of it
            self.handleError(record)

    def close(self) -> None:
        self._socket.close()
        self._stderr.close()
        super().close()

    def _fields(self, record: logging.LogRecord) -> Iterator[tuple[str, str]]:
        yield "MESSAGE", self._text.format(record)
        yield "SYSLOG_IDENTIFIER", IDENTIFIER
        yield "CODE_FILE", record.pathname
        yield "CODE_LINE", str(record.lineno)
        yield "CODE_FUNC", record.funcName or ""
        yield "LOGGER", record.name
        event = event_of(record)
        if event is None:
            yield "PRIORITY", str(_priority(record))
        else:
            yield from event.entries()

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendto(data, self._path)
        except OSError as error:
            if not _too_large(error):
                raise
            self._send_sealed(data)

    def _send_sealed(self, data: bytes) -> None:
        """What is too large for a datagram goes through a file in memory that nobody can change any more."""
        with os.fdopen(os.memfd_create("journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), "wb") as file:
            file.write(data)
            file.flush()
            fcntl.fcntl(file, fcntl.F_ADD_SEALS, _SEALS)
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [file.fileno()]))
            self._socket.sendmsg([], [rights], 0, self._path)


class _Stream:
    """A stream socket that is written to only as far as it takes it at once."""

    def __init__(self, descriptor: int) -> None:
        """Takes a copy of `descriptor`; one that is no socket is never written to."""
        self._socket = _socket_of(descriptor)

    def write(self, text: str) -> None:
        if self._socket is None:
            return
        with contextlib.suppress(OSError):
            self._socket.send(f"{text}\n".encode(errors="backslashreplace"), socket.MSG_DONTWAIT)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def encode(fields: Iterable[tuple[str, str]]) -> bytes:
    """The fields of one entry as journald reads them; control characters and what is no UTF-8 are escaped."""
    data = bytearray()
    for name, value in fields:
        text = _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", value)
        raw = text.encode(errors="backslashreplace")
        if b"\n" in raw:
            data += b"%b\n%b%b\n" % (name.encode(), len(raw).to_bytes(8, "little"), raw)
        else:
            data += b"%b=%b\n" % (name.encode(), raw)
    return bytes(data)


def _priority(record: logging.LogRecord) -> int:
    event = event_of(record)
    if event is not None:
        return event.priority
    if record.levelno >= logging.ERROR:
        return _ERROR
    if record.levelno >= logging.WARNING:
        return _WARNING
    return _INFO if record.levelno >= logging.INFO else _DEBUG


def _socket_of(descriptor: int) -> socket.socket | None:
    """Another handle of the socket that `descriptor` is; None: it is none."""
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return None
        return socket.socket(fileno=os.dup(descriptor))
    except OSError:
        return None


def _too_large(error: OSError) -> bool:
    """EMSGSIZE, and ENOBUFS of kernels that count otherwise, as in sd_journal_send(3)."""
    return error.errno in (errno.EMSGSIZE, errno.ENOBUFS)
