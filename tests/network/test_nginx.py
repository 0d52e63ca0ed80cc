"""Installs from a real nginx, as it is and as people configure it."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.network.conftest import MIB, Bundles, Serve, Target
from tests.network.nginx import Nginx
from updated.errors import SourceError

SPARE = 128 * 1024  # bytes that may come twice: the first answer ends in the middle of what is read later


def check_frugal(server: Nginx, bundles: Bundles, path: str = "verity.raucb") -> None:
    """All in parts, and each byte once."""
    server.stop()  # the log is complete then
    requests = server.requests(path)
    assert {request.status for request in requests} == {206}
    assert bundles.size - MIB < server.sent(path) <= bundles.size + SPARE


def test_ranges(serve: Serve, target: Target, bundles: Bundles) -> None:
    server = serve()
    located = target.install(server.url("verity.raucb"))
    assert target.holds_the_image
    check_frugal(server, bundles)
    assert located.fetched == server.sent()
    assert len({request.connection for request in server.requests()}) == 1
    assert len(server.requests()) <= 12
    assert not (target.folder / "data").exists()


@pytest.mark.parametrize(
    "directives",
    [
        "keepalive_requests 3;",
        "keepalive_timeout 0;",
        "limit_rate 16m;",
        "etag off;",
        "sendfile off; directio 512; output_buffers 1 32k;",
        "gzip on; gzip_types *; gzip_proxied any; gzip_min_length 1;",
        "add_header Cache-Control no-transform; expires 1h;",
        "default_type text/plain; charset utf-8;",
    ],
)
def test_settings_that_change_nothing(
    serve: Serve, target: Target, bundles: Bundles, directives: str
) -> None:
    server = serve(directives)
    target.install(server.url("verity.raucb"))
    assert target.holds_the_image
    check_frugal(server, bundles)


def test_one_connection_at_a_time(serve: Serve, target: Target, bundles: Bundles) -> None:
    server = serve("limit_conn one 1;", http="limit_conn_zone $server_name zone=one:1m;")
    target.install(server.url("verity.raucb"))
    assert target.holds_the_image
    check_frugal(server, bundles)


def test_few_requests_a_second(serve: Serve, target: Target) -> None:
    """The others are 503: they are asked again, later."""
    server = serve("limit_req zone=few burst=1 nodelay;", http="limit_req_zone $uri zone=few:1m rate=4r/s;")
    target.install(server.url("verity.raucb"))
    assert target.holds_the_image
    server.stop()
    assert 503 in {request.status for request in server.requests()}


@pytest.mark.parametrize("name", ["verity.raucb", "plain.raucb"])
def test_no_ranges_is_spooled(serve: Serve, target: Target, bundles: Bundles, name: str) -> None:
    server = serve("max_ranges 0;")
    located = target.install(server.url(name))
    assert target.holds_the_image
    assert not located.remote
    assert list((target.folder / "data/spool").iterdir()) == []
    server.stop()
    assert [request.status for request in server.requests()] == [200, 200]
    assert server.sent() < bundles.size + MIB  # the first answer is given up as soon as it is known


def test_plain_comes_once(serve: Serve, target: Target, bundles: Bundles) -> None:
    server = serve()
    target.install(server.url("plain.raucb"))
    assert target.holds_the_image
    server.stop()
    assert server.sent() < bundles.plain.stat().st_size + SPARE


def test_packed_on_the_server(serve: Serve, target: Target, bundles: Bundles) -> None:
    server = serve("gzip_static always;")
    (server.files / "verity.raucb.gz").write_bytes(gzip.compress(bundles.verity.read_bytes(), 1))
    with pytest.raises(SourceError, match="expected its own bytes, got them in 'gzip'"):
        target.install(server.url("verity.raucb"))


# Passwords


def password_file(folder: Path) -> Path:
    path = folder / "passwords"
    made = subprocess.run(["openssl", "passwd", "-apr1", "hush"], capture_output=True, text=True, check=True)
    path.write_text(f"device:{made.stdout}")
    return path


def test_basic_authentication(serve: Serve, target: Target, bundles: Bundles, tmp_path: Path) -> None:
    server = serve(f'auth_basic "Bundles"; auth_basic_user_file {password_file(tmp_path)};')
    with pytest.raises(SourceError, match=r"Unauthorized \(401\)"):
        target.install(server.url("verity.raucb"))
    target.install(server.url("verity.raucb", user="device:hush"))
    assert target.holds_the_image
    target.slot.unlink()
    target.link = replace(target.link, user="device", password="hush")
    target.install(server.url("verity.raucb"))
    assert target.holds_the_image
    target.link = replace(target.link, password="hash")
    with pytest.raises(SourceError, match=r"401"):
        target.install(server.url("verity.raucb"))


# Redirects


def test_redirects_below_a_path(serve: Serve, target: Target, bundles: Bundles) -> None:
    server = serve("""
        location = /channel/latest { return 302 stable; }
        location = /channel/stable { absolute_redirect off; return 307 /releases/3/; }
        location = /releases/3/ { return 301 ../../files/verity.raucb?from=channel; }
        location /files/ { alias files/; }
    """)
    target.install(server.url("channel/latest"))
    assert target.holds_the_image
    check_frugal(server, bundles, "files/verity.raucb")
    assert len(server.requests("channel/latest")) == 1  # where it leads is known then


def test_redirected_elsewhere_without_the_password(
    serve: Serve, target: Target, bundles: Bundles, tmp_path: Path
) -> None:
    store = serve(name="store")
    server = serve(
        f"auth_basic x; auth_basic_user_file {password_file(tmp_path)};"
        "location /get/ { try_files /nothing @store; }"
        f"location @store {{ return 302 {store.url('verity.raucb')}; }}"
    )
    target.install(server.url("get/it", user="device:hush"))
    assert target.holds_the_image
    assert {request.authorization for request in server.requests()} == {"Basic ZGV2aWNlOmh1c2g="}
    check_frugal(store, bundles)
    assert {request.authorization for request in store.requests()} == {""}


def test_redirected_in_circles(serve: Serve, target: Target) -> None:
    server = serve("location /circle { return 302 /circle; }")
    with pytest.raises(SourceError, match="more than 10 redirects"):
        target.install(server.url("circle"))


# Caches before the server


@pytest.mark.parametrize(
    "cache",
    [
        "proxy_cache cache; proxy_force_ranges on;",
        "proxy_cache cache; slice 1m; proxy_set_header Range $slice_range;"
        "proxy_cache_key $uri$slice_range; proxy_cache_valid 200 206 1h;",
        "proxy_buffering off;",
        "proxy_http_version 1.1; proxy_set_header Connection ''; proxy_max_temp_file_size 0;",
    ],
    ids=["whole", "slices", "unbuffered", "passed on"],
)
def test_behind_a_proxy(serve: Serve, target: Target, bundles: Bundles, tmp_path: Path, cache: str) -> None:
    origin = serve(name="origin")
    front = serve(
        f"location /cdn/ {{ proxy_pass {origin.url('')}; {cache} }}",
        http=f"proxy_cache_path {tmp_path}/cache keys_zone=cache:1m;",
    )
    target.install(front.url("cdn/verity.raucb"))
    assert target.holds_the_image
    check_frugal(front, bundles, "cdn/verity.raucb")


# In the middle of it


class Once:
    """Does something when so many bytes of the image are written."""

    def __init__(self, at: int, what: Callable[[], object]) -> None:
        self.at = at
        self.what = what
        self.done = False

    def __call__(self, written: int) -> None:
        if written >= self.at and not self.done:
            self.done = True
            self.what()


def test_the_server_starts_anew(serve: Serve, target: Target, bundles: Bundles) -> None:
    server = serve("limit_rate 12m;")
    once = Once(2 * MIB, server.restart)
    located = target.install(server.url("verity.raucb"), on_bytes=once)
    assert once.done
    assert target.holds_the_image
    assert located.fetched < bundles.size + SPARE  # what came is not asked for again


def replaced(server: Nginx, bundles: Bundles) -> None:
    new = server.files / "new"
    shutil.copy(bundles.other, new)
    os.utime(new, (1_800_000_000, 1_800_000_000))
    new.rename(server.files / "verity.raucb")


def test_replaced_while_the_server_starts_anew(serve: Serve, target: Target, bundles: Bundles) -> None:
    server = serve("limit_rate 12m;")

    def replace_and_restart() -> None:
        server.stop(kill=True)
        replaced(server, bundles)
        server.start()

    with pytest.raises(SourceError, match="changed while it was read"):
        target.install(server.url("verity.raucb"), on_bytes=Once(2 * MIB, replace_and_restart))


def test_replaced_by_renaming(serve: Serve, target: Target, bundles: Bundles) -> None:
    """Who reads the old one already gets it to its end: nginx has it open."""
    server = serve("limit_rate 12m;")
    once = Once(2 * MIB, lambda: replaced(server, bundles))
    target.install(server.url("verity.raucb"), on_bytes=once)
    assert once.done
    assert target.holds_the_image


@pytest.mark.parametrize(
    ("seconds", "error"), [(5, "changed while it was read"), (0, "bundle payload is corrupted")]
)
def test_written_over(serve: Serve, target: Target, bundles: Bundles, seconds: int, error: str) -> None:
    """Bytes of another bundle come under the name of this one: none of them is used.

    nginx makes its ETag of the size and the second of the last change, so it may be the same.
    """
    server = serve("limit_rate 12m; sendfile off;")
    path = server.files / "verity.raucb"
    path.unlink()
    shutil.copy(bundles.verity, path)
    os.utime(path, (1_800_000_000, 1_800_000_000))

    def write_over() -> None:
        with path.open("r+b") as file:
            file.write(bundles.other.read_bytes()[: 6 * MIB])
        os.utime(path, (1_800_000_000 + seconds, 1_800_000_000 + seconds))

    with pytest.raises(SourceError, match=error):
        target.install(server.url("verity.raucb"), on_bytes=Once(MIB, write_over))


def test_withdrawn(serve: Serve, target: Target) -> None:
    server = serve("limit_rate 12m;")

    def withdraw() -> None:
        (server.files / "verity.raucb").unlink()
        server.restart()

    with pytest.raises(SourceError, match=r"Not found \(404\)"):
        target.install(server.url("verity.raucb"), on_bytes=Once(2 * MIB, withdraw))
