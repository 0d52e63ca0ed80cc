"""What a verified chain may be used for: OpenSSL's X.509 purposes and RAUC's `codesign`.

Sources: OpenSSL crypto/x509/v3_purp.c; RAUC reference, "check-purpose".
Path validation has already made sure that the certificates above the leaf are CAs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from updated.bundle.certificate import EXTENDED_KEY_USAGE, Certificate
from updated.errors import ConfigError, SignatureError

DIGITAL_SIGNATURE, NON_REPUDIATION, KEY_ENCIPHERMENT, KEY_AGREEMENT = 1 << 0, 1 << 1, 1 << 2, 1 << 4
CRL_SIGN = 1 << 6
SIGNING = DIGITAL_SIGNATURE | NON_REPUDIATION
NS_SSL_CLIENT, NS_SSL_SERVER, NS_SMIME = 1 << 0, 1 << 1, 1 << 2

SERVER_AUTH = "1.3.6.1.5.5.7.3.1"
CLIENT_AUTH = "1.3.6.1.5.5.7.3.2"
CODE_SIGNING = "1.3.6.1.5.5.7.3.3"
EMAIL_PROTECTION = "1.3.6.1.5.5.7.3.4"
TIME_STAMPING = "1.3.6.1.5.5.7.3.8"
STEP_UP = frozenset({"1.3.6.1.4.1.311.10.3.3", "2.16.840.1.113730.4.1"})  # Microsoft's and Netscape's SGC


@dataclass(frozen=True, slots=True)
class Purpose:
    """What a chain must allow; an absent extension allows everything unless `explicit`."""

    leaf_usage: int = 0  # at least one of these key usage bits; 0: any
    extended: frozenset[str] = frozenset()  # at least one of these extended key usages; empty: any
    netscape: int = 0  # at least one of these Netscape type bits on the leaf; 0: any
    explicit: bool = False  # the leaf must have an extended key usage
    binds_cas: bool = True  # the extended key usage of CAs counts, too


SSL_SERVER = Purpose(
    DIGITAL_SIGNATURE | KEY_ENCIPHERMENT | KEY_AGREEMENT, STEP_UP | {SERVER_AUTH}, NS_SSL_SERVER
)
SMIME = frozenset({EMAIL_PROTECTION})
# "Workaround for some buggy certificates": OpenSSL takes sslClient for S/MIME.
NS_SMIME_OR_CLIENT = NS_SMIME | NS_SSL_CLIENT

DEFAULT = "smimesign"
CODESIGN = Purpose(DIGITAL_SIGNATURE, frozenset({CODE_SIGNING}), explicit=True)
PURPOSES = {
    "sslclient": Purpose(DIGITAL_SIGNATURE | KEY_AGREEMENT, frozenset({CLIENT_AUTH}), NS_SSL_CLIENT),
    "sslserver": SSL_SERVER,
    "nssslserver": Purpose(KEY_ENCIPHERMENT, SSL_SERVER.extended, NS_SSL_SERVER),
    "smimesign": Purpose(SIGNING, SMIME, NS_SMIME_OR_CLIENT),
    "smimeencrypt": Purpose(KEY_ENCIPHERMENT, SMIME, NS_SMIME_OR_CLIENT),
    "crlsign": Purpose(CRL_SIGN),
    "any": Purpose(),
    "ocsphelper": Purpose(),
    "timestampsign": Purpose(SIGNING, frozenset({TIME_STAMPING}), explicit=True, binds_cas=False),
    "codesign": CODESIGN,  # RAUC rewrites it to its own purpose
    "codesign-rauc": CODESIGN,
}


def check_name(purpose: str) -> None:
    """Raises ConfigError for a purpose nobody knows."""
    if purpose not in PURPOSES:
        raise ConfigError(
            f"failed to configure X509 purpose '{purpose}'", hint=f"Known purposes: {', '.join(PURPOSES)}."
        )


def check_purpose(chain: Sequence[Certificate], name: str) -> None:
    """Raises SignatureError unless `chain` (leaf first) may be used for the purpose `name`."""
    purpose = PURPOSES[name]
    leaf_fits = _leaf_allows(chain[0], purpose) and (name != "timestampsign" or _only_time_stamping(chain[0]))
    bound = chain if purpose.binds_cas else chain[:1]
    if leaf_fits and all(_extended_allows(certificate, purpose) for certificate in bound):
        return
    raise SignatureError(
        "signature verification failed: Verify error: unsuitable certificate purpose",
        hint=f"The signer's certificate or its CA is not for '{name}'; see check-purpose in [keyring].",
    )


def _extended_allows(certificate: Certificate, purpose: Purpose) -> bool:
    usages = certificate.extended_key_usage
    return usages is None or not purpose.extended or bool(usages & purpose.extended)


def _leaf_allows(leaf: Certificate, purpose: Purpose) -> bool:
    return (
        _shares_bits(leaf.key_usage, purpose.leaf_usage)
        and _shares_bits(leaf.netscape_type, purpose.netscape)
        and not (purpose.explicit and leaf.extended_key_usage is None)
    )


def _shares_bits(present: int | None, wanted: int) -> bool:
    return present is None or not wanted or bool(present & wanted)


def _only_time_stamping(leaf: Certificate) -> bool:
    """RFC 3161, 2.3: this one extended key usage, critical; and no key usage but signing."""
    alone = leaf.extended_key_usage == frozenset({TIME_STAMPING}) and EXTENDED_KEY_USAGE in leaf.critical
    return alone and not (leaf.key_usage or 0) & ~SIGNING
