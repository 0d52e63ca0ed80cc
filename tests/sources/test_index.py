"""The JSON of a channel index: what it may say, and what is refused with which words."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from updated.errors import SourceError
from updated.sources.index import DeviceFacts, bundle_url, choose, read_index

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
DEVICE = DeviceFacts("board", "1.0", "machine", "x86_64")
ENTRY = {"version": "1.1", "compatible": "board", "bundle_url": "https://cdn/1.1.raucb"}
FULL: dict[str, Any] = {
    "latest": "1.1",
    "channels": {
        "stable": {
            **ENTRY,
            "bundle_sha256": "AB" * 32,
            "bundle_size": 524288000,
            "release_notes": "https://example.com/changelog/1.1",
        },
        "beta": {"...": "..."},
    },
}


def index_of(*entries: object, **more: object) -> bytes:
    channel: object = entries[0] if len(entries) == 1 else list(entries)
    return json.dumps({"channels": {"stable": channel}, **more}).encode()


def chosen(*entries: dict[str, Any], device: DeviceFacts = DEVICE, now: datetime = NOW) -> str:
    """The version that `device` gets, or why it gets none."""
    choice = choose(read_index(index_of(*entries)), "stable", device, now)
    return choice.entry.version if choice.entry else "; ".join(choice.reasons) or choice.summary


def refusal(body: bytes) -> SourceError:
    with pytest.raises(SourceError) as caught:
        choose(read_index(body), "stable", DEVICE, NOW)
    return caught.value


def test_the_documented_format() -> None:
    """Other channels may be anything."""
    choice = choose(read_index(json.dumps(FULL).encode()), "stable", DEVICE, NOW)
    assert choice.entry is not None
    assert choice.entry.bundle_size == 524288000
    assert choice.summary == "update candidate found: higher semantic version"


def test_thousands_of_entries_are_not_thousands_of_reasons() -> None:
    others = [{**ENTRY, "version": f"1.1-{'x' * 1000}{n}", "architectures": ["z80"]} for n in range(500)]
    choice = choose(read_index(index_of(*others)), "stable", DEVICE, NOW)
    assert len(choice.reasons) == 21
    assert choice.reasons[-1] == "480 more versions are not for this device"
    assert all(len(reason) < 300 for reason in choice.reasons)
    assert chosen(*others, {**ENTRY, "version": "2"}) == "2"


def test_what_is_not_known_is_ignored() -> None:
    body = index_of({**ENTRY, "colour": "red", "rollout": {"wave": 3}}, future={"a": [1]}, signed="no")
    assert choose(read_index(body), "stable", DEVICE, NOW).entry is not None


@pytest.mark.parametrize(
    ("running", "expected"),
    [
        ("1.0", "1.1"),
        ("1.1-rc1", "1.1"),
        ("1.1", "no update candidate available"),
        ("1.1+build", "no update candidate available"),
        ("2", "no update candidate available"),
        ("", "1.1"),
        ("blue", "1.1"),
    ],
)
def test_only_what_is_above_what_runs(running: str, expected: str) -> None:
    assert chosen(ENTRY, device=DeviceFacts("board", running, "machine", "x86_64")) == expected


def test_a_version_that_cannot_be_compared_is_different() -> None:
    device = DeviceFacts("board", "blue", "machine", "x86_64")
    choice = choose(read_index(index_of(ENTRY)), "stable", device, NOW)
    assert choice.summary == "update candidate found: different version"


def test_the_first_entry_that_applies() -> None:
    """A staged rollout: who is not among the first gets what was before it."""
    staged = {**ENTRY, "version": "3", "rollout": {"percent": 0}}
    elsewhere = {**ENTRY, "version": "2.9", "compatible": "other-board"}
    assert chosen(staged, elsewhere, {**ENTRY, "version": "2"}, {**ENTRY, "version": "2.5"}) == "2"
    assert chosen({**staged, "rollout": {"percent": 100}}, {**ENTRY, "version": "2"}) == "3"


def test_an_empty_list() -> None:
    body = b'{"channels": {"stable": []}}'
    assert choose(read_index(body), "stable", DEVICE, NOW).entry is None


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"architectures": ["x86_64", "aarch64"]}, "1.1"),
        ({"architectures": ["aarch64"]}, "it is for 'aarch64', this is 'x86_64'"),
        ({"architectures": []}, "it is for none, this is 'x86_64'"),
        ({"from_versions": {"min": "1.0", "max": "1.0"}}, "1.1"),
        ({"from_versions": {}}, "1.1"),
        ({"from_versions": {"min": "1.0.1"}}, "devices that run '1.0.1' to 'any', this one runs '1.0'"),
        ({"from_versions": {"max": "0.9"}}, "devices that run 'any' to '0.9', this one runs '1.0'"),
        ({"rollout": {"percent": 100, "start": "2026-06-01T12:00:00Z"}}, "1.1"),
        (
            {"rollout": {"start": "2026-06-01T14:00:01+02:00"}},
            "its rollout starts at 2026-06-01T14:00:01+02:00",
        ),
        ({"rollout": {"percent": 0}}, "its rollout has reached 0 %"),
        ({"rollout": {}}, "1.1"),
    ],
)
def test_conditions(more: dict[str, Any], expected: str) -> None:
    assert expected in chosen({**ENTRY, **more})


def test_a_range_of_versions_is_not_for_unknown_ones() -> None:
    device = DeviceFacts("board", "", "machine", "x86_64")
    assert "this one runs ''" in chosen({**ENTRY, "from_versions": {"min": "0"}}, device=device)


def test_for_other_devices_only() -> None:
    error = refusal(index_of({**ENTRY, "compatible": "a"}, {**ENTRY, "compatible": "b"}))
    assert str(error) == "channel 'stable' of the index is for 'a', 'b', expected 'board'"
    assert "[ota]" in error.hint


def test_no_such_channel() -> None:
    body = json.dumps({"channels": {f"c{number}": {} for number in range(50)}}).encode()
    assert str(refusal(body)).startswith("the index has no channel 'stable', it has 'c0', 'c1', ")
    assert str(refusal(body)).endswith("'c19' and 30 more")
    assert str(refusal(b'{"channels": {}}')) == "the index has no channel 'stable', it has none"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "the index is no JSON: Expecting value"),
        (b"\xef\xbb\xbf{}", "the index is no JSON: Unexpected UTF-8 BOM"),
        (b'{"latest": "\xff"}', "the index is no JSON: it is not UTF-8 (byte 12)"),
        ('{"channels": {}}'.encode("utf-16"), "the index is no JSON: it is not UTF-8"),
        (b"[" * 100_000, "the index is no JSON: it is nested too deeply"),
        (b'{"a":' * 100_000, "the index is no JSON: it is nested too deeply"),
        (b'{"channels": {}} x', "the index is no JSON: Extra data"),
        (b'{"channels": {}, "channels": {}}', "the index is no JSON: the key 'channels' is there twice"),
        (b'{"channels": {"a": {}, "a": {}}}', "the index is no JSON: the key 'a' is there twice"),
        (b'{"counter": NaN}', "the index is no JSON: NaN is no number in JSON"),
        (b'{"counter": -Infinity}', "the index is no JSON: -Infinity is no number in JSON"),
        (b'{"counter": ' + b"9" * 10_000 + b"}", "the index is no JSON: Exceeds the limit"),
        (b"[]", "the index is malformed: Expected `object`, got `array`"),
        (b"null", "the index is malformed: Expected `object`, got `null`"),
        (b"{}", "the index is malformed: Object missing required field `channels`"),
        (b'{"channels": []}', "the index is malformed: channels: Expected `object`, got `array`"),
        (index_of(ENTRY, latest=1), "the index is malformed: latest: Expected `str | null`, got `int`"),
        (index_of(ENTRY, counter="1"), "the index is malformed: counter: Expected `int | null`, got `str`"),
        (index_of(ENTRY, counter=-1), "the index is malformed: counter: Expected `int` >= 0"),
        (index_of(ENTRY, counter=10**30), "the index is malformed: counter: "),
        (index_of(ENTRY, counter=1.5), "the index is malformed: counter: Expected `int | null`, got `float`"),
        (index_of(ENTRY, issued="yesterday"), "the index is malformed: issued: Invalid RFC3339"),
        (index_of(ENTRY, expires="2026-06-01T12:00:00"), "the index is malformed: expires: "),
        (index_of("1.1"), "the index is malformed: channels.stable: Expected `object`, got `str`"),
        (index_of(ENTRY, None), "the index is malformed: channels.stable[1]: Expected `object`, got `null`"),
        (index_of({}), "the index is malformed: channels.stable: Object missing required field `version`"),
        (
            index_of({**ENTRY, "version": 1.1}),
            "the index is malformed: channels.stable.version: Expected `str`, got `float`",
        ),
        (index_of({**ENTRY, "version": ""}), "channels.stable.version: Expected `str` of length >= 1"),
        (index_of({**ENTRY, "version": "v1"}), "version of channels.stable in the index: Failed to parse"),
        (index_of({**ENTRY, "version": "1-\udc80"}), "expected printable text"),
        (index_of({**ENTRY, "version": "1-\x1b[2J"}), "expected printable text"),
        (index_of({**ENTRY, "from_versions": {"max": "x"}}), "max of channels.stable in the index: "),
        (
            index_of({**ENTRY, "bundle_sha256": "ab"}),
            "channels.stable.bundle_sha256: Expected `str` matching",
        ),
        (index_of({**ENTRY, "bundle_sha256": "ab" * 32 + "\n"}), "channels.stable.bundle_sha256: "),
        (index_of({**ENTRY, "bundle_size": 0}), "channels.stable.bundle_size: Expected `int` >= 1"),
        (index_of({**ENTRY, "bundle_size": "1"}), "channels.stable.bundle_size: Expected `int | null`"),
        (index_of({**ENTRY, "rollout": {"percent": 101}}), "channels.stable.rollout.percent: Expected"),
        (index_of({**ENTRY, "rollout": {"percent": True}}), "channels.stable.rollout.percent: Expected"),
        (index_of({**ENTRY, "architectures": "x86_64"}), "channels.stable.architectures: Expected"),
        (b'{"channels": {"stable": {"rollout": {"percent": 1e999}}}}', "the index is malformed: "),
    ],
)
def test_refusals(body: bytes, text: str) -> None:
    assert text in str(refusal(body))


def test_a_login_page() -> None:
    error = refusal(b"\n<!DOCTYPE html><html><body>Welcome to the hotel")
    assert str(error).startswith("the index is no JSON: Expecting value")
    assert "login page" in error.hint


@pytest.mark.parametrize(
    ("written", "base", "expected"),
    [
        ("https://cdn/a.raucb", "https://x/y/manifest.json", "https://cdn/a.raucb"),
        ("1.1/a.raucb", "https://x/y/manifest.json?a=b", "https://x/y/1.1/a.raucb"),
        ("/a.raucb?t=1", "http://x/y/manifest.json", "http://x/a.raucb?t=1"),
        ("//cdn/a.raucb", "https://x/manifest.json", "https://cdn/a.raucb"),
        ("../../../a.raucb", "https://x/y/manifest.json", "https://x/a.raucb"),
        ("http://[::1]:8080/a.raucb", "https://x/", "http://[::1]:8080/a.raucb"),
    ],
)
def test_where_the_bundle_is(written: str, base: str, expected: str) -> None:
    assert bundle_url(written, base) == expected


@pytest.mark.parametrize(
    "written",
    [
        "file:///etc/passwd",
        "ftp://x/a",
        "javascript:alert(1)",
        "http://",
        "http:///a",
        "http://x:99999/a",
        "http://x:port/a",
        "http://[::1/a",
        "https://x/a b",
        "https://x/a\nHost: y",
        "https://x/\u202e",
        "\udc80",
    ],
)
def test_where_no_bundle_can_be(written: str) -> None:
    with pytest.raises(SourceError, match="bundle_url of the index is"):
        bundle_url(written, "https://x/manifest.json")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from([*ENTRY, "rollout", "from_versions", "architectures"]), json_values))
def test_any_entry_is_chosen_or_refused(more: dict[str, Any]) -> None:
    try:
        choice = choose(read_index(index_of({**ENTRY, **more})), "stable", DEVICE, NOW)
    except SourceError as error:
        assert str(error).encode()
    else:
        assert choice.entry is None or choice.entry.compatible == "board"


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode(errors="surrogatepass")))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    try:
        read_index(body)
    except SourceError as error:
        assert str(error).encode()
