"""Purposes: each answer is that of `openssl cms -verify -purpose`; `codesign` is RAUC's own."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from updated.bundle.purpose import PURPOSES
from updated.bundle.signature import parse_signed_data
from updated.bundle.trust import KeyringPolicy
from updated.errors import ConfigError, SignatureError

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography import x509

    from tests.bundle.signature.conftest import Identity, Pki

UNSUITABLE = "signature verification failed: Verify error: unsuitable certificate purpose"
EMAIL, CODE, ANY, STAMP = "1.3.6.1.5.5.7.3.4", "1.3.6.1.5.5.7.3.3", "2.5.29.37.0", "1.3.6.1.5.5.7.3.8"
CLIENT, SERVER, SGC = "1.3.6.1.5.5.7.3.2", "1.3.6.1.5.5.7.3.1", "1.3.6.1.4.1.311.10.3.3"

# Key usage bits, extended key usages, whether they are critical.
Leaf = tuple[tuple[str, ...] | None, tuple[str, ...] | None, bool]
LEAVES: dict[str, Leaf] = {
    "bare": (None, None, False),
    "signature": (("digital_signature",), None, False),
    "non-repudiation": (("content_commitment",), None, False),
    "encipherment": (("key_encipherment",), None, False),
    "agreement": (("key_agreement",), None, False),
    "crl": (("crl_sign",), None, False),
    "decipher": (("key_agreement", "decipher_only"), None, False),
    "email": (None, (EMAIL,), False),
    "email+signature": (("digital_signature",), (EMAIL,), True),
    "email+encipherment": (("key_encipherment",), (EMAIL,), False),
    "code": (None, (CODE,), False),
    "code+signature": (("digital_signature",), (CODE,), True),
    "code+encipherment": (("key_encipherment",), (CODE,), False),
    "code+email": (None, (CODE, EMAIL), False),
    "any": (None, (ANY,), False),
    "stamp": (None, (STAMP,), False),
    "stamp critical": (None, (STAMP,), True),
    "stamp critical+encipherment": (("digital_signature", "key_encipherment"), (STAMP,), True),
    "stamp critical+email": (None, (STAMP, EMAIL), True),
    "client": (None, (CLIENT,), False),
    "server": (None, (SERVER,), False),
    "step up": (("key_encipherment",), (SGC,), False),
}
OPENSSL_PURPOSES = sorted(set(PURPOSES) - {"codesign", "codesign-rauc"})
# The reference's table.
RAUC_CODESIGN = {"code", "code+signature", "code+email"}


def extensions(pki: Pki, leaf: Leaf) -> list[x509.ExtensionType]:
    usages, purposes, _ = leaf
    made: list[x509.ExtensionType] = [] if usages is None else [pki.key_usage(*usages)]
    return made + ([] if purposes is None else [pki.extended(*purposes)])


def accepts(pki: Pki, der: bytes, trusted: Identity, purpose: str | None) -> bool:
    keyring = pki.keyring(trusted, policy=KeyringPolicy(check_purpose=purpose))
    try:
        parse_signed_data(der).verify(keyring, pki.now)
    except SignatureError as error:
        assert str(error) == UNSUITABLE
        assert "check-purpose" in error.hint
        return False
    return True


@pytest.mark.parametrize("name", LEAVES)
def test_leaf(pki: Pki, root: Identity, name: str) -> None:
    leaf = LEAVES[name]
    signer = pki.issue(name, root, extensions=extensions(pki, leaf), critical=leaf[2])
    der = pki.openssl_sign(b"content", signer)
    for purpose in OPENSSL_PURPOSES:
        done = pki.openssl_verify(der, root, options=["-purpose", purpose])
        assert accepts(pki, der, root, purpose) is (done.returncode == 0), purpose
    default = pki.openssl_verify(der, root).returncode == 0
    assert accepts(pki, der, root, None) is accepts(pki, der, root, "smimesign") is default
    assert accepts(pki, der, root, "codesign") is (name in RAUC_CODESIGN)


@pytest.mark.parametrize("ca_usages", [(EMAIL,), (CODE,), (ANY,), (CLIENT, SERVER), (STAMP,)])
def test_ca_with_extended_key_usage(pki: Pki, ca_usages: tuple[str, ...]) -> None:
    root = pki.issue("Narrow root", ca=True, extensions=[pki.extended(*ca_usages)])
    for name in ("bare", "code", "email", "client", "stamp critical"):
        leaf = LEAVES[name]
        signer = pki.issue(name, root, extensions=extensions(pki, leaf), critical=leaf[2])
        der = pki.openssl_sign(b"content", signer)
        for purpose in ("smimesign", "sslclient", "timestampsign", "any"):
            done = pki.openssl_verify(der, root, options=["-purpose", purpose])
            assert accepts(pki, der, root, purpose) is (done.returncode == 0), (name, purpose)
        assert accepts(pki, der, root, "codesign") is (name == "code" and CODE in ca_usages)


@pytest.mark.parametrize("kind", ["client", "server", "email", "objsign", "client, email", "sslCA"])
def test_netscape_type(pki: Pki, kind: str, tmp_path: Path) -> None:
    config = tmp_path / "extensions"
    config.write_text(f"nsCertType = {kind}\n")
    signer = pki.sign_again(pki.issue("Netscape"), "-extfile", str(config))
    der = pki.openssl_sign(b"content", signer)
    for purpose in OPENSSL_PURPOSES:
        done = pki.openssl_verify(der, signer, options=["-purpose", purpose])
        assert accepts(pki, der, signer, purpose) is (done.returncode == 0), purpose


def test_unknown_purpose(pki: Pki, root: Identity) -> None:
    with pytest.raises(ConfigError, match=r"^failed to configure X509 purpose 'bogus'$") as caught:
        pki.keyring(root, policy=KeyringPolicy(check_purpose="bogus"))
    assert "codesign" in caught.value.hint


@pytest.mark.parametrize(
    "name", ["bare", "signature", "code", "code+signature", "code+encipherment", "email"]
)
def test_codesign_like_rauc(pki: Pki, root: Identity, name: str, tmp_path: Path) -> None:
    leaf = LEAVES[name]
    signer = pki.issue(name, root, extensions=extensions(pki, leaf), critical=leaf[2])
    payload = bytes(8192)
    der = pki.openssl_sign(payload, signer, detached=True)
    bundle = tmp_path / "bundle.raucb"
    bundle.write_bytes(payload + der + len(der).to_bytes(8, "big"))
    config = tmp_path / "system.conf"
    config.write_text(
        "[system]\ncompatible=x\nbootloader=noop\n"
        f"[keyring]\npath={root.pem_file}\ncheck-purpose=codesign\n"
        "[slot.rootfs.0]\ndevice=/dev/null\n"
    )
    done = subprocess.run(
        ["rauc", "--conf", str(config), "info", str(bundle)], capture_output=True, text=True, check=False
    )
    assert ("unsuitable certificate purpose" in done.stderr) is not accepts(pki, der, root, "codesign")
    assert ("Verified detached signature" in done.stdout + done.stderr) is accepts(pki, der, root, "codesign")
