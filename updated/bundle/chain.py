"""Who signed a bundle, and showing it as `rauc info` does (RAUC src/signature.c, format_cert_chain)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime

from updated.bundle.certificate import Certificate
from updated.bundle.names import common_name, oneline

# strftime would follow the locale
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@dataclass(frozen=True, slots=True)
class SignerChain:
    """The verified chain of a bundle's signer, leaf first, up to the trusted certificate."""

    certificates: tuple[Certificate, ...]
    signing_time: datetime | None  # UTC, as the signer claims; None: not said

    @property
    def signer_cn(self) -> str | None:
        """The signer's first CN; None without one."""
        return common_name(self.certificates[0].subject)

    @property
    def not_before(self) -> datetime:
        """UTC; since when all certificates of the chain are valid."""
        return max(certificate.not_before for certificate in self.certificates)

    @property
    def not_after(self) -> datetime:
        """UTC; when the first certificate of the chain expires."""
        return min(certificate.not_after for certificate in self.certificates)


def spki_hash(certificate: Certificate) -> str:
    """SHA-256 of the SubjectPublicKeyInfo's own bytes: upper-case hex with colons."""
    return hashlib.sha256(certificate.spki).digest().hex(":").upper()


def spki_hashes(chain: SignerChain) -> tuple[str, ...]:
    """`spki_hash` of each certificate, leaf first."""
    return tuple(spki_hash(certificate) for certificate in chain.certificates)


def describe_chain(chain: SignerChain) -> str:
    """`Certificate Chain:` and five lines a certificate, without a newline at the end."""
    lines = ["Certificate Chain:"]
    for index, certificate in enumerate(chain.certificates):
        lines += [
            f"{index:2d} Subject: {oneline(certificate.subject)}",
            f"   Issuer: {oneline(certificate.issuer)}",
            f"   SPKI sha256: {spki_hash(certificate)}",
            f"   Not Before: {_show_time(certificate.not_before)}",
            f"   Not After:  {_show_time(certificate.not_after)}",
        ]
    return "\n".join(lines)


def _show_time(moment: datetime) -> str:
    utc = moment.astimezone(UTC)
    return f"{MONTHS[utc.month - 1]} {utc.day:2d} {utc:%H:%M:%S} {utc.year} GMT"
