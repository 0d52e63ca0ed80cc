"""The policy files, in a real dbus-daemon with the distribution's own rules for the system bus."""

from __future__ import annotations

import asyncio
import configparser
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.api.conftest import Daemon
from tests.api.peer import AGENT1, PROPERTIES, RAUC, serving
from tests.fakes.agent import FakeAgent, FakePoller
from updated.api.server import BUS_NAMES

UNITS = Path(__file__).parents[2] / "units"
SYSTEM = Path("/usr/share/dbus-1/system.conf")
DBUS = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
POLLER = (*RAUC[:2], "de.pengutronix.rauc.Poller")
NOBODY = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
# `games` stands for the group `updated`, which need not exist on a machine that runs tests.
MEMBER = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--groups=games")

READS: list[tuple[str, ...]] = [
    (*RAUC[:2], PROPERTIES, "GetAll", "s", RAUC[2]),
    (*RAUC[:2], "org.freedesktop.DBus.Introspectable", "Introspect"),
    (*RAUC[:2], "org.freedesktop.DBus.Peer", "Ping"),
    (*RAUC, "GetSlotStatus"),
    (*RAUC, "GetArtifactStatus"),
    (*RAUC, "GetPrimary"),
    (*AGENT1[:2], PROPERTIES, "GetAll", "s", AGENT1[2]),
    (*AGENT1[:2], "org.freedesktop.DBus.Introspectable", "Introspect"),
    (*AGENT1, "GetHistory", "u", "1"),
    (*AGENT1, "Why"),
    (*AGENT1, "GetHealth", "u", "1"),
    (*POLLER[:2], PROPERTIES, "GetAll", "s", POLLER[2]),
]
CHANGES: list[tuple[str, ...]] = [
    (*RAUC, "Install", "s", "/x"),
    (*RAUC, "InstallBundle", "sa{sv}", "/x", "0"),
    (*RAUC, "Info", "s", "/x"),
    (*RAUC, "InspectBundle", "sa{sv}", "/x", "0"),
    (*RAUC, "Mark", "ss", "good", "booted"),
    (*AGENT1, "Install", "sa{sv}", "/x", "0"),
    (*AGENT1, "Cancel"),
    (*AGENT1, "Confirm"),
    (*AGENT1, "Rollback"),
    (*AGENT1, "Pause"),
    (*AGENT1, "Resume"),
    (*AGENT1, "Consent", "sb", "install", "true"),
    (*AGENT1, "Inhibit", "ssu", "me", "mine", "60"),
    (*AGENT1, "Release", "u", "1"),
    (*AGENT1, "Heartbeat", "s", "kiosk"),
    (*AGENT1, "GetQuarantine"),
    (*AGENT1, "Lift", "s", ""),
    (*AGENT1, "Reboot"),
    (*POLLER, "Poll"),
    # Both names belong to one connection: the other name is no way around.
    (AGENT1[0], RAUC[1], RAUC[2], "Install", "s", "/x"),
    (RAUC[0], AGENT1[1], AGENT1[2], "Rollback"),
]
ROOTS: list[tuple[str, ...]] = [
    (*AGENT1, "ResetFloor"),
    (RAUC[0], AGENT1[1], AGENT1[2], "ResetFloor"),
]


@pytest.fixture(params=["as listed", "the other way round"])
def system_bus(request: pytest.FixtureRequest) -> Iterator[str]:
    """A private bus under the system bus's rules and ours, in a folder that everybody can enter.

    dbus-daemon reads a folder of rules in no order, and later rules win.
    """
    names = BUS_NAMES if request.param == "as listed" else BUS_NAMES[::-1]
    folder = Path(tempfile.mkdtemp(prefix="updated-policy-"))
    folder.chmod(0o755)
    for name in BUS_NAMES:
        rules = (UNITS / f"{name}.conf").read_text()
        assert rules.count('group="updated"') == 1
        (folder / f"{name}.conf").write_text(rules.replace('group="updated"', 'group="games"'))
    defaults = "".join(re.findall(r"<policy.*?</policy>", SYSTEM.read_text(), re.DOTALL))
    config = folder / "system.conf"
    config.write_text(
        "<busconfig><type>system</type>"
        f"<listen>unix:path={folder}/bus</listen><auth>EXTERNAL</auth>{defaults}"
        + "".join(f"<include>{folder}/{name}.conf</include>" for name in names)
        + "</busconfig>"
    )
    daemon = Daemon(config, folder / "bus")
    yield daemon.address
    daemon.kill()
    shutil.rmtree(folder)


async def call(address: str, user: tuple[str, ...], *arguments: str) -> str:
    """What `busctl call` prints as `user`, errors included."""
    process = await asyncio.create_subprocess_exec(
        *user,
        *("busctl", f"--address={address}", "call", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    return (await process.communicate())[0].decode()


def denied(output: str) -> bool:
    """busctl's words for org.freedesktop.DBus.Error.AccessDenied."""
    return "Access denied" in output


@pytest.mark.root
def test_everybody_may_look_and_only_the_group_may_change(system_bus: str) -> None:
    async def scenario() -> None:
        agent = FakeAgent(poller=FakePoller())
        async with serving(system_bus, agent):
            for read in READS:
                output = await call(system_bus, NOBODY, *read)
                assert not denied(output), (read, output)
                assert "failed" not in output, (read, output)
            for change in CHANGES + ROOTS:
                assert denied(await call(system_bus, NOBODY, *change)), change
            assert agent.offers == []
            assert agent.marks == []
            for user in (MEMBER, ()):
                for change in CHANGES:
                    output = await call(system_bus, user, *change)
                    assert not denied(output), (user, change, output)
            assert len(agent.marks) == 2

    asyncio.run(scenario())


@pytest.mark.root
def test_only_root_lets_older_versions_in_again(system_bus: str) -> None:
    async def scenario() -> None:
        agent = FakeAgent()
        agent.now = replace(agent.now, floor="2.0")
        async with serving(system_bus, agent):
            for change in ROOTS:
                assert denied(await call(system_bus, MEMBER, *change)), change
            assert agent.now.floor == "2.0"
            for change in ROOTS:
                assert not denied(await call(system_bus, (), *change)), change
            assert agent.now.floor == ""

    asyncio.run(scenario())


@pytest.mark.root
@pytest.mark.parametrize("name", BUS_NAMES)
def test_only_root_may_own_the_names(system_bus: str, name: str) -> None:
    async def scenario() -> None:
        for user in (NOBODY, MEMBER):
            assert denied(await call(system_bus, user, *DBUS, "RequestName", "su", name, "4"))
        assert await call(system_bus, (), *DBUS, "RequestName", "su", name, "4") == "u 1\n"

    asyncio.run(scenario())


@pytest.mark.root
def test_everybody_hears_signals(system_bus: str) -> None:
    async def scenario() -> None:
        agent = FakeAgent()
        async with serving(system_bus, agent):
            listener = await asyncio.create_subprocess_exec(
                *NOBODY,
                *("gdbus", "monitor", f"--address={system_bus}", "-d", RAUC[0]),
                stdout=asyncio.subprocess.PIPE,
            )
            assert listener.stdout is not None
            heard = asyncio.create_task(listener.stdout.readuntil(b"Installer.Completed (0,)"))
            async with asyncio.timeout(10):
                while not heard.done():  # it does not say when it has begun to listen
                    agent.completed(0)
                    await asyncio.sleep(0.02)
            await heard
            listener.terminate()
            await listener.communicate()

    asyncio.run(scenario())


@pytest.mark.parametrize("name", BUS_NAMES)
def test_activation_leaves_the_start_to_systemd(name: str) -> None:
    file = configparser.ConfigParser()
    file.optionxform = str  # type: ignore[assignment]
    file.read(UNITS / f"{name}.service")
    assert dict(file["D-BUS Service"]) == {
        "Name": name,
        "Exec": "/bin/false",
        "User": "root",
        "SystemdService": "updated.service",
    }
