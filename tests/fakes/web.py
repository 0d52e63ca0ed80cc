"""A web server on 127.0.0.1 that serves ranges correctly, or lies as it is told; and a forward proxy.

    async with Server({"/b.raucb": data}, {"/b.raucb": [Fault(first=2, cut=100, how="reset")]}) as server:
        ... server.url("/b.raucb") ...

    with serving({"/b.raucb": Path("b.raucb")}) as server:      # in a thread of its own
        ...

It speaks HTTP/1.1 on plain streams: a web framework would not let it lie.  `files` and `faults` may be
changed while it runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import os
import re
import socket
import ssl
import struct
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal
from urllib.parse import urlsplit

MODIFIED = "Sat, 01 Aug 2026 00:00:00 GMT"
CHUNK = 256 * 1024  # bytes
EVER = 1 << 62
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_REASONS = {200: "OK", 204: "No Content", 206: "Partial Content", 302: "Found", 304: "Not Modified"}
_TO_PROXY = ("proxy-authorization", "proxy-connection", "connection")
Headers = dict[str, str]  # names in lower case


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What the server does with some requests for an object; the first that fits is taken.

    Requests are counted from 1, for each object.
    """

    first: int = 1  # request that it begins with
    last: int = EVER  # and ends with
    ranged: bool | None = None  # only with (True) or without (False) a Range
    needs: str = ""  # Authorization, else 401 and the next fault is not looked at
    tokens: int = 0  # so many requests for each value of ?token=, then 403

    status: int = 0  # this instead of the object
    headers: Mapping[str, str] = field(default_factory=dict)  # added, or instead of right ones
    body: bytes = b""  # with `status`
    redirect: str = ""  # Location; {n} becomes the number of the request
    content: bytes | None = None  # another version of the object

    ranges: bool = True  # False: 200 to each Range
    shift: int = 0  # added to both ends in Content-Range
    total: int = 0  # added to the size in Content-Range
    length: int = 0  # added to Content-Length
    etag: str | None = None  # None: a good one; "": none
    modified: str = MODIFIED  # "": none
    chunked: bool = False
    gzip: bool = False
    multipart: bool = False  # multipart/byteranges although one range was asked for

    latency: float = 0.0  # seconds before the answer
    cut: int | None = None  # bytes of the body after which it ends, namely:
    how: Literal["close", "reset", "stall"] = "close"
    drip: float = 0.0  # seconds after each byte
    endless: bool = False  # the body goes on behind its end (chunked)


@dataclass(frozen=True, slots=True)
class Seen:
    """One request."""

    method: str
    target: str  # as on the wire
    headers: Headers

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]


class Server:
    """Serves `files` by path, with the `faults` of each; `rate` in bytes per second and connection."""

    def __init__(
        self,
        files: Mapping[str, bytes | Path] | None = None,
        faults: Mapping[str, Sequence[Fault]] | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        rate: int = 0,
        latency: float = 0.0,
        host: str = "127.0.0.1",
    ) -> None:
        self.files: dict[str, bytes | Path] = dict(files or {})
        self.faults: dict[str, Sequence[Fault]] = dict(faults or {})
        self.rate = rate
        self.latency = latency
        self.requests: list[Seen] = []
        self.counts: Counter[str] = Counter()  # requests by path
        self.sent: Counter[str] = Counter()  # bytes of bodies by path
        self.connections = 0
        self.port = 0
        self._host = host
        self._tls = tls
        self._tokens: Counter[str] = Counter()
        self._listener = _Listener(self._serve, tls)

    def url(self, path: str, *, host: str = "", user: str = "") -> str:
        """`user`: "user:password" in the URL."""
        name = host or (f"[{self._host}]" if ":" in self._host else self._host)
        return f"{'https' if self._tls else 'http'}://{user + '@' if user else ''}{name}:{self.port}{path}"

    def seen(self, path: str) -> list[Seen]:
        return [request for request in self.requests if request.path == path]

    async def __aenter__(self) -> Server:
        self.port = await self._listener.start(self._host)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._listener.stop()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while (request := await _read_head(reader)) is not None:
            self.requests.append(request)
            self.counts[request.path] += 1
            if not await self._answer(request, writer) or request.headers.get("connection") == "close":
                return

    async def _answer(self, request: Seen, writer: asyncio.StreamWriter) -> bool:
        """True: the connection can be used again."""
        fault = self._fault(request)
        if self.latency or fault.latency:
            await asyncio.sleep(self.latency + fault.latency)
        if fault.needs and request.headers.get("authorization") != fault.needs:
            return await self._short(writer, fault, 401)
        if fault.tokens:
            token = urlsplit(request.target).query
            self._tokens[token] += 1
            if self._tokens[token] > fault.tokens:
                return await self._short(writer, fault, 403)
        if fault.redirect:
            location = fault.redirect.replace("{n}", str(self.counts[request.path]))
            return await self._short(writer, fault, fault.status or 302, {"Location": location})
        if fault.status:
            return await self._short(writer, fault, fault.status)
        content = fault.content if fault.content is not None else self.files.get(request.path)
        if content is None:
            return await self._short(writer, fault, 404)
        return await self._object(request, writer, fault, content)

    def _fault(self, request: Seen) -> Fault:
        count, ranged = self.counts[request.path], "range" in request.headers
        for fault in self.faults.get(request.path, ()):
            if fault.first <= count <= fault.last and fault.ranged in (None, ranged):
                return fault
        return Fault()

    async def _short(
        self, writer: asyncio.StreamWriter, fault: Fault, status: int, more: Mapping[str, str] | None = None
    ) -> bool:
        headers = {"Content-Length": str(len(fault.body)), **(more or {}), **fault.headers}
        if status in (204, 304):
            del headers["Content-Length"]
        writer.write(_head(status, headers) + fault.body)
        await writer.drain()
        return True

    async def _object(
        self, request: Seen, writer: asyncio.StreamWriter, fault: Fault, content: bytes | Path
    ) -> bool:
        size = _size(content)
        etag = _etag(content) if fault.etag is None else fault.etag
        headers = {"Content-Type": "application/octet-stream"}
        if etag:
            headers["ETag"] = etag
        if fault.modified:
            headers["Last-Modified"] = fault.modified
        if etag and request.headers.get("if-none-match") == etag:
            writer.write(_head(304, headers))
            return True
        status, start, stop = 200, 0, size
        condition = request.headers.get("if-range")
        if fault.ranges:
            headers["Accept-Ranges"] = "bytes"
            strong = etag if not etag.startswith("W/") else None
            if condition is None or condition in (strong, fault.modified or None):
                status, start, stop = _range(request.headers.get("range", ""), size)
        if status == 416:
            return await self._short(writer, fault, 416, {"Content-Range": f"bytes */{size}"})
        if status == 206:
            first, last = start + fault.shift, stop - 1 + fault.shift
            headers["Content-Range"] = f"bytes {first}-{last}/{size + fault.total}"
        data = _pieces(content, start, stop)
        length = stop - start
        if fault.multipart or fault.gzip:
            packed = _packed(b"".join(data), fault, headers)
            data, length = iter([packed]), len(packed)
        if fault.chunked or fault.endless:
            headers["Transfer-Encoding"] = "chunked"
        else:
            headers["Content-Length"] = str(length + fault.length)
        writer.write(_head(status, {**headers, **fault.headers}))
        if request.method == "HEAD":
            return True
        return await self._body(request.path, writer, fault, data) and not fault.length

    async def _body(
        self, path: str, writer: asyncio.StreamWriter, fault: Fault, data: Iterator[bytes]
    ) -> bool:
        chunked = fault.chunked or fault.endless
        pieces = self._cut(_endless(data) if fault.endless else data, fault)
        done, began = 0, time.monotonic()
        for piece in pieces:
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            await writer.drain()
            await asyncio.sleep(0)  # over TLS the one above does not let others run,
            if writer.is_closing():  # nor does it tell that the client is gone
                raise ConnectionResetError
            done += len(piece)
            self.sent[path] += len(piece)
            if fault.drip:
                await asyncio.sleep(fault.drip)
            elif self.rate:
                await asyncio.sleep(max(0.0, began + done / self.rate - time.monotonic()))
        if fault.cut is not None and done >= fault.cut:
            await self._end(writer, fault)
            return False
        if chunked:
            writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True

    def _cut(self, data: Iterator[bytes], fault: Fault) -> Iterator[bytes]:
        left = EVER if fault.cut is None else fault.cut
        step = 1 if fault.drip else max(1, self.rate // 50) if self.rate else CHUNK
        for piece in data:
            for offset in range(0, min(len(piece), left), step):
                yield piece[offset : min(offset + step, left)] if step < len(piece) else piece[:left]
            left -= min(len(piece), left)
            if not left:
                return

    async def _end(self, writer: asyncio.StreamWriter, fault: Fault) -> None:
        if fault.how == "stall":
            await asyncio.Event().wait()  # until the server is stopped
        if fault.how == "reset":
            await asyncio.sleep(0.02)  # what was sent should arrive
            writer.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
            writer.transport.abort()


class Proxy:
    """A forward proxy: CONNECT, and GET with an absolute URI.  `needs`: Proxy-Authorization, else 407."""

    def __init__(self, *, needs: str = "") -> None:
        self.needs = needs
        self.requests: list[Seen] = []
        self.port = 0
        self._listener = _Listener(self._serve, None)

    def url(self, *, user: str = "") -> str:
        return f"http://{user + '@' if user else ''}127.0.0.1:{self.port}"

    async def __aenter__(self) -> Proxy:
        self.port = await self._listener.start("127.0.0.1")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._listener.stop()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await _read_head(reader)
        if request is None:
            return
        self.requests.append(request)
        if self.needs and request.headers.get("proxy-authorization") != self.needs:
            writer.write(_head(407, {"Content-Length": "0", "Connection": "close"}))
            await writer.drain()
            return
        target = urlsplit(f"//{request.target}" if request.method == "CONNECT" else request.target)
        there, back = await asyncio.open_connection(target.hostname, target.port or 80)
        try:
            if request.method == "CONNECT":
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                await asyncio.gather(_copy(reader, back), _copy(there, writer))
                return
            path = target.path + (f"?{target.query}" if target.query else "")
            lines = [f"{request.method} {path} HTTP/1.1", "Connection: close"]
            lines += [f"{k}: {v}" for k, v in request.headers.items() if k not in _TO_PROXY]
            back.write("\r\n".join([*lines, "", ""]).encode())
            head = await there.readuntil(b"\r\n\r\n")
            writer.write(head[:-2] + b"Connection: close\r\n\r\n")
            await _copy(there, writer)
        finally:
            back.close()


@contextlib.contextmanager
def serving(
    files: Mapping[str, bytes | Path] | None = None,
    faults: Mapping[str, Sequence[Fault]] | None = None,
    *,
    tls: ssl.SSLContext | None = None,
    rate: int = 0,
    latency: float = 0.0,
) -> Iterator[Server]:
    """A `Server` in a thread of its own, for tests of whole processes."""
    server = Server(files, faults, tls=tls, rate=rate, latency=latency)
    with _in_thread(server):
        yield server


@contextlib.contextmanager
def proxying(*, needs: str = "") -> Iterator[Proxy]:
    """A `Proxy` in a thread of its own."""
    proxy = Proxy(needs=needs)
    with _in_thread(proxy):
        yield proxy


@contextlib.contextmanager
def _in_thread(server: contextlib.AbstractAsyncContextManager[object]) -> Iterator[None]:
    loop = asyncio.new_event_loop()
    started, stop = threading.Event(), asyncio.Event()

    async def run() -> None:
        async with server:
            started.set()
            await stop.wait()

    def work() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(run())

    thread = threading.Thread(target=work)
    thread.start()
    assert started.wait(10)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


class _Listener:
    """Accepts, and ends what it accepted when it is stopped."""

    def __init__(self, serve: Serve, tls: ssl.SSLContext | None) -> None:
        self._serve = serve
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._transports: weakref.WeakSet[asyncio.WriteTransport] = weakref.WeakSet()
        self._server: asyncio.Server | None = None

    async def start(self, host: str) -> int:
        self._server = await asyncio.start_server(self._accept, host, 0, ssl=self._tls)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        assert self._server is not None
        self._stopping = True
        for listening in self._server.sockets:
            asyncio.get_running_loop().remove_reader(listening.fileno())
        await asyncio.sleep(0.01)  # what asyncio is about to accept it leaves open once the server is closed
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for transport in tuple(self._transports):
            transport.abort()  # one that is closed may still wait for a client to take the rest
        # Who was accepted in the last moment is let go, too; transports below TLS take a few rounds.
        await asyncio.sleep(0.01)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._stopping:
            writer.transport.abort()
            return
        self._transports.add(writer.transport)
        task = asyncio.get_running_loop().create_task(self._handle(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._serve(reader, writer)
            if writer.can_write_eof():
                writer.write_eof()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client went away
        except asyncio.CancelledError:
            writer.transport.abort()
            raise
        finally:
            writer.close()


async def _read_head(reader: asyncio.StreamReader) -> Seen | None:
    try:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    except asyncio.IncompleteReadError:
        return None
    method, target, _ = lines[0].split(" ")
    pairs = (line.partition(":") for line in lines[1:] if line)
    return Seen(method, target, {name.lower(): value.strip() for name, _, value in pairs})


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Error')}"]
    return "\r\n".join([*lines, *(f"{k}: {v}" for k, v in headers.items()), "", ""]).encode()


def _size(content: bytes | Path) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def _etag(content: bytes | Path) -> str:
    if isinstance(content, bytes):
        return f'"{hashlib.sha256(content).hexdigest()[:16]}"'
    found = content.stat()
    return f'"{found.st_mtime_ns:x}-{found.st_size:x}"'


def _range(text: str, size: int) -> tuple[int, int, int]:
    """Status, start, stop (RFC 9110, 14.1.2)."""
    found = _RANGE.fullmatch(text)
    if found is None or not any(found.groups()):
        return 200, 0, size
    first, last = found.groups()
    if not first:
        return (206, max(0, size - int(last)), size) if size and int(last) else (416, 0, 0)
    stop = min(int(last) + 1, size) if last else size
    return (206, int(first), stop) if int(first) < stop else (416, 0, 0)


def _pieces(content: bytes | Path, start: int, stop: int) -> Iterator[bytes]:
    if isinstance(content, bytes):
        view = memoryview(content)
        for offset in range(start, stop, CHUNK):
            yield bytes(view[offset : min(offset + CHUNK, stop)])
        return
    with content.open("rb") as file:
        for offset in range(start, stop, CHUNK):
            yield os.pread(file.fileno(), min(CHUNK, stop - offset), offset)


def _packed(data: bytes, fault: Fault, headers: Headers) -> bytes:
    if fault.gzip:
        headers["Content-Encoding"] = "gzip"
        return gzip.compress(data, 1)
    headers["Content-Type"] = "multipart/byteranges; boundary=X"
    part = f"--X\r\nContent-Range: {headers.pop('Content-Range', '')}\r\n\r\n".encode()
    return part + data + b"\r\n--X--\r\n"


def _endless(data: Iterator[bytes]) -> Iterator[bytes]:
    yield from data
    while True:
        yield bytes(CHUNK)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
        writer.close()
