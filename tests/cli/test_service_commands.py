"""Our command line and the real one, talking to the same real `rauc service` on a private bus."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from subprocess import CompletedProcess

import pytest

Env = Mapping[str, str]
Run = Callable[..., CompletedProcess[str]]

# What today's RAUC prints otherwise than 1.8, which is the oracle here (RAUC src/main.c, 1.15).
NEWER_READABLE = (
    (re.compile(r"^\t(bootname|description|mounted|boot status): ", re.M), r"      \1: "),
    (re.compile(r"^(              size=)(\d+)$", re.M), lambda m: m[1] + long_size(int(m[2]))),
    (re.compile(r"^(              compatible=\(null\))$", re.M), r"\1\n          installed:"),
)
NEWER_SHELL = (
    (re.compile(r"^(RAUC_SYSTEM_VARIANT=.*)$", re.M), r"\1\nRAUC_SYSTEM_VERSION=''"),
    (re.compile(r"^(RAUC_SLOT_STATUS_BUNDLE_)BUILD_(\d+)=(.*)$", re.M), r"\g<0>\n\1HASH_\2=''"),
    (re.compile(r"\Z"), "RAUC_REPOS=''"),
)
NEWER_JSON: tuple[dict[str, object], ...] = (
    {"system_version": ""},  # after `variant`
    {"artifact-repositories": []},  # at the end
)

DETAILED = pytest.mark.parametrize("detailed", [(), ("--detailed",)], ids=["short", "detailed"])


def long_size(size: int) -> str:
    assert 1000 <= size < 1_000_000
    return f"{size / 1000:.1f}\u00a0kB ({size} bytes)"


@pytest.fixture
def installed(rauc_service: Env, bundles: Mapping[str, Path], rauc: Run) -> Env:
    """The service after an install, so that there is a status to show."""
    assert rauc("install", bundles["plain"], env=rauc_service).returncode == 0
    return rauc_service


def both(words: tuple[str | Path, ...], rauc: Run, updated: Run, env: Env) -> tuple[str, str]:
    """Standard output of the real one and of ours; exit code and stderr are the same."""
    theirs, ours = rauc(*words, env=env), updated(*words, env=env)
    assert (ours.returncode, ours.stderr) == (theirs.returncode, theirs.stderr)
    return theirs.stdout, ours.stdout


@pytest.mark.parametrize(
    ("locale", "detailed"),
    [("C", ()), ("C.UTF-8", ()), ("C.UTF-8", ("--detailed",))],  # GLib cannot print our "ü" in C
)
def test_status_readable(
    installed: Env, rauc: Run, process: Run, locale: str, detailed: tuple[str, ...]
) -> None:
    env = {**installed, "LC_ALL": locale}
    expected, got = both(("status", *detailed), rauc, process, env)
    for pattern, replacement in NEWER_READABLE:
        expected = pattern.sub(replacement, expected)
    assert got == expected.rstrip("\n") + "\n"


def test_status_without_colors(installed: Env, updated: Run) -> None:
    assert "\x1b" in updated("status", env=installed).stdout
    assert "\x1b" not in updated("status", env={**installed, "NO_COLOR": "1"}).stdout


@DETAILED
def test_status_shell(installed: Env, rauc: Run, updated: Run, detailed: tuple[str, ...]) -> None:
    expected, got = both(("status", "--output-format=shell", *detailed), rauc, updated, installed)
    expected = expected.rstrip("\n") + "\n"
    for pattern, replacement in NEWER_SHELL:
        expected = pattern.sub(replacement, expected, count=0 if "HASH" in replacement else 1)
    assert got == expected + "\n"


@DETAILED
@pytest.mark.parametrize("pretty", ["json", "json-pretty"])
def test_status_json(installed: Env, rauc: Run, updated: Run, detailed: tuple[str, ...], pretty: str) -> None:
    expected, got = both(("status", f"--output-format={pretty}", *detailed), rauc, updated, installed)
    data = json.loads(expected)
    head = {key: data.pop(key) for key in ("compatible", "variant")}
    newer = head | NEWER_JSON[0] | data | NEWER_JSON[1]
    assert list(json.loads(got)) == list(newer)
    assert json.loads(got) == newer
    slots = expected.partition('"slots"')[2].rstrip("]}\n ")
    assert slots in got  # to the last blank


@pytest.mark.parametrize(
    "words",
    [
        ("mark-good",),
        ("mark-bad", "other"),
        ("mark-active", "other"),
        ("mark-active", "rootfs.1"),
        ("mark-good", "booted"),
        ("mark-active", "nosuch"),
        ("mark-active", "rootfs.7"),
        ("mark-foo",),
        ("mark-good", "booted", "extra"),
    ],
)
def test_marking(rauc_service: Env, rauc: Run, updated: Run, words: tuple[str, ...]) -> None:
    theirs, ours = rauc("status", *words, env=rauc_service), updated("status", *words, env=rauc_service)
    assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout)
    assert ours.stderr.splitlines()[:1] == theirs.stderr.splitlines()[:1]


def test_our_short_forms_of_marking(rauc_service: Env, updated: Run, device: Path) -> None:
    assert (
        updated("mark-bad", "other", env=rauc_service).stdout == "rauc status: marked slot rootfs.1 as bad\n"
    )
    assert updated("mark-good", env=rauc_service).stdout == "rauc status: marked slot rootfs.0 as good\n"
    assert b"B_OK=0" in (device / "grubenv").read_bytes()
    too_many = updated("mark-good", "a", "b", env=rauc_service)
    assert (too_many.returncode, too_many.stderr.splitlines()[0]) == (1, "Too many arguments")


def test_install_looks_like_rauc(
    rauc_service: Env, rauc: Run, updated: Run, bundles: Mapping[str, Path]
) -> None:
    expected, got = both(("install", bundles["plain"]), rauc, updated, rauc_service)
    assert got == expected.replace("\nidle\n", "\n")  # there if the client was slow to stop
    assert got.splitlines()[-1] == f"Installing `{bundles['plain']}` succeeded"


def test_a_failing_install_looks_like_rauc(
    rauc_service: Env, rauc: Run, updated: Run, tmp_path: Path
) -> None:
    bundle = tmp_path / "bad.raucb"
    bundle.write_bytes(bytes(8192))
    expected, got = both(("install", bundle), rauc, updated, rauc_service)
    assert got == expected.removesuffix("idle\n")
    assert got.splitlines()[-1].startswith("LastError: ")


def test_a_relative_path_is_made_absolute(
    rauc_service: Env, updated: Run, bundles: Mapping[str, Path]
) -> None:
    bundle = bundles["plain"]
    result = updated("install", bundle.name, env=rauc_service, cwd=bundle.parent)
    assert result.stdout.endswith(f"Installing `{bundle}` succeeded\n")


@pytest.mark.parametrize(
    "words", [("install", "/nosuch.raucb"), ("install",), ("install", "a", "b"), ("install", "--bogus", "a")]
)
def test_what_install_does_not_take(bus: Env, rauc: Run, updated: Run, words: tuple[str, ...]) -> None:
    theirs, ours = rauc(*words, env=bus), updated(*words, env=bus)
    assert (ours.returncode, ours.stdout) == (theirs.returncode, "")
    newer = {"A bundle filename name must be provided": "A bundle path or URL must be provided"}
    expected = theirs.stderr.splitlines()[0]
    assert ours.stderr.splitlines()[0] == newer.get(expected, expected)


def test_without_a_service(bus: Env, updated: Run, bundles: Mapping[str, Path]) -> None:
    status = updated("status", env=bus)
    assert (status.returncode, status.stdout) == (1, "")
    first, second = status.stderr.splitlines()
    assert first == "Error retrieving slot status via D-Bus: The update service is not running"
    assert second == "hint: systemctl start updated"
    install = updated("install", bundles["plain"], env=bus)
    assert (install.returncode, install.stdout) == (2, "")
    assert install.stderr.splitlines()[-1] == f"D-Bus error while installing `{bundles['plain']}`"
    assert updated("history", env=bus).stderr.startswith("The update service is not running\nhint: ")


def test_without_a_bus(tmp_path: Path, updated: Run) -> None:
    env = {"DBUS_SESSION_BUS_ADDRESS": f"unix:path={tmp_path}/none", "DBUS_STARTER_BUS_TYPE": "session"}
    result = updated("status", env=env)
    assert result.returncode == 1
    assert result.stderr.startswith("Error retrieving slot status via D-Bus: Cannot reach the session bus")
    assert "Traceback" not in result.stderr
