"""Signed by `openssl`, verified by us: every kind of key, and every shape that is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from updated.bundle.signature import parse_signed_data
from updated.errors import SignatureError

if TYPE_CHECKING:
    from tests.bundle.signature.conftest import Identity, Pki

CONTENT = b"[update]\ncompatible=x\r\n\0"
MISMATCH = "signature verification failed: error:1700009E:CMS routines::verification failure"


@pytest.mark.parametrize("kind", ["rsa2048", "rsa3072", "p256", "p384", "p521"])
@pytest.mark.parametrize("digest", ["sha256", "sha384", "sha512"])
def test_key_and_digest(pki: Pki, root: Identity, kind: str, digest: str) -> None:
    signer = pki.issue(f"Signer {kind}", root, kind=kind)
    message = parse_signed_data(pki.openssl_sign(CONTENT, signer, options=["-md", digest]))
    assert (message.content, message.digest_algorithm, message.detached) == (CONTENT, digest, False)
    chain = message.verify(pki.keyring(root), pki.now)
    assert chain.signer_cn == f"Signer {kind}"
    assert [certificate.der for certificate in chain.certificates] == [
        identity.certificate.public_bytes(pki.DER) for identity in (signer, root)
    ]


@pytest.mark.parametrize(
    "options",
    [
        ["-keyid"],  # sid is the subjectKeyIdentifier
        ["-md", "sha512", "-keyopt", "rsa_padding_mode:pss"],  # openssl's own salt: as long as possible
        ["-keyopt", "rsa_padding_mode:pss", "-keyopt", "rsa_pss_saltlen:20"],
    ],
)
def test_other_shapes_that_are_good(pki: Pki, root: Identity, options: list[str]) -> None:
    signer = pki.issue("Signer", root, kind="rsa2048")
    message = parse_signed_data(pki.openssl_sign(CONTENT, signer, options=options))
    assert message.verify(pki.keyring(root), pki.now).signer_cn == "Signer"


def test_smime_capabilities_of_old_rauc(pki: Pki, root: Identity, signer: Identity) -> None:
    message = parse_signed_data(pki.openssl_sign(CONTENT, signer, old=True))
    assert message.verify(pki.keyring(root), pki.now).signer_cn == "Signer"


def test_detached(pki: Pki, root: Identity, signer: Identity) -> None:
    message = parse_signed_data(pki.openssl_sign(CONTENT, signer, detached=True))
    assert message.detached
    assert message.content is None
    message.verify(pki.keyring(root), pki.now)
    message.check_digest(pki.sha256(CONTENT))
    for wrong in (pki.sha256(CONTENT + b"x"), b"", bytes(64)):
        with pytest.raises(SignatureError) as caught:
            message.check_digest(wrong)
        assert str(caught.value) == MISMATCH
        assert "fetch it again" in caught.value.hint


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["-md", "sha1"], "signature verification failed: digest algorithm is sha1, expected sha256"),
        (["-md", "md5"], "signature verification failed: digest algorithm is md5"),
        (["-md", "sha224"], "signature verification failed: digest algorithm is sha224"),
        (["-noattr"], "signature verification failed: no signed attributes"),
        (["-econtent_type", "1.2.3.4"], "signature verification failed: content is '1.2.3.4'"),
        (["-outform", "PEM"], "Invalid bundle format: Signature data is no valid CMS"),
        (["-stream", "-indef"], "Invalid bundle format: Signature data is no valid CMS"),
    ],
)
def test_refused_shape(pki: Pki, root: Identity, options: list[str], text: str) -> None:
    signer = pki.issue("Signer", root, kind="rsa2048")
    der = pki.openssl_sign(CONTENT, signer, options=options)
    with pytest.raises(SignatureError) as caught:
        parse_signed_data(der)
    assert str(caught.value).startswith(text)


def test_signer_certificate_must_be_inside(pki: Pki, root: Identity, signer: Identity) -> None:
    message = parse_signed_data(pki.openssl_sign(CONTENT, signer, options=["-nocerts"]))
    with pytest.raises(SignatureError, match="1700008A:CMS routines::signer certificate not found"):
        message.verify(pki.keyring(root, signer), pki.now)


def test_two_signers(pki: Pki, root: Identity, signer: Identity) -> None:
    der = pki.openssl_sign(CONTENT, signer, pki.issue("Other", root))
    with pytest.raises(SignatureError, match=r"^Unsupported number of signers: 2$"):
        parse_signed_data(der)


def test_trailing_bytes(pki: Pki, signer: Identity) -> None:
    der = pki.openssl_sign(CONTENT, signer)
    for changed in (der + b"\0", der + der, b"\0" + der, der[:-1], b""):
        with pytest.raises(SignatureError, match=r"^Invalid bundle format: Signature data is no valid CMS$"):
            parse_signed_data(changed)


def test_other_content_types(pki: Pki, signer: Identity) -> None:
    der = pki.openssl("cms", "-data_create", "-outform", "DER", stdin=CONTENT)
    with pytest.raises(
        SignatureError, match=r"^Expected CMS of type 'pkcs7-signedData' but got 'pkcs7-data'$"
    ):
        parse_signed_data(der)
    recipient = pki.issue("Recipient", kind="rsa2048")
    der = pki.openssl(
        "cms", "-encrypt", "-aes256", "-outform", "DER", "-recip", recipient.pem_file, stdin=CONTENT
    )
    with pytest.raises(SignatureError, match=r"but got 'pkcs7-envelopedData'$"):
        parse_signed_data(der)


def test_content_and_attributes_are_bound(pki: Pki, root: Identity, signer: Identity) -> None:
    der = pki.openssl_sign(CONTENT, signer)
    other = CONTENT.replace(b"compatible=x", b"compatible=y")
    assert pki.openssl_verify(der.replace(CONTENT, other), root).returncode != 0
    digest = pki.sha256(CONTENT)
    for changed in (
        der.replace(CONTENT, other),
        der.replace(digest, pki.sha256(other)),
        der.replace(CONTENT, other).replace(digest, pki.sha256(other)),  # now only the signature is wrong
    ):
        with pytest.raises(SignatureError) as caught:
            parse_signed_data(changed).verify(pki.keyring(root), pki.now)
        assert str(caught.value) == MISMATCH


def test_chain_errors_win_over_content_errors(pki: Pki, signer: Identity) -> None:
    der = pki.openssl_sign(CONTENT, signer).replace(b"compatible=x", b"compatible=y")
    with pytest.raises(SignatureError, match="Verify error: unable to get local issuer certificate"):
        parse_signed_data(der).verify(pki.keyring(pki.issue("Stranger", ca=True)), pki.now)


def test_rsa_pss_with_a_weak_hash(pki: Pki, root: Identity) -> None:
    signer = pki.issue("Signer", root, kind="rsa2048")
    options = ["-keyopt", "rsa_padding_mode:pss", "-keyopt", "rsa_mgf1_md:sha1"]
    message = parse_signed_data(pki.openssl_sign(CONTENT, signer, options=options))
    with pytest.raises(SignatureError, match="RSA-PSS with sha1"):
        message.verify(pki.keyring(root), pki.now)
    options = ["-keyopt", "rsa_padding_mode:pss", "-keyopt", "rsa_pss_saltlen:0"]
    message = parse_signed_data(pki.openssl_sign(CONTENT, signer, options=options))
    with pytest.raises(SignatureError, match="RSA-PSS salt is 0 bytes, expected at least 20"):
        message.verify(pki.keyring(root), pki.now)
