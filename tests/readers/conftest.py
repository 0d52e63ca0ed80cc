"""Bundle-like bytes, clients with little patience, and certificates."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import random
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from updated.core.link import LinkSettings
from updated.readers.http import HttpClient, Retries

HASTY = Retries(tries=5, first=0.002, longest=0.01, longest_asked=0.02)
PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")

Connect = Callable[..., AbstractAsyncContextManager[HttpClient]]


@pytest.fixture(scope="session")
def bundle() -> bytes:
    """Three MiB and something; begins like a SquashFS, and no two places are the same."""
    return b"hsqs" + random.Random(1).randbytes(3 * 1024 * 1024 + 12345)


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Connect:
    """`async with connect(stall_timeout=1.0) as client:`; the environment names no proxy."""
    for name in PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)

    @asynccontextmanager
    async def opened(
        *, stall_timeout: float = 5.0, connect_timeout: float = 5.0, **settings: object
    ) -> AsyncIterator[HttpClient]:
        client = HttpClient(
            LinkSettings(stall_timeout=stall_timeout, connect_timeout=connect_timeout, **settings),  # type: ignore[arg-type]
            retries=HASTY,
        )
        try:
            async with asyncio.timeout(20):  # nothing may hang
                yield client
        finally:
            await client.close()

    return opened


@dataclass(frozen=True)
class Certificate:
    """A self-signed one for 127.0.0.1: its own authority."""

    cert: str
    key: str


@pytest.fixture
def certificate(tmp_path: Path) -> Callable[..., Certificate]:
    def make(name: str, *, days: int = 10, address: str = "127.0.0.1") -> Certificate:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        now = datetime.datetime.now(datetime.UTC)
        cert = (
            x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=20))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), False
            )
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
            .sign(key, hashes.SHA256())
        )
        pem = serialization.Encoding.PEM
        private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (tmp_path / f"{name}.pem").write_bytes(cert.public_bytes(pem))
        (tmp_path / f"{name}.key").write_bytes(private)
        return Certificate(str(tmp_path / f"{name}.pem"), str(tmp_path / f"{name}.key"))

    return make


@pytest.fixture
def server_tls() -> Callable[..., ssl.SSLContext]:
    """The context of a server that has a certificate and wants one of the client, if `client` names it."""

    def make(own: Certificate, client: Certificate | None = None) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(own.cert, own.key)
        if client is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(client.cert)
        return context

    return make
