"""Bundles, a device that installs them over HTTP, and certificates for the servers."""

from __future__ import annotations

import asyncio
import random
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.network.nginx import Nginx, nginx
from updated.authoring import bundle as authoring
from updated.bundle.trust import Keyring, KeyringPolicy
from updated.core.link import LinkSettings
from updated.core.model import Access, InstallArgs, Offer, Slot
from updated.install.location import Located, Locations, open_location
from updated.install.opened import open_bundle
from updated.slots.raw import open_slot

MIB = 1 << 20
NOW = datetime(2026, 12, 1, tzinfo=UTC)
# Noise, a hole, words and a tail that is no whole block: stored, left out, compressed, packed.
IMAGE = random.Random(5).randbytes(6 * MIB) + bytes(2 * MIB) + b"some words, " * 90_000
IMAGE += bytes(-len(IMAGE) % 4096)
DEFAULT = Access()
PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@dataclass(frozen=True)
class Bundles:
    """One image, as two bundles."""

    verity: Path
    plain: Path
    other: Path  # a verity bundle of another image, as large as the first
    keyring: Keyring

    @property
    def size(self) -> int:
        """Bytes of the verity bundle."""
        return self.verity.stat().st_size


@dataclass
class Target:
    """The inactive slot of a device, and how that device reaches servers."""

    folder: Path
    keyring: Keyring
    link: LinkSettings = field(default_factory=lambda: LinkSettings(proxy="", stall_timeout=5.0))

    @property
    def slot(self) -> Path:
        return self.folder / "slot"

    @property
    def holds_the_image(self) -> bool:
        return self.slot.exists() and self.slot.read_bytes()[: len(IMAGE)] == IMAGE

    def install(
        self, url: str, *, access: Access = DEFAULT, on_bytes: Callable[[int], None] = lambda _: None
    ) -> Located:
        """Install from `url`; the reader, closed.  Raises UpdatedError."""
        return asyncio.run(self._install(url, access, on_bytes))

    async def _install(self, url: str, access: Access, on_bytes: Callable[[int], None]) -> Located:
        locations = Locations(self.link, self.folder / "data", spool_reserve=0)
        async with asyncio.timeout(50):  # nothing may hang
            located = await open_location(Offer("request", url, InstallArgs(), access), locations)
            try:
                await self._write(located, on_bytes)
            finally:
                await located.close()
        return located

    async def _write(self, located: Located, on_bytes: Callable[[int], None]) -> None:
        opened = await open_bundle(
            located, keyring=self.keyring, formats=("plain", "verity"), now=NOW, plain=located.plain
        )
        (image,) = opened.manifest.images
        writer = await asyncio.to_thread(self._open, image.size)
        try:
            await opened.write_image(image, writer, on_bytes=on_bytes)
        finally:
            await asyncio.to_thread(writer.close)
        await opened.prove()

    def _open(self, size: int):  # type: ignore[no-untyped-def]
        with self.slot.open("wb") as file:
            file.truncate(16 * MIB)
        return open_slot(Slot("rootfs.1", "rootfs", 1, str(self.slot)), image_size=size)


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    folder = tmp_path_factory.mktemp("bundles")
    cert, key = folder / "cert.pem", folder / "key.pem"
    openssl(
        *("req", "-x509", "-subj", "/CN=Vendor", "-days", "36500", "-nodes"),
        *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-keyout", key, "-out", cert),
    )

    def make(name: str, bundle_format: str, image: bytes) -> Path:
        content, bundle = folder / name, folder / f"{name}.raucb"
        content.mkdir()
        (content / "rootfs.img").write_bytes(image)
        (content / "manifest.raucm").write_text(
            "[update]\ncompatible=Test\nversion=3\n"
            f"[bundle]\nformat={bundle_format}\n[image.rootfs]\nfilename=rootfs.img\n"
        )
        authoring.create(content, bundle, certificate=cert.read_bytes(), key=key.read_bytes())
        return bundle

    other = random.Random(6).randbytes(6 * MIB) + IMAGE[6 * MIB :]
    return Bundles(
        make("verity", "verity", IMAGE),
        make("plain", "plain", IMAGE),
        make("other", "verity", other),
        Keyring.load([cert.read_bytes()], KeyringPolicy()),
    )


@pytest.fixture
def target(tmp_path: Path, bundles: Bundles, monkeypatch: pytest.MonkeyPatch) -> Target:
    for name in PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    folder = tmp_path / "device"
    folder.mkdir()
    return Target(folder, bundles.keyring)


Serve = Callable[..., Nginx]


@pytest.fixture
def serve(tmp_path: Path, bundles: Bundles) -> Iterator[Serve]:
    """`serve("directives of the server block", http=..., listen=...)`: nginx with both bundles."""
    with ExitStack() as stack:

        def start(server: str = "", *, name: str = "nginx", **more: Any) -> Nginx:
            running: AbstractContextManager[Nginx] = nginx(tmp_path / name, server, **more)
            found = stack.enter_context(running)
            for path in (bundles.verity, bundles.plain):
                (found.files / path.name).hardlink_to(path)
            return found

        yield start


@dataclass(frozen=True)
class Authority:
    """A root, an intermediate below it, a server at 127.0.0.1 and a client."""

    folder: Path

    def path(self, name: str) -> str:
        """root.pem, server.pem (with the intermediate), server.key, client.pem, client.key."""
        return str(self.folder / name)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    folder = tmp_path_factory.mktemp("tls")
    _issue(folder, "root", "", "basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign")
    _issue(folder, "middle", "root", "basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign")
    _issue(folder, "server", "middle", "subjectAltName=IP:127.0.0.1")
    _issue(folder, "elsewhere", "middle", "subjectAltName=DNS:elsewhere.example")
    _issue(folder, "client", "root", "extendedKeyUsage=clientAuth")
    _issue(folder, "stranger", "", "basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign")
    for name in ("server", "elsewhere"):
        with (folder / f"{name}.pem").open("ab") as chain:
            chain.write((folder / "middle.pem").read_bytes())
    return Authority(folder)


def openssl(*words: str | Path) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)


def _issue(folder: Path, name: str, issuer: str, extensions: str) -> None:
    key, request, config = (folder / f"{name}.{suffix}" for suffix in ("key", "csr", "ext"))
    openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-out", key)
    openssl("req", "-new", "-key", key, "-subj", f"/CN={name}", "-out", request)
    config.write_text(f"{extensions}\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n")
    signer: list[str | Path] = [
        "-CA",
        folder / f"{issuer}.pem",
        "-CAkey",
        folder / f"{issuer}.key",
        "-CAcreateserial",
    ]
    openssl(
        *("x509", "-req", "-in", request, "-days", "3650", "-extfile", config),
        *(signer if issuer else ["-signkey", key]),
        *("-out", folder / f"{name}.pem"),
    )
