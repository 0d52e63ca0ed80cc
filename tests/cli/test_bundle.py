"""`bundle` as a process; the real rauc reads what it made."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

Run = Callable[..., CompletedProcess[str]]


@pytest.mark.parametrize("bundle_format", ["plain", "verity"])
def test_rauc_reads_the_bundle(
    updated: Run, content: Callable[[str], Path], pki: Path, tmp_path: Path, bundle_format: str
) -> None:
    bundle = tmp_path / "out.raucb"
    words = (f"--cert={pki}/dev.pem", f"--key={pki}/dev.key", f"--keyring={pki}/ca.pem")
    made = updated("bundle", *words, content(bundle_format), bundle)
    assert (made.returncode, made.stdout) == (0, f"Creating '{bundle_format}' format bundle\n")
    read = ("rauc", "info", f"--keyring={pki}/ca.pem", "--output-format=json", bundle)
    found = subprocess.run(read, check=True, capture_output=True, text=True, timeout=10)
    assert '"version":"2026.1"' in found.stdout


def test_a_key_with_a_passphrase(
    updated: Run, content: Callable[[str], Path], pki: Path, tmp_path: Path
) -> None:
    key = tmp_path / "locked.key"
    locked = ("openssl", "ec", "-in", pki / "dev.key", "-aes256", "-passout", "pass:geheim", "-out", key)
    subprocess.run(locked, check=True, capture_output=True, timeout=10)
    words = ("bundle", f"--cert={pki}/dev.pem", f"--key={key}", content("verity"), tmp_path / "out.raucb")
    refused = updated(*words)
    assert refused.returncode == 1
    assert refused.stderr.startswith("Failed to create bundle: ")
    assert updated(*words, env={"RAUC_KEY_PASSPHRASE": "geheim"}).returncode == 0


def test_a_bundle_that_devices_would_refuse_does_not_stay(
    updated: Run, content: Callable[[str], Path], pki: Path, tmp_path: Path
) -> None:
    words = (f"--cert={pki}/dev.pem", f"--key={pki}/dev.key", f"--signing-keyring={tmp_path}/other.pem")
    (tmp_path / "other.pem").write_bytes((pki / "dev.pem").read_bytes())
    made = updated("bundle", *words, content("verity"), tmp_path / "out.raucb")
    assert made.returncode == 1
    assert "signature verification failed" in made.stderr
    assert not (tmp_path / "out.raucb").exists()


@pytest.mark.parametrize(
    ("words", "first"),
    [
        (("bundle",), "An input directory name must be provided"),
        (("bundle", "in"), "An output bundle name must be provided"),
        (("bundle", "in", "out", "more"), "Excess argument: more"),
        (("bundle", "in", "out"), "Cert and key files must be provided"),
        (("bundle", "--cert=c", "--key=k", "nosuch", "out"), "Input path must point to a directory!"),
        (("bundle", "--cert=c", "--key=k", "in", "in/out"), "Bundle path must be located outside"),
        (("bundle", "--cert=c", "--key=k", "in", "out"), "Failed to create bundle: failed to sign bundle: "),
        (("bundle", "--cert=pkcs11:x", "--key=k", "in", "out"), "--cert: PKCS#11 URLs are not supported yet"),
        (("bundle", "--cert=c", "--key=k", "--mksquashfs-args='", "in", "out"), "Failed to parse mksquashfs"),
    ],
)
def test_errors(updated: Run, tmp_path: Path, words: tuple[str, ...], first: str) -> None:
    (tmp_path / "in").mkdir()
    got = updated(*words, cwd=tmp_path)
    assert (got.returncode, got.stdout) == (1, "")
    assert got.stderr.startswith(first)
    assert "Traceback" not in got.stderr
    assert not (tmp_path / "out").exists()


def test_an_existing_bundle_is_not_replaced(
    updated: Run, content: Callable[[str], Path], pki: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").write_text("precious")
    words = (f"--cert={pki}/dev.pem", f"--key={pki}/dev.key")
    got = updated("bundle", *words, content("plain"), tmp_path / "out")
    assert got.stderr.startswith(f"Failed to create bundle: bundle {tmp_path}/out already exists\nhint: ")
    assert (tmp_path / "out").read_text() == "precious"
