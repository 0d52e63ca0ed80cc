"""`poll`: when a server is looked at next, and what it said last.  Works with RAUC's own service, too."""

from __future__ import annotations

import asyncio
import time

from updated.api.client import Client, Polled
from updated.cli import render_agent
from updated.cli.formats import chosen_format
from updated.cli.parser import Arguments, UsageError


def poll(arguments: Arguments) -> int:
    if arguments.positional:
        raise UsageError(f"Excess argument: {arguments.positional[0]}", command=arguments.command)
    output_format = chosen_format(arguments, render_agent.FORMATS)
    found = asyncio.run(_ask(now=arguments.flag("now")))
    boottime = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
    print(render_agent.polled(found, output_format, boottime))
    return 0


async def _ask(*, now: bool) -> Polled:
    async with Client() as client:
        found = await client.polled()
        if not now:
            return found
        await client.poll()
        return await client.polled()
