"""What `info` prints of manifests that the real rauc 1.8 does not know, and of our own interface's values."""

from __future__ import annotations

import json

import pytest

from updated.bundle.manifest import Image, Manifest
from updated.cli.render import plain
from updated.cli.render_agent import duration, transfer
from updated.cli.render_info import FORMATS, info

NEW = Manifest(
    compatible="box",
    format="crypt",
    verity_hash=b"\x01" * 32,
    verity_salt=b"\x02" * 32,
    verity_size=8192,
    crypt_key=b"\x07" * 32,
    handler_filename="handler.sh",
    images=(
        Image(
            "rootfs",
            variant="red",
            filename="r.tar",
            type="tar",
            sha256="ab" * 32,
            size=2_500_000,
            adaptive=("block-hash-index",),
            convert=("tar-extract", "keep"),
            converted=("a", "b"),
        ),
        Image("files", artifact="conf", hooks=("install",)),
    ),
    meta={"store": {"url": "https://x", "a.b": "1"}, "my-label": {"k": "v"}},
    hash="ef" * 32,
)

READABLE = """\
Compatible:     'box'
Version:        '(null)'
Description:    '(null)'
Build:          '(null)'
Hooks:          ''
Bundle Format:  crypt
  Crypt Key:    '<hidden>'
  Verity Salt:  '0202020202020202020202020202020202020202020202020202020202020202'
  Verity Hash:  '0101010101010101010101010101010101010101010101010101010101010101'
  Verity Size:  8192
Manifest Hash:  'efefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefef'

Metadata:
  store:
    url: https://x
    a.b: 1
  my-label:
    k: v

2 Images:
  [rootfs]
    Variant:   red
    Filename:  r.tar
    Type:      tar
    Checksum:  abababababababababababababababababababababababababababababababab
    Size:      2.5\u00a0MB (2500000 bytes)
    Hooks:     
    Adaptive:  block-hash-index
    Convert:   tar-extract keep
    Converted: 'a' 'b'
  [files]
    Artifact:  conf
    (no image file)
    Hooks:     install
"""  # noqa: W291


def test_readable() -> None:
    assert plain(info(NEW, "readable")) == READABLE


def test_no_images() -> None:
    assert info(Manifest("box"), "readable").endswith("\n\n\n0 Images\n")


def test_shell() -> None:
    lines = info(NEW, "shell").splitlines()
    assert "RAUC_MF_VERSION=''" in lines
    assert "RAUC_META_MY_LABEL_K='v'" in lines
    assert "RAUC_META_STORE_URL='https://x'" in lines
    assert not any("A.B" in line for line in lines)  # cannot be a variable
    assert "RAUC_IMAGE_CONVERTED_0='a b'" in lines
    assert "RAUC_IMAGE_ARTIFACT_1='conf'" in lines
    assert "RAUC_IMAGE_HOOKS_1='install'" in lines


def test_json() -> None:
    data = json.loads(info(NEW, "json"))
    assert data["version"] is None
    assert list(data["images"][0]["rootfs"]) == [
        *("artifact", "variant", "filename", "type", "checksum", "size"),
        *("hooks", "adaptive", "convert", "converted"),
    ]
    assert data["images"][1]["files"]["adaptive"] == []
    assert "convert" not in data["images"][1]["files"]


def test_json_2() -> None:
    data = json.loads(info(NEW, "json-2"))
    assert data["update"] == {"compatible": "box"}
    assert data["bundle"]["verity-size"] == 8192
    assert data["handler"] == {"filename": "handler.sh"}
    assert "hooks" not in data
    assert data["images"][1] == {"slot-class": "files", "artifact": "conf", "hooks": ["install"]}
    assert data["meta"]["store"] == {"url": "https://x", "a.b": "1"}


@pytest.mark.parametrize("output_format", FORMATS)
def test_the_key_of_the_payload_is_never_shown(output_format: str) -> None:
    assert "07" * 32 not in info(NEW, output_format)


def test_a_manifest_cannot_forge_lines_or_steer_the_terminal() -> None:
    evil = Manifest("box", version="1'\nBuild: 'x\x1b[1A", images=(Image("a", filename="\x1b]0;x\x07"),))
    shown = info(evil, "readable")
    assert "Version:        '1'\\x0aBuild: 'x\\x1b[1A'" in shown
    assert "\x1b" not in plain(shown)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(-1, "0 s"), (0.4, "0 s"), (59.4, "59 s"), (60, "1:00 min"), (3599, "59:59 min"), (3723, "1:02:03 h")],
)
def test_durations(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


@pytest.mark.parametrize(
    ("progress", "shown"),
    [
        ({"percentage": 3}, ""),
        ({"bytes-done": 0, "bytes-total": 2_000_000, "rate": 0.0}, "0 bytes of 2.0\u00a0MB"),
        (
            {"bytes-done": 999, "bytes-total": 5_000_000_000, "rate": 4.2e6, "eta": 61.0},
            "999 bytes of 5.0\u00a0GB, 4.2\u00a0MB/s, 1:01 min left",
        ),
    ],
)
def test_transfers(progress: dict[str, object], shown: str) -> None:
    assert transfer(progress) == shown
