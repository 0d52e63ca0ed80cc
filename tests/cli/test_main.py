"""The program as a whole: help, version, names, streams, and what it does not load."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from updated import __version__
from updated.cli.commands import COMMANDS, GENERAL
from updated.cli.formats import terminal_has_utf8
from updated.cli.help import text
from updated.cli.parser import Command, parse
from updated.cli.service import options
from updated.service.options import ServiceOptions

Run = Callable[..., CompletedProcess[str]]
RAUC_COMMANDS = {
    *("bundle", "resign", "convert", "encrypt", "replace-signature", "extract-signature", "extract"),
    *("install", "info", "mount", "service", "status", "write-slot"),
}


def test_version(process: Run) -> None:
    assert process("--version").stdout == f"updated {__version__}\n"


def test_nothing_is_the_help_and_an_error_as_in_rauc(updated: Run) -> None:
    nothing, asked, command = updated(), updated("--help"), updated("help")
    assert (nothing.returncode, asked.returncode, command.returncode) == (1, 0, 0)
    assert nothing.stdout == asked.stdout == command.stdout == text("updated", None)


@pytest.mark.parametrize(
    "command", [each for each in COMMANDS if each.name != "help"], ids=lambda command: command.name
)
def test_every_command_has_a_help_with_all_its_options(command: Command) -> None:
    shown = text("updated", command)
    assert shown.startswith(f"Usage:\n  updated [OPTION…] {command.name}")
    assert all(f"--{option.name}" in shown for option in command.options)
    assert all(len(line) <= 110 for line in shown.splitlines())
    assert shown.endswith("display help and exit\n")


def test_called_as_rauc_the_help_has_what_rauc_has() -> None:
    general = text("rauc", None)
    assert "that RAUC does not have" not in general
    for command in COMMANDS:
        if command.ours:
            assert f"\n  {command.name} " not in general
            continue
        shown = text("rauc", command)
        assert [
            option.name for option in command.options if option.ours and f"--{option.name}" in shown
        ] == []
    service = next(command for command in COMMANDS if command.name == "service")
    assert "--agent-conf" not in text("rauc", service)
    assert "--override-boot-slot" in text("rauc", service)


def test_all_commands_of_rauc_are_known() -> None:
    assert {command.name for command in COMMANDS if not command.ours} == {"help"} | RAUC_COMMANDS


@pytest.mark.parametrize("command", [command.name for command in COMMANDS if not command.handler])
def test_what_is_not_there_yet_says_so(updated: Run, command: str) -> None:
    got = updated(command, "--any-option", "a", "b")
    assert (got.returncode, got.stdout) == (1, "")
    assert got.stderr.splitlines()[0] == f"updated {command}: not supported yet"


def test_called_as_rauc_it_is_rauc(tmp_path: Path) -> None:
    (tmp_path / "rauc").write_text(
        f"#!{sys.executable}\nimport sys\nfrom updated.__main__ import main\nsys.exit(main())\n"
    )
    (tmp_path / "rauc").chmod(0o755)
    got = subprocess.run(
        [tmp_path / "rauc", "mount", "x"], capture_output=True, text=True, timeout=10, check=False
    )
    assert got.stderr.startswith("rauc mount: not supported yet\n")


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("instal",), "Did you mean `install`?"),
        (("install", "--progres", "x"), "Did you mean `--progress`?"),
        (("zzz",), "`updated --help` shows what there is."),
        (("status", "--zzz"), "`updated status --help` shows what there is."),
    ],
)
def test_a_mistake_gets_a_hint(updated: Run, words: tuple[str, ...], hint: str) -> None:
    got = updated(*words)
    assert (got.returncode, got.stdout) == (1, "")
    assert got.stderr.splitlines()[1:] == [f"hint: {hint}"]


def test_a_reader_that_goes_away_is_no_reason_to_complain() -> None:
    ours = [sys.executable, "-m", "updated", "--help"]
    with subprocess.Popen(ours, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(10) == 1


def test_names_that_do_not_fit_the_terminal(process: Run, bundles: Mapping[str, Path]) -> None:
    env = {"PYTHONIOENCODING": "ascii"}
    got = process("info", "--no-verify", bundles["verity"], env=env)
    assert got.returncode == 0
    assert "\\xfcn\\xefcode" in got.stdout


def test_light_commands_load_nothing_heavy(bundles: Mapping[str, Path], pki: Path) -> None:
    info = f"['updated', 'info', '--keyring={pki}/ca.pem', '{bundles['verity']}']"
    for argv, forbidden in (
        ("['updated', '--help']", "asyncio cryptography OpenSSL dbus_fast rich logging"),
        (info, "dbus_fast rich msgspec isal lz4 zstandard aiohttp updated.api"),
    ):
        script = (
            f"import sys; from updated.cli.main import run; run({argv}); "
            f"print([name for name in '{forbidden}'.split() if name in sys.modules], file=sys.stderr)"
        )
        got = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, timeout=20, check=True
        )
        assert got.stderr == "[]\n"


def test_options_of_the_service() -> None:
    line = (
        "-c a.conf -C x:y=z -C k:l=m service --agent-conf b.toml --override-boot-slot=A --cmdline=/c "
        "--runtime-directory=/r --keyring=k.pem --mount=/m --handler-args=-v -d"
    )
    assert options(parse("updated", line.split(), GENERAL, COMMANDS)) == ServiceOptions(
        conf=Path("a.conf"),
        overrides=("x:y=z", "k:l=m"),
        agent_conf=Path("b.toml"),
        override_boot_slot="A",
        runtime_directory=Path("/r"),
        cmdline=Path("/c"),
        keyring=Path("k.pem"),
        mount=Path("/m"),
        handler_args="-v",
        debug=True,
    )
    assert options(parse("updated", ["service"], GENERAL, COMMANDS)) == ServiceOptions()


def test_a_service_that_cannot_start_says_why(updated: Run, tmp_path: Path) -> None:
    got = updated("-c", tmp_path / "none.conf", "service", "--runtime-directory", tmp_path / "run")
    assert (got.returncode, got.stdout) == (1, "")
    assert got.stderr.startswith(f"Failed to load system config ({tmp_path}/none.conf): ")
    assert "Traceback" not in got.stderr


def test_python_hides_a_c_locale_and_we_find_it() -> None:
    assert not terminal_has_utf8({"LC_CTYPE": "C.UTF-8"})
    assert not terminal_has_utf8({"LC_CTYPE": "C.UTF-8", "LANG": "C"})
    script = "from updated.cli.formats import terminal_has_utf8; print(terminal_has_utf8())"
    for env, expected in (
        ({}, "False"),
        ({"LC_ALL": "C"}, "False"),
        ({"LANG": "C.UTF-8"}, "True"),
        ({"LC_ALL": "C.UTF-8"}, "True"),
    ):
        got = subprocess.run(
            [sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=10, check=True
        )
        assert got.stdout.strip() == expected, env
