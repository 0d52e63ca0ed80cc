"""The chain as `rauc info` shows it; names as `openssl x509 -nameopt oneline` does."""

from __future__ import annotations

import hashlib
import subprocess
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.x509.name import _ASN1Type as Kind
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from updated.bundle.certificate import Certificate
from updated.bundle.chain import SignerChain, describe_chain, spki_hashes
from updated.bundle.names import common_name, oneline
from updated.bundle.signature import parse_signed_data

if TYPE_CHECKING:
    from pathlib import Path

    from tests.bundle.signature.conftest import Pki

VALUES = [
    "Foo, Inc",
    'Müller "x"',
    "#",
    "#first",
    "in#side",
    " blank first",
    "blank last ",
    "a+b",
    "a=b",
    "<a>",
    "a;b",
    "back\\slash",
    "tab\tnewline\nnul\0delete\x7f",
    "snow ☃ and 𝄞",
    "x",
]


def name_of(*values: str, kind: Kind = Kind.UTF8String) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, value, kind, _validate=False) for value in values]
    )


def openssl_oneline(der: bytes) -> str:
    command = ["openssl", "x509", "-inform", "DER", "-noout", "-subject", "-nameopt", "oneline"]
    done = subprocess.run(command, input=der, capture_output=True, check=True)
    return done.stdout.decode("ascii").removeprefix("subject=").removesuffix("\n")


@pytest.mark.parametrize("kind", [Kind.UTF8String, Kind.BMPString, Kind.UniversalString])
def test_oneline_values(pki: Pki, kind: Kind) -> None:
    # OpenSSL 3.0 refuses surrogates in a BMPString.
    values = [value for value in VALUES if kind is not Kind.BMPString or value.isascii()]
    der = pki.issue("Odd", subject=name_of(*values, kind=kind)).certificate.public_bytes(pki.DER)
    certificate = Certificate.parse(der)
    assert oneline(certificate.subject) == openssl_oneline(der)
    assert common_name(certificate.subject) == values[0]


def test_oneline_known_and_unknown_types(pki: Pki) -> None:
    oids = [getattr(NameOID, name) for name in dir(NameOID) if not name.startswith("_")]
    russian = {NameOID.INN, NameOID.OGRN, NameOID.SNILS}
    oids = [oid for oid in oids if oid not in russian] + [x509.ObjectIdentifier("1.2.3.4.5")]
    subject = x509.Name(
        [
            x509.RelativeDistinguishedName(
                [x509.NameAttribute(oid, "DE", _validate=False) for oid in oids[:3]]
            ),
            *(
                x509.RelativeDistinguishedName([x509.NameAttribute(oid, "DE", _validate=False)])
                for oid in oids[3:]
            ),
        ]
    )
    der = pki.issue("Types", subject=subject).certificate.public_bytes(pki.DER)
    assert oneline(Certificate.parse(der).subject) == openssl_oneline(der)


@settings(max_examples=100, deadline=None)
@given(st.text(min_size=1, max_size=8))
def test_oneline_is_printable_ascii(pki: Pki, text: str) -> None:
    identity = pki.issue("Any", subject=name_of(text.encode("utf-8", "replace").decode()))
    shown = oneline(Certificate.parse(identity.certificate.public_bytes(pki.DER)).subject)
    assert shown.isascii()
    assert shown.isprintable()


def test_like_rauc_info(pki: Pki) -> None:
    early = datetime(2024, 2, 3, 4, 5, 6, tzinfo=UTC)
    root = pki.issue('Root "R"', ca=True)
    middle = pki.issue('Müller, "Söhne"', root, ca=True, kind="rsa2048", not_before=early)
    signer = pki.issue('Müller "x"', middle, kind="p384", not_after=datetime(2049, 12, 9, tzinfo=UTC))
    bundle = pki.rauc_bundle(signer, "verity", "--intermediate", middle.pem_file)
    chain = parse_signed_data(bundle.cms).verify(pki.keyring(root), pki.now)
    assert describe_chain(chain) in pki.rauc_info(bundle, root)
    assert chain.not_after == datetime(2049, 12, 9, tzinfo=UTC)


def test_spki_hash_of_the_original_bytes(pki: Pki, tmp_path: Path) -> None:
    key, certificate = str(tmp_path / "key"), str(tmp_path / "certificate")
    pki.openssl("genpkey", "-algorithm", "RSA-PSS", "-pkeyopt", "rsa_keygen_bits:2048", "-out", key)
    pki.openssl("req", "-x509", "-key", key, "-subj", "/CN=PSS", "-days", "9", "-out", certificate)
    spki = pki.openssl("pkey", "-in", key, "-pubout", "-outform", "DER")
    der = pki.openssl("x509", "-in", certificate, "-outform", "DER")
    assert Certificate.parse(der).spki == spki
    (shown,) = spki_hashes(SignerChain((Certificate.parse(der),), None))
    assert shown == hashlib.sha256(spki).digest().hex(":").upper()
