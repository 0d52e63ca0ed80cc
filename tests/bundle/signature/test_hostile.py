"""Whatever the bytes: the same content is verified, or it is a SignatureError (of a keyring: ConfigError)."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat import asn1
from hypothesis import given, settings
from hypothesis import strategies as st

from updated.authoring.signing import sign
from updated.bundle import cms
from updated.bundle.certificate import Certificate
from updated.bundle.chain import describe_chain
from updated.bundle.signature import parse_signed_data
from updated.bundle.trust import Keyring, KeyringPolicy
from updated.errors import ConfigError, SignatureError

if TYPE_CHECKING:
    from tests.bundle.signature.conftest import Identity, Pki

CONTENT = b"[update]\ncompatible=x\n"
KINDS = ("rsa2048", "p256", "ed25519")
quick = settings(max_examples=150, deadline=None, derandomize=True)


@st.composite
def mutations(draw: st.DrawFn) -> list[tuple[float, int, bytes]]:
    """Places (fraction of the length), how many bytes go, and what comes instead."""
    place = st.floats(0, 1, exclude_max=True)
    gone = st.sampled_from([0, 1, 1, 1, 2, 5, 1000000])
    return draw(st.lists(st.tuples(place, gone, st.binary(max_size=3)), min_size=1, max_size=3))


def mutate(data: bytes, changes: list[tuple[float, int, bytes]]) -> bytes:
    for place, gone, new in changes:
        at = int(place * len(data))
        data = data[:at] + new + data[at + gone :]
    return data


@pytest.fixture(scope="module")
def messages(pki: Pki, root: Identity) -> list[bytes]:
    signers = [pki.issue("Signer", root, kind=kind) for kind in KINDS]
    made = [
        sign(content=CONTENT, certificate_pem=one.pem, key_pem=one.key_pem, signing_time=pki.now)
        for one in signers
    ]
    pss = ["-keyopt", "rsa_padding_mode:pss"]
    return [*made, pki.openssl_sign(CONTENT, signers[0], options=pss)]


def try_verify(der: bytes, keyring: Keyring, now: datetime) -> bool:
    try:
        message = parse_signed_data(der)
        chain = message.verify(keyring, now)
    except SignatureError as error:
        assert str(error)
        return False
    assert message.content == CONTENT
    assert describe_chain(chain).isascii()
    return True


@quick
@given(which=st.integers(0, 3), changes=mutations())
def test_changed_message(
    pki: Pki, root: Identity, messages: list[bytes], which: int, changes: list[tuple[float, int, bytes]]
) -> None:
    try_verify(mutate(messages[which], changes), pki.keyring(root), pki.now)


@pytest.mark.parametrize("which", range(4))
def test_every_truncation(pki: Pki, messages: list[bytes], which: int) -> None:
    der = messages[which]
    for length in range(len(der)):
        with pytest.raises(SignatureError):
            parse_signed_data(der[:length])


def test_every_bit_of_the_signer_info(pki: Pki, root: Identity, messages: list[bytes]) -> None:
    """A flipped bit is only forgiven where it says the same (a digest's NULL parameters and the like)."""
    keyring, der = pki.keyring(root), messages[1]
    assert try_verify(der, keyring, pki.now)
    for index in range(len(der) - 250, len(der)):
        flipped = der[:index] + bytes([der[index] ^ 1]) + der[index + 1 :]
        assert not try_verify(flipped, keyring, pki.now), index


@quick
@given(st.binary(max_size=200))
def test_random_bytes(data: bytes) -> None:
    with pytest.raises(SignatureError):
        parse_signed_data(data)


@pytest.fixture(scope="module")
def odd(pki: Pki) -> dict[str, tuple[bytes, bytes]]:
    """For each kind of key a self-signed certificate, and a message signed with it."""
    made = {}
    for kind in KINDS:
        one = pki.issue("Odd", kind=kind, extensions=[pki.key_usage("digital_signature")])
        message = sign(content=CONTENT, certificate_pem=one.pem, key_pem=one.key_pem, signing_time=pki.now)
        made[kind] = one.certificate.public_bytes(pki.DER), message
    return made


def try_certificate(pki: Pki, message: bytes, certificate: bytes) -> bool:
    """Verify `message` with its certificate replaced, and the new one in the keyring."""
    info = asn1.decode_der(cms.SignedDataInfo, message)
    (signer,) = info.content.signers.as_list()
    try:
        parsed = Certificate.parse(certificate)
    except SignatureError:
        return False
    issuer = asn1.decode_der(asn1.TLV, parsed.issuer_der)
    signer.sid = cms.IssuerAndSerial(issuer=issuer, serial=parsed.serial)
    info.content.certificates = asn1.SetOf([asn1.decode_der(asn1.TLV, certificate)])
    info.content.signers = asn1.SetOf([signer])
    try:
        keyring = pki.keyring(pki.pem(certificate), policy=KeyringPolicy(allow_partial_chain=True))
    except ConfigError:
        return False
    return try_verify(asn1.encode_der(info), keyring, pki.now)


@quick
@given(kind=st.sampled_from(KINDS), changes=mutations())
def test_changed_certificate_that_is_trusted(
    pki: Pki,
    odd: dict[str, tuple[bytes, bytes]],
    kind: str,
    changes: list[tuple[float, int, bytes]],
) -> None:
    """An odd certificate, itself in the keyring, meets every parser: OpenSSL's, cryptography's and ours."""
    certificate, message = odd[kind]
    assert try_certificate(pki, message, certificate)
    try_certificate(pki, message, mutate(certificate, changes))


@pytest.mark.parametrize(
    ("find", "replace"),
    [
        ("0203010001", "0203000001"),  # RSA exponent 1, not in DER
        ("0203010001", "0203010000"),  # even RSA exponent
        ("0203010001", "0203ffffff"),  # negative RSA exponent
        ("06082a8648ce3d030107", "06082a8648ce3d030101"),  # P-192's name on a P-256 point
        ("06082a8648ce3d030107", "06082a8648ce3d03017f"),  # a curve nobody knows
        ("06072a8648ce3d0201", "06072a8648ce3d0205"),  # a kind of key nobody knows
        ("06032b6570", "06032b656f"),  # X448 instead of Ed25519
        ("06032b6570", "06032b656e"),  # X25519
    ],
)
def test_odd_keys(pki: Pki, odd: dict[str, tuple[bytes, bytes]], find: str, replace: str) -> None:
    kind = "p256" if "ce3d" in find else "ed25519" if "2b65" in find else "rsa2048"
    certificate, message = odd[kind]
    assert bytes.fromhex(find) in certificate
    changed = certificate.replace(bytes.fromhex(find), bytes.fromhex(replace))
    assert not try_certificate(pki, message, changed)


@quick
@given(changes=mutations())
def test_changed_keyring(pki: Pki, root: Identity, changes: list[tuple[float, int, bytes]]) -> None:
    text = root.pem + pki.crl(root)
    try:
        Keyring.load([mutate(text, changes)], KeyringPolicy())
    except ConfigError as error:
        assert "keyring" in str(error)
