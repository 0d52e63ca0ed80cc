"""Servers and proxies that are not what one would wish for: Python's own, and forward proxies."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fakes.web import proxying
from tests.network.conftest import Authority, Bundles, Serve, Target

# As a forward proxy, nginx takes what is no CONNECT; this one belongs to somebody who thinks that ranges
# are an attack.
FORWARD = "location / { proxy_pass http://$http_host$request_uri; %s }"
WITHOUT_RANGES = 'proxy_set_header Range ""; proxy_set_header If-Range ""; max_ranges 0;'


@pytest.fixture
def python_server(bundles: Bundles) -> Iterator[str]:
    """URL of `python -m http.server`."""
    command = [sys.executable, "-u", "-m", "http.server", "--bind=127.0.0.1"]
    command += [f"--directory={bundles.verity.parent}", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        found = re.search(r"\((http://127\.0\.0\.1:\d+/)\)", server.stdout.readline())
        assert found is not None
        yield found[1]
        server.terminate()


@pytest.mark.parametrize("name", ["verity.raucb", "plain.raucb"])
def test_python_knows_no_ranges(python_server: str, target: Target, name: str) -> None:
    located = target.install(python_server + name)
    assert target.holds_the_image
    assert not located.remote
    assert list((target.folder / "data/spool").iterdir()) == []


def test_through_a_proxy(serve: Serve, target: Target, bundles: Bundles) -> None:
    server = serve()
    proxy = serve(FORWARD % "", name="proxy")
    target.link = replace(target.link, proxy=proxy.url(""))
    located = target.install(server.url("verity.raucb"))
    assert target.holds_the_image
    assert located.remote
    proxy.stop()
    assert {request.status for request in proxy.requests()} == {206}
    assert proxy.sent() < bundles.size + 128 * 1024


def test_a_proxy_takes_the_ranges_away(serve: Serve, target: Target, bundles: Bundles) -> None:
    server = serve()
    proxy = serve(FORWARD % WITHOUT_RANGES, name="proxy")
    target.link = replace(target.link, proxy=proxy.url(""))
    located = target.install(server.url("verity.raucb"))
    assert target.holds_the_image
    assert not located.remote
    proxy.stop()
    assert {request.status for request in proxy.requests()} == {200}
    assert proxy.sent() < bundles.size + (1 << 20)


@pytest.mark.parametrize("tls", [False, True])
def test_a_proxy_with_a_password(
    serve: Serve, target: Target, authority: Authority, tmp_path: Path, tls: bool
) -> None:
    """TLS goes through it by CONNECT."""
    cert, key = authority.path("server.pem"), authority.path("server.key")
    certificate = f"ssl_certificate {cert}; ssl_certificate_key {key};"
    server = serve(certificate, listen="ssl") if tls else serve()
    with proxying(needs="Basic bWU6aHVzaA==") as proxy:
        target.link = replace(
            target.link, proxy=proxy.url(user="me:hush"), tls_ca=authority.path("root.pem") if tls else ""
        )
        target.install(server.url("verity.raucb"))
        assert {request.method for request in proxy.requests} == {"CONNECT" if tls else "GET"}
    assert target.holds_the_image
