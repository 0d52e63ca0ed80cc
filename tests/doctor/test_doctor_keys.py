"""Private keys where they should not be."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.doctor.conftest import Scene, run
from updated.doctor import private_keys
from updated.doctor.finding import Finding, Level

Make = Callable[..., tuple[bytes, bytes]]


def look(scene: Scene) -> list[tuple[str, Level]]:
    """What lies in the device's own folder."""
    found = list(private_keys.check(scene.subject()))
    return [(Path(each.about).name, each.level) for each in found if str(scene.folder) in each.about]


def test_the_key_of_a_certificate_in_the_keyring(scene: Scene, certificate: Make) -> None:
    assert look(scene) == []
    (scene.folder / "etc" / "ca.key.pem").write_bytes(certificate()[1])
    assert look(scene) == [("ca.key.pem", Level.ERROR)]


def test_it_may_stand_in_the_keyring_itself(scene: Scene, certificate: Make) -> None:
    (scene.folder / "etc" / "keyring.pem").write_bytes(b"".join(certificate()))
    assert look(scene) == [("keyring.pem", Level.ERROR)]


def test_the_names_of_files_do_not_matter_and_a_link_is_the_same_file(
    scene: Scene, certificate: Make
) -> None:
    (scene.folder / "etc" / "notes.txt").write_bytes(b"# do not lose\n" + certificate("Other")[1])
    (scene.folder / "etc" / "z-link").symlink_to("notes.txt")
    assert look(scene) == [("notes.txt", Level.WARNING)]


def test_a_locked_key_cannot_be_compared(scene: Scene, certificate: Make) -> None:
    (scene.folder / "plain").write_bytes(certificate()[1])
    words = ("-topk8", "-passout", "pass:secret", "-in", scene.folder / "plain")
    run("openssl", "pkcs8", *words, "-out", scene.folder / "etc" / "ca.key")
    assert look(scene) == [("ca.key", Level.WARNING)]


def test_the_device_s_own_key(scene: Scene, certificate: Make) -> None:
    key = scene.folder / "etc" / "client.key"
    key.write_bytes(certificate("Client")[1])
    key.chmod(0o600)
    assert look(scene) == [("client.key", Level.WARNING)]
    scene.toml.write_text(f'[http]\nkey = "{key}"\n')
    assert look(scene) == []
    key.chmod(0o644)
    assert look(scene) == [("client.key", Level.WARNING)]
    key.write_bytes(certificate()[1])
    assert look(scene) == [("client.key", Level.ERROR)]


@pytest.mark.parametrize("content", [b"-----BEGIN PRIVATE KEY-----", b"-----BEGIN EC PRIVATE KEY-----\n\xff"])
def test_rubbish_is_a_key_nobody_knows(scene: Scene, content: bytes) -> None:
    (scene.folder / "etc" / "rubbish").write_bytes(content * 100)
    assert look(scene) == [("rubbish", Level.WARNING)]


def test_a_pipe_does_not_stop_it(scene: Scene, certificate: Make) -> None:
    os.mkfifo(scene.folder / "etc" / "a-pipe")
    (scene.folder / "etc" / "folder").mkdir()
    (scene.folder / "etc" / "z.key").write_bytes(certificate()[1])
    assert look(scene) == [("z.key", Level.ERROR)]


def test_a_folder_with_very_many_files(scene: Scene) -> None:
    many = scene.folder / "many"
    many.mkdir()
    for number in range(private_keys.MAX_FILES + 1):
        (many / str(number)).touch()
    scene.write(keyring=f"directory={many}")
    found: list[Finding] = list(private_keys.check(scene.subject()))
    assert [(each.level, each.about) for each in found] == [(Level.NOTE, str(many))]
