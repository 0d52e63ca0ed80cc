"""Signing a bundle as RAUC does: CMS SignedData, byte for byte `CMS_sign(CMS_BINARY | CMS_NOSMIMECAP)`.

Beyond RAUC: RSA-PSS keys sign properly (RAUC writes a bundle nobody can verify), and so does Ed25519
(RFC 8419), which no RAUC can verify yet.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime

from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509 import Certificate as X509
from cryptography.x509 import ObjectIdentifier, load_pem_x509_certificate

from updated.bundle import cms
from updated.bundle.algorithms import (
    DEFAULT_PSS_SALT,
    DIGEST_OIDS,
    ECDSA_OIDS,
    ED25519,
    HASHES,
    MGF1,
    PSS,
    RSA,
    RSA_PSS,
    PSSFields,
    PublicKey,
    read_pss,
    strong_key,
)
from updated.bundle.certificate import Certificate
from updated.errors import SignatureError

PREFIX = "failed to create signature: "
PSS_DEFAULT = PSS("sha256", "sha256", 32)
FIRST_GENERALIZED_YEAR = 2050  # RFC 5652, 11.3: UTCTime before, GeneralizedTime from then on

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def load_key(pem: bytes, passphrase: bytes | None = None) -> PrivateKey:
    """Read a PEM private key: RSA, EC or Ed25519.  Raises SignatureError."""
    with cms.refusing(f"{PREFIX}cannot read the private key", hint="Is it PEM, and is the passphrase right?"):
        key = serialization.load_pem_private_key(pem, passphrase)
    if isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
        return key
    raise SignatureError(f"{PREFIX}unsupported private key", hint="Use an RSA, ECDSA or Ed25519 key.")


def load_certificate(pem: bytes) -> Certificate:
    """The first certificate of a PEM text (as RAUC, also for intermediates).  Raises SignatureError."""
    with cms.refusing(f"{PREFIX}cannot read the certificate", hint="It must be PEM."):
        loaded: X509 = load_pem_x509_certificate(pem)
        der = loaded.public_bytes(serialization.Encoding.DER)
    return Certificate.parse(der)


def digest_algorithm(certificate_pem: bytes) -> str:
    """hashlib's name of the digest `sign` wants for this certificate.  Raises SignatureError."""
    return _digest_for(strong_key(load_certificate(certificate_pem).spki, prefix=PREFIX))


def sign(
    *,
    content: bytes | None = None,
    digest: bytes | None = None,
    certificate_pem: bytes,
    key_pem: bytes,
    passphrase: bytes | None = None,
    intermediates_pem: Sequence[bytes] = (),
    signing_time: datetime,
) -> bytes:
    """A DER CMS: around `content` (embedded), or for a `digest` of detached content, by `digest_algorithm`.

    Exactly one of both; `signing_time` has a time zone.  Raises SignatureError if key and certificate do not
    belong together, are unreadable or weak.
    """
    if (content is None) == (digest is None):
        raise TypeError("exactly one of content and digest")
    certificate = load_certificate(certificate_pem)
    public, private = strong_key(certificate.spki, prefix=PREFIX), load_key(key_pem, passphrase)
    if private.public_key() != public.key:
        raise SignatureError(f"{PREFIX}the private key does not belong to the certificate")
    name = _digest_for(public)
    if content is not None:
        digest = hashlib.new(name, content).digest()
    elif digest is None or len(digest) != hashlib.new(name).digest_size:
        raise SignatureError(f"{PREFIX}the digest has the wrong length for {name}")
    attributes = _signed_attributes(digest, signing_time)
    algorithm, signature = _sign(private, public, name, asn1.encode_der(attributes))
    signer = cms.SignerInfo(
        version=1,
        sid=cms.IssuerAndSerial(issuer=_tlv(certificate.issuer_der), serial=certificate.serial),
        digest_algorithm=cms.write_algorithm(cms.Algorithm(DIGEST_OIDS[name])),
        signed_attributes=attributes,
        signature_algorithm=cms.write_algorithm(algorithm),
        signature=signature,
        unsigned_attributes=None,
    )
    certificates = {certificate.der, *(load_certificate(pem).der for pem in intermediates_pem)}
    return _encode(content, name, certificates, signer)


def _encode(content: bytes | None, digest: str, certificates: set[bytes], signer: cms.SignerInfo) -> bytes:
    data = cms.SignedData(
        version=1,
        digest_algorithms=asn1.SetOf([cms.write_algorithm(cms.Algorithm(DIGEST_OIDS[digest]))]),
        content=cms.EncapsulatedContent(content_type=ObjectIdentifier(cms.DATA), content=content),
        certificates=asn1.SetOf([_tlv(der) for der in certificates]),
        crls=None,
        signers=asn1.SetOf([signer]),
    )
    return asn1.encode_der(cms.SignedDataInfo(content_type=ObjectIdentifier(cms.SIGNED_DATA), content=data))


def _signed_attributes(digest: bytes, signing_time: datetime) -> asn1.SetOf[cms.Attribute]:
    moment = signing_time.astimezone(UTC).replace(microsecond=0)
    late = moment.year >= FIRST_GENERALIZED_YEAR
    values = {
        cms.CONTENT_TYPE: asn1.encode_der(ObjectIdentifier(cms.DATA)),
        cms.SIGNING_TIME: asn1.encode_der(asn1.GeneralizedTime(moment) if late else asn1.UTCTime(moment)),
        cms.MESSAGE_DIGEST: asn1.encode_der(digest),
    }
    return asn1.SetOf(
        [
            cms.Attribute(type=ObjectIdentifier(oid), values=asn1.SetOf([_tlv(value)]))
            for oid, value in values.items()
        ]
    )


def _digest_for(key: PublicKey) -> str:
    if isinstance(key.key, ed25519.Ed25519PublicKey):
        return "sha512"  # RFC 8419, 3.1
    if key.algorithm.oid == RSA_PSS:
        return _pss_for(key).digest
    return "sha256"


def _pss_for(key: PublicKey) -> PSS:
    with cms.refusing(f"{PREFIX}unreadable RSA-PSS parameters"):
        return PSS_DEFAULT if key.algorithm.parameters is None else read_pss(key.algorithm.parameters)


def _sign(private: PrivateKey, public: PublicKey, digest: str, data: bytes) -> tuple[cms.Algorithm, bytes]:
    hash_algorithm = HASHES[digest]()
    if isinstance(private, ed25519.Ed25519PrivateKey):
        return cms.Algorithm(ED25519), private.sign(data)
    if isinstance(private, ec.EllipticCurvePrivateKey):
        return cms.Algorithm(ECDSA_OIDS[digest]), private.sign(data, ec.ECDSA(hash_algorithm))
    if public.algorithm.oid == RSA_PSS:
        pss = _pss_for(public)
        return cms.Algorithm(RSA_PSS, _pss_parameters(pss)), private.sign(data, pss.padding, hash_algorithm)
    return cms.Algorithm(RSA, cms.NULL), private.sign(data, padding.PKCS1v15(), hash_algorithm)


def _pss_parameters(pss: PSS) -> bytes:
    mask = cms.encode_algorithm(cms.Algorithm(DIGEST_OIDS[pss.mask_digest], cms.NULL))
    return asn1.encode_der(
        PSSFields(
            hash=cms.write_algorithm(cms.Algorithm(DIGEST_OIDS[pss.digest], cms.NULL)),
            mask=cms.write_algorithm(cms.Algorithm(MGF1, mask)),
            salt_length=None if pss.salt_length == DEFAULT_PSS_SALT else pss.salt_length,
            trailer=None,
        )
    )


def _tlv(der: bytes) -> asn1.TLV:
    return asn1.decode_der(asn1.TLV, der)
