"""`inhibit`: hold off updates while a command runs, or for a while."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence

from updated.api.client import Client
from updated.cli.agent import number
from updated.cli.main import FAILED, complain
from updated.cli.parser import Arguments, UsageError
from updated.cli.render_agent import duration
from updated.errors import DeviceError

_DEFAULT_SECONDS = 3600
_SIGNALLED = 128  # a command that a signal ended, as shells count


def inhibit(arguments: Arguments) -> int:
    """Returns the exit code of the command."""
    why = arguments.text("why")
    if not why:
        raise UsageError("A reason must be provided with --why", command=arguments.command)
    command = arguments.positional
    who = arguments.text("who") or (command[0] if command else "updated inhibit")
    seconds = number(arguments, "for", _DEFAULT_SECONDS)
    return asyncio.run(_hold(who, why, seconds, command))


async def _hold(who: str, why: str, seconds: int, command: Sequence[str]) -> int:
    async with Client() as client, client.holding(who, why, seconds) as gone:
        end = asyncio.create_task(_end(gone, seconds))
        if not command:
            print(f"Updates are held off for {duration(seconds)}; Ctrl-C ends it.", flush=True)
            lost = await end
            return complain(lost) if lost else 0
        end.add_done_callback(_tell)
        code = await _run(command)
        end.cancel()
        return code if code >= 0 else _SIGNALLED - code


async def _end(gone: asyncio.Event, seconds: int) -> DeviceError | None:
    """Wait for the end of the hold; None if its time was over."""
    try:
        async with asyncio.timeout(seconds):
            await gone.wait()
    except TimeoutError:
        return None
    return DeviceError("The update service ended, and the hold with it")


def _tell(end: asyncio.Task[DeviceError | None]) -> None:
    """The command runs on, but nothing is held off any more."""
    if not end.cancelled():
        complain(end.result() or DeviceError("The time of the hold is over"))


async def _run(command: Sequence[str]) -> int:
    """Ctrl-C goes to the command, too, and is its business; we stay until it has ended."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    try:
        process = await asyncio.create_subprocess_exec(*command)
    except OSError as error:
        complain(DeviceError(f"Cannot run {command[0]}: {error.strerror}"))
        return FAILED
    loop.add_signal_handler(signal.SIGTERM, process.terminate)
    return await process.wait()
