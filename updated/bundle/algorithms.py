"""Which keys and signature algorithms count as strong, and checking a raw signature.

Allow-lists: what is not named here is refused.  RAUC sets no OpenSSL security level, so it also takes MD5,
SHA-1 and short RSA keys; no bundle made by RAUC with today's keys needs them.
Sources: RFC 5754 (RSA, ECDSA in CMS), RFC 4055/4056 (RSA-PSS), RFC 8419 (Ed25519).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa

from updated.bundle.cms import Algorithm, AlgorithmFields, decode_algorithm, read_algorithm, refusing
from updated.errors import SignatureError

PREFIX = "signature verification failed: "
# OpenSSL's text, as RAUC prints it, for anything that does not match cryptographically.
MISMATCH = PREFIX + "error:1700009E:CMS routines::verification failure"
MISMATCH_HINT = (
    "The bundle was damaged on its way or changed after it was signed: fetch it again from its maker."
)

MIN_RSA_BITS = 2048  # NIST SP 800-131A: 112 bits of security, the least allowed
MIN_EC_BITS = 224  # the same strength
DEFAULT_PSS_SALT = 20  # bytes, and our minimum (RFC 4055)
MAX_PSS_SALT = 2048  # bytes: that of a 16384-bit key, OpenSSL's longest

DIGESTS = {
    "2.16.840.1.101.3.4.2.1": "sha256",
    "2.16.840.1.101.3.4.2.2": "sha384",
    "2.16.840.1.101.3.4.2.3": "sha512",
}
WEAK_DIGESTS = {
    "1.2.840.113549.2.5": "md5",
    "1.3.14.3.2.26": "sha1",
    "2.16.840.1.101.3.4.2.4": "sha224",
}
DIGEST_OIDS = {name: oid for oid, name in DIGESTS.items()}
HASHES: dict[str, type[hashes.SHA256 | hashes.SHA384 | hashes.SHA512]] = {
    "sha256": hashes.SHA256,
    "sha384": hashes.SHA384,
    "sha512": hashes.SHA512,
}
MGF1 = "1.2.840.113549.1.1.8"

RSA = "1.2.840.113549.1.1.1"
RSA_PSS = "1.2.840.113549.1.1.10"
ED25519 = "1.3.101.112"
ED448 = "1.3.101.113"
RSA_WITH = {
    "1.2.840.113549.1.1.11": "sha256",
    "1.2.840.113549.1.1.12": "sha384",
    "1.2.840.113549.1.1.13": "sha512",
}
ECDSA_WITH = {
    "1.2.840.10045.4.3.2": "sha256",
    "1.2.840.10045.4.3.3": "sha384",
    "1.2.840.10045.4.3.4": "sha512",
}
ECDSA_OIDS = {name: oid for oid, name in ECDSA_WITH.items()}
# A CA may also use what OpenSSL cannot use in CMS, or what is weaker but not broken.
CERTIFICATE_ALGORITHMS = frozenset(
    {*RSA_WITH, *ECDSA_WITH, ED25519, ED448, "1.2.840.113549.1.1.14", "1.2.840.10045.4.3.1"}  # SHA-224 last
)
WEAK_CERTIFICATE_ALGORITHMS = {
    "1.2.840.113549.1.1.4": "md5WithRSAEncryption",
    "1.2.840.113549.1.1.5": "sha1WithRSAEncryption",
    "1.2.840.10045.4.1": "ecdsa-with-SHA1",
}

AnyKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | ed448.Ed448PublicKey


@asn1.sequence
class PublicKeyFields:
    """SubjectPublicKeyInfo (RFC 5280)."""

    algorithm: AlgorithmFields
    key: asn1.BitString


@asn1.sequence
class PSSFields:
    """RSASSA-PSS-params (RFC 4055); absent fields mean SHA-1, MGF1 with SHA-1, 20, 1."""

    hash: Annotated[AlgorithmFields | None, asn1.Explicit(0)]
    mask: Annotated[AlgorithmFields | None, asn1.Explicit(1)]
    salt_length: Annotated[int | None, asn1.Explicit(2)]
    trailer: Annotated[int | None, asn1.Explicit(3)]


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that is strong enough; `algorithm` may bind RSA keys to RSA-PSS, which `key` does not tell."""

    key: AnyKey
    algorithm: Algorithm


def digest_name(algorithm: Algorithm) -> str:
    """hashlib's name of a digest algorithm.  Raises SignatureError for anything but SHA-256, -384, -512."""
    name = DIGESTS.get(algorithm.oid)
    if name is None or not algorithm.plain:
        got = f"{name} with parameters" if name else WEAK_DIGESTS.get(algorithm.oid, algorithm.oid)
        raise SignatureError(f"{PREFIX}digest algorithm is {got}, expected sha256, sha384 or sha512")
    return name


@dataclass(frozen=True, slots=True)
class PSS:
    """Checked RSASSA-PSS parameters."""

    digest: str
    mask_digest: str
    salt_length: int  # bytes

    @property
    def padding(self) -> padding.PSS:
        return padding.PSS(padding.MGF1(HASHES[self.mask_digest]()), self.salt_length)


def read_pss(parameters: bytes | None) -> PSS:
    """Read RSASSA-PSS-params.  Raises SignatureError (weak), ValueError (unreadable)."""
    fields = None if parameters is None else asn1.decode_der(PSSFields, parameters)
    if fields is None or fields.hash is None or fields.mask is None:
        raise SignatureError(f"{PREFIX}RSA-PSS with sha1, expected sha256, sha384 or sha512")
    mask = read_algorithm(fields.mask)
    if mask.oid != MGF1 or mask.parameters is None:
        raise SignatureError(f"{PREFIX}RSA-PSS mask generation is {mask.oid}, expected MGF1")
    salt_length = DEFAULT_PSS_SALT if fields.salt_length is None else fields.salt_length
    if not DEFAULT_PSS_SALT <= salt_length <= MAX_PSS_SALT:
        raise SignatureError(
            f"{PREFIX}RSA-PSS salt is {salt_length} bytes, expected at least {DEFAULT_PSS_SALT}"
        )
    if fields.trailer not in (None, 1):
        raise SignatureError(f"{PREFIX}RSA-PSS trailer is {fields.trailer}, expected 1")
    mask_digest = digest_name(decode_algorithm(mask.parameters))
    return PSS(digest_name(read_algorithm(fields.hash)), mask_digest, salt_length)


def strong_key(spki: bytes, *, prefix: str = PREFIX) -> PublicKey:
    """The key in a DER SubjectPublicKeyInfo.  Raises SignatureError if unreadable, weak or foreign."""
    with refusing(f"{prefix}unsupported public key"):
        key = serialization.load_der_public_key(spki)
        algorithm = read_algorithm(asn1.decode_der(PublicKeyFields, spki).algorithm)
    match key:
        case rsa.RSAPublicKey():
            _check_length(f"{prefix}RSA", key.key_size, MIN_RSA_BITS)
        case ec.EllipticCurvePublicKey():
            _check_length(f"{prefix}EC", key.key_size, MIN_EC_BITS)
        case ed25519.Ed25519PublicKey() | ed448.Ed448PublicKey():
            pass
        case _:
            raise SignatureError(f"{prefix}unsupported public key", hint="Use an RSA, ECDSA or Ed25519 key.")
    return PublicKey(key, algorithm)


def _check_length(kind: str, bits: int, minimum: int) -> None:
    if bits < minimum:
        raise SignatureError(f"{kind} key has {bits} bits, expected at least {minimum}")


def check_certificate_algorithm(algorithm: Algorithm) -> None:
    """Refuse a certificate signed in a weak way (MD5, SHA-1).  Raises SignatureError."""
    if algorithm.oid == RSA_PSS:
        with refusing(f"{PREFIX}unreadable RSA-PSS parameters"):
            read_pss(algorithm.parameters)
    elif algorithm.oid not in CERTIFICATE_ALGORITHMS:
        name = WEAK_CERTIFICATE_ALGORITHMS.get(algorithm.oid, algorithm.oid)
        raise SignatureError(
            f"{PREFIX}a certificate is signed with {name}, expected SHA-2 or EdDSA",
            hint="Issue the certificate again with a current algorithm.",
        )


def check_signature(key: PublicKey, algorithm: Algorithm, digest: str, signature: bytes, data: bytes) -> None:
    """Check `signature` over `data` as a SignerInfo describes it.  Raises SignatureError."""
    with refusing(MISMATCH, hint=MISMATCH_HINT):
        try:
            _verify(key, algorithm, digest, signature, data)
        except InvalidSignature as error:
            raise SignatureError(MISMATCH, hint=MISMATCH_HINT) from error


def _verify(key: PublicKey, algorithm: Algorithm, digest: str, signature: bytes, data: bytes) -> None:
    match key.key:
        case rsa.RSAPublicKey() as rsa_key:
            rsa_key.verify(signature, data, _rsa_padding(key.algorithm, algorithm, digest), HASHES[digest]())
        case ec.EllipticCurvePublicKey() as ec_key if ECDSA_WITH.get(algorithm.oid) == digest:
            ec_key.verify(signature, data, ec.ECDSA(HASHES[digest]()))
        case ed25519.Ed25519PublicKey() as ed_key if algorithm.oid == ED25519 and digest == "sha512":
            ed_key.verify(signature, data)
        case _:
            raise _mixed(algorithm, digest)


def _rsa_padding(key_algorithm: Algorithm, algorithm: Algorithm, digest: str) -> padding.AsymmetricPadding:
    if algorithm.oid == RSA_PSS:
        pss = read_pss(algorithm.parameters)
        if pss.digest == digest and _pss_allowed(key_algorithm, pss):
            return pss.padding
        raise _mixed(algorithm, digest)
    if key_algorithm.oid == RSA_PSS:
        raise SignatureError(
            f"{PREFIX}error:02000090:rsa routines::illegal or unsupported padding mode",
            hint="The key is for RSA-PSS only, and `rauc bundle` cannot sign with it: use a plain RSA key.",
        )
    if algorithm.oid == RSA or RSA_WITH.get(algorithm.oid) == digest:
        return padding.PKCS1v15()
    raise _mixed(algorithm, digest)


def _pss_allowed(key_algorithm: Algorithm, pss: PSS) -> bool:
    """Parameters of an RSA-PSS key bind its signatures: same hashes, at least its salt (RFC 4055, 3.3)."""
    if key_algorithm.oid != RSA_PSS or key_algorithm.parameters is None:
        return True
    bound = read_pss(key_algorithm.parameters)
    same = (bound.digest, bound.mask_digest) == (pss.digest, pss.mask_digest)
    return same and pss.salt_length >= bound.salt_length


def _mixed(algorithm: Algorithm, digest: str) -> SignatureError:
    return SignatureError(
        f"{PREFIX}signature algorithm {algorithm.oid} does not fit the key or digest {digest}"
    )
