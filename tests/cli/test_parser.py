"""Our parser against GOption's rules; the same words go to the real rauc where it has the same commands."""

from __future__ import annotations

import subprocess

import pytest

from updated.cli.commands import COMMANDS, GENERAL
from updated.cli.parser import Arguments, UsageError, parse


def parsed(line: str) -> Arguments:
    return parse("updated", line.split(), GENERAL, COMMANDS)


@pytest.mark.parametrize(
    ("line", "command", "positional"),
    [
        ("status", "status", ()),
        ("-c x.conf status", "status", ()),
        ("status -c x.conf", "status", ()),
        ("--conf=x.conf status mark-good other", "status", ("mark-good", "other")),
        ("status mark-good -c x.conf other", "status", ("mark-good", "other")),
        ("--detailed status", "status", ()),
        ("-dc x.conf status", "status", ()),
        ("install -- -odd.raucb", "install", ("-odd.raucb",)),
        ("-- install a.raucb", "install", ("a.raucb",)),
        ("mark-bad other", "mark-bad", ("other",)),
        ("inhibit --why=x -- ls -l -- --help", "inhibit", ("ls", "-l", "--", "--help")),
        ("extract --trust-environment a b", "extract", ("--trust-environment", "a", "b")),
    ],
)
def test_the_command_is_found_among_options(line: str, command: str, positional: tuple[str, ...]) -> None:
    arguments = parsed(line)
    assert arguments.command is not None
    assert (arguments.command.name, arguments.positional) == (command, positional)


def test_values_are_taken_in_every_spelling() -> None:
    arguments = parsed("-C a:b=c --confopt=d:e=f=g service -C h:i= --keyring k.pem --handler-args=-x")
    assert arguments.texts("confopt") == ("a:b=c", "d:e=f=g", "h:i=")
    assert arguments.text("keyring") == "k.pem"
    assert arguments.text("handler-args") == "-x"
    assert arguments.text("override-boot-slot") is None


def test_the_last_of_a_single_option_counts() -> None:
    assert parsed("--conf=a status --conf=b").text("conf") == "b"


def test_flags_of_one_letter_may_be_joined() -> None:
    arguments = parsed("-dh")
    assert arguments.flag("debug")
    assert arguments.flag("help")
    assert not arguments.flag("version")


@pytest.mark.parametrize(
    "line",
    [
        "-c",
        "--conf",
        "status --output-format",
        "status -x",
        "status -dx",
        "status --det",
        "info --bogus x",
        "-csystem.conf status",
        "--output-format json status",
        "nonsense",
    ],
)
def test_errors_have_the_texts_of_rauc(line: str) -> None:
    with pytest.raises(UsageError) as caught:
        parsed(line)
    real = subprocess.run(["rauc", *line.split()], capture_output=True, text=True, timeout=10, check=False)
    assert real.returncode == 1
    shown = (real.stdout if real.stdout.startswith("Invalid") else real.stderr).splitlines()
    assert str(caught.value) in shown


def test_a_flag_takes_no_value_although_glib_ignores_it() -> None:
    with pytest.raises(UsageError, match="Unknown option --progress=no"):
        parsed("install --progress=no x")


def test_an_error_knows_the_command_it_belongs_to() -> None:
    with pytest.raises(UsageError) as caught:
        parsed("install --bogus x")
    assert caught.value.command is not None
    assert caught.value.command.name == "install"


def test_nothing_at_all_is_no_command() -> None:
    assert parsed("").command is None


def test_an_unknown_option_alone_is_an_error() -> None:
    with pytest.raises(UsageError, match="Unknown option --foo"):
        parsed("--foo")
