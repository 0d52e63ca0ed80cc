"""A small public key infrastructure, and the real `openssl` and `rauc` beside ours."""

from __future__ import annotations

import base64
import hashlib
import itertools
import random
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509.oid import NameOID

from updated.bundle.trust import Keyring, KeyringPolicy

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
YEARS = timedelta(days=365)

GENERATE: dict[str, Callable[[], PrivateKey]] = {
    "rsa1024": lambda: rsa.generate_private_key(65537, 1024),
    "rsa2048": lambda: rsa.generate_private_key(65537, 2048),
    "rsa3072": lambda: rsa.generate_private_key(65537, 3072),
    "p192": lambda: ec.generate_private_key(ec.SECP192R1()),
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "p521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
}
USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate with its key, also as files for the tools."""

    certificate: x509.Certificate
    key: PrivateKey
    folder: Path

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    @property
    def pem_file(self) -> str:
        return self._file("pem", self.pem)

    @property
    def key_file(self) -> str:
        return self._file("key", self.key_pem)

    def _file(self, suffix: str, text: bytes) -> str:
        path = self.folder / f"{self.certificate.serial_number:x}.{suffix}"
        path.write_bytes(text)
        return str(path)


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle file: payload, CMS, size."""

    path: Path

    @property
    def cms(self) -> bytes:
        data = self.path.read_bytes()
        return data[-8 - int.from_bytes(data[-8:], "big") : -8]

    @property
    def payload(self) -> bytes:
        return self.path.read_bytes()[: -8 - len(self.cms)]

    def replace_cms(self, cms: bytes) -> None:
        self.path.write_bytes(self.payload + cms + len(cms).to_bytes(8, "big"))


@dataclass
class Pki:
    folder: Path
    keys: dict[str, PrivateKey] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=itertools.count)
    now: datetime = NOW
    DER = serialization.Encoding.DER

    @staticmethod
    def key_usage(*names: str) -> x509.KeyUsage:
        return x509.KeyUsage(**{name: name in names for name in USAGES})

    @staticmethod
    def extended(*oids: str) -> x509.ExtendedKeyUsage:
        return x509.ExtendedKeyUsage([x509.ObjectIdentifier(oid) for oid in oids])

    @staticmethod
    def pem(der: bytes) -> bytes:
        """A PEM certificate, whatever `der` is."""
        body = base64.encodebytes(der)
        return b"-----BEGIN CERTIFICATE-----\n" + body + b"-----END CERTIFICATE-----\n"

    def key(self, kind: str, owner: str) -> PrivateKey:
        """RSA keys are slow to make: one for all owners."""
        name = kind if kind.startswith("rsa") else f"{kind} {owner}"
        if name not in self.keys:
            self.keys[name] = GENERATE[kind]()
        return self.keys[name]

    def issue(
        self,
        cn: str,
        issuer: Identity | None = None,
        *,
        kind: str = "p256",
        ca: bool = False,
        extensions: Sequence[x509.ExtensionType] = (),
        critical: bool = False,
        not_before: datetime = NOW - 5 * YEARS,
        not_after: datetime = NOW + 60 * YEARS,
        pss: bool = False,
        subject: x509.Name | None = None,
    ) -> Identity:
        """A certificate for `cn`, self-signed without `issuer`."""
        key = self.key(kind, cn)
        subject = subject or x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Test Org"),
                x509.NameAttribute(NameOID.COMMON_NAME, cn),
            ]
        )
        signing_key = issuer.key if issuer else key
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer.certificate.subject if issuer else subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(not_before)
            .not_valid_after(not_after)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )
        if ca:
            builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        for extension in extensions:
            builder = builder.add_extension(extension, critical=critical)
        digest = None if isinstance(signing_key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
        certificate = builder.sign(
            signing_key,
            digest,
            rsa_padding=padding.PSS(padding.MGF1(hashes.SHA256()), 32) if pss else None,
        )
        return Identity(certificate, key, self.folder)

    def sign_again(self, identity: Identity, *options: str, issuer: Identity | None = None) -> Identity:
        """A self-signed certificate signed again by `openssl x509`, which knows weak ways, too."""
        by = (
            ["-CA", issuer.pem_file, "-CAkey", issuer.key_file] if issuer else ["-signkey", identity.key_file]
        )
        pem = self.openssl("x509", "-preserve_dates", "-in", identity.pem_file, *by, *options)
        return Identity(x509.load_pem_x509_certificate(pem), identity.key, self.folder)

    def crl(
        self,
        issuer: Identity,
        *revoked: Identity,
        last: datetime = NOW - YEARS,
        following: datetime = NOW + 60 * YEARS,
    ) -> bytes:
        """A PEM CRL of `issuer`."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(issuer.certificate.subject)
            .last_update(last)
            .next_update(following)
        )
        for identity in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(identity.certificate.serial_number)
            builder = builder.add_revoked_certificate(entry.revocation_date(last).build())
        assert not isinstance(issuer.key, ed25519.Ed25519PrivateKey)
        return builder.sign(issuer.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def keyring(self, *trusted: Identity | bytes, policy: KeyringPolicy | None = None) -> Keyring:
        pems = [item if isinstance(item, bytes) else item.pem for item in trusted]
        return Keyring.load(pems, policy or KeyringPolicy())

    @staticmethod
    def sha256(data: bytes) -> bytes:
        return hashlib.sha256(data).digest()

    @staticmethod
    def openssl(*command: str, stdin: bytes = b"") -> bytes:
        done = subprocess.run(["openssl", *command], input=stdin, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def openssl_sign(
        self,
        content: bytes,
        *signers: Identity,
        options: Sequence[str] = (),
        detached: bool = False,
        old: bool = False,
    ) -> bytes:
        """What RAUC does: CMS_BINARY, CMS_NOSMIMECAP (not before 1.5: `old`), SHA-256."""
        command = ["cms", "-sign", "-binary", "-outform", "DER", "-md", "sha256"]
        command += [] if detached else ["-nodetach"]
        command += [] if old else ["-nosmimecap"]
        for signer in signers:
            command += ["-signer", signer.pem_file, "-inkey", signer.key_file]
            command += options if "-keyopt" in options else []
        return self.openssl(*command, *([] if "-keyopt" in options else options), stdin=content)

    def openssl_verify(
        self, der: bytes, *trusted: Identity, options: Sequence[str] = (), content: bytes | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """`openssl cms -verify` at our `now`."""
        keyring = self.folder / "keyring.pem"
        keyring.write_bytes(b"".join(identity.pem for identity in trusted))
        command = ["openssl", "cms", "-verify", "-binary", "-inform", "DER", "-CAfile", str(keyring)]
        command += ["-no-CApath", "-no-CAstore", "-attime", str(int(NOW.timestamp()))]
        if content is not None:
            (self.folder / "content").write_bytes(content)
            command += ["-content", str(self.folder / "content")]
        return subprocess.run([*command, *options], input=der, capture_output=True, check=False)

    def rauc_bundle(self, signer: Identity, bundle_format: str, *options: str) -> Bundle:
        """A bundle by the real `rauc bundle`."""
        folder = self.folder / f"bundle-{next(self.numbers)}"
        (folder / "content").mkdir(parents=True)
        (folder / "content" / "rootfs.img").write_bytes(random.Random(1).randbytes(1 << 16))
        manifest = f"[update]\ncompatible=x\n[bundle]\nformat={bundle_format}\n"
        (folder / "content" / "manifest.raucm").write_text(f"{manifest}[image.rootfs]\nfilename=rootfs.img\n")
        bundle = Bundle(folder / "bundle.raucb")
        keys = ["--cert", signer.pem_file, "--key", signer.key_file, *options]
        done = _rauc("bundle", *keys, str(folder / "content"), str(bundle.path))
        assert done.returncode == 0, done.stdout
        return bundle

    def rauc_info(self, bundle: Bundle, *trusted: Identity) -> str:
        """What `rauc info` prints, also when it refuses."""
        keyring = self.folder / "keyring.pem"
        keyring.write_bytes(b"".join(identity.pem for identity in trusted))
        return _rauc("--keyring", str(keyring), "info", str(bundle.path)).stdout


def _rauc(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["rauc", *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="session")
def root(pki: Pki) -> Identity:
    return pki.issue("Root CA", ca=True)


@pytest.fixture(scope="session")
def signer(pki: Pki, root: Identity) -> Identity:
    return pki.issue("Signer", root)
