"""A web server that counts what it sends, and can stop in the middle of a bundle.

with Server(folder) as server:            # the files of `folder`
    held = server.hold("system-2.raucb", 40_000_000)
    ...                                   # somebody fetches it
    held.wait()                           # byte 40,000,000 is asked for, and all before it was sent
    ...                                   # it stays so until the connection breaks, or
    held.release()
    server.sent("system-2.raucb")         # bytes
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO, Self

PIECE = 1 << 16
BUFFER = 1 << 16  # bytes; what the kernel has taken counts as sent, whether it arrives or not
WAIT = 120.0  # seconds

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


@dataclass(eq=False, slots=True)
class Held:
    """Nothing that begins before `offset` goes on behind it."""

    path: str
    offset: int
    _reached: threading.Event = field(default_factory=threading.Event)
    _released: threading.Event = field(default_factory=threading.Event)

    def wait(self, timeout: float = WAIT) -> None:
        """Until somebody waits for the byte at `offset`."""
        assert self._reached.wait(timeout), f"nobody asks for byte {self.offset} of {self.path}"

    def release(self) -> None:
        """For now and ever."""
        self._released.set()

    def hold(self) -> None:
        """For the server: what comes next is the byte at `offset`."""
        self._reached.set()
        self._released.wait()

    @property
    def over(self) -> bool:
        return self._released.is_set()


class Server:
    """On a port of the loopback."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sent: Counter[str] = Counter()
        self._holds: list[Held] = []
        self._lock = threading.Lock()
        self._http = _Http(("127.0.0.1", 0), _Handler)
        self._http.owner = self
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.1,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()
        self._http.shutdown()
        self._http.server_close()

    @property
    def port(self) -> int:
        return int(self._http.server_address[1])

    def sent(self, path: str) -> int:
        """Bytes of bodies."""
        with self._lock:
            return self._sent[path]

    def hold(self, path: str, offset: int) -> Held:
        """Until it is released, an answer that begins at or before `offset` ends there."""
        held = Held(path, offset)
        with self._lock:
            self._holds.append(held)
        return held

    def release(self) -> None:
        """All that is held."""
        with self._lock:
            for held in self._holds:
                held.release()
            self._holds.clear()

    # For the handler

    def read(self, path: str) -> Path | None:
        file = self._folder / path
        return file if "/" not in path and file.is_file() else None

    def count(self, path: str, size: int) -> None:
        with self._lock:
            self._sent[path] += size

    def next_hold(self, path: str, first: int, offset: int) -> Held | None:
        """For an answer that began at `first` and has come to `offset`."""
        with self._lock:
            holds = [
                h for h in self._holds if h.path == path and not h.over and h.offset >= max(first, offset)
            ]
        return min(holds, key=lambda held: held.offset, default=None)


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    owner: Server

    def handle_error(self, request: object, client_address: object) -> None:
        """Where the power goes, connections break."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60

    def setup(self) -> None:
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().setup()

    def do_GET(self) -> None:
        with contextlib.suppress(OSError):  # the other end is gone
            self._answer(self.path.lstrip("/"))

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is logged."""

    def _answer(self, path: str) -> None:
        assert isinstance(self.server, _Http)
        owner = self.server.owner
        file = owner.read(path)
        if file is None:
            self.send_error(404)
            return
        size = file.stat().st_size
        first, end = self._range(size)
        self.send_response(206 if end - first < size else 200)
        self.send_header("Content-Length", str(end - first))
        self.send_header("Content-Range", f"bytes {first}-{end - 1}/{size}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{path}"')
        self.end_headers()
        with file.open("rb") as content:
            self._send(owner, path, content, first, end)

    def _send(self, owner: Server, path: str, content: BinaryIO, first: int, end: int) -> None:
        content.seek(first)
        offset = first
        while offset < end:
            held = owner.next_hold(path, first, offset)
            if held is not None and held.offset == offset:
                held.hold()
                continue
            stop = min(end, offset + PIECE, *([held.offset] if held else []))
            data = content.read(stop - offset)
            self.connection.sendall(data)
            owner.count(path, len(data))
            offset += len(data)

    def _range(self, size: int) -> tuple[int, int]:
        found = _RANGE.fullmatch(self.headers.get("Range", "bytes=0-"))
        assert found, self.headers
        if not found[1]:
            return max(0, size - int(found[2])), size
        return int(found[1]), min(size, int(found[2]) + 1) if found[2] else size
