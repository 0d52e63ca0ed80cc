"""The reboot: asked of a logind on a real bus, and of a `systemctl` that writes down what it is told."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.api.conftest import Daemon
from tests.fakes.neighbours import Neighbours, Power, neighbours
from updated.errors import DeviceError
from updated.host import reboot

TRYBOOT = "0 tryboot"
DENIED = ("org.freedesktop.DBus.Error.AccessDenied", "Permission denied")
UNKNOWN = ("org.freedesktop.DBus.Error.UnknownMethod", "Unknown method")
BLOCKED = (
    "org.freedesktop.login1.BlockedByInhibitorLock",
    "Operation denied due to active block inhibitor",
)
NOT_IN_CONTAINERS = (
    "org.freedesktop.DBus.Error.NotSupported",
    "Reboot parameter not supported in containers, refusing.",
)


class Systemctl:
    """On PATH; `calls` are the words it was called with, `unless` makes it fail."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self._log = folder / "calls"
        self._log.touch()
        self.behave("exit 0")

    def behave(self, script: str) -> None:
        program = self.folder / "systemctl"
        words = 'printf "%s\\0" "$@" "kexec=$SYSTEMCTL_SKIP_AUTO_KEXEC$SYSTEMCTL_SKIP_AUTO_SOFT_REBOOT"'
        program.write_text(f'#!/bin/sh\n{{ {words}; echo; }} >>"{self._log}"\n{script}\n')
        program.chmod(0o755)

    @property
    def calls(self) -> list[list[str]]:
        calls = [line.split("\0")[:-1] for line in self._log.read_text().splitlines()]
        assert all(call[-1] == "kexec=11" for call in calls)  # always past the bootloader
        return [call[:-1] for call in calls]


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Systemctl:
    made = Systemctl(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{made.folder}:{os.environ['PATH']}")
    return made


@pytest.fixture
def machine(daemon: Daemon, systemctl: Systemctl, tmp_path: Path) -> Machine:
    return Machine(daemon.address, systemctl, tmp_path / "reboot-param")


@dataclass
class Machine:
    address: str
    systemctl: Systemctl
    parameter: Path  # systemd's file for the argument

    async def reboot(self, argument: str = "", message: str = "", delay: float = 0.0) -> None:
        await reboot.reboot(
            argument=argument, message=message, delay=delay, address=self.address, parameter=self.parameter
        )

    def with_logind(self, scene: Callable[[Neighbours], Awaitable[object]]) -> Power:
        """What logind was asked for in the `scene`."""

        async def play() -> Power:
            async with neighbours(self.address) as here:
                await scene(here)
                return here.power

        return asyncio.run(play())


def test_logind_reboots(machine: Machine) -> None:
    power = machine.with_logind(lambda _: machine.reboot(message="An update."))
    assert power.rebooting
    assert power.wall == ("An update.", True)
    assert power.scheduled is None
    assert power.parameter == ""
    assert machine.systemctl.calls == []


def test_without_a_message_nobody_is_told(machine: Machine) -> None:
    assert machine.with_logind(lambda _: machine.reboot()).wall == ("", False)


def test_a_message_is_a_line_of_text(machine: Machine) -> None:
    power = machine.with_logind(lambda _: machine.reboot(message="a\x1b[2J\n" + "b" * 5000))
    assert power.wall is not None
    text = power.wall[0]
    assert text.startswith("a [2J bbb")
    assert len(text) == reboot.MAX_MESSAGE


def test_with_a_delay_it_is_scheduled(machine: Machine) -> None:
    before = time.time()
    power = machine.with_logind(lambda _: machine.reboot(message="Soon.", delay=90))
    assert not power.rebooting
    assert power.scheduled is not None
    kind, when = power.scheduled
    assert kind == "reboot"
    assert before + 90 <= when / 1e6 + 1e-6 <= time.time() + 90
    assert power.wall == ("Soon.", True)


def test_a_scheduled_reboot_is_called_off(machine: Machine) -> None:
    called_off: list[bool] = []

    async def scene(_: Neighbours) -> None:
        called_off.append(await reboot.cancel_scheduled(address=machine.address))
        await machine.reboot(delay=90)
        called_off.append(await reboot.cancel_scheduled(address=machine.address))

    assert machine.with_logind(scene).scheduled is None
    assert called_off == [False, True]


def test_nothing_is_scheduled_where_there_is_no_logind(machine: Machine, tmp_path: Path) -> None:
    for address in (machine.address, f"unix:path={tmp_path}/none"):
        assert asyncio.run(reboot.cancel_scheduled(address=address)) is False


def test_logind_keeps_what_it_has_scheduled(machine: Machine) -> None:
    async def scene(here: Neighbours) -> None:
        here.power.refused["CancelScheduledShutdown"] = DENIED
        await reboot.cancel_scheduled(address=machine.address)

    with pytest.raises(DeviceError, match="logind refuses CancelScheduledShutdown: Permission denied"):
        machine.with_logind(scene)


# The argument


def test_logind_gets_the_argument(machine: Machine) -> None:
    power = machine.with_logind(lambda _: machine.reboot(TRYBOOT))
    assert (power.parameter, power.rebooting) == (TRYBOOT, True)
    assert not machine.parameter.exists()


@pytest.mark.parametrize("refusal", [UNKNOWN, NOT_IN_CONTAINERS])
def test_a_logind_that_takes_no_argument(machine: Machine, refusal: tuple[str, str]) -> None:
    """One that is too old, or in a container: the argument lies where it would have put it."""

    async def scene(here: Neighbours) -> None:
        here.power.refused["SetRebootParameter"] = refusal
        await machine.reboot(TRYBOOT)

    assert machine.with_logind(scene).rebooting
    assert machine.parameter.read_text() == "0 tryboot\n"
    assert machine.parameter.stat().st_mode & 0o777 == 0o644


def test_no_reboot_without_its_argument(machine: Machine) -> None:
    """It would start the wrong system."""

    async def scene(here: Neighbours) -> None:
        here.power.refused["SetRebootParameter"] = UNKNOWN
        machine.parameter = machine.parameter / "no" / "folder"
        machine.systemctl.behave("echo 'Failed to write reboot parameter file' >&2; exit 1")
        with pytest.raises(DeviceError, match=r"Cannot leave the reboot argument.*Failed to write"):
            await machine.reboot(TRYBOOT)

    assert not machine.with_logind(scene).rebooting
    assert machine.systemctl.calls == [["reboot", "--no-wall", "--reboot-argument=0 tryboot"]]


def test_an_argument_for_whoever_reboots(machine: Machine) -> None:
    async def scene(_: Neighbours) -> None:
        await reboot.prepare_argument(TRYBOOT, address=machine.address, parameter=machine.parameter)

    power = machine.with_logind(scene)
    assert (power.parameter, power.rebooting) == (TRYBOOT, False)


def test_an_argument_without_logind(machine: Machine) -> None:
    for _ in range(2):
        for argument, expected in ((TRYBOOT, "0 tryboot\n"), ("1", "1\n")):
            asyncio.run(_prepare(machine, argument))
            assert machine.parameter.read_text() == expected
        for _ in range(2):
            asyncio.run(_prepare(machine, ""))
            assert not machine.parameter.exists()


async def _prepare(machine: Machine, argument: str) -> None:
    await reboot.prepare_argument(argument, address=machine.address, parameter=machine.parameter)


@pytest.mark.parametrize("argument", ["a\nb", "a\0b", "é", "x" * 256])
def test_what_is_no_argument(machine: Machine, argument: str) -> None:
    async def scene(_: Neighbours) -> None:
        for work in (
            machine.reboot(argument),
            _prepare(machine, argument),
            reboot.step(2, argument=argument),
        ):
            with pytest.raises(DeviceError, match=r"The reboot argument .* is none"):
                await work

    power = machine.with_logind(scene)
    assert not power.rebooting
    assert machine.systemctl.calls == []


# Who does it where logind does not


def test_no_bus(machine: Machine, tmp_path: Path) -> None:
    machine.address = f"unix:path={tmp_path}/none"
    asyncio.run(machine.reboot(message="An update."))
    assert machine.systemctl.calls == [["reboot", "--message=An update."]]


def test_no_logind_on_the_bus(machine: Machine) -> None:
    asyncio.run(machine.reboot(TRYBOOT, delay=0.01))
    assert machine.systemctl.calls == [["reboot", "--no-wall", "--reboot-argument=0 tryboot"]]
    assert machine.parameter.read_text() == "0 tryboot\n"


@pytest.mark.parametrize(("delay", "member"), [(0.0, "Reboot"), (0.01, "ScheduleShutdown")])
def test_logind_refuses(machine: Machine, delay: float, member: str) -> None:
    async def scene(here: Neighbours) -> None:
        here.power.refused[member] = DENIED
        await machine.reboot(delay=delay)

    assert not machine.with_logind(scene).rebooting
    assert machine.systemctl.calls == [["reboot", "--no-wall"]]


def test_everybody_refuses(machine: Machine) -> None:
    """All that was said, and who can be asked about it."""

    async def scene(here: Neighbours) -> None:
        here.power.refused["Reboot"] = BLOCKED
        machine.systemctl.behave("echo 'Call to Reboot failed: blocked' >&2; exit 1")
        await machine.reboot()

    with pytest.raises(DeviceError) as caught:
        machine.with_logind(scene)
    assert str(caught.value) == (
        "logind refuses Reboot: Operation denied due to active block inhibitor; "
        "systemctl failed with exit code 1: Call to Reboot failed: blocked"
    )
    assert "systemd-inhibit --list" in caught.value.hint


def test_a_wall_that_cannot_be_written_on(machine: Machine) -> None:
    async def scene(here: Neighbours) -> None:
        here.power.refused["SetWallMessage"] = DENIED
        await machine.reboot(message="An update.")

    assert machine.with_logind(scene).rebooting


def test_a_bus_that_goes_away(daemon: Daemon, machine: Machine) -> None:
    async def scene(here: Neighbours) -> None:
        here.hangs = True
        asking = asyncio.ensure_future(machine.reboot())
        await here.called.wait()
        daemon.kill()
        await asking

    with pytest.raises((EOFError, ConnectionError)):  # of the neighbours themselves
        machine.with_logind(scene)
    assert machine.systemctl.calls == [["reboot", "--no-wall"]]


# Harder and harder


def test_each_step_by_itself(machine: Machine) -> None:
    async def scene(_: Neighbours) -> None:
        for number in range(len(reboot.STEPS)):
            await reboot.step(number, address=machine.address, parameter=machine.parameter)

    assert machine.with_logind(scene).rebooting
    assert machine.systemctl.calls == [
        ["reboot", "--no-wall"],
        ["--force", "reboot"],
        ["--force", "--force", "reboot"],
    ]


def test_a_step_that_fails_has_no_replacement(machine: Machine) -> None:
    with pytest.raises(DeviceError, match="there is no logind"):
        asyncio.run(reboot.step(0, address=machine.address))
    assert machine.systemctl.calls == []
    machine.systemctl.behave("exit 1")
    with pytest.raises(DeviceError, match="systemctl failed with exit code 1"):
        asyncio.run(reboot.step(2, argument=TRYBOOT))
    assert machine.systemctl.calls == [["--force", "reboot", "--reboot-argument=0 tryboot"]]


def test_the_steps_in_order(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DBUS_STARTER_BUS_TYPE", raising=False)
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/none")

    async def scene() -> None:
        for step in reboot.steps(message="An update."):
            await step()

    asyncio.run(scene())
    assert machine.systemctl.calls == [
        ["reboot", "--message=An update."],
        ["--force", "reboot"],
        ["--force", "--force", "reboot"],
    ]


def test_the_real_systemctl_knows_these_words(machine: Machine) -> None:
    """With --help it does nothing else, but reads all options first."""

    async def scene() -> None:
        await reboot.step(1, argument=TRYBOOT, message="An update.")
        for number in range(1, len(reboot.STEPS)):
            await reboot.step(number, argument=TRYBOOT)

    asyncio.run(scene())
    path = os.environ["PATH"].removeprefix(f"{machine.systemctl.folder}:")
    real = shutil.which("systemctl", path=path)
    assert real
    for words in machine.systemctl.calls:
        done = subprocess.run([real, *words, "--help"], capture_output=True, text=True, check=True)
        assert "reboot" in done.stdout
        wrong = [*words, "--no-such-option", "--help"]
        assert subprocess.run([real, *wrong], capture_output=True, check=False).returncode != 0
