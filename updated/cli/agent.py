"""The commands that RAUC does not have: `cancel`, `confirm`, `rollback`, `history`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from updated.api.client import Client
from updated.cli.formats import chosen_format
from updated.cli.parser import Arguments, UsageError
from updated.cli.render_agent import HISTORY_FORMATS
from updated.cli.render_agent import history as rendered

T = TypeVar("T")

_DEFAULT_LIMIT = 10  # outcomes; one screen


def cancel(arguments: Arguments) -> int:
    _no_arguments(arguments)
    _ask(Client.cancel)
    print("The install is being stopped; the target stays marked bad.")
    return 0


def confirm(arguments: Arguments) -> int:
    _no_arguments(arguments)
    _ask(Client.confirm)
    print("The running system is confirmed as good.")
    return 0


def rollback(arguments: Arguments) -> int:
    _no_arguments(arguments)
    group = _ask(Client.rollback)
    print(f"The last update is taken back; {group} starts next.")
    return 0


def history(arguments: Arguments) -> int:
    _no_arguments(arguments)
    output_format = chosen_format(arguments, HISTORY_FORMATS)
    limit = arguments.text("limit") or str(_DEFAULT_LIMIT)
    if not limit.isascii() or not limit.isdigit() or int(limit) >= 2**32:
        raise UsageError(f"Cannot parse integer value '{limit}' for --limit", command=arguments.command)
    print(rendered(_ask(lambda client: client.history(int(limit))), output_format))
    return 0


def _ask(question: Callable[[Client], Awaitable[T]]) -> T:
    async def ask() -> T:
        async with Client() as client:
            return await question(client)

    return asyncio.run(ask())


def _no_arguments(arguments: Arguments) -> None:
    if arguments.positional:
        raise UsageError(f"Excess argument: {arguments.positional[0]}", command=arguments.command)
