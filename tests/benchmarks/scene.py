"""What benchmarks run on: a 512 MiB ext4 image of real files, keys, bundles (all cached), loop devices."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

IMAGE_SIZE = 512 << 20  # bytes
FILES_SIZE = 396 << 20  # bytes of real files in it
PACKAGE_SIZE = 6 << 20  # bytes of the package in which two images differ, at most
COMPATIBLE = "Bench Device"
SOURCES = ("/usr/lib", "/usr/share", "/usr/bin")


def default_folder() -> Path:
    """Where images and bundles are kept between runs."""
    return Path(tempfile.gettempdir()) / "updated-bench"


def call(*argv: str | Path) -> str:
    """Run a tool quietly; its standard output."""
    return subprocess.run([str(a) for a in argv], check=True, stdout=subprocess.PIPE, text=True).stdout


def image(folder: Path) -> Path:
    """The ext4 image, made on first use from this machine's own /usr."""
    made = folder / "rootfs.img"
    if made.exists():
        return made
    tree = folder / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    _copy_files(tree)
    _make_ext4(tree, made)
    shutil.rmtree(tree)
    return made


def two_images(folder: Path) -> tuple[Path, Path, str]:
    """(old, new, what is not the same): ext4 images that differ by one package of a few MiB."""
    old, new, name = folder / "old.img", folder / "new.img", folder / "package"
    if name.exists():
        return old, new, name.read_text()
    tree = folder / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    _copy_files(tree)
    _make_ext4(tree, old)
    package, files = _package(tree)
    again = folder / "tree-again"
    shutil.rmtree(again, ignore_errors=True)
    shutil.copytree(tree, again)
    dice = random.Random(1)
    for file in files:
        target = again / file.relative_to(tree)
        # Other code is as compressible as the code it replaces, and has nothing in common with it.
        data = target.read_bytes().translate(bytes(dice.sample(range(256), 256)))
        target.write_bytes(data[: len(data) // 2] + dice.randbytes(100) + data[len(data) // 2 :])
    _make_ext4(again, new)
    shutil.rmtree(tree)
    shutil.rmtree(again)
    name.write_text(package)
    return old, new, package


def zero(device: Path) -> None:
    """Nothing is on `device` any more."""
    call("dd", "if=/dev/zero", f"of={device}", "bs=1M", f"count={IMAGE_SIZE >> 20}", "status=none")


def sparse_image(folder: Path, size: int) -> Path:
    """An image of `size` bytes with 16 MiB of data that does not compress and zeros elsewhere."""
    made = folder / f"sparse-{size >> 20}.img"
    if not made.exists():
        with made.open("wb") as file:
            for index in range(16):
                file.seek(index * (size // 16))
                file.write(os.urandom(1 << 20))
            file.truncate(size)
    return made


def random_image(folder: Path, size: int) -> Path:
    """An image of `size` bytes that does not compress."""
    made = folder / f"random-{size >> 20}.img"
    if not made.exists():
        part = made.with_suffix(".part")
        with part.open("wb") as file:
            for start in range(0, size, 1 << 20):
                file.write(os.urandom(min(1 << 20, size - start)))
        part.rename(made)
    return made


def keys(folder: Path) -> tuple[Path, Path]:
    """(certificate, key): self-signed, so the certificate is the keyring as well."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    if not cert.exists():
        subject = ("-subj", "/O=Bench/CN=bench", "-days", "3650", "-nodes", "-newkey", "rsa:2048")
        subprocess.run(
            ["openssl", "req", "-x509", *subject, "-keyout", str(key), "-out", str(cert)],
            check=True,
            stderr=subprocess.DEVNULL,
        )
    return cert, key


def bundle(
    folder: Path, payload: Path, compressor: str, bundle_format: str = "plain", *, adaptive: bool = False
) -> Path:
    """A bundle of one image, made with RAUC's own tool; `adaptive`: with a block hash index."""
    made = folder / f"{payload.stem}-{compressor}-{bundle_format}{'-adaptive' * adaptive}.raucb"
    if made.exists():
        return made
    cert, key = keys(folder)
    part = folder / f"{made.stem}.part.raucb"
    part.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        content = Path(name) / "content"
        content.mkdir()
        os.link(payload, content / "rootfs.img")
        (content / "manifest.raucm").write_text(
            f"[update]\ncompatible={COMPATIBLE}\nversion=1\n\n[bundle]\nformat={bundle_format}\n\n"
            "[image.rootfs]\nfilename=rootfs.img\n" + "adaptive=block-hash-index\n" * adaptive
        )
        call(
            *("rauc", "bundle", f"--cert={cert}", f"--key={key}", f"--mksquashfs-args=-comp {compressor}"),
            *(content, part),
        )
    part.rename(made)
    return made


@contextlib.contextmanager
def loop_device(folder: Path, name: str, size: int) -> Iterator[Path]:
    """A loop device over a fully allocated file in `folder`."""
    backing = folder / f"{name}.slot"
    with backing.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)
    device = call("losetup", "--find", "--show", backing).strip()
    try:
        yield Path(device)
    finally:
        call("losetup", "--detach", device)
        backing.unlink()


def check_same(image: Path, device: Path) -> None:
    """Raises CalledProcessError if `device` does not begin with the bytes of `image`."""
    call("cmp", f"--bytes={image.stat().st_size}", image, device)


def _make_ext4(tree: Path, made: Path) -> None:
    part = made.with_suffix(".part")
    part.unlink(missing_ok=True)
    with part.open("wb") as file:
        file.truncate(IMAGE_SIZE)
    call("mkfs.ext4", "-q", "-F", "-m", "0", "-d", tree, part)
    part.rename(made)


def _package(tree: Path) -> tuple[str, list[Path]]:
    """The package that has the most bytes in `tree`, but not more than PACKAGE_SIZE, and its files there."""
    found: list[tuple[int, str, list[Path]]] = []
    for listed in Path("/var/lib/dpkg/info").glob("*.list"):
        inside = [tree / line.lstrip("/") for line in listed.read_text().splitlines()]
        files = [path for path in inside if path.is_file()]
        found.append((sum(path.stat().st_size for path in files), listed.stem, files))
    _, name, files = max(entry for entry in found if entry[0] <= PACKAGE_SIZE)
    return name.partition(":")[0], files


def _copy_files(tree: Path) -> None:
    left = FILES_SIZE
    for source in SOURCES:
        for path in sorted(Path(source).rglob("*")):
            if path.is_symlink() or not path.is_file():
                continue
            size = path.stat().st_size
            if size > left:
                continue
            target = tree / path.relative_to("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
            left -= size
