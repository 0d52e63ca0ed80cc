"""The commands that RAUC does not have, each a question to our own interface."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from updated.api.agent import STAGES
from updated.api.client import Client
from updated.cli import render_agent
from updated.cli.bundle_path import only_argument
from updated.cli.formats import chosen_format
from updated.cli.parser import Arguments, UsageError
from updated.cli.render import printable

T = TypeVar("T")

_DEFAULT_LIMIT = 10  # outcomes; one screen
_DIGITS = 10  # of the largest number that the bus takes; Python itself refuses thousands of them


def cancel(arguments: Arguments) -> int:
    _no_arguments(arguments)
    ask(Client.cancel)
    print("The install is being stopped; the target stays marked bad.")
    return 0


def confirm(arguments: Arguments) -> int:
    _no_arguments(arguments)
    ask(Client.confirm)
    print("The running system is confirmed as good.")
    return 0


def rollback(arguments: Arguments) -> int:
    _no_arguments(arguments)
    group = ask(Client.rollback)
    print(f"The last update is taken back; {group} starts next.")
    return 0


def reboot(arguments: Arguments) -> int:
    _no_arguments(arguments)
    ask(Client.reboot)
    print("The reboot was asked for.")
    return 0


def pause(arguments: Arguments) -> int:
    _no_arguments(arguments)
    ask(Client.pause)
    print("The install rests; `updated resume` lets it go on.")
    return 0


def resume(arguments: Arguments) -> int:
    _no_arguments(arguments)
    ask(Client.resume)
    print("The install goes on.")
    return 0


def consent(arguments: Arguments) -> int:
    expected = " or ".join(STAGES)
    stage = only_argument(arguments, f"What to agree to must be provided: {expected}")
    if stage not in STAGES:
        raise UsageError(f"Unknown stage '{stage}', expected {expected}", command=arguments.command)
    allow = not arguments.flag("deny")
    ask(lambda client: client.consent(stage, allow))
    print(f"The {stage} is {'agreed to' if allow else 'denied'}.")
    return 0


def why(arguments: Arguments) -> int:
    _no_arguments(arguments)
    output_format = chosen_format(arguments, render_agent.FORMATS)
    print(render_agent.why(ask(Client.why), output_format))
    return 0


def floor(arguments: Arguments) -> int:
    _no_arguments(arguments)
    if arguments.flag("reset"):
        ask(Client.reset_floor)
        print("Any version may be installed again.")
        return 0
    version = ask(Client.status).floor
    print(
        f"Nothing below version {printable(version)} is installed."
        if version
        else "There is no version floor."
    )
    return 0


def history(arguments: Arguments) -> int:
    _no_arguments(arguments)
    output_format = chosen_format(arguments, render_agent.FORMATS)
    limit = number(arguments, "limit", _DEFAULT_LIMIT)
    print(render_agent.history(ask(lambda client: client.history(limit)), output_format))
    return 0


def ask(question: Callable[[Client], Awaitable[T]]) -> T:
    """The answer of the service.  Raises UpdatedError."""

    async def answer() -> T:
        async with Client() as client:
            return await question(client)

    return asyncio.run(answer())


def number(arguments: Arguments, option: str, default: int) -> int:
    """The value of an option.  Raises UsageError if it is no number that fits into 32 bits."""
    value = arguments.text(option)
    if value is None:
        return default
    if not value.isascii() or not value.isdigit() or len(value) > _DIGITS or int(value) >= 2**32:
        raise UsageError(f"Cannot parse integer value '{value}' for --{option}", command=arguments.command)
    return int(value)


def _no_arguments(arguments: Arguments) -> None:
    if arguments.positional:
        raise UsageError(f"Excess argument: {arguments.positional[0]}", command=arguments.command)
