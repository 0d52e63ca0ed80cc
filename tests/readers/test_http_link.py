"""The way to a server: redirects, credentials, TLS, proxies, and how fast it may go."""

from __future__ import annotations

import asyncio
import gc
import ssl
import time
from base64 import b64encode
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

import pytest

from tests.fakes.web import Fault, Proxy, Server, proxying, serving
from updated.errors import ConfigError, NotSupportedError, SourceError, UpdatedError
from updated.readers.http import HttpClient, HttpError, shown

Connect = Callable[..., AbstractAsyncContextManager[HttpClient]]


class Certificate(Protocol):
    cert: str
    key: str


MakeCertificate = Callable[..., Certificate]
ServerTls = Callable[..., ssl.SSLContext]
SECRET = "Basic " + b64encode("anna:pässword".encode()).decode()
SECRETS = {"headers": (("X-Device", "7"),), "user": "anna", "password": "pässword"}


def refused(connect: Connect, url: str, **settings: object) -> UpdatedError:
    async def main() -> None:
        async with connect(**settings) as client:
            await client.open(url)

    with pytest.raises(UpdatedError) as caught:
        asyncio.run(main())
    return caught.value


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed_and_the_place_is_kept(connect: Connect, bundle: bytes, status: int) -> None:
    faults = {"/latest": [Fault(redirect="/sub/../v1?x=%2F%3d;a+b", status=status)]}

    async def main() -> None:
        async with Server({"/v1": bundle}, faults) as server, connect(**SECRETS) as client:
            reader = await client.open(server.url("/latest"), headers={"RAUC-Id": "abc"})
            assert await reader.read(0, 100) == bundle[:100]
            assert reader.url == server.url("/v1?x=%2F%3d;a+b")
            assert server.counts == {"/latest": 1, "/v1": 2}
            for request in server.requests:  # one origin
                assert request.headers["authorization"] == SECRET
                assert (request.headers["x-device"], request.headers["rauc-id"]) == ("7", "abc")
            assert {request.target for request in server.seen("/v1")} == {"/v1?x=%2F%3d;a+b"}

    asyncio.run(main())


def test_secrets_do_not_follow_to_another_server(connect: Connect, bundle: bytes, tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login anna password secret\n")

    async def main() -> None:
        async with Server({"/b": bundle}) as other:
            away = [Fault(redirect=other.url("/b", user="u:p"))]
            for settings in (SECRETS, {"bearer": "t"}, {"netrc": str(netrc)}, {}):
                async with Server({}, {"/a": away}) as server, connect(**settings) as client:
                    named = server.url("/a", user="" if settings else "anna:secret")
                    reader = await client.open(named, headers={"RAUC-Id": "abc", "Cookie": "c"})
                    assert await reader.read(0, 100) == bundle[:100]
                    assert "authorization" in server.requests[0].headers
                    assert server.requests[0].headers["rauc-id"] == "abc"
            assert len(other.requests) == 8
            for request in other.requests:
                assert not {"authorization", "x-device", "rauc-id", "cookie"} & request.headers.keys()

    asyncio.run(main())


def test_another_port_or_name_is_another_server_and_coming_back_is_not(
    connect: Connect, bundle: bytes
) -> None:
    async def main() -> None:
        async with Server({"/b": bundle}) as server:
            server.faults["/a"] = [Fault(redirect=server.url("/c", host="localhost"))]
            server.faults["/c"] = [Fault(redirect=server.url("/b"))]
            async with connect(bearer="t") as client:
                await client.open(server.url("/a"))
            assert ["authorization" in request.headers for request in server.requests] == [True, False, True]

    asyncio.run(main())


@pytest.mark.parametrize(
    "location", ["/loop", "/loop?{n}", "//[", "ftp://127.0.0.1/b", "http://", "http://a:b:c/"]
)
def test_redirects_that_lead_nowhere_end(connect: Connect, location: str) -> None:
    with serving({}, {"/loop": [Fault(redirect=location)]}) as server:
        assert isinstance(refused(connect, server.url("/loop")), SourceError)
        assert server.counts["/loop"] <= 11


def test_a_redirect_with_a_body_for_ever_is_followed(connect: Connect, bundle: bytes) -> None:
    faults = {"/a": [Fault(status=302, headers={"Location": "/b", "Content-Length": "999999999"})]}

    async def main() -> None:
        async with Server({"/b": bundle}, faults) as server, connect() as client:
            assert (await client.open(server.url("/a"))).size == len(bundle)

    asyncio.run(main())


def test_a_signed_url_that_expires_is_asked_for_anew(connect: Connect, bundle: bytes) -> None:
    faults = {"/latest": [Fault(redirect="/signed?token={n}")], "/signed": [Fault(tokens=2, cut=400_000)]}

    async def main() -> None:
        async with Server({"/signed": bundle}, faults) as server, connect() as client:
            reader = await client.open(server.url("/latest"))
            reader.expect([(0, 1_000_000), (1_000_000, 1_000_000)])
            assert await reader.read(0, 1_000_000) == bundle[:1_000_000]
            assert await reader.read(1_000_000, 1_000_000) == bundle[1_000_000:2_000_000]
            assert 2 <= server.counts["/latest"] <= 4

    asyncio.run(main())


@pytest.mark.parametrize("status", [400, 401, 403, 410])
def test_what_stays_forbidden_is_asked_for_anew_once(connect: Connect, bundle: bytes, status: int) -> None:
    faults = {"/latest": [Fault(redirect="/b")], "/b": [Fault(first=2, status=status)]}

    async def main() -> None:
        async with Server({"/b": bundle}, faults) as server, connect() as client:
            reader = await client.open(server.url("/latest"))
            with pytest.raises(HttpError) as caught:
                await reader.read(0, 10)
            assert caught.value.status == status
            assert server.counts == {"/latest": 2, "/b": 3}

    asyncio.run(main())


def test_messages_hold_no_secrets(connect: Connect, bundle: bytes) -> None:
    async def main() -> None:
        async with (
            Server({"/b": bundle}, {"/b": [Fault(first=2, status=404)]}) as server,
            connect() as client,
        ):
            reader = await client.open(server.url("/b?X-Sig=s3cret&e=s3cret", user="anna:s3cret"))
            assert reader.name == server.url("/b?X-Sig=…&e=…")
            assert "anna" not in reader.url
            with pytest.raises(HttpError) as caught:
                await reader.read(0, 10)
            assert "s3cret" not in caught.value.with_hint()
        for proxy in (
            "http://anna:s3cret@127.0.0.1:1",
            "anna:s3cret@127.0.0.1:1",
            "socks5://anna:s3cret@h",
            "http://a:s3cret@[::",
        ):
            async with connect(proxy=proxy) as client:
                with pytest.raises(UpdatedError) as failed:
                    await client.open("http://anna:s3cret@127.0.0.1:1/b?a=s3cret")
                assert "s3cret" not in failed.value.with_hint()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("http://h/p?a=1&token&c=2#f", "http://h/p?a=…&…&c=…"),
        ("http://h/p?a=…&…&c=…", "http://h/p?a=…&…&c=…"),
        ("https://u:p@[::1]:8/p", "https://[::1]:8/p"),
        ("http://u:p@h@x/", "http://x/"),
        ("http://[::1/u:p@x?q", "'x'"),
        ("u:p@x", "'x'"),
        ("http://h/\n\x1b[1m", "http://h/[1m"),
    ],
)
def test_urls_are_shown_without_their_secrets(url: str, text: str) -> None:
    assert (
        shown(url)
        .replace("\\x1b", "")
        .replace("'http", "http")
        .removesuffix("'" if url[0] == "h" and "[1m" in url else "")
        == text
    )


def test_who_we_are_is_told_by_the_nearest_word(connect: Connect, bundle: bytes, tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login anna password pässword\n", encoding="utf-8")

    async def main() -> None:
        async with Server({"/b": bundle}, {"/b": [Fault(needs=SECRET)]}) as server:

            async def asks(url: str, *, headers: dict[str, str] | None = None, **settings: object) -> str:
                async with connect(**settings) as client:
                    try:
                        await client.open(url, headers=headers or {})
                    except HttpError as error:
                        assert error.status == 401
                return server.requests[-1].headers.get("authorization", "")

            url = server.url("/b")
            assert await asks(url) == ""
            assert await asks(url, user="anna", password="pässword", netrc=str(netrc)) == SECRET
            assert await asks(url, netrc=str(netrc)) == SECRET
            assert await asks(server.url("/b", host="localhost"), netrc=str(netrc)) == ""
            assert await asks(server.url("/b", user="anna:p%C3%A4ssword"), bearer="t") == SECRET
            assert await asks(url, bearer="t", user="u") == "Bearer t"
            assert await asks(url, bearer="t", headers={"authorization": "Own x"}) == "Own x"
            assert await asks(url, bearer="t", headers={"range": "bytes=0-1", "host": "x"}) == "Bearer t"
            assert server.requests[-1].headers["range"] == "bytes=-65544"

    asyncio.run(main())


def test_ipv6_addresses_work(connect: Connect, bundle: bytes) -> None:
    async def main() -> None:
        async with Server({"/b": bundle}, host="::1") as server, connect() as client:
            assert "[::1]" in server.url("/b")
            assert await (await client.open(server.url("/b"))).read(0, 4) == b"hsqs"

    asyncio.run(main())


def test_tls_with_an_authority_of_our_own_and_a_certificate_for_us(
    connect: Connect, bundle: bytes, certificate: MakeCertificate, server_tls: ServerTls
) -> None:
    own, mine = certificate("server"), certificate("device")

    async def main() -> None:
        async with Server({"/b": bundle}, tls=server_tls(own, mine)) as server:
            trusted = {"tls_ca": own.cert, "tls_cert": mine.cert, "tls_key": mine.key}
            async with connect(**trusted) as client:
                reader = await client.open(server.url("/b"))
                reader.expect([(0, 1_000_000)])
                assert await reader.read(0, 1_000_000) == bundle[:1_000_000]
                assert server.connections == 1
            async with connect(tls_ca=own.cert) as client:
                with pytest.raises(SourceError):
                    await client.open(server.url("/b"))
        async with (
            Server({"/b": bundle}, tls=server_tls(own)) as server,
            connect(tls_no_verify=True) as client,
        ):
            assert (await client.open(server.url("/b"))).size == len(bundle)

    asyncio.run(main())


def test_a_tls_connection_that_is_not_wanted_any_more_leaves_nothing_behind(
    connect: Connect, bundle: bytes, certificate: MakeCertificate, server_tls: ServerTls
) -> None:
    own = certificate("server")

    async def main() -> None:
        async with connect(tls_ca=own.cert) as client:
            async with client.body(server.url("/b")) as body:
                async for _ in body:
                    break
            reader = await client.open(server.url("/b"))
            reader.expect([(0, 3_000_000)])
            await reader.read(5_000, 10)
            await reader.close()

    # The server says no goodbye: it still sends.
    with serving({"/b": bundle}, {"/b": [Fault(endless=True, ranged=False)]}, tls=server_tls(own)) as server:
        asyncio.run(main())
        gc.collect()  # an open transport would be a warning, and so an error


@pytest.mark.parametrize(
    ("how", "text"),
    [({}, "self-signed certificate"), ({"days": -1}, "expired"), ({"address": "127.0.0.9"}, "127.0.0.1")],
)
def test_a_certificate_that_is_not_good_is_told_with_a_hint(
    connect: Connect, certificate: MakeCertificate, server_tls: ServerTls, how: dict[str, int], text: str
) -> None:
    own = certificate("server", **how)
    with serving(tls=server_tls(own)) as server:
        error = refused(connect, server.url("/b"), **({"tls_ca": own.cert} if how else {}))
    assert isinstance(error, SourceError)
    assert "certificate is not good" in str(error)
    assert text in str(error)
    assert "clock" in error.hint


def test_nothing_leads_from_https_to_http(
    connect: Connect, bundle: bytes, certificate: MakeCertificate, server_tls: ServerTls
) -> None:
    own = certificate("server")
    with (
        serving({"/b": bundle}) as plain,
        serving({}, {"/a": [Fault(redirect=plain.url("/b"))]}, tls=server_tls(own)) as server,
    ):
        assert "from https to http" in str(refused(connect, server.url("/a"), tls_ca=own.cert))
        assert not plain.requests


@pytest.mark.parametrize("key", ["tls_ca", "tls_cert", "tls_key", "netrc"])
def test_a_bad_file_is_an_error_of_the_configuration_that_names_it(
    connect: Connect, certificate: MakeCertificate, tmp_path: Path, key: str
) -> None:
    bad = tmp_path / "bad"
    bad.write_bytes(b"\xff\xfe rubbish \x00")
    more = {"tls_cert": certificate("device").cert} if key == "tls_key" else {}
    for path in (str(bad), str(tmp_path / "none"), str(tmp_path)):
        error = refused(connect, "http://127.0.0.1:1/", **{key: path, **more})
        assert isinstance(error, ConfigError)
        assert path in str(error)
    assert isinstance(refused(connect, "http://127.0.0.1:1/", tls_cert="pkcs11:x"), NotSupportedError)
    if key == "tls_key":
        assert "needs a certificate" in str(refused(connect, "http://127.0.0.1:1/", tls_key=str(bad)))


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
def test_a_proxy_is_used_with_its_password_which_stays_with_it(
    connect: Connect, bundle: bytes, certificate: MakeCertificate, server_tls: ServerTls, secure: bool
) -> None:
    own = certificate("server")

    async def main() -> None:
        async with (
            Server({"/b": bundle}, tls=server_tls(own) if secure else None) as server,
            Proxy(needs="Basic " + b64encode(b"p:w@d").decode()) as proxy,
        ):
            async with connect(proxy=proxy.url(user="p:w%40d"), tls_ca=own.cert, bearer="t") as client:
                reader = await client.open(server.url("/b"))
                assert await reader.read(0, 300_000) == bundle[:300_000]
            assert {request.method for request in proxy.requests} == {"CONNECT" if secure else "GET"}
            assert all("proxy-authorization" not in request.headers for request in server.requests)
            if secure:
                assert all("authorization" not in request.headers for request in proxy.requests)
            async with connect(proxy=proxy.url(), tls_ca=own.cert) as client:
                with pytest.raises(SourceError, match="407"):
                    await client.open(server.url("/b"))

    asyncio.run(main())


@pytest.mark.parametrize(
    ("environment", "used"),
    [
        ({"http_proxy": "PROXY"}, True),
        ({"http_proxy": "HOST"}, True),
        ({"HTTP_PROXY": "PROXY"}, False),
        ({"all_proxy": "PROXY"}, True),
        ({"https_proxy": "PROXY"}, False),
        ({"http_proxy": "PROXY", "no_proxy": "example.com, 127.0.0.1"}, False),
        ({"http_proxy": "PROXY", "no_proxy": "*"}, False),
        ({"http_proxy": "PROXY", "NO_PROXY": "127.0.0.0/8"}, False),
        ({"http_proxy": "PROXY", "no_proxy": "7.0.0.1,10.0.0.0/8,[::1]"}, True),
        ({}, False),
    ],
)
def test_the_environment_names_the_proxy_as_for_curl(
    connect: Connect, bundle: bytes, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], used: bool
) -> None:
    with serving({"/b": bundle}) as server, proxying() as proxy:
        for name, value in environment.items():
            url = proxy.url()
            monkeypatch.setenv(name, value.replace("PROXY", url).replace("HOST", url.removeprefix("http://")))

        async def main(**settings: object) -> None:
            async with connect(**settings) as client:
                await client.open(server.url("/b"))

        asyncio.run(main())
        assert bool(proxy.requests) == used
        before = len(proxy.requests)
        asyncio.run(main(proxy=""))
        assert len(proxy.requests) == before


def test_bytes_come_no_faster_than_allowed(connect: Connect, bundle: bytes) -> None:
    """A lower limit only: how fast a busy machine gets is not tested."""

    async def main() -> None:
        async with Server({"/b": bundle}) as server, connect(rate_limit=1_000_000) as client:
            reader = await client.open(server.url("/b"), tail=1000)
            reader.expect([(offset, 50_000) for offset in range(0, 600_000, 50_000)])
            began = time.monotonic()
            for offset in range(0, 600_000, 50_000):
                assert await reader.read(offset, 50_000) == bundle[offset : offset + 50_000]
            took = time.monotonic() - began
            assert took >= (600_000 - 250_000) / 1_000_000 * 0.95

    asyncio.run(main())
