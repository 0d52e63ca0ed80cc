"""`info` of both, for bundles made by the real rauc."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from subprocess import CompletedProcess

import pytest

Run = Callable[..., CompletedProcess[str]]
FORMATS = pytest.mark.parametrize("bundle_format", ["plain", "verity"])

# What today's RAUC prints otherwise than 1.8, which is the oracle here (RAUC src/main.c, 1.15).
NEWER_READABLE = (
    (re.compile(r"^(Compatible|Version|Description|Build|Hooks|Bundle Format): *\t", re.M), ""),
    (re.compile(r"^(  Verity (?:Salt|Hash|Size): )\t", re.M), r"\1 "),
    (re.compile(r"^\t", re.M), "    "),
    (re.compile(r"^(    Filename:  .*)$", re.M), r"\1\n    Type:      raw (detected)"),
    (re.compile(r"^    Size:      (\d+)$", re.M), ""),
    (re.compile(r"^\n(\d+ Images?:)$", re.M), r"Manifest Hash:  'HASH'\n\n\n\1"),
)
NEWER_SHELL = ("RAUC_MF_HASH", "RAUC_MF_FORMAT", "RAUC_IMAGE_ARTIFACT_")
NEWER_JSON = ("format", "hash")
NEWER_JSON_IMAGE = ("artifact", "type")


InfoOfBoth = Callable[..., tuple[str, str]]


@pytest.fixture
def info_of_both(rauc: Run, updated: Run, pki: Path, bundles: Mapping[str, Path]) -> InfoOfBoth:
    """Standard output of the real one and of ours, for the bundle of a format."""

    def info(bundle_format: str, *words: str) -> tuple[str, str]:
        arguments = ("info", f"--keyring={pki}/ca.pem", *words, bundles[bundle_format])
        theirs, ours = rauc(*arguments), updated(*arguments)
        assert (theirs.returncode, ours.returncode, ours.stderr) == (0, 0, "")
        return theirs.stdout, ours.stdout

    return info


def newer(text: str, manifest_hash: str) -> str:
    """A readable output of 1.8 as today's RAUC prints it."""

    def size(match: re.Match[str]) -> str:
        return f"    Size:      {int(match[1]) / 1000:.1f}\u00a0kB ({match[1]} bytes)"

    def head(match: re.Match[str]) -> str:
        return f"{match[1] + ':':<16}"

    for pattern, replacement in NEWER_READABLE:
        special = {"Size": size, "Comp": head}
        function = next((special[key] for key in special if key in pattern.pattern and not replacement), None)
        text = pattern.sub(function or replacement, text)
    return text.replace("HASH", manifest_hash)


@FORMATS
@pytest.mark.parametrize("extra", [(), ("--no-verify",), ("--no-check-time",), ("--dump-recipients",)])
def test_readable(info_of_both: InfoOfBoth, bundle_format: str, extra: tuple[str, ...]) -> None:
    expected, got = info_of_both(bundle_format, *extra)
    found = re.search(r"^Manifest Hash:  '([0-9a-f]{64})'$", got, re.M)
    assert found is not None
    assert got == newer(expected, found[1])


@FORMATS
def test_shell(info_of_both: InfoOfBoth, bundle_format: str) -> None:
    expected, got = info_of_both(bundle_format, "--output-format=shell")
    known = [line for line in got.splitlines() if not line.startswith(NEWER_SHELL)]
    # 1.8 does not quote numbers
    quoted = re.sub(r"^(RAUC_MF_IMAGES|RAUC_IMAGE_SIZE_\d+)=(\d+)$", r"\1='\2'", expected, flags=re.M)
    assert known == quoted.strip().splitlines()


@FORMATS
@pytest.mark.parametrize("output_format", ["json", "json-pretty"])
def test_json(info_of_both: InfoOfBoth, bundle_format: str, output_format: str) -> None:
    expected, got = info_of_both(bundle_format, f"--output-format={output_format}")
    data = json.loads(got)
    assert data["format"] == bundle_format
    for key in NEWER_JSON:
        del data[key]
    for image in data["images"]:
        for members in image.values():
            for key in NEWER_JSON_IMAGE:
                del members[key]
    assert list(data) == list(json.loads(expected))
    assert data == json.loads(expected)
    assert ("\n" in got.strip()) == (output_format == "json-pretty")


@FORMATS
def test_json_2_is_the_dictionary_of_the_bus(
    updated: Run, bundles: Mapping[str, Path], pki: Path, bundle_format: str
) -> None:
    got = updated("info", f"--keyring={pki}/ca.pem", "--output-format=json-2", bundles[bundle_format])
    data = json.loads(got.stdout)
    assert data["update"]["version"] == "2026.1"
    assert data["bundle"]["format"] == bundle_format
    assert ("verity-hash" in data["bundle"]) == (bundle_format == "verity")
    assert data["hooks"] == {"filename": "hook.sh", "hooks": ["install-check"]}
    assert [image["slot-class"] for image in data["images"]] == ["rootfs", "appfs"]
    assert data["images"][1]["hooks"] == ["pre-install", "post-install"]
    assert data["meta"] == {}


def test_the_keyring_of_the_configuration(
    updated: Run, bundles: Mapping[str, Path], device: Path, pki: Path
) -> None:
    conf = ("-c", device / "system.conf")
    assert updated("info", *conf, bundles["verity"]).returncode == 0
    other = ("-C", f"keyring:path={pki}/dev.pem")
    assert updated("info", *conf, *other, bundles["verity"]).returncode == 1


def test_no_colors_without_colors(updated: Run, bundles: Mapping[str, Path]) -> None:
    got = updated("info", "--no-verify", bundles["verity"], env={"NO_COLOR": "1"})
    assert "\x1b" not in got.stdout
    assert "  [rootfs]\n" in got.stdout


@pytest.fixture
def strange(tmp_path: Path, bundles: Mapping[str, Path]) -> Mapping[str, Path]:
    """Bundles that are none."""
    whole = bundles["verity"].read_bytes()
    contents = {
        "empty": b"",
        "zeros": bytes(8192),
        "text": b"no bundle at all\n" * 1000,
        "short": whole[:-1],
        "changed": whole[:-200] + bytes([whole[-200] ^ 1]) + whole[-199:],
    }
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    return {name: tmp_path / name for name in contents}


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        *((name, ()) for name in ("empty", "zeros", "text", "short", "changed")),
        *((name, ("--no-verify",)) for name in ("empty", "zeros", "text", "short")),
    ],
)
def test_a_bad_bundle_is_one_line_and_a_code(
    updated: Run, strange: Mapping[str, Path], pki: Path, name: str, extra: tuple[str, ...]
) -> None:
    got = updated("info", f"--keyring={pki}/ca.pem", *extra, strange[name])
    assert (got.returncode, got.stdout) == (1, "")
    assert "Traceback" not in got.stderr
    error, *hint = got.stderr.splitlines()
    assert error
    assert all(line.startswith("hint: ") for line in hint)
    assert len(hint) <= 1


@pytest.mark.parametrize(
    ("words", "first"),
    [
        (("info",), "A bundle path or URL must be provided"),
        (("info", "a", "b"), "Excess argument: b"),
        (("info", "/nosuch.raucb"), "No such file: /nosuch.raucb"),
        (("info", "--output-format=xml", "/dev/null"), "Unknown output format: 'xml'"),
        (("info", "/dev/null"), "No keyring file or directory provided"),
        (("info", "--keyring=/nosuch.pem", "/etc/passwd"), "failed to load CA file '/nosuch.pem'"),
        (("info", "-c", "/nosuch.conf", "/etc/passwd"), "Failed to load system config (/nosuch.conf)"),
        (("info", "-C", "nonsense", "/dev/null"), "Error in parsing override: Missing '='"),
        (("info", "-C", "a=b", "/dev/null"), "Error in parsing override: Missing ':'"),
        (("info", "-H", "nonsense", "https://example.org/x.raucb"), "Invalid HTTP header 'nonsense'"),
        (("info", "file://host/x.raucb"), "file URI with hostname detected"),
        (("info", "--dump-cert", "/dev/null"), "--dump-cert: not supported yet"),
    ],
)
def test_errors_before_the_bundle_is_looked_at(
    updated: Run, words: tuple[str, ...], first: str, tmp_path: Path
) -> None:
    if words[-1] == "/dev/null":
        (tmp_path / "file").write_bytes(b"")
        words = (*words[:-1], str(tmp_path / "file"))
    got = updated(*words)
    assert (got.returncode, got.stdout) == (1, "")
    assert got.stderr.startswith(first)
    assert "Traceback" not in got.stderr


def test_a_file_uri(updated: Run, bundles: Mapping[str, Path]) -> None:
    assert updated("info", "--no-verify", f"file://{bundles['verity']}").returncode == 0


def test_debug_shows_where_it_happened(process: Run) -> None:
    got = process("-d", "info", "/nosuch.raucb")
    assert got.returncode == 1
    assert "Traceback" in got.stderr
    assert got.stderr.rstrip().endswith("No such file: /nosuch.raucb")
