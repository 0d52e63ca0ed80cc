"""A bundle's signature: is it whole, and did somebody sign it whom this device trusts?

Stricter than RAUC, which takes more than it makes: exactly one DER object with exactly one signer, content of
type `data`, signed attributes that name type and digest, SHA-256 or better.  Every bundle made by RAUC is so.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from cryptography.hazmat import asn1
from cryptography.x509 import ObjectIdentifier

from updated.bundle import cms
from updated.bundle.algorithms import (
    MISMATCH,
    MISMATCH_HINT,
    PREFIX,
    check_signature,
    digest_name,
    strong_key,
)
from updated.bundle.certificate import Certificate
from updated.bundle.chain import SignerChain
from updated.bundle.trust import Keyring
from updated.errors import SignatureError

MAX_CERTIFICATES = 100  # in the CMS; OpenSSL's longest chain


@dataclass(frozen=True, slots=True)
class SignedMessage:
    """A parsed CMS.  Nothing of it is to be believed before `verify`."""

    content: bytes | None  # the manifest; None when detached
    digest_algorithm: str  # hashlib's name
    certificates: tuple[Certificate, ...]
    signing_time: datetime | None  # UTC, as the signer claims
    _signer: cms.SignerInfo = field(repr=False)
    _message_digest: bytes = field(repr=False)

    @property
    def detached(self) -> bool:
        """The content is outside of the CMS (a `plain` bundle): `check_digest` must follow `verify`."""
        return self.content is None

    def verify(self, keyring: Keyring, now: datetime) -> SignerChain:
        """Check chain, purpose, signature, embedded content and signer name, in this order.

        `now` has a time zone; with use-bundle-signing-time the signing time stands in for it.
        The content of a detached message is not known here: its digest must pass `check_digest`, too.
        Raises SignatureError.
        """
        leaf = self._find_signer_certificate()
        moment = self._moment(keyring, now)
        others = [certificate for certificate in self.certificates if certificate is not leaf]
        chain = SignerChain(keyring.validate(leaf, others, moment), self.signing_time)
        self._check_signature(leaf)
        if self.content is not None:
            self.check_digest(hashlib.new(self.digest_algorithm, self.content).digest())
        _check_signer_name(chain, keyring.policy.allowed_signer_cns)
        return chain

    def check_digest(self, digest: bytes) -> None:
        """Is `digest`, by `digest_algorithm` of the whole content, the signed one?  Raises SignatureError."""
        if not hmac.compare_digest(digest, self._message_digest):
            raise SignatureError(MISMATCH, hint=MISMATCH_HINT)

    def _find_signer_certificate(self) -> Certificate:
        sid = self._signer.sid
        for certificate in self.certificates:
            if isinstance(sid, bytes):
                found = certificate.subject_key_identifier == sid
            else:
                same_issuer = certificate.issuer_der == asn1.encode_der(sid.issuer)
                found = same_issuer and certificate.serial == sid.serial
            if found:
                return certificate
        raise SignatureError(
            f"{PREFIX}error:1700008A:CMS routines::signer certificate not found",
            hint="The signer's certificate must be inside the signature, even if the keyring has it.",
        )

    def _moment(self, keyring: Keyring, now: datetime) -> datetime:
        if not keyring.policy.use_bundle_signing_time:
            return now
        if self.signing_time is None:
            raise SignatureError("Bundle signing time attribute not found in signature")
        return self.signing_time

    def _check_signature(self, leaf: Certificate) -> None:
        # DER is canonical, so encoding again yields the signed bytes: a SET OF instead of the implicit tag.
        signed = asn1.encode_der(self._signer.signed_attributes)
        with cms.refusing(cms.NOT_CMS):
            algorithm = cms.read_algorithm(self._signer.signature_algorithm)
        check_signature(
            strong_key(leaf.spki),
            algorithm,
            self.digest_algorithm,
            self._signer.signature,
            signed,
        )


def parse_signed_data(der: bytes) -> SignedMessage:
    """Read a CMS SignedData.  The caller limits its size.  Raises SignatureError."""
    data = cms.read_signed_data(der)
    signer = _only_signer(data.signers.as_list())
    digest = _read_digest_algorithm(data, signer)
    _check_is_data(data.content.content_type, "content")
    attributes = _read_attributes(signer)
    _check_is_data(_read_content_type(attributes), "signed attribute contentType")
    return SignedMessage(
        content=data.content.content,
        digest_algorithm=digest,
        certificates=_read_certificates(data),
        signing_time=_read_signing_time(attributes),
        _signer=signer,
        _message_digest=_read_message_digest(attributes, digest),
    )


def _only_signer(signers: Sequence[cms.SignerInfo]) -> cms.SignerInfo:
    if not signers:
        raise SignatureError(f"{PREFIX}error:17000087:CMS routines::no signers")
    if len(signers) > 1:
        raise SignatureError(
            f"Unsupported number of signers: {len(signers)}",
            hint="`rauc resign --append` makes such bundles; no RAUC installs them.",
        )
    return signers[0]


def _read_digest_algorithm(data: cms.SignedData, signer: cms.SignerInfo) -> str:
    with cms.refusing(cms.NOT_CMS):
        algorithm = cms.read_algorithm(signer.digest_algorithm)
        listed = [cms.read_algorithm(fields).oid for fields in data.digest_algorithms.as_list()]
    digest = digest_name(algorithm)
    if algorithm.oid not in listed:
        raise SignatureError(f"{PREFIX}the message does not announce its signer's digest {digest}")
    return digest


def _read_certificates(data: cms.SignedData) -> tuple[Certificate, ...]:
    found = data.certificates.as_list() if data.certificates is not None else []
    if len(found) > MAX_CERTIFICATES:
        raise SignatureError(f"{PREFIX}{len(found)} certificates, expected at most {MAX_CERTIFICATES}")
    return tuple(Certificate.parse(asn1.encode_der(tlv)) for tlv in found)


Attributes = dict[str, list[asn1.TLV]]


def _read_attributes(signer: cms.SignerInfo) -> Attributes:
    if signer.signed_attributes is None:
        raise SignatureError(f"{PREFIX}no signed attributes")
    attributes: Attributes = {}
    for attribute in signer.signed_attributes.as_list():
        oid = attribute.type.dotted_string
        if oid in attributes:
            raise SignatureError(f"{PREFIX}signed attribute {oid} occurs twice")
        attributes[oid] = attribute.values.as_list()
    return attributes


def _only_value(attributes: Attributes, oid: str, name: str) -> asn1.TLV:
    values = attributes.get(oid, [])
    if len(values) != 1:
        raise SignatureError(f"{PREFIX}{len(values)} values of the signed attribute {name}, expected one")
    return values[0]


def _read_content_type(attributes: Attributes) -> ObjectIdentifier:
    value = _only_value(attributes, cms.CONTENT_TYPE, "contentType")
    with cms.refusing(f"{PREFIX}unreadable signed attribute contentType"):
        found: ObjectIdentifier = value.parse(ObjectIdentifier)
    return found


def _check_is_data(found: ObjectIdentifier, what: str) -> None:
    if found.dotted_string != cms.DATA:
        got, expected = cms.type_name(found.dotted_string), cms.type_name(cms.DATA)
        raise SignatureError(f"{PREFIX}{what} is '{got}', expected '{expected}'")


def _read_message_digest(attributes: Attributes, digest: str) -> bytes:
    value = _only_value(attributes, cms.MESSAGE_DIGEST, "messageDigest")
    with cms.refusing(f"{PREFIX}unreadable signed attribute messageDigest"):
        found: bytes = value.parse(bytes)
    if len(found) != hashlib.new(digest).digest_size:
        raise SignatureError(
            f"{PREFIX}signed attribute messageDigest has {len(found)} bytes, wrong for {digest}"
        )
    return found


def _read_signing_time(attributes: Attributes) -> datetime | None:
    if cms.SIGNING_TIME not in attributes:
        return None
    value = _only_value(attributes, cms.SIGNING_TIME, "signingTime")
    kinds = {0x17: asn1.UTCTime, 0x18: asn1.GeneralizedTime}
    kind = kinds.get(value.tag_bytes[0])
    if kind is None:
        raise SignatureError("Bundle signing time attribute has unexpected type")
    with cms.refusing(f"{PREFIX}unreadable signed attribute signingTime"):
        moment: datetime = value.parse(kind).as_datetime()
    return moment


def _check_signer_name(chain: SignerChain, allowed: Sequence[str]) -> None:
    if not allowed:
        return
    name = chain.signer_cn
    if name is not None and "\0" in name:
        raise SignatureError("Signer certificate CN contains an embedded NUL byte")
    if name not in allowed:
        raise SignatureError(
            "No signature CN matching allowed-signer-cns found",
            hint=f"The signer is {name!r}; allowed are {', '.join(map(repr, allowed))}.",
        )
