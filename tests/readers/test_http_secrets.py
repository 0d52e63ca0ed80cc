"""Tokens and passwords in files: read when a server is asked."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from updated.core.link import LinkSettings, without_credentials
from updated.errors import ConfigError
from updated.readers.http_secrets import with_secrets


@pytest.mark.parametrize("content", [b"t0ken", b"t0ken\n", b"t0ken\r\n"])
def test_secrets_come_from_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "secret").write_bytes(content)
    secret = str(tmp_path / "secret")
    assert with_secrets(LinkSettings(bearer_file=secret)).bearer == "t0ken"
    assert with_secrets(LinkSettings(user="u", password_file=secret)).password == "t0ken"
    assert with_secrets(LinkSettings(bearer="b", password="p")) == LinkSettings(bearer="b", password="p")


def test_who_shall_not_know_us_gets_nothing_of_the_files() -> None:
    known = LinkSettings(bearer_file="/none", user="u", password_file="/none")
    found = without_credentials(known, "https://other/")
    assert found == with_secrets(found) == LinkSettings()


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"a\n\n", b"a\nb", b"\xff\xfe", b"a\0", b"a\tb", b"a" * 20_000]
)
def test_secrets_that_are_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "secret"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"^bearer-token-file in \[http\] of updated.toml: {path} "):
        with_secrets(LinkSettings(bearer_file=str(path)))


def test_files_that_are_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "none", tmp_path, tmp_path / "fifo", Path("/dev/zero"), Path("a\0b")):
        with pytest.raises(ConfigError, match=r"^password-file in \[http\] of updated.toml: "):
            with_secrets(LinkSettings(password_file=str(path)))
