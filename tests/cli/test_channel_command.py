"""`channel`: what it makes, devices take; the real openssl agrees."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from updated.authoring.channel import Release, add
from updated.errors import ConfigError, SourceError
from updated.sources.index import DeviceFacts, choose, read_index

Run = Callable[..., CompletedProcess[str]]
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
SECONDS = itertools.count()


def release(version: str, compatible: str = "board") -> Release:
    return Release(version, compatible, f"{version}.raucb", "ab" * 32, 7)


def built(*steps: tuple[Release, dict[str, Any]], old: bytes | None = None) -> dict[str, Any]:
    for one, options in steps:
        now = NOW + timedelta(seconds=next(SECONDS))
        old = add(old, one, **{"channel": "stable", "now": now, **options})
    assert old is not None
    found: dict[str, Any] = json.loads(old)
    return found


def versions(index: dict[str, Any], channel: str = "stable") -> list[str]:
    found = index["channels"][channel]
    return [each["version"] for each in (found if isinstance(found, list) else [found])]


@pytest.fixture
def bundle(updated: Run, content: Callable[[str], Path], pki: Path, tmp_path: Path) -> Path:
    bundle = tmp_path / "new update.raucb"
    words = (f"--cert={pki}/dev.pem", f"--key={pki}/dev.key")
    assert updated("bundle", *words, content("verity"), bundle).returncode == 0
    return bundle


def test_a_new_index(updated: Run, pki: Path, bundle: Path, tmp_path: Path) -> None:
    index = tmp_path / "manifest.json"
    words = (f"--cert={pki}/dev.pem", f"--key={pki}/dev.key", f"--keyring={pki}/ca.pem", "--expires=30")
    made = updated("channel", *words, "--release-notes=https://example.com/new", index, bundle)
    assert (made.returncode, made.stderr) == (0, "")
    assert made.stdout == f"Version 2026.1 is in channel 'stable'; publish {index} and {index}.p7s\n"
    document = json.loads(index.read_bytes())
    assert document["latest"] == "2026.1"
    assert document["channels"] == {
        "stable": {
            "version": "2026.1",
            "compatible": "Test Box",
            "bundle_url": "new%20update.raucb",
            "bundle_sha256": sha256(bundle.read_bytes()).hexdigest(),
            "bundle_size": bundle.stat().st_size,
            "release_notes": "https://example.com/new",
        }
    }
    issued = datetime.fromisoformat(document["issued"])
    assert document["counter"] == issued.timestamp()
    assert datetime.fromisoformat(document["expires"]) - issued == timedelta(days=30)
    verify = ("openssl", "cms", "-verify", "-binary", "-inform", "DER", "-in", f"{index}.p7s")
    trust = ("-content", index, "-CAfile", pki / "ca.pem")
    subprocess.run([*map(str, (*verify, *trust))], check=True, capture_output=True, timeout=10)


def test_again(updated: Run, pki: Path, bundle: Path, tmp_path: Path) -> None:
    index = tmp_path / "manifest.json"
    words = ("channel", f"--cert={pki}/dev.pem", f"--key={pki}/dev.key", index, bundle)
    assert updated(*words).returncode == 0, "the signer's own bundle needs no keyring"
    first = json.loads(index.read_bytes())
    more = ("--channel=beta", "--url-prefix=https://cdn/x", "--percent=12.5")
    made = updated(*words, *more)
    assert "Version 2026.1 is in channel 'beta' for 12.5 % of the devices" in made.stdout
    second = json.loads(index.read_bytes())
    assert second["counter"] > first["counter"]
    assert second["channels"]["stable"] == first["channels"]["stable"]
    assert second["channels"]["beta"]["bundle_url"] == "https://cdn/x/new%20update.raucb"
    assert second["channels"]["beta"]["rollout"] == {"percent": 12.5}


def test_a_bundle_that_devices_would_refuse(updated: Run, pki: Path, bundle: Path, tmp_path: Path) -> None:
    index = tmp_path / "manifest.json"
    words = ("channel", f"--cert={pki}/ca.pem", f"--key={pki}/ca.key", f"--keyring={pki}/dev.pem")
    made = updated(*words, index, bundle)
    assert made.returncode == 1
    assert "signature verification failed" in made.stderr
    assert not index.exists()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ((), "An index file name must be provided"),
        (("i",), "A bundle path must be provided"),
        (("i", "b", "c"), "Excess argument: c"),
        (("i", "b"), "Cert and key files must be provided"),
        (
            ("i", "b", "--cert=c", "--key=k", "--percent=101"),
            "--percent is '101', expected a number from 0 to 100",
        ),
        (("i", "b", "--cert=c", "--key=k", "--percent=nan"), "--percent is 'nan'"),
        (("i", "b", "--cert=c", "--key=k", "--expires=soon"), "--expires is 'soon'"),
        (("i", "b", "--cert=/nowhere", "--key=k"), "failed to load cert file '/nowhere'"),
    ],
)
def test_usage(updated: Run, words: tuple[str, ...], text: str) -> None:
    made = updated("channel", *words)
    assert made.returncode == 1
    assert text in made.stderr


def test_files_that_cannot_be(updated: Run, pki: Path, bundle: Path, tmp_path: Path) -> None:
    words = ("channel", f"--cert={pki}/dev.pem", f"--key={pki}/dev.key")
    folder = updated(*words, tmp_path, bundle)
    assert (folder.returncode, folder.stderr.splitlines()[0]) == (
        1,
        f"Failed to read {tmp_path}: Is a directory",
    )
    nowhere = updated(*words, tmp_path / "no" / "index", bundle)
    assert "index.p7s: No such file or directory" in nowhere.stderr
    (tmp_path / "bad.json").write_text("{")
    assert "the index is no JSON" in updated(*words, tmp_path / "bad.json", bundle).stderr
    assert (tmp_path / "bad.json").read_text() == "{"


def test_a_rollout_from_its_beginning_to_its_end() -> None:
    one, two = release("1"), release("2")
    staged = built((one, {}), (two, {"percent": 10}))
    assert versions(staged) == ["2", "1"]
    wider = built((two, {"percent": 50}), old=json.dumps(staged).encode())
    assert versions(wider) == ["2", "1"]
    assert wider["channels"]["stable"][0]["rollout"] == {"percent": 50}
    done = built((two, {}), old=json.dumps(wider).encode())
    assert versions(done) == ["2"]
    assert isinstance(done["channels"]["stable"], dict), "the plain format again"


def test_other_kinds_of_devices_in_the_same_channel() -> None:
    both = built((release("1"), {}), (release("7", "other"), {"percent": 100}), (release("2"), {}))
    assert versions(both) == ["2", "7"]


def test_everybody_gets_something_during_a_rollout() -> None:
    index = read_index(json.dumps(built((release("1"), {}), (release("2"), {"percent": 30}))).encode())
    got = []
    for number in range(300):
        device = DeviceFacts("board", "0", f"machine {number}", "x86_64")
        entry = choose(index, "stable", device, NOW).entry
        got.append(entry.version if entry else "")
    assert set(got) == {"1", "2"}
    assert 60 < got.count("2") < 120


def test_what_it_does_not_know_stays() -> None:
    old = {"channels": {"beta": "later"}, "motd": "hello", "counter": 2**40}
    new = built((release("2"), {"percent": 5}), old=json.dumps(old).encode())
    assert new["motd"] == "hello"
    assert new["counter"] == 2**40 + 1
    assert new["channels"]["beta"] == "later"


def test_nothing_that_goes_back_is_made() -> None:
    old = add(None, release("1"), channel="stable", now=NOW + timedelta(hours=1))
    with pytest.raises(ConfigError, match="after now"):
        add(old, release("2"), channel="stable", now=NOW)


@pytest.mark.parametrize(
    "bad",
    [release("v1"), Release("1", "board", "file:///b", "ab" * 32, 7), Release("1", "board", "b", "ab", 7)],
)
def test_nothing_that_devices_refuse_is_made(bad: Release) -> None:
    with pytest.raises(SourceError):
        add(None, bad, channel="stable", now=NOW)


def test_an_old_expiry_does_not_stay() -> None:
    old = add(None, release("1"), channel="stable", now=NOW, expires=NOW + timedelta(days=1))
    assert "expires" not in built((release("2"), {}), old=old)
