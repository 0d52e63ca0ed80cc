"""The same against a real server: nginx, over TLS."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

import pytest

from updated.errors import SourceError
from updated.readers.http import HttpClient, HttpError, Unchanged

CONF = """\
daemon off; pid {root}/pid; error_log stderr crit; user root; worker_processes 1;
events {{}}
http {{
    access_log off; client_body_temp_path {root}; proxy_temp_path {root}; fastcgi_temp_path {root};
    uwsgi_temp_path {root}; scgi_temp_path {root}; gzip on; gzip_types *; gzip_min_length 1;
    server {{
        listen 127.0.0.1:{port} ssl; ssl_certificate {cert}; ssl_certificate_key {key};
        root {root}/www;
        location /slow/ {{ alias {root}/www/; limit_rate 20m; keepalive_requests 1; }}
        location /old {{ return 302 /slow/b.raucb?from=old; }}
    }}
}}
"""


class Certificate(Protocol):
    cert: str
    key: str


@pytest.fixture
def nginx(
    tmp_path: Path, bundle: bytes, certificate: Callable[..., Certificate]
) -> Iterator[tuple[str, Path, str]]:
    """URL of the root, folder of the root, authority."""
    own = certificate("nginx")
    root = tmp_path / "www"
    root.mkdir()
    (root / "b.raucb").write_bytes(bundle)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    conf = tmp_path / "nginx.conf"
    conf.write_text(CONF.format(root=tmp_path, port=port, cert=own.cert, key=own.key))
    process = subprocess.Popen(["nginx", "-p", str(tmp_path), "-e", "stderr", "-c", str(conf)])
    try:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.01)
        yield f"https://127.0.0.1:{port}", root, own.cert
    finally:
        process.terminate()
        process.wait(10)


def test_nginx_streams_a_bundle_and_notices_a_new_one(
    nginx: tuple[str, Path, str],
    connect: Callable[..., AbstractAsyncContextManager[HttpClient]],
    bundle: bytes,
) -> None:
    base, root, ca = nginx

    async def main() -> None:
        async with connect(tls_ca=ca) as client:
            reader = await client.open(f"{base}/old")
            assert (reader.size, reader.url) == (len(bundle), f"{base}/slow/b.raucb?from=old")
            ranges = [(offset, 500_000) for offset in range(0, 3_000_000, 500_000)]
            reader.expect(ranges)
            for offset, length in ranges:
                assert await reader.read(offset, length) == bundle[offset : offset + length]
            with pytest.raises(Unchanged):
                await client.open(f"{base}/b.raucb", etag=reader.etag)
            async with client.body(f"{base}/b.raucb", start=3_000_000, etag=reader.etag) as body:
                assert body.start == 3_000_000
                assert b"".join([chunk async for chunk in body]) == bundle[3_000_000:]
            answer = await client.get(f"{base}/b.raucb", limit=len(bundle), headers={})
            assert answer.body == bundle
            with pytest.raises(HttpError, match="Not found"):
                await client.open(f"{base}/none")

            # Of another size: nginx's tags are made of the size and the second.
            (root / "new").write_bytes(bundle[::-1] + b"x")
            (root / "new").replace(root / "b.raucb")
            with pytest.raises(SourceError, match="changed while it was read"):
                await reader.read(0, 10)

    asyncio.run(main())
