"""`[polling]` of system.conf: RAUC's keys, checks and texts (src/config_file.c, parse_polling_section)."""

from __future__ import annotations

from pathlib import Path

import pytest

from updated.bundle.keyfile import KeyFileError
from updated.config.sections import Polling
from updated.config.system_conf import parse_system_config
from updated.errors import ConfigError

URL = "url=https://example.com/update.raucb"


def polling(*lines: str, header: str = "[polling]", overrides: tuple[str, ...] = ()) -> Polling:
    text = "\n".join(["[system]", "compatible=Board", "bootloader=noop", header, *lines, ""])
    return parse_system_config(text.encode(), Path("/etc/rauc/system.conf"), overrides).polling


def test_without_the_section_nothing_is_polled() -> None:
    assert polling(header="") == Polling()
    assert Polling().url is None


def test_defaults() -> None:
    assert polling(URL) == Polling(url="https://example.com/update.raucb", max_interval=4 * 86400)
    assert polling(URL).candidate_criteria == ("higher-semver",)
    assert polling(URL, "interval-sec=60").max_interval == 240


def test_everything() -> None:
    found = polling(
        "url=http://a/b",
        "interval-sec=3600",
        "max-interval-sec=3601",
        "inhibit-files=/run/a;/run/b",
        "candidate-criteria=different-version;higher-semver",
        "install-criteria=always;different-version;higher-semver",
        "reboot-criteria=updated-slots;updated-artifacts;failed-update",
        "reboot-cmd=systemctl reboot",
    )
    assert found == Polling(
        url="http://a/b",
        interval=3600,
        max_interval=3601,
        inhibit_files=("/run/a", "/run/b"),
        candidate_criteria=("different-version", "higher-semver"),
        install_criteria=("always", "different-version", "higher-semver"),
        reboot_criteria=("updated-slots", "updated-artifacts", "failed-update"),
        reboot_cmd="systemctl reboot",
    )


def test_a_section_from_the_command_line() -> None:
    assert polling(header="", overrides=("polling:url=http://a/b",)).url == "http://a/b"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((), "Polling URL must be set if [polling] section exists"),
        (("interval-sec=60",), "Polling URL must be set if [polling] section exists"),
        (("url=",), "Polling URL must be set if [polling] section exists"),
        (("url=/update.raucb",), "Polling URL (/update.raucb) must be a HTTP(S) URL"),
        ((URL, "interval-sec=59"), "Polling interval (59 s) must not be smaller than one minute"),
        ((URL, "interval-sec=0"), "Polling interval (0 s) must not be smaller than one minute"),
        ((URL, "interval-sec=-60"), "Polling interval (-60 s) must not be smaller than one minute"),
        (
            (URL, "interval-sec=60", "max-interval-sec=60"),
            "Maximum polling interval (60 s) must be larger than the normal polling interval (60 s)",
        ),
        ((URL, "interval-sec=often"), "interval-sec"),
        ((URL, "candidate-criteria=always"), "Unsupported value 'always' for key \"candidate-criteria\""),
        ((URL, "install-criteria=urgent"), "Unsupported value 'urgent' for key \"install-criteria\""),
        ((URL, "reboot-criteria=always"), "Unsupported value 'always' for key \"reboot-criteria\""),
        ((URL, "source=http://a/b"), "Invalid key 'source'"),
    ],
)
def test_refusals(lines: tuple[str, ...], message: str) -> None:
    with pytest.raises((ConfigError, KeyFileError)) as caught:
        polling(*lines)
    assert message in str(caught.value)


def test_hints() -> None:
    with pytest.raises(ConfigError) as near:
        polling(URL, "candidate-criteria=higher-semvar")
    assert near.value.hint == "Did you mean 'higher-semver'?"
    with pytest.raises(ConfigError) as far:
        polling(URL, "reboot-criteria=xyz")
    assert far.value.hint == "RAUC knows updated-slots, updated-artifacts, failed-update."
