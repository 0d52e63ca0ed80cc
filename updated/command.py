"""Run a program with a deadline; nothing it starts outlives it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from updated.errors import DeviceError

# Where a missing tool comes from on Debian, for the hint.
PACKAGES = {
    "barebox-state": "dt-utils",
    "e2fsck": "e2fsprogs",
    "efibootmgr": "efibootmgr",
    "fw_printenv": "libubootenv-tool",
    "fw_setenv": "libubootenv-tool",
    "mksquashfs": "squashfs-tools",
    "mount": "mount",
    "resize2fs": "e2fsprogs",
    "umount": "mount",
}
DEFAULT_TIMEOUT = 30.0  # seconds; boot environment tools answer in milliseconds
MAX_OUTPUT: Final = 1 << 20  # bytes of each stream; a whole U-Boot environment has 0.1 MB
SYSTEMDS: Final = ("NOTIFY_", "WATCHDOG_", "LISTEN_")
PIECE: Final = 1 << 16  # bytes read at once: what a pipe holds


@dataclass(frozen=True, slots=True)
class Result:
    """What a program left behind."""

    code: int  # exit code; negative: the signal that ended it
    stdout: str
    stderr: str


async def run(
    argv: Sequence[str],
    *,
    timeout: float = DEFAULT_TIMEOUT,
    env: Mapping[str, str] | None = None,
    stdin: int = asyncio.subprocess.DEVNULL,
) -> Result:
    """Run `argv` to its end in a process group of its own.

    `stdin`: a file descriptor to read from; without it there is no standard input.  `env` is added to the
    environment.  Raises DeviceError if the program is missing, prints more than MAX_OUTPUT bytes, or is not
    done within `timeout` seconds, with all that hold its output.  Its whole group is killed then, as it is
    when the caller is cancelled.
    """
    async with _pipe() as (stdout, out_end), _pipe() as (stderr, err_end):
        process = await _start(argv, env, stdin, out_end, err_end)

        def kill() -> None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

        try:
            async with asyncio.timeout(timeout):
                out, err = await asyncio.gather(_read(stdout, kill), _read(stderr, kill))
                code = await process.wait()
        except BaseException as error:
            kill()
            await process.wait()
            if isinstance(error, TimeoutError):
                raise DeviceError(f"{argv[0]} did not finish within {timeout:g} s") from error
            raise
    if max(len(out), len(err)) > MAX_OUTPUT:
        raise DeviceError(f"{argv[0]} printed more than {MAX_OUTPUT} bytes, and was killed")
    return Result(code, out.decode(errors="replace"), err.decode(errors="replace"))


async def _start(
    argv: Sequence[str], env: Mapping[str, str] | None, stdin: int, stdout: int, stderr: int
) -> asyncio.subprocess.Process:
    """The process has its ends of the pipes then, and we have them no more.  Raises DeviceError."""
    try:
        return await asyncio.create_subprocess_exec(
            *argv,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env={**_inherited(), **(env or {})},
            start_new_session=True,
        )
    except OSError as error:
        raise DeviceError(f"Failed to execute {argv[0]}: {error.strerror}", hint=_hint(argv[0])) from error
    except ValueError as error:  # a NUL in a word
        raise DeviceError(f"Failed to execute {argv[0]!r}: {error}") from error
    finally:
        os.close(stdout)
        os.close(stderr)


def _inherited() -> dict[str, str]:
    """Our environment, without what systemd told this very process (sd_notify(3), sd_listen_fds(3))."""
    return {name: value for name, value in os.environ.items() if not name.startswith(SYSTEMDS)}


@contextlib.asynccontextmanager
async def _pipe() -> AsyncIterator[tuple[asyncio.StreamReader, int]]:
    """A reader, and the end to write to, which is the caller's to close.

    Not asyncio's own pipes: with them `wait` waits also for whoever inherited the output.
    """
    reader = asyncio.StreamReader()
    ours, theirs = os.pipe()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(ours, "rb", buffering=0)
    )
    try:
        yield reader, theirs
    finally:
        transport.close()


async def _read(stream: asyncio.StreamReader, kill: Callable[[], None]) -> bytes:
    """All of it; one who prints too much is killed."""
    data = bytearray()
    while piece := await stream.read(PIECE):
        data += piece
        if len(data) > MAX_OUTPUT:
            kill()
            break
    return bytes(data)


async def check(
    argv: Sequence[str], *, timeout: float = DEFAULT_TIMEOUT, env: Mapping[str, str] | None = None
) -> str:
    """Like `run`, but a non-zero exit is a DeviceError with the last line of stderr; returns stdout."""
    result = await run(argv, timeout=timeout, env=env)
    if result.code:
        lines = [line.strip() for line in result.stderr.splitlines()]
        reasons = [line for line in lines if line and not line.startswith("dmesg(1)")]  # mount's advice
        reason = reasons[-1] if reasons else "no message"
        raise DeviceError(f"{argv[0]} failed with exit code {result.code}: {reason}")
    return result.stdout


def _hint(tool: str) -> str:
    package = PACKAGES.get(os.path.basename(tool))  # noqa: PTH119 - a name, not a file
    return f"On Debian it is in the package {package}." if package else ""
