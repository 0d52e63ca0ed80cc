"""Run a program with a deadline; nothing it starts outlives it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from updated.errors import DeviceError

# Where a missing tool comes from on Debian, for the hint.
PACKAGES = {
    "e2fsck": "e2fsprogs",
    "fw_printenv": "libubootenv-tool",
    "fw_setenv": "libubootenv-tool",
    "mksquashfs": "squashfs-tools",
    "mount": "mount",
    "resize2fs": "e2fsprogs",
    "umount": "mount",
}
DEFAULT_TIMEOUT = 30.0  # seconds; boot environment tools answer in milliseconds


@dataclass(frozen=True, slots=True)
class Result:
    """What a program left behind."""

    code: int  # exit code; negative: the signal that ended it
    stdout: str
    stderr: str


async def run(
    argv: Sequence[str], *, timeout: float = DEFAULT_TIMEOUT, env: Mapping[str, str] | None = None
) -> Result:
    """Run `argv` to its end, without standard input, in a process group of its own.

    `env` is added to the environment.  Raises DeviceError if the program is missing or takes more than
    `timeout` seconds (its whole group is killed then, as it is when the caller is cancelled).
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
    except OSError as error:
        raise DeviceError(f"Failed to execute {argv[0]}: {error.strerror}", hint=_hint(argv[0])) from error
    try:
        async with asyncio.timeout(timeout):
            out, err = await process.communicate()
    except TimeoutError as error:
        raise DeviceError(f"{argv[0]} did not finish within {timeout:g} s") from error
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    assert process.returncode is not None
    return Result(process.returncode, out.decode(errors="replace"), err.decode(errors="replace"))


async def check(
    argv: Sequence[str], *, timeout: float = DEFAULT_TIMEOUT, env: Mapping[str, str] | None = None
) -> str:
    """Like `run`, but a non-zero exit is a DeviceError with the last line of stderr; returns stdout."""
    result = await run(argv, timeout=timeout, env=env)
    if result.code:
        reason = result.stderr.strip().splitlines()[-1:] or ["no message"]
        raise DeviceError(f"{argv[0]} failed with exit code {result.code}: {reason[0]}")
    return result.stdout


def _hint(tool: str) -> str:
    package = PACKAGES.get(os.path.basename(tool))  # noqa: PTH119 - a name, not a file
    return f"On Debian it is in the package {package}." if package else ""
