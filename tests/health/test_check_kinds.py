"""Each kind of check that asks the device itself, against real things."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.conftest import Daemon
from tests.fakes.systemd import FakeSystemd, FakeUnit, fake_systemd
from updated.core.health import Check, Look, Rule
from updated.devices import read_mounts
from updated.errors import DeviceError, Refused
from updated.health.aside import Aside
from updated.health.basis import last_lines
from updated.health.clock import ClockCheck
from updated.health.commands import CommandCheck
from updated.health.heartbeat import HeartbeatCheck, Heartbeats
from updated.health.places import MountCheck, SpaceCheck
from updated.health.sockets import SocketCheck
from updated.health.units import NoFailedCheck, TargetCheck, UnitCheck
from updated.host.units import Systemd

Used = Callable[[], tuple[int, int]]
RULE = Rule("x")


def seen(check: Check) -> Look:
    async def main() -> Look:
        async with asyncio.timeout(check.limit):
            return await check.look()

    return asyncio.run(main())


# systemd


UnitScene = Callable[[FakeSystemd, Systemd], Coroutine[Any, Any, None]]


def with_systemd(daemon: Daemon, scene: UnitScene) -> None:
    async def main() -> None:
        async with fake_systemd(daemon.address) as here:
            systemd = Systemd(daemon.address)
            try:
                await scene(here, systemd)
            finally:
                await systemd.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("unit", "text"),
    [
        (FakeUnit(), ""),
        (FakeUnit(active="reloading", sub="reload"), ""),
        (FakeUnit(sub="exited"), ""),
        (FakeUnit(active="activating", sub="start"), "is activating (start), expected active"),
        (
            FakeUnit(active="activating", sub="auto-restart", result="exit-code", restarts=4),
            "is activating (auto-restart), ended before with 'exit-code', restarted 4 times, expected active",
        ),
        (
            FakeUnit(active="failed", sub="failed", result="timeout"),
            "is failed (failed), ended before with 'timeout', expected active",
        ),
        (FakeUnit(active="inactive", sub="dead"), "is inactive (dead), expected active"),
        (FakeUnit("masked", "inactive", "dead"), "is masked, expected active"),
        (FakeUnit("bad-setting", "inactive", "dead"), "cannot be loaded (bad-setting), expected active"),
        (None, "does not exist, expected active"),
    ],
)
def test_a_unit(daemon: Daemon, unit: FakeUnit | None, text: str) -> None:
    async def scene(here: FakeSystemd, systemd: Systemd) -> None:
        if unit is not None:
            here.units["kiosk.service"] = unit
        look = await UnitCheck(RULE, period=1, systemd=systemd, unit="kiosk.service").look()
        assert look.ok is not bool(text)
        assert look.text == (f"kiosk.service {text}" if text else look.text)

    with_systemd(daemon, scene)


def test_a_restart_between_two_looks(daemon: Daemon) -> None:
    async def scene(here: FakeSystemd, systemd: Systemd) -> None:
        unit = here.units["kiosk.service"] = FakeUnit(restarts=7)
        check = UnitCheck(RULE, period=1, systemd=systemd, unit="kiosk.service")
        assert (await check.look()).ok  # what was before the judging does not count
        assert (await check.look()).ok
        unit.restarts, unit.invocation = 8, b"2" * 16
        assert await check.look() == Look(
            False, "kiosk.service was restarted by systemd, 8 times in all, expected one that stays up"
        )
        assert (await check.look()).ok
        unit.invocation = b"3" * 16
        assert await check.look() == Look(False, "kiosk.service was restarted, expected one that stays up")
        assert (await check.look()).ok
        unit.active, unit.sub = "activating", "start"
        assert not (await check.look()).ok
        unit.active, unit.sub = "active", "running"
        assert (await check.look()).ok

    with_systemd(daemon, scene)


def test_a_restart_long_ago_does_not_count(daemon: Daemon) -> None:
    async def scene(here: FakeSystemd, systemd: Systemd) -> None:
        unit = here.units["a.service"] = FakeUnit()
        check = UnitCheck(RULE, period=0.01, systemd=systemd, unit="a.service")
        check.limit = 0.05
        assert (await check.look()).ok
        unit.restarts += 1
        await asyncio.sleep(0.1)
        assert (await check.look()).ok

    with_systemd(daemon, scene)


def test_a_target(daemon: Daemon) -> None:
    async def scene(here: FakeSystemd, systemd: Systemd) -> None:
        check = TargetCheck(RULE, period=1, systemd=systemd, target="multi-user.target")
        assert await check.look() == Look(
            False, "multi-user.target does not exist, expected it to be reached"
        )
        unit = here.units["multi-user.target"] = FakeUnit(active="inactive", sub="dead")
        assert await check.look() == Look(
            False, "multi-user.target is inactive (dead), expected it to be reached"
        )
        unit.active = "active"
        assert await check.look() == Look(True, "multi-user.target is reached")

    with_systemd(daemon, scene)


def test_no_failed_units(daemon: Daemon) -> None:
    async def scene(here: FakeSystemd, systemd: Systemd) -> None:
        check = NoFailedCheck(RULE, period=1, systemd=systemd, patterns=("a*", "b.service"))
        assert (await check.look()).ok
        here.units = {
            f"{name}.service": FakeUnit(active="failed") for name in ("c", *(f"a{n}" for n in range(20)))
        }
        look = await check.look()
        assert not look.ok
        assert look.text.startswith("failed: a0.service, a1.service, a10.service")
        assert look.text.endswith(" and 10 more, expected none")
        assert "c.service" not in look.text

    with_systemd(daemon, scene)


def test_systemd_is_away(tmp_path: Path) -> None:
    systemd = Systemd(f"unix:path={tmp_path}/none")
    for check in (
        UnitCheck(RULE, period=1, systemd=systemd, unit="a.service"),
        TargetCheck(RULE, period=1, systemd=systemd, target="a.target"),
        NoFailedCheck(RULE, period=1, systemd=systemd, patterns=["*"]),
    ):
        look = seen(check)
        assert not look.ok
        assert look.text.startswith("systemd cannot be asked: Cannot reach the system bus")


# Programs


def run(*argv: str, timeout: float = 10.0) -> Look:
    return seen(CommandCheck(RULE, period=5, argv=argv, timeout=timeout))


def shell(script: str, timeout: float = 10.0) -> Look:
    return run("/bin/sh", "-c", script, timeout=timeout)


@pytest.mark.parametrize(
    ("script", "look"),
    [
        ("true", Look(True, "exit code 0")),
        ("echo 7 of 7", Look(True, "7 of 7")),
        ("exit 3", Look(False, "exit code 3, expected exit code 0")),
        ("echo fine; echo no disk >&2; exit 1", Look(False, "exit code 1, expected exit code 0: no disk")),
        ("echo a; echo b; exit 1", Look(False, "exit code 1, expected exit code 0: a\nb")),
        ("printf 'a\\033[1m\\000b'; exit 1", Look(False, "exit code 1, expected exit code 0: a [1m b")),
        ("kill -SEGV $$", Look(False, "killed by SIGSEGV, expected exit code 0")),
    ],
)
def test_a_program(script: str, look: Look) -> None:
    assert shell(script) == look


def test_no_such_program() -> None:
    assert run("/none/such") == Look(False, "Failed to execute /none/such: No such file or directory")


def test_a_program_that_hangs() -> None:
    assert shell("sleep 60", timeout=0.2) == Look(False, "/bin/sh did not finish within 0.2 s")


def test_a_program_whose_children_stay_is_killed_with_them(tmp_path: Path) -> None:
    look = shell(f"sleep 61 & echo $! >{tmp_path}/pid; exit 0", timeout=0.5)
    assert look == Look(False, "/bin/sh did not finish within 0.5 s")
    pid = int((tmp_path / "pid").read_text())
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().split()[2]
        except FileNotFoundError:
            break
        if state == "Z":
            break
        time.sleep(0.01)
    else:
        os.kill(pid, signal.SIGKILL)
        pytest.fail("the child lives")


def test_a_program_that_prints_megabytes() -> None:
    look = shell("exec yes")
    assert look == Look(False, "/bin/sh printed more than 1048576 bytes, and was killed")


def test_the_last_lines_are_kept() -> None:
    look = shell("seq 10000; exit 1")
    assert len(look.text) <= 1000
    assert look.text.endswith("\n9999\n10000")
    assert look.text.startswith("exit code 1, expected exit code 0: ")
    assert all(line.isdigit() for line in look.text.rpartition(": ")[2].splitlines())


def test_last_lines() -> None:
    assert last_lines("a\nb\n") == "a\nb"
    assert last_lines("x" * 50, 10) == "x" * 10
    assert last_lines("first\nsecond\nthird", 9) == "third"
    assert last_lines("\x00\x07\t") == ""


def _wait_for(file: Path) -> None:
    """Until something is written to it."""
    deadline = time.monotonic() + 30
    while not (file.exists() and file.read_text().strip()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_cancelled_program_is_gone(used: Used, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    script = f"echo $$ >{pid}; exec sleep 62"

    async def main() -> None:
        before = used()
        check = CommandCheck(RULE, period=5, argv=("/bin/sh", "-c", script), timeout=60)
        looking = asyncio.create_task(check.look())
        await asyncio.to_thread(_wait_for, pid)
        looking.cancel()
        await asyncio.wait([looking])
        assert looking.cancelled()
        assert used() == before

    asyncio.run(main())
    assert not Path(f"/proc/{pid.read_text().strip()}").exists()


# Sockets


def connect(address: str, timeout: float = 5.0) -> Look:
    return seen(SocketCheck(RULE, period=1, address=address, timeout=timeout))


@pytest.fixture
def tcp() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_tcp(tcp: int) -> None:
    for host in ("127.0.0.1", "localhost"):
        assert connect(f"{host}:{tcp}") == Look(True, f"{host}:{tcp} takes connections")


def test_tcp_over_ipv6() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        assert connect(f"[::1]:{server.getsockname()[1]}").ok


def test_nobody_listens(tcp: int) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        assert connect(address) == Look(False, f"{address} takes no connection: Connection refused")


def test_a_full_queue(used: Used) -> None:
    async def main() -> None:
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            server.listen(0)
            port = server.getsockname()[1]
            waiting = [socket.socket() for _ in range(4)]
            for one in waiting:
                one.setblocking(False)
                one.connect_ex(("127.0.0.1", port))
            before = used()
            look = await SocketCheck(RULE, period=1, address=f"127.0.0.1:{port}", timeout=0.2).look()
            assert look == Look(False, f"127.0.0.1:{port} takes no connection within 0.2 s")
            assert used() == before
            for one in waiting:
                one.close()

    asyncio.run(main())


def test_a_name_that_is_not_known() -> None:
    look = connect("no-such-host.invalid:80", timeout=20)
    assert not look.ok
    assert look.text.startswith("no-such-host.invalid:80: the name is not known (")


def test_unix_sockets(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    assert connect(path) == Look(False, f"{path} takes no connection: No such file or directory")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        assert connect(path) == Look(False, f"{path} takes no connection: Connection refused")
        server.listen(0)
        assert connect(path) == Look(True, f"{path} takes connections")
        full = connect(path)  # nobody has taken the first one
    assert full == Look(False, f"{path} takes no connection: too many wait for it already")


def test_other_files_are_no_sockets(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    look = connect(f"{tmp_path}/file")
    assert look.text == f"{tmp_path}/file takes no connection: expected a socket, it is another kind of file"
    assert not look.ok


def test_a_datagram_socket_is_no_stream(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(f"{tmp_path}/log")
        look = connect(f"{tmp_path}/log")
    assert look == Look(False, f"{tmp_path}/log takes no connection: Protocol wrong type for socket")


# Mounts and space


def mounted(path: str | Path, *, writable: bool = False) -> Look:
    return seen(MountCheck(RULE, period=1, path=str(path), writable=writable))


def test_something_is_mounted() -> None:
    assert mounted("/proc") == Look(True, "proc (proc) is mounted on /proc")
    assert mounted("/proc/").ok
    assert mounted("/proc/1") == Look(False, "nothing is mounted on /proc/1")


@pytest.mark.root
def test_writable_or_not(tmp_path: Path) -> None:
    point = tmp_path / "a mount"
    point.mkdir()
    mount = ["mount", "-t", "tmpfs", "x", str(point)]
    subprocess.run([*mount, "-o", "ro"], check=True)
    try:
        assert mounted(point) == Look(True, f"x (tmpfs) is mounted on {point}")
        assert mounted(point, writable=True) == Look(
            False, f"x (tmpfs) on {point} is read-only, expected writable"
        )
        subprocess.run(mount, check=True)  # on top
        try:
            assert mounted(point, writable=True).ok
            subprocess.run(["mount", "-o", "remount,bind,ro", str(point)], check=True)
            assert mounted(point, writable=True).ok  # so it looks in our own sandbox
        finally:
            subprocess.run(["umount", str(point)], check=True)
    finally:
        subprocess.run(["umount", str(point)], check=True)
    assert mounted(point) == Look(False, f"nothing is mounted on {point}")


def test_free_space(tmp_path: Path) -> None:
    def space(path: str, least: int) -> Look:
        return seen(SpaceCheck(RULE, period=1, path=path, min_free=least))

    assert space(str(tmp_path), 1).ok
    look = space(str(tmp_path), 2**50)
    assert not look.ok
    assert look.text.endswith(f" MiB are free in {tmp_path}, expected 1073741824.0 MiB")
    none = tmp_path / "none"
    assert space(str(none), 1) == Look(False, f"{none}: No such file or directory")


def test_a_disk_that_hangs_is_asked_once() -> None:
    """The next look says so; no thread is lost for each."""

    async def main() -> None:
        aside = Aside()
        with pytest.raises(DeviceError, match=r"^no answer within 0\.05 s$"):
            await aside.run(0.05, time.sleep, 0.3)
        with pytest.raises(DeviceError, match=r"^the look before has not come back yet$"):
            await aside.run(0.05, time.sleep, 0.3)
        await asyncio.sleep(0.4)
        assert await aside.run(5, len, "four") == 4
        with pytest.raises(TimeoutError):  # the function's own
            await aside.run(5, _times_out)

    asyncio.run(main())


def _times_out() -> None:
    raise TimeoutError


def test_nobody_waits_for_a_disk_that_hangs() -> None:
    """Nor does the process for its end."""
    script = """
import asyncio, time
from updated.errors import DeviceError
from updated.health.aside import Aside
async def main():
    try:
        await Aside().run(0.05, time.sleep, 3600)
    except DeviceError as error:
        print(error)
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True
    )
    assert (done.stdout, done.stderr) == ("no answer within 0.05 s\n", "")


def test_mounts_are_those_of_the_kernel() -> None:
    assert any("rw" in mount.options.split(",") for mount in read_mounts())


# Clock and heartbeats


def test_the_clock() -> None:
    async def yes() -> bool:
        return True

    async def no() -> bool:
        return False

    async def nobody() -> bool:
        raise DeviceError("nobody can tell")

    looks = [seen(ClockCheck(RULE, period=1, synchronised=one)) for one in (yes, no, nobody)]
    assert looks == [
        Look(True, "the clock is synchronised"),
        Look(False, "the clock is not synchronised"),
        Look(False, "nobody can tell"),
    ]


def test_heartbeats() -> None:
    heartbeats = Heartbeats(["kiosk", "till"])
    check = HeartbeatCheck(RULE, period=1, heartbeats=heartbeats, application="kiosk", within=0.5)
    assert seen(check) == Look(False, "kiosk was never heard, expected a heartbeat every 0.5 s")
    heartbeats.beat("till")
    assert not seen(check).ok
    heartbeats.beat("kiosk")
    assert seen(check) == Look(True, "kiosk is heard")
    time.sleep(0.6)
    assert seen(check) == Look(False, "kiosk was last heard 1 s ago, expected 0.5 s at most")


def test_only_who_is_known_is_heard() -> None:
    heartbeats = Heartbeats(["kiosk", "till"])
    with pytest.raises(Refused, match=r"^No heartbeat of 'koisk\?' is expected$") as caught:
        heartbeats.beat("koisk?")
    assert (caught.value.rule, caught.value.hint) == ("heartbeat", "Known are: kiosk, till.")
    with pytest.raises(Refused, match="is expected") as caught:
        Heartbeats().beat("x\x1b" * 1000)
    assert len(str(caught.value)) < 200
    assert "[[confirm.checks]]" in caught.value.hint


def test_a_reload_forgets_no_heartbeat() -> None:
    heartbeats = Heartbeats(["kiosk", "till"])
    heartbeats.beat("kiosk")
    heartbeats.expect(["kiosk", "other"])
    assert heartbeats.age("kiosk") is not None
    assert heartbeats.age("other") is None
    with pytest.raises(Refused):
        heartbeats.beat("till")
