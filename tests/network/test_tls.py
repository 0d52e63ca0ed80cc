"""TLS with an authority of our own, in both directions, against nginx's OpenSSL."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.network.conftest import Authority, Bundles, Serve, Target
from updated.core.model import Access
from updated.errors import SourceError

BOTH = pytest.mark.parametrize("protocol", ["TLSv1.2", "TLSv1.3"])


def certificate(authority: Authority, name: str = "server") -> str:
    cert, key = authority.path(f"{name}.pem"), authority.path(f"{name}.key")
    return f"ssl_certificate {cert}; ssl_certificate_key {key};"


@BOTH
def test_own_authority(
    serve: Serve, target: Target, bundles: Bundles, authority: Authority, protocol: str
) -> None:
    server = serve(certificate(authority) + f"ssl_protocols {protocol};", listen="ssl")
    target.link = replace(target.link, tls_ca=authority.path("root.pem"))
    target.install(server.url("verity.raucb"))
    assert target.holds_the_image
    server.stop()
    assert len({request.connection for request in server.requests()}) == 1


def test_who_is_not_trusted_gets_no_request(serve: Serve, target: Target, authority: Authority) -> None:
    server = serve(certificate(authority), listen="ssl")
    stranger = serve(certificate(authority, "elsewhere"), name="elsewhere", listen="ssl")
    root = replace(target.link, tls_ca=authority.path("root.pem"))
    for link, url in (
        (target.link, server.url("verity.raucb")),
        (replace(target.link, tls_ca=authority.path("stranger.pem")), server.url("verity.raucb")),
        (root, stranger.url("verity.raucb")),
    ):
        target.link = link
        with pytest.raises(SourceError, match="the server's certificate is not good: ") as caught:
            target.install(url, access=Access(headers=("Token: secret",)))
        assert "clock" in caught.value.hint
    server.stop()
    assert server.requests() == []
    assert stranger.requests() == []


def test_not_verified_at_the_callers_wish(serve: Serve, target: Target, authority: Authority) -> None:
    server = serve(certificate(authority, "elsewhere"), listen="ssl")
    target.install(server.url("verity.raucb"), access=Access(tls_no_verify=True))
    assert target.holds_the_image


@BOTH
def test_both_sides_show_who_they_are(
    serve: Serve, target: Target, authority: Authority, protocol: str
) -> None:
    server = serve(
        certificate(authority) + f"ssl_protocols {protocol};"
        f"ssl_client_certificate {authority.path('root.pem')}; ssl_verify_client on;",
        listen="ssl",
    )
    link = replace(target.link, tls_ca=authority.path("root.pem"))
    target.link = link
    with pytest.raises(SourceError, match=r"Bad Request \(400\)"):
        target.install(server.url("verity.raucb"))
    for name, good in (("stranger", False), ("client", True)):
        target.link = replace(
            link, tls_cert=authority.path(f"{name}.pem"), tls_key=authority.path(f"{name}.key")
        )
        if good:
            target.install(server.url("verity.raucb"))
        else:
            with pytest.raises(SourceError, match=r"Bad Request \(400\)"):
                target.install(server.url("verity.raucb"))
    assert target.holds_the_image


def test_the_same_with_what_the_caller_brings(serve: Serve, target: Target, authority: Authority) -> None:
    """`updated install --tls-ca=… --tls-cert=… --tls-key=…`"""
    server = serve(
        certificate(authority)
        + f"ssl_client_certificate {authority.path('root.pem')}; ssl_verify_client on;",
        listen="ssl",
    )
    access = Access(
        tls_ca=authority.path("root.pem"),
        tls_cert=authority.path("client.pem"),
        tls_key=authority.path("client.key"),
    )
    target.install(server.url("verity.raucb"), access=access)
    assert target.holds_the_image


def test_plain_http_at_a_tls_port_and_the_other_way_round(
    serve: Serve, target: Target, authority: Authority
) -> None:
    tls = serve(certificate(authority), listen="ssl")
    plain = serve(name="plain")
    with pytest.raises(SourceError, match=r"Bad Request \(400\)"):
        target.install(tls.url("verity.raucb").replace("https:", "http:"))
    with pytest.raises(SourceError, match="TLS failed"):
        target.install(plain.url("verity.raucb").replace("http:", "https:"))


def test_never_from_https_to_http(serve: Serve, target: Target, authority: Authority) -> None:
    plain = serve(name="plain")
    server = serve(
        certificate(authority) + f"location / {{ return 302 {plain.url('verity.raucb')}; }}", listen="ssl"
    )
    target.link = replace(target.link, tls_ca=authority.path("root.pem"))
    with pytest.raises(SourceError, match="redirected from https to http"):
        target.install(server.url("verity.raucb"))
    plain.stop()
    assert plain.requests() == []
