"""A signer made by the real openssl, a folder to make bundles of, and the real rauc."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

MANIFEST = """\
# a comment that goes away
[update]
compatible=Test Dev
version=1.2

[bundle]
format={format}

[image.rootfs]
filename=rootfs.img
adaptive=block-hash-index

[image.app]
filename=app.img
hooks=post-install;

[hooks]
filename=hook.sh

[meta.label]
key=value
"""


@dataclass(frozen=True)
class Keys:
    """PEM files of a self-signed signer, which is its own keyring."""

    certificate: Path
    key: Path


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    folder = tmp_path_factory.mktemp("keys")
    found = Keys(folder / "cert.pem", folder / "key.pem")
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-subj",
        "/CN=signer",
        "-days",
        "3650",
    ]
    subprocess.run(
        [*command, "-keyout", found.key, "-out", found.certificate], check=True, capture_output=True
    )
    return found


@pytest.fixture
def content(tmp_path: Path) -> Callable[[str], Path]:
    """Make the folder of a bundle in the format that is asked for."""

    def make(bundle_format: str) -> Path:
        folder = tmp_path / f"content-{bundle_format}"
        folder.mkdir()
        random = Random(1)
        (folder / "rootfs.img").write_bytes(random.randbytes(1 << 20))
        (folder / "app.img").write_bytes(random.randbytes(5000))
        (folder / "hook.sh").write_text("#!/bin/sh\n")
        (folder / "hook.sh").chmod(0o755)
        (folder / "manifest.raucm").write_text(MANIFEST.format(format=bundle_format))
        return folder

    return make


@pytest.fixture
def rauc(keys: Keys) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the real rauc with our signer and keyring."""

    def run(*args: str | Path) -> subprocess.CompletedProcess[str]:
        command: list[str | Path] = ["rauc", "--keyring", keys.certificate, *args]
        if "bundle" in args:
            command += ["--cert", keys.certificate, "--key", keys.key]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    return run
