"""updated.toml: optional, strict, with ranges."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from updated.config.agent_toml import (
    RANGES,
    AgentConfig,
    data_directory,
    load_agent_config,
    parse_agent_config,
)
from updated.config.system_conf import parse_system_config
from updated.errors import ConfigError

FULL = b"""
data-directory = "/data/updated"

[folder]
path = "/data/inbox"
after = "move"
move-to = "/data/done"

[policy]
version-floor = "confirmed"

[confirm]
stable-for = 30
deadline = 600.5

[reboot]
when = "immediately"
command = ["reboot", "0 tryboot"]

[install]
stall-timeout = 60
workers = 2
"""


def test_no_file_means_rauc_behaviour(tmp_path: Path) -> None:
    config = load_agent_config(default=tmp_path / "none.toml")
    assert config == AgentConfig()
    assert config.folder.path is None
    assert config.folder.after == "keep"
    assert config.policy.version_floor == "none"
    assert (config.confirm.stable_for, config.confirm.deadline) == (10, 300)
    assert config.reboot.when == "manual"
    assert config.reboot.command == ()
    assert (config.install.stall_timeout, config.install.workers) == (120, 0)


def test_full_file(tmp_path: Path) -> None:
    file = tmp_path / "updated.toml"
    file.write_bytes(FULL)
    config = load_agent_config(file)
    assert config.data_directory == "/data/updated"
    assert (config.folder.path, config.folder.after, config.folder.move_to) == (
        "/data/inbox",
        "move",
        "/data/done",
    )
    assert config.policy.version_floor == "confirmed"
    assert (config.confirm.stable_for, config.confirm.deadline) == (30, 600.5)
    assert config.reboot.command == ("reboot", "0 tryboot")
    assert config.install.workers == 2
    assert load_agent_config(default=file) == config


def test_config_is_frozen() -> None:
    with pytest.raises(AttributeError):
        AgentConfig().confirm.deadline = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("[confrim]", "unknown key 'confrim'", "Did you mean 'confirm'?"),
        ("[confirm]\nstable_for=1", "unknown key 'confirm.stable_for'", "Did you mean 'stable-for'?"),
        (
            "[policy]\nx=1",
            "unknown key 'policy.x'",
            "Known here: policy.version-floor, policy.install-windows",
        ),
        ('[usb]\non-start=[""]', "usb.on-start begins with an empty text, expected a program", ""),
        ("[usb]\nfile-systems=[]", "usb.file-systems is empty, expected one or more of vfat", ""),
        ('[ota]\nindex="http://u:p@/"', "ota.index is 'http://u:p@/', expected an URL", ""),
        ("[install]\nworkers='2'", "install.workers: Expected `int`, got `str`", ""),
        ("[install]\nworkers=2.5", "install.workers: Expected `int`, got `float`", ""),
        ("[install]\nworkers=65", "install.workers is 65, expected 0 to 64 threads", ""),
        ("[install]\nstall-timeout=0", "install.stall-timeout is 0, expected 1 to 86400 s", ""),
        ("[confirm]\ndeadline=inf", "confirm.deadline is inf, expected 1 to 86400 s", ""),
        ("[confirm]\nstable-for=nan", "confirm.stable-for is nan, expected 0 to 86400 s", ""),
        ("[confirm]\nstable-for=-1", "confirm.stable-for is -1, expected 0 to 86400 s", ""),
        (
            "[confirm]\nstable-for=300",
            "confirm.stable-for is 300 s, expected less than confirm.deadline (300 s)",
            "",
        ),
        ("[policy]\nversion-floor='high'", "policy.version-floor: Invalid enum value 'high'", ""),
        ("[reboot]\ncommand=['']", "reboot.command begins with an empty text, expected a program", ""),
        ("[reboot]\ncommand='reboot'", "reboot.command: Expected `array`, got `str`", ""),
        ("[folder]\npath='inbox'", "folder.path is 'inbox', expected an absolute path", ""),
        ("data-directory='\\u0000'", "data-directory is ", ""),
        ("[folder]\nafter='move'", 'folder.move-to and folder.after = "move" need each other', ""),
        ("[folder]\nmove-to='/x'", 'folder.move-to and folder.after = "move" need each other', ""),
        (
            "[folder]\npath='/x'\nafter='move'\nmove-to='/x/'",
            "folder.move-to is folder.path itself, expected another folder",
            "",
        ),
        ("folder='/x'", "folder: Expected `object`, got `str`", ""),
        ("[confirm", "not TOML: ", ""),
    ],
)
def test_refusals(tmp_path: Path, text: str, message: str, hint: str) -> None:
    file = tmp_path / "updated.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_agent_config(file)
    assert str(caught.value).startswith(f"Failed to load {file}: {message}")
    assert caught.value.hint.startswith(hint)
    assert bool(caught.value.hint) == bool(hint)


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file or directory"):
        load_agent_config(tmp_path / "none.toml")


def test_huge_file() -> None:
    with pytest.raises(ConfigError, match="more than 1048576 bytes"):
        parse_agent_config(b"#" * 2_000_000)


@pytest.mark.parametrize("key", RANGES)
def test_defaults_are_in_their_ranges(key: str) -> None:
    table, _, name = key.partition(".")
    low, high, _ = RANGES[key]
    assert low <= getattr(getattr(AgentConfig(), table), name.replace("-", "_")) <= high


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [("/a", "/b", "/a"), (None, "/b", "/b"), (None, None, "/var/lib/updated")],
)
def test_data_directory(ours: str | None, theirs: str | None, expected: str) -> None:
    text = "[system]\ncompatible=x\nbootloader=noop\n" + (f"data-directory={theirs}\n" if theirs else "")
    system = parse_system_config(text.encode(), Path("/etc/rauc/system.conf"))
    assert data_directory(AgentConfig(data_directory=ours), system) == Path(expected)


WORDS = st.sampled_from(
    [
        "[folder]",
        "[confirm]",
        "after=",
        "path=",
        '"x"',
        '"/x"',
        "deadline=",
        "1",
        "[",
        "]",
        "{",
        "=",
        "\n",
        "é",
    ]
)


@given(st.one_of(st.binary(), st.lists(WORDS).map("".join).map(str.encode)))
def test_anything_is_a_config_or_our_error(data: bytes) -> None:
    """Invariant: an AgentConfig or ConfigError, whatever the bytes are."""
    try:
        assert isinstance(parse_agent_config(data), AgentConfig)
    except ConfigError as error:
        assert str(error)
