"""Bundles made by the real rauc, signed by a key of this test run."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

MakeBundle = Callable[..., Path]


@pytest.fixture(scope="session")
def signer(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(certificate, key), self-signed."""
    folder = tmp_path_factory.mktemp("signer")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subject = ("-subj", "/O=Test/CN=signer", "-days", "36500", "-nodes")
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
    command = ["openssl", "req", "-x509", *subject, *curve, "-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return cert, key


@pytest.fixture
def make_bundle(tmp_path: Path, signer: tuple[Path, Path]) -> MakeBundle:
    """`make_bundle(format, files, extra, squashfs)`: `extra` is more manifest, `squashfs` are options of
    mksquashfs; images are those named `*.img`."""

    def make(bundle_format: str, files: Mapping[str, bytes], extra: str = "", squashfs: str = "") -> Path:
        content = tmp_path / f"content-{bundle_format}"
        content.mkdir()
        for name, data in files.items():
            (content / name).write_bytes(data)
        images = "".join(
            f"[image.{Path(name).stem}]\nfilename={name}\n" for name in files if name.endswith(".img")
        )
        (content / "manifest.raucm").write_text(
            f"[update]\ncompatible=Test\nversion=1\n[bundle]\nformat={bundle_format}\n{extra}{images}"
        )
        bundle = tmp_path / f"{bundle_format}.raucb"
        cert, key = signer
        options = [f"--mksquashfs-args={squashfs}"] if squashfs else []
        command = ["rauc", "bundle", f"--cert={cert}", f"--key={key}", *options, str(content), str(bundle)]
        subprocess.run(command, check=True, capture_output=True)
        return bundle

    return make
