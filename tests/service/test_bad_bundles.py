"""Bad bundles for the real service: a clear error, nothing written where it can be known before, and no end.

All go through the same service; after each kind a good bundle is installed by it.
"""

from __future__ import annotations

import hashlib
import random
import struct
import subprocess
import zlib
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest
from virtual_device import SYSTEM_CONF

from tests.bundle.squashfs.conftest import Craft
from tests.service.certificates import CODE_SIGNING, EMAIL, Authority
from tests.service.conftest import MakeDevice
from tests.service.rig import Device, Vendor
from updated.authoring import signing
from updated.authoring.verity_tree import TreeBuilder

CONF = SYSTEM_CONF.replace("bootloader=grub", "bootloader=grub\nmin-bundle-version=1.5")
NO_FOLDER = "[confirm]\nstable-for = {stable_for}\n"
SIZE = 300_000  # bytes of the image
MAX_MEMORY = 250_000  # KiB that the service may have needed at most, after all of it
SEED = 7


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority("Root")


@pytest.fixture(scope="module")
def device(module_devices: MakeDevice, vendor: Vendor, authority: Authority) -> Iterator[Device]:
    keyring = vendor.signer.certificate + authority.certificate
    made = module_devices(system_conf=CONF, agent_conf=NO_FOLDER, keyring=keyring)
    yield made
    assert made.service is not None
    status = Path(f"/proc/{made.service.pid}/status").read_text()
    assert int(status.split("VmHWM:")[1].split()[0]) < MAX_MEMORY
    assert "bug" not in made.log()


@pytest.fixture(autouse=True)
def still_served(device: Device, vendor: Vendor) -> Iterator[None]:
    """Each kind ends with a good bundle, after which group B is bad again."""
    yield
    good = small(vendor)
    assert device.install(good) == ""
    assert device.content("B", SIZE) == vendor.noise(SIZE)
    device.call(lambda client: client.rollback())
    device.wait_state("idle")


def small(vendor: Vendor, bundle_format: str = "verity") -> Path:
    return vendor.bundle("2.0.0", images={"rootfs.img": vendor.noise(SIZE)}, bundle_format=bundle_format)


def refused(device: Device, bundle: Path, *texts: str, untouched: bool = True) -> str:
    """Installing `bundle` fails with `texts` in the error; the running system is as it was."""
    before, running = device.untouched(), device.content("A", 1 << 24)
    error = device.install(bundle)
    assert error, "it was installed"
    assert "internal error" not in error
    for text in texts:
        assert text in error
    status = device.status()
    assert status.state == "idle"
    text = status.last_result["text"]
    assert text == error or text.startswith(f"{error} (")
    assert device.call(lambda client: client.system()).last_error == error
    if untouched:
        assert device.untouched() == before
    else:
        assert (device.read_env()["B_OK"], device.primary()) == ("0", "A")
    assert device.content("A", 1 << 24) == running
    return error


@pytest.mark.parametrize("bundle_format", ["verity", "plain"])
def test_cut_short(device: Device, vendor: Vendor, tmp_path: Path, bundle_format: str) -> None:
    data = small(vendor, bundle_format).read_bytes()
    path = tmp_path / "system.raucb"
    dice = random.Random(SEED)
    ends = (0, 1, 7, 8, 9, 16, 4096, len(data) // 2, len(data) - 4096, len(data) - 9, len(data) - 8)
    for length in (*ends, len(data) - 1, *(dice.randrange(len(data)) for _ in range(5))):
        path.write_bytes(data[:length])
        refused(device, path)
    for rubbish in (b"\0", bytes(8), bytes(4096), data):
        path.write_bytes(data + rubbish)
        if rubbish != data:
            refused(device, path)
    path.write_bytes(data + data)  # the tail is good; what it signs is not what is before it
    refused(device, path)


def regions(data: bytes) -> Mapping[str, range]:
    """Name -> offsets of a verity bundle."""
    signature = int.from_bytes(data[-8:], "big")
    payload = len(data) - 8 - signature
    squashfs = -(-struct.unpack_from("<Q", data, 40)[0] // 4096) * 4096
    return {
        "superblock": range(96),
        "image": range(96, 96 + SIZE),
        "metadata": range(96 + SIZE, squashfs - 4096),
        "tree": range(squashfs, payload),
        "signature": range(payload, len(data) - 8),
        "size": range(len(data) - 8, len(data)),
    }


@pytest.mark.parametrize("bundle_format", ["verity", "plain"])
def test_a_bit_is_wrong(device: Device, vendor: Vendor, tmp_path: Path, bundle_format: str) -> None:
    """In each region; what is wrong in the image is found when it is used, and the target stays bad."""
    data = small(vendor, bundle_format).read_bytes()
    path = tmp_path / "system.raucb"
    dice = random.Random(SEED)
    for name, region in regions(data).items():
        for _ in range(4):
            if not len(region):
                continue  # plain has no tree
            flipped = bytearray(data)
            flipped[dice.choice(region)] ^= 1 << dice.randrange(8)
            path.write_bytes(flipped)
            late = bundle_format == "verity" and name not in ("signature", "size")
            refused(device, path, untouched=not late)


def test_not_a_bundle(device: Device, tmp_path: Path) -> None:
    path = tmp_path / "system.raucb"
    refused(device, path, "No such file or directory")
    path.mkdir()
    refused(device, path, "Is a directory")
    path.rmdir()
    for content in (b"", b"text\n" * 1000, bytes(1 << 20), b"\xff" * (1 << 20)):
        path.write_bytes(content)
        refused(device, path)
    with path.open("wb") as file:
        file.truncate(1 << 42)
    refused(device, path)
    refused(device, Path("/dev/zero"))
    refused(device, Path("/proc/self/mem"))


def test_wrong_signers(device: Device, vendor: Vendor, authority: Authority) -> None:
    stranger = Authority("Root")  # the same name, another key
    for signer, text in (
        (stranger.issue("Vendor"), "signature"),
        (authority.issue("Expired", days=(-30, -10)), "expired"),
        (authority.issue("Future", days=(10, 30)), "not yet valid"),
    ):
        refused(device, vendor.bundle("2.0.0", signer=signer), "verif", text)
    assert device.install(vendor.bundle("2.0.0", signer=authority.issue("Good"))) == ""
    device.call(lambda client: client.rollback())


def test_wrong_for_this_device(device: Device, vendor: Vendor) -> None:
    refused(
        device,
        vendor.bundle("2.0.0", compatible="Another Device"),
        "Compatible mismatch: Expected 'Virtual Device' but bundle manifest has 'Another Device'",
    )
    refused(device, vendor.bundle("1.4.9"), "Expected at least '1.5' but bundle manifest has '1.4.9'")
    refused(device, vendor.bundle("nonsense"), "Failed to parse semantic version")
    unknown = vendor.bundle("2.0.0", images={"bootfs.img": vendor.noise(SIZE)})
    refused(device, unknown, "target")
    large = vendor.bundle("2.0.0", images={"rootfs.img": vendor.noise(8192) + bytes(16 << 20)})
    refused(device, large, f"Slot ({16 << 20} bytes) is too small for image ({(16 << 20) + 8192} bytes)")


SCRIPT = b"#!/bin/sh\nexit 0\n"
IMAGE = "[image.rootfs]\nfilename=rootfs.img\n"
NOT_YET: Mapping[str, tuple[str, str]] = {
    # name: (more manifest, text)
    "install-check hook": (
        f"[hooks]\nfilename=hook.sh\nhooks=install-check\n\n{IMAGE}",
        "install-check hook",
    ),
    "slot hook": (f"[hooks]\nfilename=hook.sh\n\n{IMAGE}hooks=post-install\n", "slot hooks post-install"),
    "full handler": (f"[handler]\nfilename=hook.sh\n\n{IMAGE}", "full custom handler"),
    "tar": ("[image.rootfs]\nfilename=rootfs.tar\n", "Unsupported image type 'tar' for slot type 'ext4'"),
}


@pytest.mark.parametrize("name", NOT_YET)
def test_not_supported_yet(device: Device, vendor: Vendor, name: str) -> None:
    """What only RAUC can do is said before anything is marked."""
    extra, text = NOT_YET[name]
    files = {"hook.sh": SCRIPT, "rootfs.img": vendor.noise(SIZE), "rootfs.tar": bytes(10240)}
    manifest = f"[update]\ncompatible=Virtual Device\nversion=2.0.0\n\n[bundle]\nformat=verity\n\n{extra}"
    refused(device, vendor.make(files, manifest, maker="rauc"), text, "not supported yet")


def test_encrypted(device: Device, vendor: Vendor, tmp_path: Path) -> None:
    clear = vendor.bundle("2.0.0", bundle_format="crypt", maker="rauc")
    refused(device, clear, "crypt")
    made = tmp_path / "encrypted.raucb"
    recipient = Authority("Recipient").issue("Recipient").certificate
    (tmp_path / "to.pem").write_bytes(recipient)
    options = (f"--keyring={vendor.certificate}", "encrypt", f"--to={tmp_path}/to.pem")
    subprocess.run(["rauc", *options, str(clear), str(made)], check=True, capture_output=True)
    refused(device, made, "crypted")


def signed(vendor: Vendor, path: Path, payload: bytes, images: str, bundle_format: str = "verity") -> Path:
    """A bundle of any payload, with the right key."""
    manifest = f"[update]\ncompatible=Virtual Device\nversion=2.0.0\n\n[bundle]\nformat={bundle_format}\n"
    if bundle_format == "verity":
        payload += bytes(-len(payload) % 4096)
        salt = bytes(32)
        builder = TreeBuilder(salt)
        builder.feed(payload)
        root, tree = builder.finish()
        payload += tree
        manifest += f"verity-hash={root.hex() if isinstance(root, bytes) else root}\n"
        manifest += f"verity-salt={salt.hex()}\nverity-size={len(tree)}\n"
    cms = signing.sign(
        content=(manifest + images).encode(),
        certificate_pem=vendor.signer.certificate,
        key_pem=vendor.signer.key,
        signing_time=datetime.now(UTC),
    )
    path.write_bytes(payload + cms + len(cms).to_bytes(8, "big"))
    return path


def image(size: int, digest: str = "0" * 64, name: str = "rootfs.img") -> str:
    return f"\n[image.rootfs]\nsha256={digest}\nsize={size}\nfilename={name}\n"


def test_a_manifest_that_lies(device: Device, vendor: Vendor, tmp_path: Path) -> None:
    """Signed by the right key: its maker's tool was wrong, and that is found in time."""
    whole = small(vendor).read_bytes()
    squashfs = whole[: regions(whole)["tree"].start]
    digest = hashlib.sha256(vendor.noise(SIZE)).hexdigest()
    path = tmp_path / "system.raucb"

    def with_images(images: str) -> Path:
        return signed(vendor, path, squashfs, images)

    wrong = refused(device, with_images(image(SIZE)), "has the SHA-256", "manifest says", untouched=False)
    assert digest in wrong
    assert device.slot("rootfs.1")["status"] == "failed"
    refused(device, with_images(image(SIZE - 1, digest)), f"has {SIZE} bytes", f"says {SIZE - 1}")
    refused(device, with_images(image(SIZE, digest, "other.img")), "'other.img' not found in bundle")
    refused(device, with_images(image(SIZE, digest, "../rootfs.img")))
    refused(device, with_images(""), "image")
    refused(device, with_images("\n[nonsense]\nkey=value\n"))
    refused(device, with_images(image(SIZE, digest) + image(SIZE, digest)))
    assert device.install(with_images(image(SIZE, digest))) == ""
    device.call(lambda client: client.rollback())


NAME = b"rootfs.img"
BOMB = zlib.compress(bytes(64 << 20), 9)  # 64 KiB that want to be 64 MiB


def listing(offset: int = 32) -> bytes:
    return Craft.header(1) + Craft.entry(NAME, offset=offset)


def metadata_bomb() -> bytes:
    packed = zlib.compress(bytes(1 << 20), 9)
    return struct.pack("<H", len(packed)) + packed


CRAFTED: Mapping[str, tuple[Callable[[], Craft], int]] = {
    # name: (the image, bytes that the manifest promises)
    "data bomb": (lambda: Craft(data=BOMB, words=(len(BOMB),), size=4096, fragment=0xFFFFFFFF), 4096),
    "fragment bomb": (
        lambda: Craft(data=bytes(8192) + BOMB, fragment_word=len(BOMB), fragment_start=96 + 8192),
        8197,
    ),
    "metadata bomb": (lambda: Craft(raw_inodes=metadata_bomb()), 8197),
    "directory bomb": (lambda: Craft(raw_directories=metadata_bomb()), 8197),
    "the root is in itself": (lambda: Craft(listing=listing(offset=0)), 8197),
    "listing of 4 GiB": (lambda: Craft(listing=listing(), listing_size=0xFFFFFFFF, root_type=8), 8197),
    "a thousand names": (
        lambda: Craft(listing=b"".join(Craft.header(1) + Craft.entry(b"x%04d" % n) for n in range(1000))),
        8197,
    ),
    "blocks outside": (lambda: Craft(listing=listing(), start=1 << 31), 8197),
    "tables outside": (lambda: Craft(listing=listing(), superblock={"inode_table": 1 << 50}), 8197),
    "fragment outside": (lambda: Craft(listing=listing(), fragment=1 << 20), 8197),
    "a symlink": (
        lambda: Craft(listing=listing(), file_inode=Craft.inode(3, struct.pack("<2I", 1, 5) + b"/etc/")),
        8197,
    ),
    "a device": (
        lambda: Craft(listing=listing(), file_inode=Craft.inode(4, struct.pack("<2I", 1, 0x801))),
        8197,
    ),
    "larger than it is": (lambda: Craft(listing=listing(), size=1 << 30, words=()), 1 << 30),
    "unknown compressor": (lambda: Craft(listing=listing(), compressor=9), 8197),
    "block size 0": (lambda: Craft(listing=listing(), block_size=0, block_log=0), 8197),
    "no magic": (lambda: Craft(listing=listing(), magic=0), 8197),
}


@pytest.mark.parametrize("name", CRAFTED)
def test_hostile_images(device: Device, vendor: Vendor, tmp_path: Path, name: str) -> None:
    """By somebody with the right key: bounded time and memory all the same."""
    make, size = CRAFTED[name]
    craft = make()
    craft.listing = craft.listing or listing()
    bundle = signed(vendor, tmp_path / "system.raucb", craft.build(), image(size))
    refused(device, bundle, untouched="bomb" not in name)


def test_signers_that_are_not_allowed(devices: MakeDevice, device: Device, vendor: Vendor) -> None:
    """check-purpose and check-crl: no other device on the bus meanwhile."""
    device.stop_service()
    root = Authority("Strict Root")
    good = root.issue("Good", usages=[CODE_SIGNING])
    revoked = root.issue("Revoked", usages=[CODE_SIGNING])
    for_mail = root.issue("Mail", usages=[EMAIL])
    conf = SYSTEM_CONF.replace("keyring.pem", "keyring.pem\ncheck-crl=true\ncheck-purpose=codesign")
    keyring = root.certificate + root.revocations(revoked)
    strict = devices(system_conf=conf, agent_conf=NO_FOLDER, keyring=keyring)
    refused(strict, vendor.bundle("2.0.0", signer=revoked), "revoked")
    refused(strict, vendor.bundle("2.0.0", signer=for_mail), "purpose")
    assert strict.install(vendor.bundle("2.0.0", signer=good)) == ""
    strict.stop_service()
    device.start()
