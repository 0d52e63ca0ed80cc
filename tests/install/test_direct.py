"""Plain bundles that are streamed before they are proven: honest servers, and those that lie in any byte."""

from __future__ import annotations

import asyncio
import hashlib
import random
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from updated.authoring import bundle as authoring
from updated.bundle.chunks import CHUNK
from updated.bundle.plan import run
from updated.bundle.tail import read_tail
from updated.bundle.trust import Keyring, KeyringPolicy
from updated.core.model import Slot
from updated.errors import BundleError, Refused, SignatureError, SourceError, UpdatedError
from updated.install.direct import MAX_IMAGES, open_direct
from updated.install.opened import OpenedBundle, open_bundle
from updated.install.passing import PIECE
from updated.slots.raw import open_slot

MIB = 1 << 20
NOW = datetime(2026, 12, 1, tzinfo=UTC)
RANDOM = random.Random(3)
BOOT = RANDOM.randbytes(367 * 4096)
ROOT = RANDOM.randbytes(3 * MIB) + bytes(2 * MIB) + b"text" * 200_000 + RANDOM.randbytes(2_000_123)
SPARE = RANDOM.randbytes(2 * MIB + 77)
FILES = {"boot.img": BOOT, "rootfs.img": ROOT, "spare.img": SPARE}

Read = Callable[[int, int, bytes], bytes]


class Server:
    """A `Reader` of bytes that counts what it serves; `lie` may change the bytes of each read."""

    remote = True
    name = "http://server/bundle.raucb"

    def __init__(self, data: bytes, lie: Read = lambda offset, length, data: data) -> None:
        self._data = data
        self._lie = lie
        self.fetched = 0
        self.expected: list[tuple[int, int]] = []
        self.reads: list[tuple[int, int]] = []

    @property
    def size(self) -> int:
        return len(self._data)

    def expect(self, ranges: Iterable[tuple[int, int]]) -> None:
        self.expected = list(ranges)

    def forget(self, offset: int, length: int) -> None:
        raise AssertionError("nothing here is known to be bad")

    async def read(self, offset: int, length: int) -> bytes:
        await asyncio.sleep(0)
        self.reads.append((offset, length))
        data = self._lie(offset, length, self._data[offset : offset + length])
        if len(data) != length:
            raise SourceError(f"{length} bytes at {offset} cannot be had")
        self.fetched += length
        return data

    async def close(self) -> None:
        pass


@dataclass
class Kit:
    """Bundles of one signer, made when first asked for."""

    folder: Path
    cert: Path
    key: Path

    @property
    def keyring(self) -> Keyring:
        return Keyring.load([self.cert.read_bytes()], KeyringPolicy())

    def make(self, name: str, images: str, extra: str = "", args: tuple[str, ...] = ()) -> bytes:
        bundle = self.folder / f"{name}.raucb"
        if bundle.exists():
            return bundle.read_bytes()
        content = self.folder / name
        content.mkdir()
        for file, data in FILES.items():
            (content / file).write_bytes(data)
        (content / "hook.sh").write_text("#!/bin/sh\n")
        (content / "manifest.raucm").write_text(
            f"[update]\ncompatible=Test\nversion=2\n[bundle]\nformat=plain\n{extra}{images}"
        )
        authoring.create(
            content,
            bundle,
            certificate=self.cert.read_bytes(),
            key=self.key.read_bytes(),
            mksquashfs_args=args,
        )
        return bundle.read_bytes()

    def make_as_it_is(self, images: str) -> bytes:
        """A bundle of nothing but a manifest, which no author would complete; signed by openssl."""
        content, payload = self.folder / "raw", self.folder / "raw.squashfs"
        content.mkdir()
        (content / "manifest.raucm").write_text(f"[update]\ncompatible=Test\n{images}")
        subprocess.run(["mksquashfs", str(content), str(payload), "-quiet", "-no-progress"], check=True)
        sign = ["openssl", "cms", "-sign", "-binary", "-outform", "DER", "-nosmimecap", "-md", "sha256"]
        signer = ["-in", str(payload), "-signer", str(self.cert), "-inkey", str(self.key)]
        cms = subprocess.run([*sign, *signer], check=True, capture_output=True).stdout
        return payload.read_bytes() + cms + len(cms).to_bytes(8, "big")


IMAGES = "[image.rootfs]\nfilename=rootfs.img\n[image.boot]\nfilename=boot.img\nadaptive=block-hash-index\n"


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory, signer: tuple[Path, Path]) -> Kit:
    return Kit(tmp_path_factory.mktemp("direct"), *signer)


@pytest.fixture(scope="module")
def plain(kit: Kit) -> bytes:
    return kit.make("plain", IMAGES)


def payload_size(bundle: bytes) -> int:
    return len(bundle) - 8 - int.from_bytes(bundle[-8:], "big")


async def install(server: Server, keyring: Keyring, folder: Path) -> OpenedBundle:
    """As the installer does it: every image, then the proof; the end of it is the activation."""
    opened = await open_bundle(server, keyring=keyring, formats=["plain"], now=NOW, plain=open_direct)
    assert not opened.proven
    for image in opened.manifest.images:
        target = folder / f"slot-{image.slot_class}"
        with target.open("wb") as file:
            file.truncate(12 * MIB)
        slot = open_slot(Slot(image.slot_class, image.slot_class, 0, str(target)), image_size=image.size)
        try:
            await opened.write_image(image, slot, workers=2)
        finally:
            slot.close()
    await opened.prove()
    return opened


def test_images_arrive_and_the_bundle_comes_over_the_wire_once(
    plain: bytes, kit: Kit, tmp_path: Path
) -> None:
    server = Server(plain)
    opened = asyncio.run(install(server, kit.keyring, tmp_path))
    assert opened.manifest.version == "2"
    assert opened.chain.signer_cn == "signer"
    assert (tmp_path / "slot-rootfs").read_bytes()[: len(ROOT)] == ROOT
    assert (tmp_path / "slot-boot").read_bytes()[: len(BOOT)] == BOOT
    # Beside the payload: the tail, superblock and tables, and the last chunk of each image and fragment.
    assert server.fetched <= len(plain) + 12 * CHUNK
    # In one stream, as it was announced: what is read apart does not come between.
    stream = [(at, min(PIECE, payload_size(plain) - at)) for at in range(0, payload_size(plain), PIECE)]
    assert server.expected == stream
    assert [one for one in server.reads if one in stream] == stream


def test_images_are_told_in_the_order_in_which_they_pass(plain: bytes, kit: Kit) -> None:
    async def main() -> OpenedBundle:
        keyring = kit.keyring
        return await open_bundle(
            Server(plain), keyring=keyring, formats=["plain"], now=NOW, plain=open_direct
        )

    images = asyncio.run(main()).manifest.images
    assert [image.slot_class for image in images] == ["boot", "rootfs"]
    assert not any(image.adaptive for image in images)  # all of it passes in any case


@pytest.mark.parametrize("args", [("-no-fragments",), ("-always-use-fragments",), ("-b", "4096")], ids=str)
def test_other_ways_to_lay_out_a_bundle(kit: Kit, tmp_path: Path, args: tuple[str, ...]) -> None:
    bundle = kit.make("".join(args), IMAGES, args=args)
    server = Server(bundle)
    asyncio.run(install(server, kit.keyring, tmp_path))
    assert (tmp_path / "slot-rootfs").read_bytes()[: len(ROOT)] == ROOT
    assert server.fetched <= len(bundle) + 16 * CHUNK


def test_an_image_that_lies_behind_is_fetched_again_and_still_proven(
    plain: bytes, kit: Kit, tmp_path: Path
) -> None:
    async def main(server: Server) -> None:
        keyring = kit.keyring
        opened = await open_bundle(server, keyring=keyring, formats=["plain"], now=NOW, plain=open_direct)
        for image in reversed(opened.manifest.images):
            target = tmp_path / image.slot_class
            target.write_bytes(bytes(12 * MIB))
            slot = open_slot(Slot("slot", "slot", 0, str(target)), image_size=image.size)
            await opened.write_image(image, slot)
            slot.close()
        await opened.prove()

    asyncio.run(main(Server(plain)))
    assert (tmp_path / "boot").read_bytes()[: len(BOOT)] == BOOT
    assert (tmp_path / "rootfs").read_bytes()[: len(ROOT)] == ROOT

    place = plain.index(BOOT[MIB // 2 : MIB // 2 + 100])
    served = 0

    def other_bytes_later(offset: int, length: int, data: bytes) -> bytes:
        nonlocal served
        if not offset <= place < offset + length:
            return data
        served += 1
        return data if served == 1 else _flipped(data, place - offset)

    with pytest.raises(SourceError, match="changed while it was read"):
        asyncio.run(main(Server(plain, other_bytes_later)))
    assert served == 2


def _flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def _attempt(server: Server, kit: Kit, folder: Path) -> UpdatedError:
    """The error with which it ends; there must be one, and one of ours that says that the bytes are bad."""
    with pytest.raises((BundleError, SourceError)) as caught:
        asyncio.run(install(server, kit.keyring, folder))
    return caught.value


def test_one_wrong_byte_anywhere(plain: bytes, kit: Kit, tmp_path: Path) -> None:
    end = payload_size(plain)
    unused = plain.index(SPARE[MIB : MIB + 100])  # an image that nobody wants
    for place in (*(RANDOM.randrange(end) for _ in range(12)), unused, 0, 95, end - 1, end - 5000):
        error = _attempt(Server(_flipped(plain, place)), kit, tmp_path)
        if place == unused:
            assert isinstance(error, SignatureError)
            assert "verification failure" in str(error)


def test_a_wrong_byte_in_the_padding(plain: bytes, kit: Kit, tmp_path: Path) -> None:
    used = int.from_bytes(plain[40:48], "little")
    assert used < payload_size(plain)
    assert not any(plain[used : payload_size(plain)])
    error = _attempt(Server(_flipped(plain, payload_size(plain) - 1)), kit, tmp_path)
    assert isinstance(error, SignatureError)


def test_any_signature_byte(plain: bytes, kit: Kit, tmp_path: Path) -> None:
    end = payload_size(plain)
    for place in (*range(end, len(plain) - 8, 97), len(plain) - 8, len(plain) - 1):
        _attempt(Server(_flipped(plain, place)), kit, tmp_path)


def test_a_payload_that_somebody_else_made(plain: bytes, kit: Kit, tmp_path: Path) -> None:
    """Consistent in itself, every hash of its manifest right: only the signature tells."""
    other = kit.make("other", IMAGES, "[meta.evil]\nkey=value\n")
    forged = other[: payload_size(other)] + plain[payload_size(plain) :]
    error = _attempt(Server(forged), kit, tmp_path)
    assert isinstance(error, SignatureError)
    assert (tmp_path / "slot-rootfs").read_bytes()[: len(ROOT)] == ROOT  # written, and never made primary


@pytest.mark.parametrize("first", ["forged", "signed"])
def test_a_manifest_that_is_swapped_between_two_reads(
    plain: bytes, kit: Kit, tmp_path: Path, first: str
) -> None:
    """Metadata of one payload, the pass of another."""
    other = kit.make("other", IMAGES, "[meta.evil]\nkey=value\n")
    forged = other[: payload_size(other)] + plain[payload_size(plain) :]
    assert len(forged) == len(plain)
    begin, later = (forged, plain) if first == "forged" else (plain, forged)

    def swap(offset: int, length: int, data: bytes) -> bytes:
        in_pass = offset % PIECE == 0 and length == min(PIECE, payload_size(plain) - offset)
        return (later if in_pass else begin)[offset : offset + length]

    error = _attempt(Server(plain, swap), kit, tmp_path)
    assert "changed while it was read" in str(error)


def test_a_server_that_serves_other_bytes_each_time(plain: bytes, kit: Kit, tmp_path: Path) -> None:
    times: dict[int, int] = {}

    def differ(offset: int, length: int, data: bytes) -> bytes:
        for chunk in range(offset // CHUNK, -(-(offset + length) // CHUNK)):
            times[chunk] = times.get(chunk, 0) + 1
            if times[chunk] == 2 and offset <= chunk * CHUNK + 90 < offset + length:
                return _flipped(data, chunk * CHUNK + 90 - offset)
        return data

    error = _attempt(Server(plain, differ), kit, tmp_path)
    assert "changed while it was read" in str(error)


def test_a_bundle_that_ends_early(plain: bytes, kit: Kit, tmp_path: Path) -> None:
    def stop(offset: int, length: int, data: bytes) -> bytes:
        return b"" if 4 * MIB < offset + length < payload_size(plain) - 200_000 else data

    assert isinstance(_attempt(Server(plain, stop), kit, tmp_path), SourceError)


def test_what_would_run_unverified_is_refused(kit: Kit) -> None:
    hook = "[hooks]\nfilename=hook.sh\n"
    extras = {
        "install-check": f"{hook}hooks=install-check\n",
        "hook-file": hook,
        "handler": "[handler]\nfilename=hook.sh\n",
    }
    for name, extra in extras.items():
        server = Server(kit.make(name, IMAGES, extra))
        with pytest.raises(Refused, match="A plain bundle with hooks or a handler is not streamed") as caught:
            asyncio.run(
                open_bundle(server, keyring=kit.keyring, formats=["plain"], now=NOW, plain=open_direct)
            )
        assert caught.value.rule == "plain-over-http"
        assert server.fetched < MIB


def test_a_manifest_that_keeps_us_busy_is_refused(kit: Kit) -> None:
    variants = "".join(
        f"[image.rootfs.v{number}]\nfilename=image{number}.img\nsize=1\nsha256={number:064x}\n"
        for number in range(MAX_IMAGES + 1)
    )
    server = Server(kit.make_as_it_is(variants))
    with pytest.raises(Refused, match=f"with {MAX_IMAGES + 1} images is not streamed") as caught:
        asyncio.run(open_bundle(server, keyring=kit.keyring, formats=["plain"], now=NOW, plain=open_direct))
    assert caught.value.rule == "plain-over-http"


def test_a_read_that_is_cancelled_does_not_break_the_proof(plain: bytes, kit: Kit) -> None:
    async def main() -> None:
        keyring = kit.keyring
        server = Server(plain)
        opened = await open_bundle(server, keyring=keyring, formats=["plain"], now=NOW, plain=open_direct)
        for image in opened.manifest.images:
            layout = await opened.image_layout(image)
            for turns in range(1, 9):
                reading = asyncio.create_task(opened.payload.reader.read(layout.start, PIECE))
                for _ in range(turns):
                    await asyncio.sleep(0)
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
        await opened.prove()
        await opened.prove()

    asyncio.run(main())


def test_a_proof_that_failed_fails_again(plain: bytes, kit: Kit) -> None:
    data = _flipped(plain, plain.index(SPARE[MIB : MIB + 100]))

    async def main() -> None:
        opened = await open_bundle(
            Server(data), keyring=kit.keyring, formats=["plain"], now=NOW, plain=open_direct
        )
        for _ in range(2):
            with pytest.raises(SignatureError):
                await opened.prove()

    asyncio.run(main())


def test_ranges_outside_of_the_payload(plain: bytes, kit: Kit) -> None:
    async def main() -> None:
        opened = await open_bundle(
            Server(plain), keyring=kit.keyring, formats=["plain"], now=NOW, plain=open_direct
        )
        reader = opened.payload.reader
        for offset, length in ((-1, 5), (payload_size(plain) - 1, 2), (0, -1), (payload_size(plain), 1)):
            with pytest.raises(BundleError, match="bytes, but bytes"):
                await reader.read(offset, length)
        end = payload_size(plain) - 3
        assert await reader.read(end, 3) == plain[end : end + 3]
        assert await reader.read(5, 0) == b""

    asyncio.run(main())


def test_a_verity_bundle_has_nothing_left_to_prove(
    kit: Kit, tmp_path: Path, signer: tuple[Path, Path]
) -> None:
    (tmp_path / "content").mkdir()
    (tmp_path / "content" / "rootfs.img").write_bytes(BOOT)
    (tmp_path / "content" / "manifest.raucm").write_text(
        "[update]\ncompatible=Test\n[bundle]\nformat=verity\n[image.rootfs]\nfilename=rootfs.img\n"
    )
    cert, key = (path.read_bytes() for path in signer)
    bundle = tmp_path / "verity.raucb"
    authoring.create(tmp_path / "content", bundle, certificate=cert, key=key)

    async def main() -> None:
        server = Server(bundle.read_bytes())
        opened = await open_bundle(
            server, keyring=kit.keyring, formats=["verity"], now=NOW, plain=open_direct
        )
        assert opened.proven
        before = server.fetched
        await opened.prove()
        assert server.fetched == before

    asyncio.run(main())


def test_somebody_elses_signature_is_refused_before_the_payload_is_read(plain: bytes, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=other"]
    subprocess.run(
        [*command, "-keyout", "/dev/null", "-out", str(other)], check=True, stderr=subprocess.DEVNULL
    )
    keyring = Keyring.load([other.read_bytes()], KeyringPolicy())
    server = Server(plain)
    with pytest.raises(SignatureError, match="Verify error"):
        asyncio.run(open_bundle(server, keyring=keyring, formats=["plain"], now=NOW, plain=open_direct))
    assert server.fetched < 2 * CHUNK


def test_the_tail_of_the_test_bundle_is_detached(plain: bytes) -> None:
    """What these tests are about: the digest of the payload is all that the signature says."""

    async def main() -> int:
        return (await run(read_tail(len(plain)), Server(plain).read)).payload_size

    size = asyncio.run(main())
    assert size == payload_size(plain)
    assert hashlib.sha256(plain[:size]).digest() in plain[size:]
