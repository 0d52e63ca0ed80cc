"""Whom this device trusts: the keyring, and OpenSSL's path validation against it, as RAUC does it.

Stricter than RAUC where RAUC is unsafe: keys and signatures in the chain must be strong (`algorithms.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from OpenSSL import crypto

from updated.bundle.algorithms import PREFIX, check_certificate_algorithm, strong_key
from updated.bundle.certificate import Certificate
from updated.bundle.purpose import DEFAULT, check_name, check_purpose
from updated.errors import ConfigError, SignatureError, ValidityError

# X509_V_FLAG_*, openssl/x509_vfy.h; pyOpenSSL does not name these two.
EXTENDED_CRL_SUPPORT = 0x1000
NO_CHECK_TIME = 0x200000

# X509_V_ERR_ CERT_NOT_YET_VALID, CERT_HAS_EXPIRED, CRL_NOT_YET_VALID, CRL_HAS_EXPIRED.
VALIDITY = (9, 10, 11, 12)
CERT_NOT_YET_VALID = VALIDITY[0]

CERTIFICATE_LABELS = (b"CERTIFICATE", b"X509 CERTIFICATE")
CRL_LABEL = b"X509 CRL"

# OpenSSL 4 says so of "certificate is not yet valid"; RAUC's text is OpenSSL 3's.
NEWER_WORDS = " or the system clock is incorrect"
HINTS = {
    "certificate has expired": "Is this device's clock right? Otherwise sign again with a valid certificate.",
    "certificate is not yet valid": "Is this device's clock right?",
    "unable to get certificate CRL": "check-crl needs a CRL of every CA in the keyring.",
    "CRL has expired": "Is this device's clock right? Otherwise the keyring needs a new CRL.",
    "unable to get issuer certificate": "The root is not in the keyring; see allow-partial-chain.",
    "certificate revoked": "Its CA withdrew the signer's certificate: do not install this bundle.",
}
NOT_TRUSTED = "The keyring of this device does not know who signed this bundle."


@dataclass(frozen=True, slots=True)
class KeyringPolicy:
    """`[keyring]` of system.conf beside its path (RAUC reference, "Keyring section")."""

    check_crl: bool = False
    allow_partial_chain: bool = False
    use_bundle_signing_time: bool = False
    check_purpose: str | None = None  # None: OpenSSL's S/MIME signing
    allowed_signer_cns: tuple[str, ...] = ()  # empty: any
    check_time: bool = True  # False: `--no-check-time`, neither certificates nor CRLs expire
    clock_behind: bool = False
    """It may be later than we are told: a certificate that is not yet valid only shows that it is."""


@dataclass(frozen=True, slots=True)
class Keyring:
    """Trusted certificates, CRLs, and the rules for using them."""

    certificates: tuple[crypto.X509, ...]
    crls: tuple[x509.CertificateRevocationList, ...]
    policy: KeyringPolicy

    @classmethod
    def load(cls, pems: Iterable[bytes], policy: KeyringPolicy) -> Keyring:
        """Read PEM texts, each with any number of certificates and CRLs.

        Raises ConfigError if a block is unreadable, there is no certificate, or `check_purpose` is unknown.
        """
        if policy.check_purpose is not None:
            check_name(policy.check_purpose)
        certificates: list[crypto.X509] = []
        crls: list[x509.CertificateRevocationList] = []
        for number, (label, block) in enumerate((pair for pem in pems for pair in _pem_blocks(pem)), 1):
            try:
                if label in CERTIFICATE_LABELS:
                    certificates.append(crypto.load_certificate(crypto.FILETYPE_PEM, block))
                elif label == CRL_LABEL:
                    crls.append(x509.load_pem_x509_crl(block))
            except (crypto.Error, ValueError) as error:
                raise ConfigError(
                    f"keyring: PEM block {number} is no readable {label.decode('ascii', 'replace')}"
                ) from error
        if not certificates:
            raise ConfigError(
                "keyring: found no certificate", hint="It must be PEM: -----BEGIN CERTIFICATE-----"
            )
        return cls(tuple(certificates), tuple(crls), policy)

    @property
    def not_after(self) -> datetime | None:
        """When the last certificate ends, after which nothing can be valid.  UTC; None: not known."""
        ends = [_not_after(certificate) for certificate in self.certificates]
        return max((end for end in ends if end is not None), default=None)

    @property
    def ignores_crls(self) -> bool:
        """RAUC then warns: "Detected CRL but CRL checking is disabled!"."""
        return bool(self.crls) and not self.policy.check_crl

    def validate(
        self, leaf: Certificate, others: Sequence[Certificate], now: datetime
    ) -> tuple[Certificate, ...]:
        """The chain from `leaf` to a trusted certificate, valid `now`, for the purpose of the policy.

        `others` are untrusted helpers, `now` has a time zone.  Raises SignatureError.
        """
        chain = self._build_chain(leaf, others, now)
        check_purpose(chain, self.policy.check_purpose or DEFAULT)
        for certificate in chain:
            strong_key(certificate.spki)
        for certificate in chain[:-1]:  # the last is trusted itself: nobody relies on its signature
            check_certificate_algorithm(certificate.signature_algorithm)
        return chain

    def _build_chain(
        self, leaf: Certificate, others: Sequence[Certificate], now: datetime
    ) -> tuple[Certificate, ...]:
        try:
            context = crypto.X509StoreContext(
                self._store(now), _to_openssl(leaf), [_to_openssl(other) for other in others]
            )
            chain = context.get_verified_chain()
        except crypto.X509StoreContextError as error:
            later = self._later(error, now)
            if later is not None:
                return self._build_chain(leaf, others, later)
            text = str(error).removesuffix(NEWER_WORDS)
            hint = HINTS.get(text, NOT_TRUSTED)
            kind = ValidityError if error.errors[0] in VALIDITY else SignatureError
            raise kind(f"{PREFIX}Verify error: {text}", hint=hint) from error
        except crypto.Error as error:
            raise SignatureError(f"{PREFIX}unreadable certificate", hint=str(error)) from error
        return tuple(
            Certificate.parse(crypto.dump_certificate(crypto.FILETYPE_ASN1, member)) for member in chain
        )

    def _later(self, error: crypto.X509StoreContextError, now: datetime) -> datetime | None:
        """When the certificate that is not yet valid will be, where it may be that late; else None.

        OpenSSL looks at times from the trusted certificate down, each after the signature on it: only a
        certificate that this keyring vouches for gets so far.
        """
        if not self.policy.clock_behind or self.policy.use_bundle_signing_time:
            return None
        if error.errors[0] != CERT_NOT_YET_VALID:
            return None
        begin = Certificate.parse(crypto.dump_certificate(crypto.FILETYPE_ASN1, error.certificate)).not_before
        return begin if begin > now else None

    def _store(self, now: datetime) -> crypto.X509Store:
        store = crypto.X509Store()
        for certificate in self.certificates:
            store.add_cert(certificate)
        for crl in self.crls:
            store.add_crl(crl)
        flags = crypto.X509StoreFlags
        if self.policy.check_time:
            store.set_time(now.astimezone(UTC))
        else:
            store.set_flags(NO_CHECK_TIME)
        if self.policy.allow_partial_chain:
            store.set_flags(flags.PARTIAL_CHAIN)
        if self.policy.check_crl:
            store.set_flags(flags.CRL_CHECK | flags.CRL_CHECK_ALL | EXTENDED_CRL_SUPPORT)
        return store


def _to_openssl(certificate: Certificate) -> crypto.X509:
    return crypto.load_certificate(crypto.FILETYPE_ASN1, certificate.der)


def _not_after(certificate: crypto.X509) -> datetime | None:
    text = (certificate.get_notAfter() or b"").decode("ascii", "replace")
    try:
        return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None


def _pem_blocks(pem: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Label and text of each PEM block; what is between them is comment (as `openssl x509 -text` writes)."""
    begin, dashes = b"-----BEGIN ", b"-----"
    start = pem.find(begin)
    while start >= 0:
        label_end = pem.find(dashes, start + len(begin))
        label = pem[start + len(begin) : label_end]
        end_line = dashes + b"END " + label + dashes
        end = pem.find(end_line, label_end)
        if label_end < 0 or end < 0:
            raise ConfigError("keyring: a PEM block does not end", hint="Was the file cut short?")
        end += len(end_line)
        yield label, pem[start:end]
        start = pem.find(begin, end)
