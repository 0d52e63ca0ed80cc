"""A tree for the whole run, a fresh board for each test, and signed bundles."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.system.ab_factory import Factory
from tests.system.ab_machine import Machine
from tests.system.board import Board, attach, detach
from tests.system.computer import Computer
from tests.system.container import Container
from tests.system.tree import make_tree

NewBoard = Callable[..., Board]
NewComputer = Callable[[], Computer]


class Signer(NamedTuple):
    """PEM files."""

    cert: Path
    key: Path


class Bundle(NamedTuple):
    path: Path
    image: Path


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A system with `updated` installed."""
    target = tmp_path_factory.mktemp("system") / "tree"
    make_tree(target)
    yield target
    shutil.rmtree(target)


@pytest.fixture(scope="session")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return _new_signer(tmp_path_factory.mktemp("signer"))


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return _new_signer(tmp_path_factory.mktemp("stranger"))


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory, signer: Signer) -> Bundle:
    """Version 2: a file system of 8 MiB, installed in a moment."""
    folder = tmp_path_factory.mktemp("small")
    image = folder / "content/rootfs.ext4"
    for name in ("content", "files"):
        (folder / name).mkdir()
    (folder / "files/system").write_bytes(os.urandom(1 << 20))
    subprocess.run(["mkfs.ext4", "-q", "-d", str(folder / "files"), str(image), "8M"], check=True)
    return _bundle(folder, signer, "2")


@pytest.fixture(scope="session")
def medium(tmp_path_factory: pytest.TempPathFactory, signer: Signer) -> Bundle:
    """Version 4: 96 MiB, not compressible."""
    return noise_bundle(tmp_path_factory.mktemp("medium"), signer, "4", megabytes=96)


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory, signer: Signer) -> Bundle:
    """Version 3: as large as the slot and not compressible, so that there is time to disturb its install."""
    return noise_bundle(tmp_path_factory.mktemp("large"), signer, "3", megabytes=160)


@pytest.fixture
def board(tree: Path, tmp_path: Path, signer: Signer) -> Iterator[Board]:
    """Booted; the service is not started yet."""
    devices = []
    try:
        for name in ("a", "b"):
            devices.append(attach(tmp_path / name))
        with Container(tree, f"updated-test-{os.getpid()}", log=tmp_path / "console.log") as container:
            yield Board(container, signer.cert.read_bytes(), (devices[0], devices[1]))
    finally:
        for device in devices:
            detach(device)
        for name in ("a", "b"):
            (tmp_path / name).unlink(missing_ok=True)


@pytest.fixture
def new_computer(tree: Path, tmp_path: Path, signer: Signer) -> Iterator[NewComputer]:
    """Each with two slots and a disk of its own."""
    devices: list[str] = []

    def make() -> Computer:
        folder = tmp_path / f"computer-{len(devices)}"
        folder.mkdir()
        for name in ("a", "b"):
            devices.append(attach(folder / name))
        return Computer(tree, folder, signer.cert.read_bytes(), (devices[-2], devices[-1]))

    try:
        yield make
    finally:
        for device in devices:
            detach(device)
        for number in range(0, len(devices), 2):
            for name in ("a", "b"):
                (tmp_path / f"computer-{number}" / name).unlink(missing_ok=True)


@pytest.fixture
def computer(new_computer: NewComputer) -> Computer:
    """Not booted yet."""
    return new_computer()


@pytest.fixture(scope="session")
def factory(tmp_path_factory: pytest.TempPathFactory, signer: Signer) -> Iterator[Factory]:
    """Makes what machines boot from their disks, and what they install."""
    factory = Factory(tmp_path_factory.mktemp("ab"), signer)
    yield factory
    factory.clean()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a machine said is shown when its test has failed."""
    report = yield
    machines = [one for one in getattr(item, "funcargs", {}).values() if isinstance(one, Machine)]
    if report.failed:
        report.sections += [("machine", machine.report()) for machine in machines]
    return report


def _new_signer(folder: Path) -> Signer:
    signer = Signer(folder / "cert.pem", folder / "key.pem")
    command = ["openssl", "req", "-x509", "-subj", f"/CN={folder.name}", "-days", "36500", "-nodes"]
    command += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command += ["-keyout", str(signer.key), "-out", str(signer.cert)]
    subprocess.run(command, check=True, capture_output=True)
    return signer


def noise_bundle(folder: Path, signer: Signer, version: str, *, megabytes: int) -> Bundle:
    """A bundle in an empty `folder`, whose image is not compressible."""
    image = folder / "content/rootfs.img"
    image.parent.mkdir()
    piece = os.urandom(1 << 20)
    with image.open("wb") as file:
        for number in range(megabytes):
            file.write(number.to_bytes(4, "big") + piece[4:])
    return _bundle(folder, signer, version)


def _bundle(folder: Path, signer: Signer, version: str) -> Bundle:
    content, path = folder / "content", folder / f"system-{version}.raucb"
    image = next(content.iterdir())
    (content / "manifest.raucm").write_text(
        f"[update]\ncompatible=Test\nversion={version}\n[bundle]\nformat=verity\n"
        f"[image.rootfs]\nfilename={image.name}\n"
    )
    options = [f"--cert={signer.cert}", f"--key={signer.key}", "--mksquashfs-args=-comp lz4"]
    command = [sys.executable, "-m", "updated", "bundle", *options, str(content), str(path)]
    subprocess.run(command, check=True)
    return Bundle(path, image)
