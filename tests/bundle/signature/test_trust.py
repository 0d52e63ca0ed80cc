"""Path validation, with OpenSSL's texts; where it makes sense the real `openssl` says the same."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from updated.bundle.signature import parse_signed_data
from updated.bundle.trust import Keyring, KeyringPolicy
from updated.errors import ConfigError, SignatureError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.bundle.signature.conftest import Identity, Pki
    from updated.bundle.chain import SignerChain

PARTIAL = KeyringPolicy(allow_partial_chain=True)
BY_SIGNING_TIME = KeyringPolicy(use_bundle_signing_time=True)
CRL = KeyringPolicy(check_crl=True)
NO_TIME = KeyringPolicy(check_time=False)
DAY = timedelta(days=1)


def verify(
    pki: Pki,
    signer: Identity,
    trusted: Sequence[Identity | bytes],
    *,
    extra: Sequence[Identity] = (),
    now: datetime | None = None,
    policy: KeyringPolicy | None = None,
) -> SignerChain:
    options = [word for identity in extra for word in ("-certfile", identity.pem_file)]
    message = parse_signed_data(pki.openssl_sign(b"content", signer, options=options))
    keyring = pki.keyring(*trusted, policy=policy)
    return message.verify(keyring, now or pki.now)


def refusal(
    pki: Pki, signer: Identity, trusted: Sequence[Identity | bytes], policy: KeyringPolicy | None = None
) -> str:
    with pytest.raises(SignatureError) as caught:
        verify(pki, signer, trusted, policy=policy)
    text = str(caught.value)
    assert caught.value.hint
    return text.removeprefix("signature verification failed: Verify error: ")


def test_intermediates_from_both_sides(pki: Pki, root: Identity) -> None:
    middle = pki.issue("Intermediate", root, ca=True)
    signer = pki.issue("Signer", middle)
    assert len(verify(pki, signer, [root, middle]).certificates) == 3
    assert len(verify(pki, signer, [root], extra=[middle]).certificates) == 3
    assert refusal(pki, signer, [root]) == "unable to get local issuer certificate"


def test_several_roots_and_text_between(pki: Pki, root: Identity, signer: Identity) -> None:
    keyring = b"Somebody's root\r\n" + pki.issue("Stranger", ca=True).pem + b"\n# ours:\n" + root.pem
    assert verify(pki, signer, [keyring]).certificates[1].serial == root.certificate.serial_number


@pytest.mark.parametrize("ca", [True, False])
def test_self_signed_signer(pki: Pki, root: Identity, ca: bool) -> None:
    signer = pki.issue("Alone", ca=ca)
    assert len(verify(pki, signer, [signer]).certificates) == 1
    assert refusal(pki, signer, [root]) == "self-signed certificate"


def test_self_signed_without_any_extension(pki: Pki) -> None:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Bare")])
    template = pki.issue("Bare", subject=name)
    bare = (
        x509.CertificateBuilder(name, name, template.key.public_key(), 77)
        .not_valid_before(template.certificate.not_valid_before_utc)
        .not_valid_after(template.certificate.not_valid_after_utc)
        .sign(template.key, hashes.SHA256())
    )
    signer = type(template)(bare, template.key, template.folder)
    assert verify(pki, signer, [signer]).signer_cn == "Bare"


def test_root_only_in_the_cms(pki: Pki, root: Identity, signer: Identity) -> None:
    with pytest.raises(SignatureError, match="Verify error: self-signed certificate in certificate chain"):
        verify(pki, signer, [pki.issue("Stranger", ca=True)], extra=[root])


def test_leaf_in_the_keyring_is_no_anchor(pki: Pki, root: Identity, signer: Identity) -> None:
    done = pki.openssl_verify(pki.openssl_sign(b"content", signer), signer)
    assert refusal(pki, signer, [signer]) in done.stderr.decode()
    assert len(verify(pki, signer, [signer], policy=PARTIAL).certificates) == 1


def test_partial_chain(pki: Pki, root: Identity) -> None:
    middle = pki.issue("Intermediate", root, ca=True)
    signer = pki.issue("Signer", middle)
    assert refusal(pki, signer, [middle]) == "unable to get issuer certificate"
    assert len(verify(pki, signer, [middle], policy=PARTIAL).certificates) == 2
    stranger = pki.issue("Stranger", ca=True)
    assert refusal(pki, signer, [stranger], policy=PARTIAL) == "unable to get local issuer certificate"


def test_same_name_other_key(pki: Pki, signer: Identity) -> None:
    impostor = pki.issue("Root CA", ca=True, kind="p384")
    assert refusal(pki, signer, [impostor]) != ""


def test_issuer_is_no_ca(pki: Pki, root: Identity) -> None:
    leaf = pki.issue("Leaf", root)
    signer = pki.issue("Signer", leaf)
    with pytest.raises(SignatureError, match="Verify error: invalid CA certificate"):
        verify(pki, signer, [root], extra=[leaf])


def test_unknown_critical_extension(pki: Pki, root: Identity) -> None:
    odd = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    signer = pki.issue("Signer", root, extensions=[odd], critical=True)
    assert refusal(pki, signer, [root]) == "unhandled critical extension"
    assert verify(pki, pki.issue("Signer", root, extensions=[odd]), [root])


@pytest.mark.parametrize("local", [False, True])
def test_validity(pki: Pki, root: Identity, local: bool) -> None:
    start, end = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)
    signer = pki.issue("Signer", root, not_before=start, not_after=end)

    def at(moment: datetime) -> SignerChain:
        here = moment.astimezone(None if local else UTC)
        return verify(pki, signer, [root], now=here)

    for good in (start, start + DAY, end):
        assert at(good).not_after == end
    with pytest.raises(SignatureError, match=r"Verify error: certificate is not yet valid$"):
        at(start - timedelta(seconds=1))
    with pytest.raises(SignatureError, match="Verify error: certificate has expired") as caught:
        at(end + timedelta(seconds=1))
    assert "clock" in caught.value.hint
    assert verify(pki, signer, [root], now=end + DAY, policy=NO_TIME)


def test_expired_root(pki: Pki) -> None:
    root = pki.issue("Old root", ca=True, not_after=pki.now - DAY)
    signer = pki.issue("Signer", root)
    assert refusal(pki, signer, [root]) == "certificate has expired"


def test_signing_time(pki: Pki, root: Identity) -> None:
    today = datetime.now(UTC)
    signer = pki.issue("Signer", root, not_before=today - DAY, not_after=today + DAY)
    later = today + 9 * DAY
    with pytest.raises(SignatureError, match="Verify error: certificate has expired"):
        verify(pki, signer, [root], now=later)
    chain = verify(pki, signer, [root], now=later, policy=BY_SIGNING_TIME)
    assert chain.signing_time is not None
    assert abs(chain.signing_time - today) < DAY
    old = pki.issue("Signer", root, not_before=pki.now - DAY, not_after=pki.now + DAY)
    assert verify(pki, old, [root], now=pki.now)
    with pytest.raises(SignatureError, match="Verify error: certificate has expired"):
        verify(pki, old, [root], now=pki.now, policy=BY_SIGNING_TIME)


def test_crl(pki: Pki, root: Identity, signer: Identity) -> None:
    other = pki.issue("Other", root)
    revoked = pki.crl(root, signer)
    assert refusal(pki, signer, [root, revoked], policy=CRL) == "certificate revoked"
    assert verify(pki, other, [root, revoked], policy=CRL)
    assert verify(pki, signer, [root, revoked])  # RAUC warns: CRL but checking is disabled
    assert refusal(pki, signer, [root], policy=CRL) == "unable to get certificate CRL"
    stale = pki.crl(root, last=pki.now - 9 * DAY, following=pki.now - DAY)
    assert refusal(pki, signer, [root, stale], policy=CRL) == "CRL has expired"
    assert verify(pki, signer, [root, stale], policy=KeyringPolicy(check_crl=True, check_time=False))


def test_every_ca_needs_a_crl(pki: Pki, root: Identity) -> None:
    middle = pki.issue("Intermediate", root, ca=True)
    signer = pki.issue("Signer", middle)
    crls = [pki.crl(root), pki.crl(middle)]
    assert verify(pki, signer, [root, middle, *crls], policy=CRL)
    assert refusal(pki, signer, [root, middle, crls[1]], policy=CRL) == "unable to get certificate CRL"
    gone = pki.crl(root, middle)
    assert refusal(pki, signer, [root, middle, gone, crls[1]], policy=CRL) == "certificate revoked"


def test_crl_of_somebody_else(pki: Pki, root: Identity, signer: Identity) -> None:
    forged = pki.issue("Root CA", ca=True, kind="p384")
    text = refusal(pki, signer, [root, pki.crl(forged)], policy=CRL)
    assert text in ("CRL signature failure", "unable to get certificate CRL")


def test_unused_crls_are_told(pki: Pki, root: Identity) -> None:
    assert pki.keyring(root, pki.crl(root)).ignores_crls
    assert not pki.keyring(root).ignores_crls
    assert not pki.keyring(root, pki.crl(root), policy=CRL).ignores_crls


@pytest.mark.parametrize("kind", ["rsa1024", "p192"])
def test_weak_keys(pki: Pki, root: Identity, kind: str) -> None:
    signer = pki.issue("Signer", root, kind=kind)
    with pytest.raises(SignatureError, match=r"key has \d+ bits, expected at least"):
        verify(pki, signer, [root])
    weak_root = pki.issue("Weak root", ca=True, kind=kind)
    with pytest.raises(SignatureError, match=r"key has \d+ bits, expected at least"):
        verify(pki, pki.issue("Signer", weak_root), [weak_root])


@pytest.mark.parametrize("kind", ["rsa2048", "p256"])
def test_sha1_in_the_chain(pki: Pki, kind: str) -> None:
    root = pki.sign_again(pki.issue("Root", ca=True, kind=kind), "-sha1")
    assert verify(pki, pki.issue("Signer", root), [root])
    signer = pki.sign_again(pki.issue("Signer"), "-sha1", issuer=root)
    with pytest.raises(SignatureError, match=r"a certificate is signed with (ecdsa-with-SHA1|sha1WithRSA)"):
        verify(pki, signer, [root])


def test_ca_that_signs_with_pss(pki: Pki) -> None:
    root = pki.issue("Root", ca=True, kind="rsa2048", pss=True)
    assert verify(pki, pki.issue("Signer", root, pss=True), [root])


def test_signer_names(pki: Pki, root: Identity, signer: Identity) -> None:
    message = parse_signed_data(pki.openssl_sign(b"content", signer))
    keyring = pki.keyring(root, policy=KeyringPolicy(allowed_signer_cns=("Somebody", "Signer")))
    assert message.verify(keyring, pki.now).signer_cn == "Signer"
    keyring = pki.keyring(root, policy=KeyringPolicy(allowed_signer_cns=("Somebody",)))
    with pytest.raises(
        SignatureError, match=r"^No signature CN matching allowed-signer-cns found$"
    ) as caught:
        message.verify(keyring, pki.now)
    assert "'Signer'" in caught.value.hint


def test_signer_name_with_nul(pki: Pki, root: Identity) -> None:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Signer\0.evil")])
    message = parse_signed_data(pki.openssl_sign(b"content", pki.issue("Evil", root, subject=name)))
    keyring = pki.keyring(root, policy=KeyringPolicy(allowed_signer_cns=("Signer",)))
    with pytest.raises(SignatureError, match=r"^Signer certificate CN contains an embedded NUL byte$"):
        message.verify(keyring, pki.now)


@pytest.mark.parametrize(
    ("pems", "text"),
    [
        ([], "keyring: found no certificate"),
        ([b""], "keyring: found no certificate"),
        ([b"\x30\x82\x01\x02"], "keyring: found no certificate"),
        (
            [b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"],
            "PEM block 1 is no readable CERT",
        ),
        ([b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----"], "PEM block 1 is no readable X509 CRL"),
        ([b"-----BEGIN CERTIFICATE-----\nAAAA\n"], "keyring: a PEM block does not end"),
        ([b"-----BEGIN CERTIFICATE"], "keyring: a PEM block does not end"),
    ],
)
def test_bad_keyring(pems: list[bytes], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Keyring.load(pems, KeyringPolicy())
    assert text in str(caught.value)


def test_keyring_of_crls_only(pki: Pki, root: Identity) -> None:
    with pytest.raises(ConfigError, match="keyring: found no certificate"):
        pki.keyring(pki.crl(root))
