"""One door for paths, servers with ranges and servers without: real bundles, a real HTTP client."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import pytest
from blockbuster import blockbuster_ctx

from tests.fakes.web import Fault, Server
from updated.authoring import bundle as authoring
from updated.bundle.trust import Keyring, KeyringPolicy
from updated.core.link import LinkSettings, is_url, without_credentials
from updated.core.model import Access, Expected, InstallArgs, Offer, Reader, Slot
from updated.errors import (
    BundleError,
    DeviceError,
    NotSupportedError,
    Refused,
    SignatureError,
    SourceError,
    UpdatedError,
)
from updated.install.location import Located, Locations, Plain, Spooling, open_location
from updated.install.opened import OpenedBundle, open_bundle
from updated.readers.http import shown
from updated.slots.raw import open_slot

T = TypeVar("T")
MIB = 1 << 20
NOW = datetime(2026, 12, 1, tzinfo=UTC)
IMAGE = random.Random(11).randbytes(3 * MIB) + bytes(MIB) + b"words " * 40_000
NO_RANGES = {"/b.raucb": [Fault(ranges=False)]}


@dataclass
class Bundles:
    plain: bytes
    verity: bytes
    keyring: Keyring


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory, signer: tuple[Path, Path]) -> Bundles:
    folder = tmp_path_factory.mktemp("bundles")
    cert, key = (path.read_bytes() for path in signer)
    made = {}
    for bundle_format in ("plain", "verity"):
        content = folder / bundle_format
        content.mkdir()
        (content / "rootfs.img").write_bytes(IMAGE)
        (content / "manifest.raucm").write_text(
            "[update]\ncompatible=Test\nversion=3\n"
            f"[bundle]\nformat={bundle_format}\n[image.rootfs]\nfilename=rootfs.img\n"
        )
        bundle = folder / f"{bundle_format}.raucb"
        authoring.create(content, bundle, certificate=cert, key=key)
        made[bundle_format] = bundle.read_bytes()
    return Bundles(made["plain"], made["verity"], Keyring.load([cert], KeyringPolicy()))


@pytest.fixture
def locations(tmp_path: Path) -> Locations:
    return Locations(LinkSettings(proxy="", stall_timeout=5.0), tmp_path / "data", spool_reserve=0)


def offer(location: str, **more: object) -> Offer:
    return Offer("request", location, **more)  # type: ignore[arg-type]


class Watched:
    """What the service puts around a reader."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.expect = reader.expect
        self.forget = reader.forget
        self.close = reader.close
        self.moved = 0

    @property
    def size(self) -> int:
        return self._reader.size

    @property
    def name(self) -> str:
        return self._reader.name

    @property
    def remote(self) -> bool:
        return self._reader.remote

    @property
    def fetched(self) -> int:
        return self._reader.fetched

    async def read(self, offset: int, length: int) -> bytes:
        self.moved += 1
        return await self._reader.read(offset, length)


async def install(
    located: Located, bundles: Bundles, target: Path, formats: Iterable[str] = ("plain", "verity")
) -> OpenedBundle:
    watched = Watched(located)
    opened = await open_bundle(
        watched, keyring=bundles.keyring, formats=tuple(formats), now=NOW, plain=located.plain
    )
    (image,) = opened.manifest.images
    slot = await asyncio.to_thread(_slot, target, image.size)
    try:
        await opened.write_image(image, slot)
    finally:
        await asyncio.to_thread(slot.close)
    await opened.prove()
    assert watched.moved
    return opened


def _slot(target: Path, size: int):  # type: ignore[no-untyped-def]
    with target.open("wb") as file:
        file.truncate(8 * MIB)
    return open_slot(Slot("rootfs.1", "rootfs", 1, str(target)), image_size=size)


def with_server(server: Server, use: Callable[[], Awaitable[T]]) -> T:
    async def main() -> T:
        async with server:
            return await use()

    return asyncio.run(main())


def spooled(locations: Locations) -> list[str]:
    return sorted(os.listdir(locations.spool)) if locations.spool.exists() else []  # noqa: PTH208


# Which door


def test_what_is_a_url() -> None:
    assert all(map(is_url, ("http://a/b", "https://a/b", "HTTPS://a")))
    assert not any(map(is_url, ("/http://a", "http:/a", "ftp://a/b", "file:///a", "", "b.raucb", "https")))


def test_a_path(bundles: Bundles, locations: Locations, tmp_path: Path) -> None:
    path = tmp_path / "b.raucb"
    path.write_bytes(bundles.plain)

    async def main() -> None:
        located = await open_location(offer(str(path)), replace(locations, plain="refuse"))
        assert (located.size, located.name, located.remote) == (len(bundles.plain), str(path), False)
        assert (await install(located, bundles, tmp_path / "slot")).proven
        await located.close()
        await located.close()

    asyncio.run(main())
    assert (tmp_path / "slot").read_bytes()[: len(IMAGE)] == IMAGE
    assert not locations.data_directory.exists()


def test_only_a_person_may_name_a_link(bundles: Bundles, locations: Locations, tmp_path: Path) -> None:
    (tmp_path / "b.raucb").write_bytes(bundles.plain)
    link = tmp_path / "link.raucb"
    link.symlink_to(tmp_path / "b.raucb")

    async def main() -> None:
        await (await open_location(offer(str(link)), locations)).close()
        for source in ("folder", "usb"):
            with pytest.raises(SourceError, match="Failed to open bundle for reading"):
                await open_location(Offer(source, str(link)), locations)

    asyncio.run(main())


@pytest.mark.parametrize("scheme", ["file", "ftp", "sftp"])
def test_urls_that_are_none_of_ours(locations: Locations, tmp_path: Path, scheme: str) -> None:
    async def main() -> None:
        with pytest.raises(NotSupportedError, match=rf"\({scheme} URLs are not supported\)") as caught:
            await open_location(offer(f"{scheme}://{tmp_path}/b.raucb"), locations)
        assert "Use a path" in caught.value.hint

    asyncio.run(main())


def test_a_path_that_looks_like_a_url(
    bundles: Bundles, locations: Locations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RAUC takes all that is not http for a path."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file:").mkdir()
    (tmp_path / "file:" / "b.raucb").write_bytes(bundles.verity)

    async def main() -> int:
        located = await open_location(offer("file://b.raucb"), locations)
        await located.close()
        return located.size

    assert asyncio.run(main()) == len(bundles.verity)


# Servers


def test_verity_streams_and_nothing_touches_the_disk(
    bundles: Bundles, locations: Locations, tmp_path: Path
) -> None:
    server = Server({"/b.raucb": bundles.verity})

    async def use() -> None:
        url = server.url("/b.raucb")
        located = await open_location(offer(url), locations, headers={"RAUC-Serial": "12"})
        assert (located.remote, located.name) == (True, shown(url))
        assert (await install(located, bundles, tmp_path / "slot")).proven
        assert located.fetched >= server.sent["/b.raucb"] - MIB
        await located.close()

    with_server(server, use)
    assert (tmp_path / "slot").read_bytes()[: len(IMAGE)] == IMAGE
    assert server.requests[0].headers["rauc-serial"] == "12"
    assert not locations.data_directory.exists()


def test_a_server_without_ranges_is_spooled(bundles: Bundles, locations: Locations, tmp_path: Path) -> None:
    for data in (bundles.verity, bundles.plain):
        server = Server({"/b.raucb": data}, NO_RANGES)
        moved: list[None] = []

        async def use(server: Server = server, size: int = len(data), moved: list[None] = moved) -> None:
            located = await open_location(
                offer(server.url("/b.raucb")), locations, spooling=Spooling(lambda: moved.append(None))
            )
            assert not located.remote
            assert located.fetched == size
            assert (await install(located, bundles, tmp_path / "slot")).proven
            await located.close()

        with_server(server, use)
        assert (tmp_path / "slot").read_bytes()[: len(IMAGE)] == IMAGE
        assert moved
        assert spooled(locations) == []
        assert [request.headers.get("range") for request in server.requests] == ["bytes=-65544", None]


def test_plain_is_spooled_before_it_is_hashed(bundles: Bundles, locations: Locations, tmp_path: Path) -> None:
    server = Server({"/b.raucb": bundles.plain})

    async def use() -> None:
        located = await open_location(offer(server.url("/b.raucb")), locations)
        assert located.remote
        opened = await install(located, bundles, tmp_path / "slot")
        assert opened.proven
        assert not located.remote
        assert located.fetched == server.sent["/b.raucb"]
        assert len(await asyncio.to_thread(spooled, locations)) == 2
        await located.close()

    with blockbuster_ctx():
        with_server(server, use)
    assert (tmp_path / "slot").read_bytes()[: len(IMAGE)] == IMAGE
    assert server.sent["/b.raucb"] <= len(bundles.plain) + 70_000
    assert spooled(locations) == []


def test_plain_is_streamed_directly(bundles: Bundles, locations: Locations, tmp_path: Path) -> None:
    server = Server({"/b.raucb": bundles.plain})

    async def use() -> None:
        located = await open_location(offer(server.url("/b.raucb")), replace(locations, plain="direct"))
        opened = await install(located, bundles, tmp_path / "slot")
        assert not opened.proven
        assert located.remote
        await located.close()

    with blockbuster_ctx():
        with_server(server, use)
    assert (tmp_path / "slot").read_bytes()[: len(IMAGE)] == IMAGE
    assert server.sent["/b.raucb"] <= 1.25 * len(bundles.plain)  # what was on its way when a table was read
    assert not locations.data_directory.exists()


@pytest.mark.parametrize("ranges", [True, False])
def test_plain_is_refused(bundles: Bundles, locations: Locations, ranges: bool) -> None:
    server = Server({"/b.raucb": bundles.plain}, {} if ranges else NO_RANGES)

    async def use() -> None:
        located = await open_location(offer(server.url("/b.raucb")), replace(locations, plain="refuse"))
        with pytest.raises(Refused, match="Bundle format 'plain' not supported in streaming mode") as caught:
            await open_bundle(
                located, keyring=bundles.keyring, formats=["plain"], now=NOW, plain=located.plain
            )
        assert caught.value.rule == "plain-over-http"
        await located.close()

    with_server(server, use)
    assert spooled(locations) == []


@pytest.mark.parametrize("plain", ["spool", "direct"])
def test_a_changed_payload_is_never_proven(
    bundles: Bundles, locations: Locations, tmp_path: Path, plain: Plain
) -> None:
    data = bytearray(bundles.plain)
    data[-len(bundles.plain) // 2] ^= 1
    server = Server({"/b.raucb": bytes(data)})

    async def use() -> None:
        located = await open_location(offer(server.url("/b.raucb")), replace(locations, plain=plain))
        with pytest.raises(SignatureError if plain == "spool" else BundleError):
            await install(located, bundles, tmp_path / "slot")
        await located.close()

    with_server(server, use)
    assert spooled(locations) == []


def test_an_object_that_changes_between_tail_and_spool(
    bundles: Bundles, locations: Locations, tmp_path: Path
) -> None:
    other = bundles.plain + bytes(4096)
    server = Server({"/b.raucb": bundles.plain}, {"/b.raucb": [Fault(first=2, content=other)]})

    async def use() -> None:
        located = await open_location(offer(server.url("/b.raucb")), locations)
        with pytest.raises(SourceError, match="changed while it was read"):
            await install(located, bundles, tmp_path / "slot")
        await located.close()

    with_server(server, use)
    assert spooled(locations) == []


# A spool that is wanted again


def test_a_broken_download_goes_on_with_the_next_attempt(
    bundles: Bundles, locations: Locations, tmp_path: Path
) -> None:
    cut = 2 * MIB + MIB // 2
    # Request 1 is the tail, 2 the download that breaks; then nothing works until the next attempt.
    faults = [Fault(first=2, last=2, cut=cut), Fault(first=3, last=3, status=404)]
    server = Server({"/b.raucb": bundles.plain}, {"/b.raucb": faults})

    async def use() -> None:
        url = server.url("/b.raucb")
        located = await open_location(offer(url), locations)
        with pytest.raises(SourceError):
            await install(located, bundles, tmp_path / "slot")
        await located.close()
        assert len(spooled(locations)) == 2
        before = server.sent["/b.raucb"]
        located = await open_location(offer(url), locations)
        await install(located, bundles, tmp_path / "slot")
        await located.close()
        assert server.sent["/b.raucb"] - before <= len(bundles.plain) - 2 * MIB + 70_000

    with_server(server, use)
    assert (tmp_path / "slot").read_bytes()[: len(IMAGE)] == IMAGE
    assert spooled(locations) == []


@pytest.mark.parametrize("faults", [{}, NO_RANGES])
def test_what_is_kept_is_not_fetched_again(
    bundles: Bundles, locations: Locations, tmp_path: Path, faults: dict[str, list[Fault]]
) -> None:
    server = Server({"/b.raucb": bundles.plain}, faults)

    async def use() -> None:
        for attempt in (1, 2):
            located = await open_location(offer(server.url("/b.raucb")), locations)
            before = located.fetched
            await install(located, bundles, tmp_path / "slot")
            if attempt == 1:
                located.keep_for_retry()
            else:
                assert located.fetched == before  # the tail
            await located.close()

    with_server(server, use)
    assert server.counts["/b.raucb"] == 3  # the end, the whole, and the end again
    assert spooled(locations) == []


def test_no_room_to_spool(bundles: Bundles, locations: Locations) -> None:
    server = Server({"/b.raucb": bundles.plain}, NO_RANGES)

    async def use() -> None:
        with pytest.raises(DeviceError, match="No space to spool the bundle"):
            await open_location(offer(server.url("/b.raucb")), replace(locations, spool_reserve=1 << 60))

    with_server(server, use)
    assert spooled(locations) == []


# What an index says


def test_an_index_that_says_something_else(bundles: Bundles, locations: Locations) -> None:
    good = Expected(size=len(bundles.plain), sha256=hashlib.sha256(bundles.plain).hexdigest())
    wrong = (
        replace(good, size=5),
        replace(good, etag='"another"'),
        replace(good, sha256="00" * 32),
    )
    for faults in ({}, NO_RANGES):
        server = Server({"/b.raucb": bundles.plain}, faults)

        async def use(server: Server = server) -> None:
            url = server.url("/b.raucb")
            for expected in (good, *wrong):
                error: UpdatedError | None = None
                try:
                    located = await open_location(offer(url, expected=expected), locations)
                    try:
                        await open_bundle(
                            located, keyring=bundles.keyring, formats=["plain"], now=NOW, plain=located.plain
                        )
                    finally:
                        await located.close()
                except UpdatedError as caught:
                    error = caught
                assert (error is None) == (expected == good)
                assert error is None or isinstance(error, SourceError)
                assert spooled(locations) == []

        with_server(server, use)


# Who asks


def test_access_holds_for_one_offer(bundles: Bundles, locations: Locations) -> None:
    server = Server({"/b.raucb": bundles.verity})

    async def use() -> None:
        settings = replace(locations, link=replace(locations.link, headers=(("X-One", "1"), ("X-Two", "2"))))
        access = Access(headers=("X-Two: other", "X-Three: 3"))
        for one in (offer(server.url("/b.raucb"), access=access), offer(server.url("/b.raucb"))):
            await (await open_location(one, settings)).close()

    with_server(server, use)
    first, second = (request.headers for request in server.requests)
    assert [first.get(f"x-{name}") for name in ("one", "two", "three")] == ["1", "other", "3"]
    assert [second.get(f"x-{name}") for name in ("one", "two", "three")] == ["1", "2", None]


@pytest.mark.parametrize(("source", "told"), [("request", True), ("ota", False)])
def test_an_index_does_not_lead_credentials_to_another_server(
    bundles: Bundles, locations: Locations, source: str, told: bool
) -> None:
    async def scenario() -> None:
        async with Server({"/b.raucb": bundles.verity}) as server:
            link = replace(locations.link, bearer="hush", headers=(("X-Device", "7"),))
            elsewhere = replace(locations, link=link, trusted="http://index.example/manifest.json")
            at_home = replace(elsewhere, trusted=server.url("/manifest.json"))
            for one, expected in ((elsewhere, told), (at_home, True)):
                offered = Offer(source, server.url("/b.raucb"))
                reader = await open_location(offered, one, headers={"RAUC-Machine-ID": "m"})
                await reader.close()
                headers = {name.lower() for name in server.requests[-1].headers}
                assert ({"authorization", "x-device", "rauc-machine-id"} <= headers) == expected
                assert ({"authorization", "x-device", "rauc-machine-id"} & headers != set()) == expected

    asyncio.run(scenario())


@pytest.mark.parametrize(("source", "told"), [("request", True), ("ota", False)])
def test_an_index_does_not_lead_netrc_to_a_server_that_proves_nothing(
    bundles: Bundles, locations: Locations, tmp_path: Path, source: str, told: bool
) -> None:
    """Whoever changes an index on the way could name any host of the file, with http://."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login anna password hush\n")

    async def scenario() -> None:
        async with Server({"/b.raucb": bundles.verity}) as server:
            link = replace(locations.link, netrc=str(netrc))
            elsewhere = replace(locations, link=link, trusted="http://index.example/manifest.json")
            await (await open_location(Offer(source, server.url("/b.raucb")), elsewhere)).close()
            assert ("authorization" in server.requests[-1].headers) == told
            assert without_credentials(link, "https://127.0.0.1/b.raucb").netrc == str(netrc)

    asyncio.run(scenario())


def test_a_token_in_a_pkcs11_module(locations: Locations) -> None:
    access = Access(tls_key="pkcs11:token=x")
    with pytest.raises(NotSupportedError, match="tls-key is a PKCS#11 URL"):
        asyncio.run(open_location(offer("https://localhost:1/b.raucb", access=access), locations))


def test_a_server_that_is_not_there_leaves_nothing_open(locations: Locations) -> None:
    async def main() -> None:
        with pytest.raises(SourceError):
            await open_location(
                Offer("ota", "http://127.0.0.1:9/b.raucb?token=secret", InstallArgs()), locations
            )

    asyncio.run(main())
