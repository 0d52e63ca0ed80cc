"""CMS structures nobody's tool writes, made by taking a good one apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat import asn1
from cryptography.x509 import ObjectIdentifier

from updated.bundle import cms
from updated.bundle.signature import parse_signed_data
from updated.bundle.trust import KeyringPolicy
from updated.errors import SignatureError

if TYPE_CHECKING:
    from tests.bundle.signature.conftest import Identity, Pki

Change = Callable[[cms.SignedData, cms.SignerInfo], None]
SHA256, SHA512 = "2.16.840.1.101.3.4.2.1", "2.16.840.1.101.3.4.2.3"


def changed(der: bytes, change: Change) -> bytes:
    info = asn1.decode_der(cms.SignedDataInfo, der)
    (signer,) = info.content.signers.as_list()
    change(info.content, signer)
    if info.content.signers.as_list():
        info.content.signers = asn1.SetOf([signer])
    return asn1.encode_der(info)


def tlv(value: object) -> asn1.TLV:
    return asn1.decode_der(asn1.TLV, asn1.encode_der(value))


def attributes(signer: cms.SignerInfo) -> list[cms.Attribute]:
    assert signer.signed_attributes is not None
    return signer.signed_attributes.as_list()


def set_attribute(oid: str, *values: asn1.TLV) -> Change:
    def change(_: cms.SignedData, signer: cms.SignerInfo) -> None:
        made = cms.Attribute(type=ObjectIdentifier(oid), values=asn1.SetOf(list(values)))
        others = [one for one in attributes(signer) if one.type.dotted_string != oid]
        signer.signed_attributes = asn1.SetOf([*others, made])

    return change


def drop_attribute(oid: str) -> Change:
    def change(_: cms.SignedData, signer: cms.SignerInfo) -> None:
        others = [one for one in attributes(signer) if one.type.dotted_string != oid]
        signer.signed_attributes = asn1.SetOf(others)

    return change


def repeat_attribute(oid: str) -> Change:
    def change(_: cms.SignedData, signer: cms.SignerInfo) -> None:
        again = cms.Attribute(type=ObjectIdentifier(oid), values=asn1.SetOf([tlv(bytes(32))]))
        signer.signed_attributes = asn1.SetOf([*attributes(signer), again])

    return change


def no_signers(data: cms.SignedData, _: cms.SignerInfo) -> None:
    data.signers = asn1.SetOf([])


def announce(*oids: str) -> Change:
    def change(data: cms.SignedData, _: cms.SignerInfo) -> None:
        data.digest_algorithms = asn1.SetOf([cms.write_algorithm(cms.Algorithm(oid)) for oid in oids])

    return change


def digest_by(algorithm: cms.Algorithm) -> Change:
    def change(_: cms.SignedData, signer: cms.SignerInfo) -> None:
        signer.digest_algorithm = cms.write_algorithm(algorithm)

    return change


def sign_by(algorithm: cms.Algorithm) -> Change:
    def change(_: cms.SignedData, signer: cms.SignerInfo) -> None:
        signer.signature_algorithm = cms.write_algorithm(algorithm)

    return change


def many_certificates(data: cms.SignedData, _: cms.SignerInfo) -> None:
    assert data.certificates is not None
    data.certificates = asn1.SetOf(data.certificates.as_list() * 101)


def rubbish_certificate(data: cms.SignedData, _: cms.SignerInfo) -> None:
    assert data.certificates is not None
    data.certificates = asn1.SetOf([*data.certificates.as_list(), tlv(b"rubbish")])


def bad_algorithm(_: cms.SignedData, signer: cms.SignerInfo) -> None:
    signer.digest_algorithm = []


OID, OTHER_OID = tlv(ObjectIdentifier(cms.DATA)), tlv(ObjectIdentifier("1.2.3"))
TIME, DIGEST = cms.SIGNING_TIME, cms.MESSAGE_DIGEST


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (no_signers, "signature verification failed: error:17000087:CMS routines::no signers"),
        (
            set_attribute(cms.CONTENT_TYPE, OTHER_OID),
            "signed attribute contentType is '1.2.3', expected 'pkcs7-d",
        ),
        (set_attribute(cms.CONTENT_TYPE, OID, OTHER_OID), "2 values of the signed attribute contentType"),
        (set_attribute(cms.CONTENT_TYPE), "0 values of the signed attribute contentType"),
        (set_attribute(cms.CONTENT_TYPE, tlv(7)), "unreadable signed attribute contentType"),
        (drop_attribute(cms.CONTENT_TYPE), "0 values of the signed attribute contentType"),
        (drop_attribute(DIGEST), "0 values of the signed attribute messageDigest, expected one"),
        (repeat_attribute(DIGEST), f"signed attribute {DIGEST} occurs twice"),
        (
            set_attribute(DIGEST, tlv(bytes(32)), tlv(bytes(31))),
            "2 values of the signed attribute messageDigest",
        ),
        (set_attribute(DIGEST, tlv(bytes(20))), "messageDigest has 20 bytes, wrong for sha256"),
        (set_attribute(DIGEST, OID), "unreadable signed attribute messageDigest"),
        (set_attribute(TIME, OID), "Bundle signing time attribute has unexpected type"),
        (set_attribute(TIME), "0 values of the signed attribute signingTime"),
        (announce(), "the message does not announce its signer's digest sha256"),
        (announce(SHA512), "the message does not announce its signer's digest sha256"),
        (
            digest_by(cms.Algorithm("1.3.14.3.2.26")),
            "digest algorithm is sha1, expected sha256, sha384 or sha5",
        ),
        (digest_by(cms.Algorithm("1.2.3.4")), "digest algorithm is 1.2.3.4, expected sha256"),
        (digest_by(cms.Algorithm(SHA256, b"\x04\x00")), "digest algorithm is sha256 with parameters"),
        (bad_algorithm, "Invalid bundle format: Signature data is no valid CMS"),
        (many_certificates, "101 certificates, expected at most 100"),
        (rubbish_certificate, "unreadable certificate"),
    ],
)
def test_refused_when_parsed(pki: Pki, signer: Identity, change: Change, text: str) -> None:
    der = changed(pki.openssl_sign(b"content", signer), change)
    with pytest.raises(SignatureError) as caught:
        parse_signed_data(der)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "algorithm"),
    [
        ("p256", cms.Algorithm("1.2.840.10045.4.3.4")),  # ecdsa-with-SHA512, but the digest is SHA-256
        ("p256", cms.Algorithm("1.2.840.113549.1.1.11")),
        ("p256", cms.Algorithm("1.3.101.112")),
        ("p256", cms.Algorithm("1.2.3.4")),
        ("rsa2048", cms.Algorithm("1.2.840.113549.1.1.13", cms.NULL)),
        ("rsa2048", cms.Algorithm("1.2.840.113549.1.1.5", cms.NULL)),
        ("rsa2048", cms.Algorithm("1.2.840.10045.4.3.2")),
        ("rsa2048", cms.Algorithm("1.2.840.113549.1.1.10")),
        ("rsa2048", cms.Algorithm("1.2.840.113549.1.1.10", cms.NULL)),
        ("rsa2048", cms.Algorithm("1.2.840.113549.1.1.10", b"\x30\x00")),
    ],
)
def test_signature_algorithm_must_fit(pki: Pki, root: Identity, kind: str, algorithm: cms.Algorithm) -> None:
    signer = pki.issue("Signer", root, kind=kind)
    message = parse_signed_data(changed(pki.openssl_sign(b"content", signer), sign_by(algorithm)))
    with pytest.raises(SignatureError, match=r"^signature verification failed: (?!Verify error)"):
        message.verify(pki.keyring(root), pki.now)


@pytest.mark.parametrize(
    "change",
    [
        sign_by(cms.Algorithm("1.2.840.113549.1.1.11", cms.NULL)),  # sha256WithRSAEncryption
        sign_by(cms.Algorithm("1.2.840.113549.1.1.1")),  # parameters absent
        digest_by(cms.Algorithm(SHA256, cms.NULL)),
        announce(SHA256, SHA512),
    ],
)
def test_other_ways_to_say_the_same(pki: Pki, root: Identity, change: Change) -> None:
    signer = pki.issue("Signer", root, kind="rsa2048")
    message = parse_signed_data(changed(pki.openssl_sign(b"content", signer), change))
    assert message.verify(pki.keyring(root), pki.now).signer_cn == "Signer"


def test_missing_signing_time(pki: Pki, root: Identity, signer: Identity) -> None:
    message = parse_signed_data(changed(pki.openssl_sign(b"content", signer), drop_attribute(TIME)))
    assert message.signing_time is None
    policy = KeyringPolicy(use_bundle_signing_time=True)
    with pytest.raises(SignatureError, match=r"^Bundle signing time attribute not found in signature$"):
        message.verify(pki.keyring(root, policy=policy), pki.now)


def test_broken_bundles_of_rsa_pss_keys(pki: Pki) -> None:
    """OpenSSL, so RAUC, writes `rsaEncryption` for an RSA-PSS key; and says so when it reads that."""
    key, certificate = str(pki.folder / "pss.key"), str(pki.folder / "pss.pem")
    pki.openssl("genpkey", "-algorithm", "RSA-PSS", "-pkeyopt", "rsa_keygen_bits:2048", "-out", key)
    pki.openssl("req", "-x509", "-key", key, "-subj", "/CN=PSS", "-days", "9", "-out", certificate)
    command = ["-sign", "-binary", "-nodetach", "-outform", "DER", "-signer", certificate, "-inkey", key]
    der = pki.openssl("cms", *command, stdin=b"content")
    keyring = pki.keyring(pki.openssl("x509", "-in", certificate), policy=KeyringPolicy(check_time=False))
    with pytest.raises(
        SignatureError, match="error:02000090:rsa routines::illegal or unsupported padding mode"
    ):
        parse_signed_data(der).verify(keyring, pki.now)
