"""The keyring's certificates and CRLs, made by openssl."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.doctor.conftest import Scene, run
from updated.doctor import keyring
from updated.doctor.finding import Finding, Level

Make = Callable[..., tuple[bytes, bytes]]
Find = Callable[..., Finding]
CA = ("-addext", "basicConstraints=critical,CA:TRUE")


def look(scene: Scene, *, days: float = 0.01) -> list[Finding]:
    """In so many days."""
    return list(keyring.check(scene.subject(at=datetime.now(UTC) + timedelta(days=days))))


def put(scene: Scene, *pems: bytes) -> None:
    (scene.folder / "etc" / "keyring.pem").write_bytes(b"".join(pems))


def levels(findings: list[Finding], check: str) -> dict[str, Level]:
    return {each.about.rpartition("= ")[2]: each.level for each in findings if each.check == check}


@pytest.mark.parametrize(
    ("days", "level"), [(0.01, Level.OK), (3470 - 1, Level.OK), (3471, Level.WARNING), (3651, Level.ERROR)]
)
def test_half_a_year_before_it_expires_it_is_said(
    scene: Scene, find: Find, days: float, level: Level
) -> None:
    finding = find(look(scene, days=days), "keyring.expiry")
    assert finding.level is level
    assert finding.about == "O = Test, CN = Root"
    assert bool(finding.hint) == (level is not Level.OK)


def test_each_certificate_is_named_and_one_that_is_good_makes_an_expired_one_harmless(
    scene: Scene, certificate: Make
) -> None:
    put(scene, certificate("Old", days=10)[0], certificate("Next", days=100)[0], certificate()[0])
    assert levels(look(scene, days=11), "keyring.expiry") == {
        "Old": Level.WARNING,
        "Next": Level.WARNING,
        "Root": Level.OK,
    }
    assert levels(look(scene, days=3651), "keyring.expiry") == dict.fromkeys(
        ("Old", "Next", "Root"), Level.ERROR
    )


def test_a_clock_at_1970_counts_as_the_build_time(scene: Scene, find: Find) -> None:
    def look_back() -> Finding:
        subject = scene.subject(at=datetime(1970, 1, 1, tzinfo=UTC))
        return find(list(keyring.check(subject)), "keyring.expiry")

    too_early = look_back()
    assert (too_early.level, too_early.got) == (Level.WARNING, "now 2023-11-14")
    (scene.folder / "usr" / "lib" / "os-release").touch()
    assert look_back().level is Level.OK


def test_a_clock_that_was_set_is_believed(scene: Scene, find: Find) -> None:
    finding = find(look(scene, days=-1), "keyring.expiry")
    assert (finding.level, finding.hint) == (Level.ERROR, "Is the clock right?")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "No such file or directory"),
        (b"", "found no certificate"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "is no readable"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n", "does not end"),
    ],
)
@pytest.mark.root
def test_a_keyring_that_cannot_be_read(scene: Scene, content: bytes | None, text: str) -> None:
    file = scene.folder / "etc" / "keyring.pem"
    file.unlink() if content is None else file.write_bytes(content)
    (finding,) = look(scene)
    assert (finding.check, finding.level) == ("keyring.file", Level.ERROR)
    assert text in finding.text


def test_no_keyring_at_all(scene: Scene) -> None:
    scene.conf.write_text("[system]\ncompatible=x\nbootloader=noop\n")
    (finding,) = look(scene)
    assert finding.text == "No keyring file or directory provided"


def test_what_a_certificate_is_not_for(scene: Scene, find: Find, certificate: Make) -> None:
    email = certificate("Mail", words=(*CA, "-addext", "extendedKeyUsage=emailProtection"))[0]
    put(scene, email)
    assert find(look(scene), "keyring.purpose").level is Level.OK
    scene.write(keyring="check-purpose=codesign")
    finding = find(look(scene), "keyring.purpose")
    assert finding.level is Level.ERROR
    assert "does not allow 'codesign-rauc'" in finding.text
    put(scene, email, certificate()[0])
    assert levels(look(scene), "keyring.purpose")["Mail"] is Level.WARNING


def test_a_key_that_is_too_short(scene: Scene, find: Find, certificate: Make) -> None:
    put(scene, certificate("Short", words=("-newkey", "rsa:1024"))[0])
    finding = find(look(scene), "keyring.purpose")
    assert finding.level is Level.ERROR
    assert "1024" in finding.text


@pytest.fixture
def intermediate(tmp_path: Path, certificate: Make) -> bytes:
    root, key = certificate()
    (tmp_path / "root.pem").write_bytes(root)
    (tmp_path / "root.key").write_bytes(key)
    new = ("openssl", "req", "-new", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
    run(*new, "-keyout", "i.key", "-out", "i.csr", "-subj", "/CN=Intermediate", cwd=tmp_path)
    (tmp_path / "ext").write_text("basicConstraints=critical,CA:TRUE\n")
    sign = ("openssl", "x509", "-req", "-in", "i.csr", "-CA", "root.pem", "-CAkey", "root.key")
    run(*sign, "-CAcreateserial", "-days", "100", "-extfile", "ext", "-out", "i.pem", cwd=tmp_path)
    return (tmp_path / "i.pem").read_bytes()


def test_an_intermediate_alone_is_no_end_of_a_chain(scene: Scene, intermediate: bytes) -> None:
    put(scene, intermediate)
    assert levels(look(scene), "keyring.root") == {"": Level.ERROR}
    scene.write(keyring="allow-partial-chain=true")
    assert levels(look(scene), "keyring.root") == {}


@pytest.fixture
def crl(tmp_path: Path, certificate: Make) -> bytes:
    """The root's, for 30 days."""
    root, key = certificate()
    (tmp_path / "root.pem").write_bytes(root)
    (tmp_path / "root.key").write_bytes(key)
    (tmp_path / "index").write_text("")
    (tmp_path / "ca.conf").write_text(
        "[ca]\ndefault_ca=me\n[me]\ndatabase=index\ndefault_md=sha256\ndefault_crl_days=30\n"
    )
    make = ("openssl", "ca", "-gencrl", "-config", "ca.conf", "-cert", "root.pem", "-keyfile", "root.key")
    run(*make, "-out", "root.crl", cwd=tmp_path)
    return (tmp_path / "root.crl").read_bytes()


def test_a_crl_is_said_to_expire_when_a_third_of_its_life_is_left(
    scene: Scene, find: Find, certificate: Make, crl: bytes
) -> None:
    scene.write(keyring="check-crl=true")
    put(scene, certificate()[0], crl)
    for days, level in ((1, Level.OK), (21, Level.WARNING), (31, Level.ERROR)):
        finding = find(look(scene, days=days), "keyring.crl")
        assert (finding.about, finding.level) == ("O = Test, CN = Root", level)


def test_every_authority_needs_its_crl(
    scene: Scene, certificate: Make, crl: bytes, intermediate: bytes
) -> None:
    scene.write(keyring="check-crl=true")
    put(scene, certificate()[0], intermediate, crl)
    assert levels(look(scene), "keyring.crl") == {"Intermediate": Level.ERROR, "Root": Level.OK}


def test_a_crl_that_nobody_looks_at(scene: Scene, find: Find, certificate: Make, crl: bytes) -> None:
    put(scene, certificate()[0], crl)
    assert find(look(scene), "keyring.crl").level is Level.WARNING
