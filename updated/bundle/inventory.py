"""What is in a keyring, and what each part of it is good for: looked at without a bundle.

Whether a bundle is trusted is `trust.py`'s question alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from OpenSSL import crypto

from updated.bundle.algorithms import strong_key
from updated.bundle.certificate import Certificate
from updated.bundle.names import oneline
from updated.bundle.purpose import DEFAULT, PURPOSES, check_purpose
from updated.bundle.trust import Keyring
from updated.errors import SignatureError

MAX_KEY = 64 * 1024  # bytes; RSA with 16384 bits has 13 KB


@dataclass(frozen=True, slots=True)
class Member:
    """One certificate of a keyring."""

    name: str  # its subject, on one line
    issuer: str
    not_before: datetime  # UTC
    not_after: datetime  # UTC
    spki: bytes  # its public key, DER
    authority: bool  # may sign certificates
    anchor: bool  # a chain may end at it
    fault: str  # why no bundle can be trusted because of it; "" if one can


@dataclass(frozen=True, slots=True)
class RevocationList:
    """One CRL of a keyring."""

    issuer: str
    last_update: datetime  # UTC
    next_update: datetime | None  # UTC; None: not said


def members(keyring: Keyring) -> tuple[Member, ...]:
    """Its certificates, in file order.  Raises SignatureError if one is unreadable."""
    return tuple(
        _member(crypto.dump_certificate(crypto.FILETYPE_ASN1, each), keyring) for each in keyring.certificates
    )


def revocation_lists(keyring: Keyring) -> tuple[RevocationList, ...]:
    """Its CRLs, in file order.  Raises ValueError if one is unreadable."""
    return tuple(
        RevocationList(_oneline(crl.issuer), crl.last_update_utc, crl.next_update_utc) for crl in keyring.crls
    )


def public_key_of(pem: bytes) -> bytes | None:
    """SubjectPublicKeyInfo (DER) of the first private key in `pem`; None: locked, or unreadable."""
    start = pem.find(b"-----BEGIN ")
    while start >= 0:
        try:
            key: PrivateKeyTypes = serialization.load_pem_private_key(pem[start:], None)
        except Exception:  # noqa: BLE001 - a password, another block, a key of a kind nobody knows
            start = pem.find(b"-----BEGIN ", start + 1)
            continue
        return key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    return None


def _member(der: bytes, keyring: Keyring) -> Member:
    certificate = Certificate.parse(der)
    authority = _is_authority(der)
    name, issuer = oneline(certificate.subject), oneline(certificate.issuer)
    return Member(
        name,
        issuer,
        certificate.not_before,
        certificate.not_after,
        certificate.spki,
        authority,
        anchor=name == issuer or keyring.policy.allow_partial_chain,
        fault=_fault(certificate, keyring.policy.check_purpose or DEFAULT, authority=authority),
    )


def _fault(certificate: Certificate, purpose: str, *, authority: bool) -> str:
    try:
        strong_key(certificate.spki)
        if not authority:
            check_purpose([certificate], purpose)
    except SignatureError as error:
        return str(error).removeprefix("signature verification failed: ")
    wanted, has = PURPOSES[purpose], certificate.extended_key_usage
    if authority and wanted.binds_cas and wanted.extended and has is not None and not has & wanted.extended:
        return f"its extended key usage does not allow '{purpose}'"
    return ""


def _is_authority(der: bytes) -> bool:
    """RFC 5280, 4.2.1.9; a certificate of before extensions (version 1) counts if it signed itself."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return certificate.version is x509.Version.v1 and certificate.subject == certificate.issuer
    except ValueError:
        return False


def _oneline(name: x509.Name) -> str:
    from updated.bundle.names import read_name

    return oneline(read_name(name.public_bytes()))
