"""Every format, compression and kind of key, made by the real rauc and by us, read by each other."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from updated.authoring.bundle import create
from updated.config.sections import Keyring
from updated.core.model import Slot
from updated.install.keyring import load_keyring
from updated.install.opened import open_bundle
from updated.readers.file import open_file
from updated.slots.raw import open_slot

FORMATS = ("plain", "verity")
COMPRESSIONS = ("gzip", "xz", "zstd", "lz4", "lzo")
KEYS = {
    "rsa2048": ("-newkey", "rsa:2048"),
    "rsa4096": ("-newkey", "rsa:4096"),
    "p256": ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
    "p384": ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"),
    "p521": ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-521"),
    "ed25519": ("-newkey", "ed25519"),
}
EVERYWHERE = ("rsa2048", "p256", "p384", "p521")
CASES = [
    *itertools.product(("rauc", "updated"), FORMATS, COMPRESSIONS, EVERYWHERE),
    ("rauc", "verity", "gzip", "rsa4096"),
    ("updated", "plain", "gzip", "rsa4096"),
    # No RAUC signs or verifies with Ed25519 yet.
    *itertools.product(("updated",), FORMATS, COMPRESSIONS, ("ed25519",)),
]
MANIFEST = """\
[update]
compatible=Matrix
version=1.0

[bundle]
format={format}

[image.rootfs]
filename=rootfs.img
"""
CONF = """\
[system]
compatible=Matrix
bootloader=grub
grubenv={0}/grubenv
statusfile={0}/status
mountprefix={0}/mnt

[keyring]
path={1}

[slot.rootfs.0]
device={0}/slot-0
bootname=A

[slot.rootfs.1]
device={0}/slot-1
bootname=B
"""


def run(*argv: str | Path, **settings: object) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in argv]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60, **settings)  # type: ignore[call-overload,no-any-return]


@pytest.fixture(scope="session")
def image() -> bytes:
    """Some blocks that compress, some that do not, some of zeros, and a tail."""
    dice = random.Random(3)
    words = [dice.randbytes(40) for _ in range(50)]
    text = b"".join(dice.choices(words, k=8000))
    return text + dice.randbytes(150_000) + bytes(300_000) + text[:1000]


@pytest.fixture(scope="session")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path]]:
    """(certificate, key) of a kind, made once."""
    folder = tmp_path_factory.mktemp("keys")

    def make(kind: str) -> tuple[Path, Path]:
        certificate, key = folder / f"{kind}.pem", folder / f"{kind}.key"
        if not key.exists():
            subject = ("-subj", f"/CN={kind}", "-days", "3650", "-nodes")
            done = run("openssl", "req", "-x509", *KEYS[kind], *subject, "-keyout", key, "-out", certificate)
            assert done.returncode == 0, done.stderr
        return certificate, key

    return make


@pytest.fixture(scope="session")
def content(tmp_path_factory: pytest.TempPathFactory, image: bytes) -> Callable[[str], Path]:
    folders = {}
    for bundle_format in FORMATS:
        folders[bundle_format] = folder = tmp_path_factory.mktemp(f"content-{bundle_format}")
        (folder / "rootfs.img").write_bytes(image)
        (folder / "manifest.raucm").write_text(MANIFEST.format(format=bundle_format))
    return folders.__getitem__


def make(maker: str, folder: Path, bundle: Path, compression: str, signer: tuple[Path, Path]) -> None:
    certificate, key = signer
    if maker == "rauc":
        keys = (f"--cert={certificate}", f"--key={key}", f"--mksquashfs-args=-comp {compression}")
        done = run("rauc", "bundle", *keys, folder, bundle)
        assert done.returncode == 0, done.stderr
    else:
        pem, private = certificate.read_bytes(), key.read_bytes()
        create(folder, bundle, certificate=pem, key=private, mksquashfs_args=("-comp", compression))


def installed(bundle: Path, keyring: Path, slot: Path) -> bytes:
    """What our way of installing leaves in a slot."""

    async def install() -> None:
        reader = await open_file(str(bundle))
        try:
            opened = await open_bundle(
                reader,
                keyring=load_keyring(Keyring(path=keyring)),
                formats=FORMATS,
                now=datetime.now(UTC),
            )
            rootfs = opened.manifest.images[0]
            writer = open_slot(Slot("rootfs.1", "rootfs", 1, str(slot)), image_size=rootfs.size)
            try:
                await opened.write_image(rootfs, writer)
            finally:
                writer.close()
        finally:
            await reader.close()

    asyncio.run(install())
    return slot.read_bytes()


@pytest.mark.parametrize(("maker", "bundle_format", "compression", "kind"), CASES)
def test_made_and_read(
    *,
    maker: str,
    bundle_format: str,
    compression: str,
    kind: str,
    image: bytes,
    signer: Callable[[str], tuple[Path, Path]],
    content: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    bundle, slot = tmp_path / "test.raucb", tmp_path / "slot"
    keyring = signer(kind)[0]
    make(maker, content(bundle_format), bundle, compression, signer(kind))
    slot.write_bytes(bytes(len(image) + 4096))
    assert installed(bundle, keyring, slot) == image + bytes(4096)
    if maker == "updated" and kind != "ed25519":
        done = run("rauc", f"--keyring={keyring}", "info", "--output-format=shell", bundle)
        assert done.returncode == 0, done.stderr
        assert "RAUC_MF_VERSION='1.0'" in done.stdout


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[dict[str, str]]:
    argv = ("dbus-daemon", "--session", "--nofork", "--print-address", f"--address=unix:path={tmp_path}/bus")
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as daemon:
        assert daemon.stdout is not None
        address = daemon.stdout.readline().strip()
        yield {**os.environ, "DBUS_SESSION_BUS_ADDRESS": address, "DBUS_STARTER_BUS_TYPE": "session"}
        daemon.kill()


def test_rauc_installs_what_we_make(
    bus: dict[str, str],
    image: bytes,
    signer: Callable[[str], tuple[Path, Path]],
    content: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    """The real service of 1.8 with its loop devices and mounts (no dm-verity here, so plain ones)."""
    keyring = signer("p256")[0]
    (tmp_path / "mnt").mkdir()
    for index in (0, 1):
        (tmp_path / f"slot-{index}").write_bytes(bytes(len(image) + 4096))
    (tmp_path / "system.conf").write_text(CONF.format(tmp_path, keyring))
    run("grub-editenv", tmp_path / "grubenv", "create")
    run("grub-editenv", tmp_path / "grubenv", "set", "ORDER=A B", "A_OK=1", "A_TRY=0", "B_OK=0", "B_TRY=0")
    argv = ("rauc", "-c", str(tmp_path / "system.conf"), "--override-boot-slot=A", "service")
    with subprocess.Popen(argv, env=bus, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as service:
        try:
            deadline = time.monotonic() + 20
            while run("rauc", "status", env=bus).returncode:
                assert time.monotonic() < deadline, "the real service does not come up"
            for compression in ("gzip", "xz", "zstd"):
                (tmp_path / "slot-1").write_bytes(bytes(len(image)))
                bundle = tmp_path / f"{compression}.raucb"
                make("updated", content("plain"), bundle, compression, signer("p256"))
                done = run("rauc", "install", bundle, env=bus)
                assert done.returncode == 0, done.stdout + done.stderr
                assert (tmp_path / "slot-1").read_bytes() == image
        finally:
            service.terminate()
            service.communicate(timeout=10)
