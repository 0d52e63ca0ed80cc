"""`updated doctor` as a process: what it prints, its exit codes, and what others than root are told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from updated.cli.doctor import document, readable
from updated.doctor.finding import Finding, Level, note, ok, warning

Doctor = Callable[..., CompletedProcess[str]]
AS_NOBODY = """
import contextlib, io, os, sys
from updated.cli.main import run
with contextlib.redirect_stdout(io.StringIO()):
    run(["updated", *sys.argv[1:]])  # loads everything: the interpreter may be in root's home
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
sys.exit(run(["updated", *sys.argv[1:]]))
"""
CONF = """\
[system]
compatible=Test Box
bootloader=grub
grubenv={0}/grubenv
data-directory={0}/data

[keyring]
path={0}/etc/keyring.pem

[slot.rootfs.0]
device={0}/rootfs-0
bootname=A

[slot.rootfs.1]
device={0}/rootfs-1
bootname=B
"""


@pytest.fixture
def folder(pki: Path) -> Iterator[Path]:
    """Where everybody can look; pytest's own folders are root's."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield make_device(Path(name), pki)


def make_device(tmp_path: Path, pki: Path) -> Path:
    (tmp_path / "etc").mkdir()
    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "etc" / "system.conf").write_text(CONF.format(tmp_path))
    (tmp_path / "etc" / "updated.toml").write_text("")
    (tmp_path / "etc" / "keyring.pem").write_bytes((pki / "ca.pem").read_bytes())
    (tmp_path / "cmdline").write_text("rauc.slot=A\n")
    for name in ("rootfs-0", "rootfs-1"):
        (tmp_path / name).write_bytes(bytes(4096))
    for words in (["create"], ["set", "ORDER=A B", "A_OK=1", "A_TRY=0", "B_OK=0", "B_TRY=0"]):
        subprocess.run(["grub-editenv", tmp_path / "grubenv", *words], check=True, timeout=10)
    return tmp_path


@pytest.fixture
def doctor(folder: Path) -> Doctor:
    def call(*words: str, program: tuple[str, ...] = ("-m", "updated")) -> CompletedProcess[str]:
        given = (f"--conf={folder}/etc/system.conf", f"--agent-conf={folder}/etc/updated.toml")
        argv = [sys.executable, *program, "doctor", *given, f"--cmdline={folder}/cmdline", *words]
        env = {**os.environ, "LC_ALL": "C.UTF-8"}
        return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)

    return call


def found(result: CompletedProcess[str], check: str) -> list[dict[str, str]]:
    return [each for each in json.loads(result.stdout)["findings"] if each["check"] == check]


def test_problems_are_shown_with_what_to_do(doctor: Doctor) -> None:
    result = doctor()
    assert result.stderr == ""
    assert "=== Keyring ===\nwarning  O = Test Org, CN = Root CA: expires on " in result.stdout
    assert "warning  rootfs.1: would not be started." in result.stdout
    assert "(expected good, got OK=0 TRY=0)\n         hint: Install again" in result.stdout
    assert "=== Slots ===" not in result.stdout
    assert "=== Slots ===" in doctor("--verbose").stdout


def test_json_is_everything(doctor: Doctor) -> None:
    result = doctor("--json")
    data = json.loads(result.stdout)
    assert result.stdout.count("\n") == 1
    assert data["counts"] == json.loads(doctor("--output-format=json-pretty").stdout)["counts"]
    assert list(data) == ["overall", "counts", "findings"]
    assert sum(data["counts"].values()) == len(data["findings"])
    keys = ["check", "level", "about", "text", "expected", "got", "hint"]
    assert all(list(each) == keys for each in data["findings"])
    (expiry,) = found(result, "keyring.expiry")
    assert (expiry["level"], expiry["expected"]) == ("warning", "180 days left")


@pytest.mark.root
def test_errors_are_2(doctor: Doctor, folder: Path) -> None:
    (folder / "grubenv").write_bytes(b"")
    (folder / "etc" / "keyring.pem").unlink()
    result = doctor("--json")
    assert result.returncode == 2
    assert json.loads(result.stdout)["overall"] == "error"


def test_overrides_and_a_missing_configuration(doctor: Doctor) -> None:
    named = doctor("--json", "--keyring=/nowhere.pem")
    assert found(named, "keyring.file")[0]["about"] == "/nowhere.pem"
    missing = doctor("--json", "--conf=/nowhere/system.conf")
    assert missing.returncode == 2
    assert "No such file or directory" in found(missing, "config.file")[0]["text"]


@pytest.mark.root
def test_somebody_else_is_told_what_could_not_be_looked_at(doctor: Doctor, folder: Path) -> None:
    for name in ("grubenv", "etc/keyring.pem"):
        (folder / name).chmod(0o600)
    result = doctor("--json", program=("-c", AS_NOBODY))
    assert result.stderr == ""
    for check in ("boot.environment", "keyring.file", "storage.data", "storage.status"):
        finding = found(result, check)[0]
        assert (finding["level"], finding["hint"]) == ("unknown", "Ask again as root."), finding
    assert {each["level"] for each in found(result, "slots.device")} == {"ok"}
    assert not [each for each in json.loads(result.stdout)["findings"] if each["level"] == "error"]


def test_wrong_usage(doctor: Doctor) -> None:
    for words in (("now",), ("--output-format=xml",), ("--fix",)):
        result = doctor(*words)
        assert (result.returncode, result.stdout) == (1, "")


def test_nothing_in_a_name_steers_the_terminal() -> None:
    shown = readable([warning("slots.device", "\x1b[2J", "a\nb", hint="\r")], verbose=False)
    assert shown == (
        "=== Slots ===\nwarning  \\x1b[2J: a\\x0ab\n         hint: \\x0d\n\nOverall: warning (1 warning)"
    )


def test_the_verdict() -> None:
    def of(*findings: Finding) -> str:
        return readable(findings, verbose=False).splitlines()[-1]

    bad = Finding("boot.group", Level.ERROR, "", "")
    assert of() == "Overall: ok ()"
    assert of(ok("clock.build", "", "")) == "Overall: ok (1 ok)"
    assert of(note("clock.rtc", "", ""), bad, bad, ok("x.y", "", "")) == (
        "Overall: error (2 errors, 1 note, 1 ok)"
    )
    assert document([bad])["counts"] == {"ok": 0, "note": 0, "unknown": 0, "warning": 0, "error": 1}
