"""What tells this device from others, and this system from the one before."""

from __future__ import annotations

from pathlib import Path

import pytest

from updated.host.identity import image_version, machine_id, serial


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("ID=x\nIMAGE_VERSION=1.2.3\n", "1.2.3"),
        ('IMAGE_VERSION="1.2.3"\n', "1.2.3"),
        ("VERSION_ID=12\n", ""),
        ('IMAGE_VERSION="torn\n', ""),
        ("", ""),
    ],
)
def test_image_version(tmp_path: Path, text: str, version: str) -> None:
    (tmp_path / "os-release").write_text(text)
    assert image_version([tmp_path / "none", tmp_path / "os-release"]) == version


def test_image_version_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    assert image_version([tmp_path / "none"]) == image_version([tmp_path / "bytes"]) == ""


def test_machine_id(tmp_path: Path) -> None:
    path = tmp_path / "machine-id"
    assert machine_id(path) == ""
    path.write_text("uninitialized\n")
    assert machine_id(path) == ""
    path.write_text("0123456789abcdef0123456789abcdef\n")
    assert machine_id(path) == "0123456789abcdef0123456789abcdef"


def test_serial(tmp_path: Path) -> None:
    (tmp_path / "serial-number").write_bytes(b"C0FFEE\0")
    assert serial(tmp_path / "serial-number") == "C0FFEE"
    assert serial(tmp_path / "none") == ""
