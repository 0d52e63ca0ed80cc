"""From a command line to an exit code.

Whatever goes wrong is one line on stderr, with RAUC's text where it has one, and a line that says what to do.
A traceback is only shown with `--debug`.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import cast

from updated import __version__
from updated.cli.commands import COMMANDS, GENERAL
from updated.cli.parser import Arguments, UsageError, parse
from updated.errors import NotSupportedError, UpdatedError

OK = 0
FAILED = 1  # also wrong usage, as RAUC
INTERRUPTED = 130  # 128 + SIGINT, as shells count


def run(argv: Sequence[str]) -> int:
    """Run `argv`, with the program's name in front, and return its exit code.

    An UpdatedError or OSError is raised only with `--debug`.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names from a bundle need not fit the terminal's encoding
            stream.reconfigure(errors="backslashreplace")
    program = "rauc" if argv[0].rpartition("/")[2] == "rauc" else "updated"
    try:
        code = _run(program, argv[1:])
        sys.stdout.flush()
    except (
        BrokenPipeError
    ):  # `updated status | head`: nobody reads on, so do not complain when Python flushes
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return code


def _run(program: str, argv: Sequence[str]) -> int:
    try:
        arguments = parse(program, argv, GENERAL, COMMANDS)
        _check_overrides(arguments)
    except UsageError as error:
        return complain(error, hint=_usage_hint(program, error))
    if arguments.command is None or arguments.flag("help"):
        return _without_command(arguments)
    try:
        return _handler(arguments)(arguments)
    except BrokenPipeError:
        raise
    except (UpdatedError, OSError) as error:
        if arguments.flag("debug"):
            raise
        return complain(error, hint=_usage_hint(program, error) if isinstance(error, UsageError) else "")
    except KeyboardInterrupt:
        return INTERRUPTED


def complain(error: Exception, *, prefix: str = "", hint: str = "") -> int:
    """Print an error and its hint to stderr; returns the exit code for it."""
    print(f"{prefix}{error}", file=sys.stderr)
    hint = getattr(error, "hint", "") or hint
    if hint:
        print(f"hint: {hint}", file=sys.stderr)
    return FAILED


def _without_command(arguments: Arguments) -> int:
    if arguments.flag("version") and arguments.command is None:
        print(f"{arguments.program} {__version__}")
        return OK
    from updated.cli.help import text

    print(text(arguments.program, arguments.command), end="")
    return OK if arguments.flag("help") else FAILED


def _handler(arguments: Arguments) -> Callable[[Arguments], int]:
    command = arguments.command
    assert command is not None
    if not command.handler:
        raise NotSupportedError(
            f"{arguments.program} {command.name}: not supported yet",
            hint="RAUC's own `rauc` can do it, on a build host for example.",
        )
    if arguments.flag("debug") and command.name != "service":  # which sets up its own log
        import logging

        logging.basicConfig(level=logging.DEBUG)
    module, _, function = command.handler.partition(":")
    return cast("Callable[[Arguments], int]", getattr(importlib.import_module(module), function))


def _check_overrides(arguments: Arguments) -> None:
    for override in arguments.texts("confopt"):
        name, equals, _ = override.partition("=")
        if not equals:
            raise UsageError("Error in parsing override: Missing '='")
        if ":" not in name:
            raise UsageError("Error in parsing override: Missing ':'")


def _usage_hint(program: str, error: UsageError) -> str:
    import difflib

    word = str(error).rpartition(" ")[2]
    if str(error).startswith("Unknown option --"):
        known = [*GENERAL, *(error.command.options if error.command else ())]
        near = difflib.get_close_matches(word, [f"--{option.name}" for option in known], 1)
    else:
        quoted = str(error).partition("'")[2].partition("'")[0]
        near = difflib.get_close_matches(quoted, [command.name for command in COMMANDS], 1)
    if near:
        return f"Did you mean `{near[0]}`?"
    name = f" {error.command.name}" if error.command else ""
    return f"`{program}{name} --help` shows what there is."
