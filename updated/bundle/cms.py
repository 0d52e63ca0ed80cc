"""CMS SignedData as DER structures (RFC 5652), and reading them strictly.

Decoding is `cryptography`'s declarative DER: definite lengths only, canonical, nothing behind the value.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, TypeVar

from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat import asn1
from cryptography.x509 import ObjectIdentifier

from updated.errors import SignatureError

T = TypeVar("T")

DATA = "1.2.840.113549.1.7.1"
SIGNED_DATA = "1.2.840.113549.1.7.2"
CONTENT_TYPE = "1.2.840.113549.1.9.3"
MESSAGE_DIGEST = "1.2.840.113549.1.9.4"
SIGNING_TIME = "1.2.840.113549.1.9.5"

# OpenSSL's short names, as RAUC prints them.
TYPE_NAMES = {
    DATA: "pkcs7-data",
    SIGNED_DATA: "pkcs7-signedData",
    "1.2.840.113549.1.7.3": "pkcs7-envelopedData",
    "1.2.840.113549.1.7.4": "pkcs7-signedAndEnvelopedData",
    "1.2.840.113549.1.7.5": "pkcs7-digestData",
    "1.2.840.113549.1.7.6": "pkcs7-encryptedData",
    "1.2.840.113549.1.9.16.1.2": "id-smime-ct-authData",
    "1.2.840.113549.1.9.16.1.9": "id-smime-ct-compressedData",
    "1.2.840.113549.1.9.16.1.23": "id-smime-ct-authEnvelopedData",
}

NOT_CMS = "Invalid bundle format: Signature data is no valid CMS"
NULL = b"\x05\x00"

# AlgorithmIdentifier: the OID and, maybe, parameters of any type.
AlgorithmFields = list[asn1.TLV]


@asn1.sequence
class ContentInfo:
    content_type: ObjectIdentifier
    content: Annotated[asn1.TLV, asn1.Explicit(0)]


@asn1.sequence
class Attribute:
    type: ObjectIdentifier
    values: asn1.SetOf[asn1.TLV]


@asn1.sequence
class EncapsulatedContent:
    content_type: ObjectIdentifier
    content: Annotated[bytes | None, asn1.Explicit(0)]


@asn1.sequence
class IssuerAndSerial:
    issuer: asn1.TLV
    serial: int


@asn1.sequence
class SignerInfo:
    version: int
    sid: IssuerAndSerial | Annotated[bytes, asn1.Implicit(0)]  # bytes: subjectKeyIdentifier
    digest_algorithm: AlgorithmFields
    signed_attributes: Annotated[asn1.SetOf[Attribute] | None, asn1.Implicit(0)]
    signature_algorithm: AlgorithmFields
    signature: bytes
    unsigned_attributes: Annotated[asn1.SetOf[Attribute] | None, asn1.Implicit(1)]


@asn1.sequence
class SignedData:
    version: int
    digest_algorithms: asn1.SetOf[AlgorithmFields]
    content: EncapsulatedContent
    certificates: Annotated[asn1.SetOf[asn1.TLV] | None, asn1.Implicit(0)]
    crls: Annotated[asn1.SetOf[asn1.TLV] | None, asn1.Implicit(1)]
    signers: asn1.SetOf[SignerInfo]


@asn1.sequence
class SignedDataInfo:
    """ContentInfo whose content is SignedData, for writing."""

    content_type: ObjectIdentifier
    content: Annotated[SignedData, asn1.Explicit(0)]


@asn1.sequence
class AlgorithmHolder:
    value: AlgorithmFields


@asn1.sequence
class Wrapped:
    """A value inside a SEQUENCE, see `decode_field`."""

    value: asn1.TLV


@dataclass(frozen=True, slots=True)
class Algorithm:
    """AlgorithmIdentifier; `parameters` is the DER of any value, None when absent."""

    oid: str
    parameters: bytes | None = None

    @property
    def plain(self) -> bool:
        """Parameters absent or NULL: both are in use for digests and for RSA (RFC 5754)."""
        return self.parameters in (None, NULL)


@contextmanager
def refusing(message: str, *, hint: str = "") -> Iterator[None]:
    """Turn what parsers of foreign bytes raise into SignatureError(message).

    `Warning`: cryptography warns of odd certificates; who runs Python with -W error gets a refusal.
    """
    try:
        yield
    except (ValueError, TypeError, OverflowError, UnsupportedAlgorithm, InternalError, Warning) as error:
        raise SignatureError(message, hint=hint or str(error)) from error


def decode_field(holder: type[T], der: bytes) -> T:
    """Decode `der` as the one field of the sequence `holder`: `asn1` decodes no bare SEQUENCE OF.

    Raises ValueError.
    """
    return asn1.decode_der(holder, asn1.encode_der(Wrapped(value=asn1.decode_der(asn1.TLV, der))))


def read_algorithm(fields: list[asn1.TLV]) -> Algorithm:
    """The AlgorithmIdentifier of `fields`.  Raises ValueError."""
    if len(fields) not in (1, 2):
        raise ValueError(f"AlgorithmIdentifier has {len(fields)} fields, expected 1 or 2")
    oid: ObjectIdentifier = fields[0].parse(ObjectIdentifier)
    parameters = asn1.encode_der(fields[1]) if len(fields) == 2 else None
    return Algorithm(oid.dotted_string, parameters)


def decode_algorithm(der: bytes) -> Algorithm:
    """The AlgorithmIdentifier in `der`.  Raises ValueError."""
    return read_algorithm(decode_field(AlgorithmHolder, der).value)


def write_algorithm(algorithm: Algorithm) -> list[asn1.TLV]:
    """The opposite of `read_algorithm`."""
    fields = [asn1.encode_der(ObjectIdentifier(algorithm.oid))]
    if algorithm.parameters is not None:
        fields.append(algorithm.parameters)
    return [asn1.decode_der(asn1.TLV, field) for field in fields]


def encode_algorithm(algorithm: Algorithm) -> bytes:
    """The opposite of `decode_algorithm`."""
    holder = asn1.encode_der(AlgorithmHolder(value=write_algorithm(algorithm)))
    return bytes(asn1.decode_der(asn1.TLV, holder).data)


def type_name(oid: str) -> str:
    """OpenSSL's short name of a CMS content type; unknown ones as dotted numbers."""
    return TYPE_NAMES.get(oid, oid)


def read_content_type(der: bytes) -> str:
    """The content type (dotted OID) of a CMS ContentInfo.

    Raises SignatureError for anything but exactly one DER object (RAUC ignores bytes behind it; we do not).
    """
    with refusing(NOT_CMS):
        return asn1.decode_der(ContentInfo, der).content_type.dotted_string


def read_signed_data(der: bytes) -> SignedData:
    """The SignedData that `der` is, and nothing but it.  Raises SignatureError."""
    found = read_content_type(der)
    if found != SIGNED_DATA:
        raise SignatureError(f"Expected CMS of type '{type_name(SIGNED_DATA)}' but got '{type_name(found)}'")
    with refusing(NOT_CMS):
        return asn1.decode_der(SignedDataInfo, der).content
