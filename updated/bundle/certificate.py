"""What this project reads from an X.509 certificate (RFC 5280), from its original bytes.

Whether a certificate is trusted is `trust.py`'s question.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated

from cryptography.hazmat import asn1
from cryptography.x509 import ObjectIdentifier

from updated.bundle.cms import Algorithm, AlgorithmFields, decode_field, read_algorithm, refusing
from updated.bundle.names import Name, read_name

SUBJECT_KEY_IDENTIFIER = "2.5.29.14"
KEY_USAGE = "2.5.29.15"
EXTENDED_KEY_USAGE = "2.5.29.37"
NETSCAPE_CERT_TYPE = "2.16.840.1.113730.1.1"


@asn1.sequence
class Validity:
    not_before: asn1.UTCTime | asn1.GeneralizedTime
    not_after: asn1.UTCTime | asn1.GeneralizedTime


@asn1.sequence
class Extension:
    oid: ObjectIdentifier
    critical: bool | None
    value: bytes


@asn1.sequence
class TBSCertificate:
    version: Annotated[int | None, asn1.Explicit(0)]
    serial: int
    signature: AlgorithmFields
    issuer: asn1.TLV
    validity: Validity
    subject: asn1.TLV
    spki: asn1.TLV
    issuer_unique_id: Annotated[asn1.BitString | None, asn1.Implicit(1)]
    subject_unique_id: Annotated[asn1.BitString | None, asn1.Implicit(2)]
    extensions: Annotated[list[Extension] | None, asn1.Explicit(3)]


@asn1.sequence
class CertificateFields:
    tbs: TBSCertificate
    signature_algorithm: AlgorithmFields
    signature: asn1.BitString


@asn1.sequence
class OidList:
    value: list[ObjectIdentifier]


@dataclass(frozen=True, slots=True)
class Certificate:
    """One certificate; `issuer_der` and `spki` (SubjectPublicKeyInfo) are its very bytes."""

    der: bytes = field(repr=False)
    serial: int
    issuer: Name
    issuer_der: bytes = field(repr=False)
    subject: Name
    not_before: datetime  # UTC
    not_after: datetime  # UTC
    spki: bytes = field(repr=False)
    signature_algorithm: Algorithm
    critical: frozenset[str] = frozenset()  # OIDs of the critical extensions
    key_usage: int | None = None  # bit 0 is digitalSignature; None: extension absent
    extended_key_usage: frozenset[str] | None = None  # OIDs; None: extension absent
    netscape_type: int | None = None  # bit 0 is sslClient; None: extension absent
    subject_key_identifier: bytes | None = None

    @classmethod
    def parse(cls, der: bytes) -> Certificate:
        """Read one DER certificate.  Raises SignatureError."""
        with refusing("signature verification failed: unreadable certificate"):
            return _read(der)


def _read(der: bytes) -> Certificate:
    fields = asn1.decode_der(CertificateFields, der)
    tbs = fields.tbs
    extensions = {extension.oid.dotted_string: extension.value for extension in tbs.extensions or ()}
    if len(extensions) != len(tbs.extensions or ()):
        raise ValueError("an extension occurs twice")
    issuer_der, subject_der = asn1.encode_der(tbs.issuer), asn1.encode_der(tbs.subject)
    return Certificate(
        der=der,
        serial=tbs.serial,
        issuer=read_name(issuer_der),
        issuer_der=issuer_der,
        subject=read_name(subject_der),
        not_before=tbs.validity.not_before.as_datetime(),
        not_after=tbs.validity.not_after.as_datetime(),
        spki=asn1.encode_der(tbs.spki),
        signature_algorithm=read_algorithm(fields.signature_algorithm),
        critical=frozenset(e.oid.dotted_string for e in tbs.extensions or () if e.critical),
        key_usage=_bits(extensions.get(KEY_USAGE)),
        extended_key_usage=_oids(extensions.get(EXTENDED_KEY_USAGE)),
        netscape_type=_bits(extensions.get(NETSCAPE_CERT_TYPE)),
        subject_key_identifier=_octets(extensions.get(SUBJECT_KEY_IDENTIFIER)),
    )


def _bits(der: bytes | None) -> int | None:
    """The first 16 bits of a BIT STRING, the first of them as bit 0."""
    if der is None:
        return None
    data = asn1.decode_der(asn1.BitString, der).as_bytes()[:2].ljust(2, b"\0")
    return int(f"{int.from_bytes(data, 'big'):016b}"[::-1], 2)


def _oids(der: bytes | None) -> frozenset[str] | None:
    if der is None:
        return None
    return frozenset(oid.dotted_string for oid in decode_field(OidList, der).value)


def _octets(der: bytes | None) -> bytes | None:
    return None if der is None else asn1.decode_der(bytes, der)
