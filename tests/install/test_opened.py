"""Opening bundles that the real rauc made: both formats, tampered in every part, and what may not be read."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import pytest
from blockbuster import blockbuster_ctx

from updated.bundle.trust import Keyring, KeyringPolicy
from updated.core.model import Slot
from updated.errors import BundleError, DeviceError, NotSupportedError, Refused, SignatureError, SourceError
from updated.install.opened import OpenedBundle, open_bundle
from updated.readers.file import FileReader, open_file
from updated.slots.raw import RawSlot, open_slot

T = TypeVar("T")
MakeBundle = Callable[..., Path]
NOW = datetime(2026, 12, 1, tzinfo=UTC)
FORMATS = ("plain", "verity")
IMAGE = random.Random(1).randbytes(700_000) + bytes(1 << 20) + b"text" * 50_000
FILES = {"rootfs.img": IMAGE, "boot.img": b"small" * 100, "hook.sh": b"#!/bin/sh\n"}
HOOK = "[hooks]\nfilename=hook.sh\nhooks=install-check\n"


@pytest.fixture
def keyring(signer: tuple[Path, Path]) -> Keyring:
    return Keyring.load([signer[0].read_bytes()], KeyringPolicy())


@pytest.fixture(params=FORMATS)
def bundle_format(request: pytest.FixtureRequest) -> str:
    assert isinstance(request.param, str)
    return request.param


@pytest.fixture
def bundle(bundle_format: str, make_bundle: MakeBundle) -> Path:
    return make_bundle(bundle_format, FILES, HOOK)


def opened(path: Path, keyring: Keyring, use: Callable[[OpenedBundle], Awaitable[T]], **options: object) -> T:
    """Open the bundle at `path` and run `use` on it."""
    settings = {"formats": FORMATS, "now": NOW, **options}

    async def main() -> T:
        reader = await open_file(str(path))
        try:
            return await use(await open_bundle(reader, keyring=keyring, **settings))  # type: ignore[arg-type]
        finally:
            await reader.close()

    return asyncio.run(main())


async def nothing(bundle: OpenedBundle) -> OpenedBundle:
    return bundle


def payload_size(bundle: Path) -> int:
    data = bundle.read_bytes()
    return len(data) - 8 - int.from_bytes(data[-8:], "big")


def flip(bundle: Path, offset: int) -> None:
    with bundle.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def test_manifest_chain_and_files(bundle: Path, bundle_format: str, keyring: Keyring) -> None:
    async def use(bundle: OpenedBundle) -> tuple[OpenedBundle, bytes]:
        return bundle, await bundle.read_file("hook.sh", 100)

    found, hook = opened(bundle, keyring, use)
    assert (found.manifest.format, found.manifest.compatible) == (bundle_format, "Test")
    assert {image.filename: image.size for image in found.manifest.images} == {
        "rootfs.img": len(IMAGE),
        "boot.img": 500,
    }
    assert found.chain.signer_cn == "signer"
    assert hook == FILES["hook.sh"]


def test_the_whole_way_into_a_slot(bundle: Path, keyring: Keyring, tmp_path: Path) -> None:
    target = tmp_path / "slot"
    target.write_bytes(os.urandom(2 << 20))

    async def use(bundle: OpenedBundle) -> None:
        image = next(image for image in bundle.manifest.images if image.filename == "rootfs.img")
        slot = open_slot(Slot("rootfs.1", "rootfs", 1, str(target)), image_size=image.size)
        seen: list[int] = []
        await bundle.write_image(image, slot, on_bytes=seen.append)
        slot.close()
        assert seen[-1] == image.size

    opened(bundle, keyring, use)
    assert target.read_bytes()[: len(IMAGE)] == IMAGE


def test_the_loop_is_never_blocked(bundle: Path, keyring: Keyring) -> None:
    async def use(bundle: OpenedBundle) -> None:
        for image in bundle.manifest.images:
            assert (await bundle.image_layout(image)).size == image.size

    with blockbuster_ctx():
        opened(bundle, keyring, use)


def test_the_step_is_reported(bundle: Path, keyring: Keyring) -> None:
    steps: list[str] = []

    @contextmanager
    def step(name: str) -> Iterator[None]:
        steps.append(name)
        yield
        steps.append(f"{name} done")

    opened(bundle, keyring, nothing, on_step=step)
    assert steps == ["Verifying signature", "Verifying signature done"]


def test_files_that_are_missing_too_large_or_no_files(bundle: Path, keyring: Keyring) -> None:
    async def use(bundle: OpenedBundle) -> list[str]:
        texts = []
        for name, limit in (("none", 100), ("hook.sh", 9), ("", 100)):
            with pytest.raises(BundleError) as caught:
                await bundle.read_file(name, limit)
            texts.append(str(caught.value))
        return texts

    assert opened(bundle, keyring, use) == [
        "File 'none' not found in bundle",
        "File 'hook.sh' in bundle has 10 bytes, expected at most 9",
        "'' in bundle is a directory, expected a regular file",
    ]


def test_format_that_is_not_allowed(bundle: Path, bundle_format: str, keyring: Keyring) -> None:
    with pytest.raises(Refused, match=f"^Bundle format '{bundle_format}' not allowed$") as caught:
        opened(bundle, keyring, nothing, formats={"crypt"})
    assert caught.value.rule == "bundle-formats"


def test_signature_larger_than_allowed(bundle: Path, keyring: Keyring) -> None:
    with pytest.raises(BundleError, match=r"exceeds max-bundle-signature-size \(100\)"):
        opened(bundle, keyring, nothing, max_signature_size=100)


def test_a_plain_payload_that_was_changed_is_not_what_was_signed(
    make_bundle: MakeBundle, keyring: Keyring
) -> None:
    bundle = make_bundle("plain", FILES, HOOK)
    for offset in (0, 200_000, payload_size(bundle) - 1):
        flip(bundle, offset)
        with pytest.raises(SignatureError, match="verification failure"):
            opened(bundle, keyring, nothing)
        flip(bundle, offset)
    opened(bundle, keyring, nothing)


def test_a_plain_payload_that_changes_after_it_was_verified(
    make_bundle: MakeBundle, keyring: Keyring, tmp_path: Path
) -> None:
    bundle = make_bundle("plain", FILES, HOOK)
    target = tmp_path / "slot"
    target.write_bytes(bytes(2 << 20))

    async def use(found: OpenedBundle) -> None:
        flip(bundle, 200_000)
        image = next(image for image in found.manifest.images if image.filename == "rootfs.img")
        slot = open_slot(Slot("rootfs.1", "rootfs", 1, str(target)), image_size=image.size)
        with pytest.raises(SourceError, match="bundle payload is corrupted"):
            await found.write_image(image, slot)
        slot.close()

    opened(bundle, keyring, use)
    assert target.read_bytes() == bytes(2 << 20)


def test_a_verity_payload_that_was_changed(make_bundle: MakeBundle, keyring: Keyring) -> None:
    bundle = make_bundle("verity", FILES, HOOK)
    tree = opened(bundle, keyring, nothing).payload.verifier.data_size

    async def use(bundle: OpenedBundle) -> None:
        await bundle.image_layout(bundle.manifest.images[0])

    for offset in (0, tree - 4096, tree, payload_size(bundle) - 4096):
        flip(bundle, offset)
        with pytest.raises(SourceError, match="bundle payload is corrupted"):
            opened(bundle, keyring, use)
        flip(bundle, offset)


@pytest.mark.parametrize("where", ["superblock", "directory", "tree"])
def test_bytes_that_were_only_cached_wrongly_do_no_harm(
    make_bundle: MakeBundle, keyring: Keyring, tmp_path: Path, where: str
) -> None:
    bundle = make_bundle("verity", {**FILES, "rootfs.img": random.Random(2).randbytes(600_000)}, HOOK)
    tree = opened(bundle, keyring, nothing).payload.verifier.data_size
    at = {"superblock": 5, "directory": tree - 4096, "tree": tree + 5}[where]

    class Poisoned(FileReader):
        poison = True

        async def read(self, offset: int, length: int) -> bytes:
            data = bytearray(await super().read(offset, length))
            if self.poison and offset <= at < offset + length:
                data[at - offset] ^= 1
            return bytes(data)

        def forget(self, offset: int, length: int) -> None:
            self.poison = self.poison and not offset <= at < offset + length

    async def main() -> bool:
        reader = Poisoned(os.open(bundle, os.O_RDONLY), str(bundle), bundle.stat().st_size)
        found = await open_bundle(reader, keyring=keyring, formats=FORMATS, now=NOW)
        assert await found.read_file("hook.sh", 100) == FILES["hook.sh"]
        await reader.close()
        return reader.poison

    assert not asyncio.run(main())


def test_info_on_a_verity_bundle_reads_only_its_end(make_bundle: MakeBundle, keyring: Keyring) -> None:
    bundle = make_bundle("verity", FILES, HOOK)

    class Counting(FileReader):
        given = 0

        async def read(self, offset: int, length: int) -> bytes:
            self.given += length
            return await super().read(offset, length)

    async def main() -> int:
        reader = Counting(os.open(bundle, os.O_RDONLY), str(bundle), bundle.stat().st_size)
        await open_bundle(reader, keyring=keyring, formats=FORMATS, now=NOW)
        await reader.close()
        return reader.given

    assert asyncio.run(main()) <= 80_000


def test_somebody_elses_key_comes_before_a_changed_payload(
    make_bundle: MakeBundle, tmp_path: Path, bundle_format: str
) -> None:
    bundle = make_bundle(bundle_format, FILES, HOOK)
    flip(bundle, 5000)
    other = tmp_path / "other.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=other"]
    subprocess.run(
        [*command, "-keyout", "/dev/null", "-out", str(other)], check=True, stderr=subprocess.DEVNULL
    )
    keyring = Keyring.load([other.read_bytes()], KeyringPolicy())
    with pytest.raises(SignatureError, match="Verify error: self-signed certificate"):
        opened(bundle, keyring, nothing)


def test_a_plain_payload_over_2_gib_is_refused_before_it_is_read(
    make_bundle: MakeBundle, keyring: Keyring, tmp_path: Path
) -> None:
    end = make_bundle("plain", FILES, HOOK).read_bytes()
    end = end[-8 - int.from_bytes(end[-8:], "big") :]
    large = tmp_path / "large.raucb"
    with large.open("wb") as file:
        file.seek(1 << 31)
        file.write(end)
    text = r"Bundle payload size 2147483648 exceeds maximum for bundles using plain format \(2 GiB\)"
    with pytest.raises(BundleError, match=text):
        opened(large, keyring, nothing)


def test_hash_tree_and_payload_that_do_not_belong_together(
    make_bundle: MakeBundle, keyring: Keyring, tmp_path: Path
) -> None:
    data = make_bundle("verity", FILES, HOOK).read_bytes()
    for middle, text in ((bytes(4096 * 200), "Hash tree of"), (bytes(5), "is not a multiple of 4KiB")):
        longer = tmp_path / "longer.raucb"
        cms = data[-8 - int.from_bytes(data[-8:], "big") :]
        longer.write_bytes(data[: -len(cms)] + middle + cms)
        with pytest.raises(BundleError, match=text):
            opened(longer, keyring, nothing)


def test_crypt_says_that_it_cannot(make_bundle: MakeBundle, keyring: Keyring) -> None:
    bundle = make_bundle("crypt", FILES, HOOK)
    with pytest.raises(NotSupportedError, match="Bundle format 'crypt' cannot be read yet"):
        opened(bundle, keyring, nothing, formats=("plain", "verity", "crypt"))


def test_an_encrypted_cms_says_that_it_cannot(
    make_bundle: MakeBundle, keyring: Keyring, signer: tuple[Path, Path], tmp_path: Path
) -> None:
    bundle = make_bundle("plain", FILES, HOOK)
    data = bundle.read_bytes()
    size = payload_size(bundle)
    (tmp_path / "cms").write_bytes(data[size:-8])
    wrapped = subprocess.run(
        [
            "openssl",
            "cms",
            "-encrypt",
            "-binary",
            "-outform",
            "DER",
            "-in",
            str(tmp_path / "cms"),
            str(signer[0]),
        ],
        check=True,
        capture_output=True,
    ).stdout
    bundle.write_bytes(data[:size] + wrapped + len(wrapped).to_bytes(8, "big"))
    with pytest.raises(NotSupportedError, match="Encrypted bundle detected"):
        opened(bundle, keyring, nothing)


@pytest.mark.parametrize("fault", ["sha256", "size", "missing"])
def test_a_manifest_that_promises_something_else(
    make_bundle: MakeBundle, keyring: Keyring, signer: tuple[Path, Path], tmp_path: Path, fault: str
) -> None:
    """A maker's mistake that the signature covers: the bundle is put together by hand."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "rootfs.img").write_bytes(IMAGE)
    digest = hashlib.sha256(IMAGE + b"x" * (fault == "sha256")).hexdigest()
    name = "gone.img" if fault == "missing" else "rootfs.img"
    (tree / "manifest.raucm").write_text(
        "[update]\ncompatible=Test\n[image.rootfs]\n"
        f"filename={name}\nsha256={digest}\nsize={len(IMAGE) + (fault == 'size')}\n"
    )
    bundle = tmp_path / "own.raucb"
    subprocess.run(["mksquashfs", str(tree), str(bundle), "-quiet", "-no-progress"], check=True)
    cert, key = signer
    sign = ["openssl", "cms", "-sign", "-binary", "-outform", "DER", "-nosmimecap", "-md", "sha256"]
    cms = subprocess.run(
        [*sign, "-in", str(bundle), "-signer", str(cert), "-inkey", str(key)], check=True, capture_output=True
    ).stdout
    with bundle.open("ab") as file:
        file.write(cms + len(cms).to_bytes(8, "big"))
    target = tmp_path / "slot"
    target.write_bytes(bytes(4 << 20))

    async def use(found: OpenedBundle) -> None:
        (image,) = found.manifest.images
        slot = open_slot(Slot("rootfs.1", "rootfs", 1, str(target)), image_size=image.size)
        try:
            await found.write_image(image, slot)
        finally:
            slot.close()

    text = {
        "sha256": f"has the SHA-256 {hashlib.sha256(IMAGE).hexdigest()}, but the manifest says {digest}",
        "size": f"has {len(IMAGE)} bytes in the bundle, but the manifest says {len(IMAGE) + 1}",
        "missing": "^Source image 'gone.img' not found in bundle$",
    }
    with pytest.raises(BundleError, match=text[fault]):
        opened(bundle, keyring, use)


class WornOut:
    """A `SlotWriter` in which the first byte never takes what is written."""

    def __init__(self, slot: RawSlot) -> None:
        self._slot = slot
        self.capacity = slot.capacity
        self.write = slot.write
        self.sync = slot.sync
        self.close = slot.close

    def read_back(self, offset: int, length: int) -> bytes:
        found = bytearray(self._slot.read_back(offset, length))
        if offset == 0:
            found[0] ^= 1
        return bytes(found)


def test_a_slot_that_holds_something_else_is_the_device_s_fault(
    bundle: Path, keyring: Keyring, tmp_path: Path
) -> None:
    target = tmp_path / "slot"
    target.write_bytes(bytes(4 << 20))

    async def use(found: OpenedBundle) -> None:
        image = next(image for image in found.manifest.images if image.filename == "rootfs.img")
        slot = open_slot(Slot("rootfs.1", "rootfs", 1, str(target)), image_size=image.size)
        try:
            await found.write_image(image, WornOut(slot))
        finally:
            slot.close()

    with pytest.raises(DeviceError, match="Slot holds other bytes than were written to it"):
        opened(bundle, keyring, use)
