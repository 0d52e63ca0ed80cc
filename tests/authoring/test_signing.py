"""Signed by us, accepted by `openssl` and `rauc`, and byte for byte what they write."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from updated.authoring.signing import digest_algorithm, load_key, sign
from updated.bundle.signature import parse_signed_data
from updated.bundle.trust import Keyring, KeyringPolicy
from updated.errors import SignatureError

CONTENT = b"[update]\ncompatible=x\n\r\n\0"
# openssl and rauc know no other time; the certificates are made a little later than this line runs.
NOW = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
KINDS = {
    "rsa2048": ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
    "rsa3072": ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072"],
    "rsa1024": ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"],
    "pss": ["-algorithm", "RSA-PSS", "-pkeyopt", "rsa_keygen_bits:2048"],
    "pss-sha512": [
        *(
            "-algorithm",
            "RSA-PSS",
            "-pkeyopt",
            "rsa_keygen_bits:2048",
            "-pkeyopt",
            "rsa_pss_keygen_md:sha512",
        ),
        *("-pkeyopt", "rsa_pss_keygen_mgf1_md:sha256", "-pkeyopt", "rsa_pss_keygen_saltlen:20"),
    ],
    "p256": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
    "p384": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
    "p521": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"],
    "ed25519": ["-algorithm", "ED25519"],
    "ed448": ["-algorithm", "ED448"],
}


@dataclass(frozen=True, slots=True)
class Files:
    certificate: Path
    key: Path

    @property
    def pem(self) -> bytes:
        return self.certificate.read_bytes()

    @property
    def key_pem(self) -> bytes:
        return self.key.read_bytes()


Make = Callable[[str], Files]


def run(*command: str, stdin: bytes = b"") -> bytes:
    done = subprocess.run(command, input=stdin, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """A self-signed certificate for each kind of key."""
    folder = tmp_path_factory.mktemp("signing")
    made: dict[str, Files] = {}

    def make_one(kind: str) -> Files:
        if kind not in made:
            files = Files(folder / f"{kind}.pem", folder / f"{kind}.key")
            run("openssl", "genpkey", *KINDS[kind], "-out", str(files.key))
            subject = ["-subj", f"/O=Test Org/CN={kind}", "-days", "30"]
            run("openssl", "req", "-x509", "-key", str(files.key), *subject, "-out", str(files.certificate))
            made[kind] = files
        return made[kind]

    return make_one


def keyring(files: Files) -> Keyring:
    return Keyring.load([files.pem], KeyringPolicy())


def sign_with(files: Files, content: bytes | None = None, digest: bytes | None = None) -> bytes:
    return sign(
        content=content, digest=digest, certificate_pem=files.pem, key_pem=files.key_pem, signing_time=NOW
    )


@pytest.mark.parametrize("kind", ["rsa2048", "rsa3072", "pss", "pss-sha512", "p256", "p384", "p521"])
def test_openssl_verifies(make: Make, kind: str, tmp_path: Path) -> None:
    files = make(kind)
    verify = ["openssl", "cms", "-verify", "-binary", "-inform", "DER", "-CAfile", str(files.certificate)]
    der = sign_with(files, content=CONTENT)
    assert run(*verify, stdin=der) == CONTENT
    assert parse_signed_data(der).verify(keyring(files), NOW).signer_cn == kind
    (tmp_path / "payload").write_bytes(CONTENT)
    digest = hashlib.new(digest_algorithm(files.pem), CONTENT).digest()
    der = sign_with(files, digest=digest)
    assert run(*verify, "-content", str(tmp_path / "payload"), stdin=der) == CONTENT
    message = parse_signed_data(der)
    assert message.verify(keyring(files), NOW).signing_time == NOW
    message.check_digest(digest)


def test_ed25519(make: Make) -> None:
    """No openssl before 4 verifies RFC 8419; so both directions are ours."""
    files = make("ed25519")
    message = parse_signed_data(sign_with(files, content=CONTENT))
    assert message.digest_algorithm == digest_algorithm(files.pem) == "sha512"
    assert message.verify(keyring(files), NOW).signer_cn == "ed25519"
    changed = parse_signed_data(sign_with(files, content=CONTENT).replace(b"compatible=x", b"compatible=y"))
    with pytest.raises(SignatureError, match="verification failure"):
        changed.verify(keyring(files), NOW)
    message = parse_signed_data(sign_with(files, digest=hashlib.sha512(CONTENT).digest()))
    message.verify(keyring(files), NOW)
    message.check_digest(hashlib.sha512(CONTENT).digest())


@pytest.mark.parametrize("bundle_format", ["plain", "verity"])
def test_same_bytes_as_rauc(make: Make, bundle_format: str, tmp_path: Path) -> None:
    """RSA signatures are deterministic: with RAUC's signing time ours is the same CMS."""
    files, intermediates = make("rsa2048"), [make("p256"), make("p384"), make("rsa3072")]
    bundle = make_bundle(files, bundle_format, tmp_path, intermediates)
    theirs = bundle[-8 - int.from_bytes(bundle[-8:], "big") : -8]
    message = parse_signed_data(theirs)
    assert message.verify(keyring(files), NOW).signing_time is not None
    assert message.signing_time is not None
    digest = hashlib.sha256(bundle[: -8 - len(theirs)]).digest() if message.detached else None
    ours = sign(
        content=message.content,
        digest=digest,
        certificate_pem=files.pem,
        key_pem=files.key_pem,
        intermediates_pem=[intermediate.pem for intermediate in intermediates],
        signing_time=message.signing_time,
    )
    assert ours == theirs
    if digest is not None:
        message.check_digest(digest)


@pytest.mark.parametrize("kind", ["rsa2048", "rsa3072", "p256", "p384", "p521"])
@pytest.mark.parametrize("bundle_format", ["plain", "verity"])
def test_rauc_accepts(make: Make, kind: str, bundle_format: str, tmp_path: Path) -> None:
    files = make(kind)
    bundle = make_bundle(files, bundle_format, tmp_path, [])
    theirs = bundle[-8 - int.from_bytes(bundle[-8:], "big") : -8]
    payload = bundle[: -8 - len(theirs)]
    message = parse_signed_data(theirs)
    message.verify(keyring(files), NOW)
    if message.content is None:
        message.check_digest(hashlib.sha256(payload).digest())
        ours = sign_with(files, digest=hashlib.sha256(payload).digest())
    else:
        ours = sign_with(files, content=message.content)
    path = tmp_path / "ours.raucb"
    path.write_bytes(payload + ours + len(ours).to_bytes(8, "big"))
    shown = run("rauc", "--keyring", str(files.certificate), "info", str(path)).decode()
    assert f"Subject: O = Test Org, CN = {kind}" in shown


def make_bundle(files: Files, bundle_format: str, folder: Path, intermediates: list[Files]) -> bytes:
    (folder / "content").mkdir()
    (folder / "content" / "rootfs.img").write_bytes(hashlib.shake_256(b"image").digest(20000))
    (folder / "content" / "manifest.raucm").write_text(
        f"[update]\ncompatible=x\n[bundle]\nformat={bundle_format}\n[image.rootfs]\nfilename=rootfs.img\n"
    )
    command = ["rauc", "bundle", "--cert", str(files.certificate), "--key", str(files.key)]
    command += [f"--intermediate={intermediate.certificate}" for intermediate in intermediates]
    run(*command, str(folder / "content"), str(folder / "bundle.raucb"))
    return (folder / "bundle.raucb").read_bytes()


def test_late_signing_time(make: Make) -> None:
    files = make("p256")
    for moment in (datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC), datetime(2050, 1, 1, tzinfo=UTC)):
        local = moment.astimezone(tz=None) + timedelta(microseconds=5)
        der = sign(content=b"", certificate_pem=files.pem, key_pem=files.key_pem, signing_time=local)
        assert parse_signed_data(der).signing_time == moment
        assert b"20500101000000Z" in der if moment.year == 2050 else b"\x17\x0d491231235959Z" in der


def test_passphrase(make: Make) -> None:
    files = make("p256")
    locked = run("openssl", "pkey", "-in", str(files.key), "-aes256", "-passout", "pass:secret")
    der = sign(
        content=CONTENT,
        certificate_pem=files.pem,
        key_pem=locked,
        passphrase=b"secret",
        signing_time=NOW,
    )
    parse_signed_data(der).verify(keyring(files), NOW)
    for wrong in (b"guess", None):
        with pytest.raises(
            SignatureError, match=r"^failed to create signature: cannot read the private key$"
        ):
            load_key(locked, wrong)


def test_same_certificate_twice(make: Make) -> None:
    files = make("p256")
    der = sign_with(files, content=CONTENT)
    again = sign(
        content=CONTENT,
        certificate_pem=files.pem,
        key_pem=files.key_pem,
        intermediates_pem=[files.pem],
        signing_time=NOW,
    )
    assert parse_signed_data(again).certificates == parse_signed_data(der).certificates


def test_refused(make: Make) -> None:
    files, other = make("p256"), make("p384")
    cases = [
        (files.pem, other.key_pem, "the private key does not belong to the certificate"),
        (files.pem, b"", "cannot read the private key"),
        (files.pem, files.pem, "cannot read the private key"),
        (b"", files.key_pem, "cannot read the certificate"),
        (files.key_pem, files.key_pem, "cannot read the certificate"),
        (make("rsa1024").pem, make("rsa1024").key_pem, "RSA key has 1024 bits, expected at least 2048"),
        (make("ed448").pem, make("ed448").key_pem, "unsupported private key"),
    ]
    for certificate, key, text in cases:
        with pytest.raises(SignatureError, match=f"^failed to create signature: {text}"):
            sign(content=CONTENT, certificate_pem=certificate, key_pem=key, signing_time=NOW)
    with pytest.raises(SignatureError, match="the digest has the wrong length for sha256"):
        sign_with(files, digest=bytes(64))
    with pytest.raises(TypeError):
        sign_with(files)
    with pytest.raises(TypeError):
        sign_with(files, content=b"", digest=bytes(32))
