"""Running programs: nothing outlives its time, nothing eats the memory."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from updated import command
from updated.errors import DeviceError

SH = "/bin/sh"


def sh(script: str, *, timeout: float = 10, env: dict[str, str] | None = None) -> command.Result:
    return asyncio.run(command.run([SH, "-c", script], timeout=timeout, env=env))


def gone(pid: int) -> bool:
    """Not there, or a zombie that its parent has to collect."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def soon(true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 5
    while not true() and time.monotonic() < deadline:
        time.sleep(0.01)
    return true()


def written(path: Path) -> bool:
    return path.exists() and path.read_text().endswith("\n")


def test_result() -> None:
    assert sh("echo out; echo err >&2; exit 3") == command.Result(3, "out\n", "err\n")
    assert sh("kill -9 $$").code == -9


def test_environment_is_added() -> None:
    assert sh('echo "$A $HOME"', env={"A": "1"}).stdout == f"1 {os.environ['HOME']}\n"


def test_no_standard_input() -> None:
    assert sh("cat").stdout == ""


def test_binary_output() -> None:
    assert sh(r"printf '\377\000ab'").stdout == "�\0ab"


def test_the_reason_is_told_and_not_the_advice_to_look_for_it() -> None:
    script = "echo; echo 'mount: no medium' >&2; echo '       dmesg(1) may have more' >&2; exit 32"
    with pytest.raises(DeviceError, match=r"exit code 32: mount: no medium$"):
        asyncio.run(command.check(["sh", "-c", script]))


def test_check() -> None:
    assert asyncio.run(command.check(["echo", "x"])) == "x\n"
    with pytest.raises(DeviceError, match=r"^/bin/sh failed with exit code 2: why$"):
        asyncio.run(command.check([SH, "-c", "echo first >&2; echo why >&2; exit 2"]))
    with pytest.raises(DeviceError, match="exit code 1: no message"):
        asyncio.run(command.check(["false"]))


@pytest.mark.parametrize(
    ("argv", "message", "hint"),
    [
        (
            ["/nowhere/fw_setenv"],
            "Failed to execute /nowhere/fw_setenv: No such file",
            "package libubootenv-tool",
        ),
        (["/nowhere/mine"], "Failed to execute /nowhere/mine: No such file", ""),
        (["/etc/passwd"], "Failed to execute /etc/passwd: Permission denied", ""),
        (["echo", "a\0b"], "embedded null byte", ""),
        (["echo", "x" * (1 << 22)], "Argument list too long", ""),
    ],
)
def test_what_cannot_be_started(argv: list[str], message: str, hint: str) -> None:
    with pytest.raises(DeviceError, match=message) as caught:
        asyncio.run(command.run(argv))
    assert caught.value.hint.endswith(f"{hint}." if hint else "")
    assert bool(caught.value.hint) == bool(hint)


def test_a_timeout_ends_the_whole_group(tmp_path: Path) -> None:
    """Children of children too, also those that ignore SIGTERM."""
    pids = tmp_path / "pids"
    script = f"trap '' TERM; sh -c 'trap \"\" TERM; sleep 60 & echo $! > {pids}; wait' & wait"
    start = time.monotonic()
    with pytest.raises(DeviceError, match=r"did not finish within 0.3 s"):
        sh(script, timeout=0.3)
    assert time.monotonic() - start < 5
    assert soon(lambda: gone(int(pids.read_text())))


def test_output_left_to_others_is_no_way_to_stay(tmp_path: Path) -> None:
    """The program itself is over, but what it left behind holds the pipe: killed at the deadline."""
    pid = tmp_path / "pid"
    with pytest.raises(DeviceError, match="did not finish"):
        sh(f"sleep 60 & echo $! > {pid}", timeout=0.3)
    assert soon(lambda: gone(int(pid.read_text())))


def test_a_daemon_that_holds_the_output_keeps_nobody(tmp_path: Path) -> None:
    """It left the group, so it lives; but we do not wait for it."""
    pid = tmp_path / "pid"
    start = time.monotonic()
    with pytest.raises(DeviceError, match="did not finish"):
        sh(f"setsid sh -c 'echo $$ > {pid}; exec sleep 60' & sleep 60", timeout=0.5)
    assert time.monotonic() - start < 5
    os.kill(int(pid.read_text()), 9)


def test_cancelled_it_leaves_nothing(tmp_path: Path) -> None:
    pids = tmp_path / "pids"

    async def scenario() -> None:
        work = asyncio.create_task(command.run([SH, "-c", f"sleep 60 & echo $! > {pids}; wait"]))
        assert await asyncio.to_thread(soon, lambda: written(pids))
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work

    asyncio.run(scenario())
    assert soon(lambda: gone(int(pids.read_text())))


@pytest.mark.parametrize("stream", ["", " >&2"])
def test_a_flood_is_stopped_and_eats_no_memory(stream: str) -> None:
    """1 GiB would be printed: it is killed after 1 MiB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.monotonic()
    with pytest.raises(DeviceError, match=r"printed more than 1048576 bytes"):
        sh(f"head -c 1G /dev/zero{stream}; sleep 60")
    assert time.monotonic() - start < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024  # KiB


def test_as_much_as_allowed_is_kept() -> None:
    assert len(sh(f"head -c {command.MAX_OUTPUT} /dev/zero; exit 1").stdout) == command.MAX_OUTPUT


def test_no_file_is_left_open() -> None:
    async def scenario() -> None:
        async def open_files() -> int:
            await asyncio.sleep(0)
            gc.collect()
            return await asyncio.to_thread(lambda: len(list(Path("/proc/self/fd").iterdir())))

        await command.run(["true"])
        before = await open_files()
        for _ in range(5):
            await command.run(["true"])
            for argv, timeout in ((["/nowhere"], 1.0), (["sleep", "60"], 0.02)):
                with pytest.raises(DeviceError):
                    await command.run(argv, timeout=timeout)
        await asyncio.sleep(0.05)
        assert await open_files() <= before

    asyncio.run(scenario())
