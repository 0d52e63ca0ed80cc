"""Debian's nginx with a configuration of the test's own.  Its access log is the witness of what went out.

with nginx(folder, "location /slow/ { limit_rate 4m; }") as server:
    (server.files / "b.raucb").write_bytes(data)
    ... server.url("b.raucb") ...
server.requests()                       # complete now
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

WAIT = 20.0  # seconds; it takes some hundredths
SMALL = "sndbuf=128k"  # what nginx has handed to the kernel counts as sent, whether it arrives or not

# One process, in the foreground, with everything in one folder: no root is needed.
CONFIG = """\
daemon off;
master_process off;
pid pid;
worker_rlimit_nofile 256;
events { worker_connections 64; }
http {
    default_type application/octet-stream;
    client_body_temp_path temp; proxy_temp_path temp; fastcgi_temp_path temp;
    scgi_temp_path temp; uwsgi_temp_path temp;
    log_format witness escape=json '{"uri": "$uri", "status": $status, "body": $body_bytes_sent, '
        '"wire": $bytes_sent, "range": "$http_range", "connection": $connection, '
        '"authorization": "$http_authorization", "end": $msec, "seconds": $request_time}';
    access_log access.log witness;
    send_timeout 5s;
    reset_timedout_connection on;
    %(http)s
    server {
        listen %(address)s:%(port)d %(listen)s;
        root files;
        %(server)s
    }
}
"""


@dataclass(frozen=True, slots=True)
class Request:
    """A line of the access log; requests that still run have none."""

    uri: str
    status: int
    body: int  # bytes
    wire: int  # bytes, with the head of the answer
    range: str
    connection: int  # number
    authorization: str
    end: float  # seconds since 1970
    seconds: float  # that it took


class Nginx:
    """One nginx.  `files` is its root folder."""

    def __init__(
        self,
        folder: Path,
        server: str,
        *,
        http: str,
        listen: str,
        address: str,
        port: int,
        prefix: Sequence[str],
    ) -> None:
        self.folder = folder
        self.files = folder / "files"
        self._prefix = prefix
        self._process: subprocess.Popen[bytes] | None = None
        self._origin = f"{'https' if 'ssl' in listen.split() else 'http'}://{address}:{port}"
        for name in ("files", "temp"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        words = {"server": server, "http": http, "address": address, "port": port}
        (folder / "nginx.conf").write_text(CONFIG % {**words, "listen": listen})
        (folder / "access.log").touch()

    def url(self, path: str, *, user: str = "") -> str:
        """`user`: "user:password" in the URL."""
        scheme, _, host = self._origin.partition("://")
        return f"{scheme}://{user + '@' if user else ''}{host}/{path}"

    def start(self) -> None:
        """Returns when it listens."""
        pid = self.folder / "pid"
        pid.unlink(missing_ok=True)
        command = [*self._prefix, "nginx", "-p", str(self.folder), "-c", "nginx.conf", "-e", "error.log"]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + WAIT
        while not pid.exists():  # written when the sockets are there
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"nginx did not start: {self.errors()}")
            time.sleep(0.002)

    def stop(self, *, kill: bool = False) -> None:
        """Let it answer what was asked, then go (SIGQUIT); or `kill` it.  More than once is fine."""
        if self._process is None:
            return
        process, self._process = self._process, None
        if kill:
            process.kill()
        else:
            process.send_signal(3)
        try:
            process.wait(WAIT)
        finally:
            process.kill()
            process.wait()

    def restart(self) -> None:
        """All connections break."""
        self.stop(kill=True)
        self.start()

    def requests(self, path: str = "") -> list[Request]:
        """Those that are over, for one `path` or for all."""
        lines = (self.folder / "access.log").read_text().splitlines()
        found = [Request(**json.loads(line)) for line in lines]
        return [request for request in found if not path or request.uri == f"/{path}"]

    def sent(self, path: str = "") -> int:
        """Bytes of bodies."""
        return sum(request.body for request in self.requests(path))

    def errors(self) -> str:
        log = self.folder / "error.log"
        return log.read_text() if log.exists() else ""


@contextlib.contextmanager
def nginx(
    folder: Path,
    server: str = "",
    *,
    http: str = "",
    listen: str = SMALL,
    address: str = "127.0.0.1",
    port: int = 0,
    prefix: Sequence[str] = (),
) -> Iterator[Nginx]:
    """A running nginx in `folder`; `server` and `http` are directives for these blocks.

    `listen` are parameters of that directive.  `prefix` comes before the command: `ip netns exec NAME`.
    """
    found = Nginx(
        folder, server, http=http, listen=listen, address=address, port=port or free_port(), prefix=prefix
    )
    try:
        found.start()
        yield found
    finally:
        found.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
