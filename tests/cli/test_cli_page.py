"""docs/cli.md names every command, and every option that RAUC does not have."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from updated.cli.commands import COMMANDS
from updated.cli.parser import Command

PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
SUPPORTED = [each for each in COMMANDS if each.handler and each.name != "help"]


@pytest.mark.parametrize("command", SUPPORTED, ids=lambda command: command.name)
def test_every_command_is_in_the_table(command: Command) -> None:
    assert re.search(rf"^\|[^|]*`{command.name}\b", PAGE, re.MULTILINE)


@pytest.mark.parametrize("command", SUPPORTED, ids=lambda command: command.name)
def test_every_option_of_ours_is_described(command: Command) -> None:
    for option in command.options:
        if command.ours or option.ours:
            assert f"--{option.name}" in PAGE
