"""docs/dbus.md tells the truth: its XML is what is exported, its examples run."""

from __future__ import annotations

import asyncio
import re
import shlex
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.api.peer import serving
from tests.fakes.agent import MANIFEST, FakeAgent, FakePoller
from updated.api import agent as agent1
from updated.api import poller, rauc, variants
from updated.api.agent import ERRORS
from updated.core.polling import PollStatus

DOCS = (Path(__file__).parents[2] / "docs" / "dbus.md").read_text()
EXAMPLES = [shlex.split(line) for line in re.findall(r"^busctl .*$", DOCS, re.MULTILINE)]


def test_the_interface_is_shown_as_it_is() -> None:
    assert agent1.XML in DOCS


@pytest.mark.parametrize("xml", [agent1.XML, rauc.XML, poller.XML], ids=["Agent1", "Installer", "Poller"])
def test_every_member_is_described(xml: str) -> None:
    for member in ET.fromstring(xml):
        assert re.search(rf"^\|.*`{member.attrib['name']}`.*\|", DOCS, re.MULTILINE), member.attrib["name"]


def test_every_key_and_error_is_described() -> None:
    for key in (*rauc.INSTALL_ARGS, *rauc.ACCESS_ARGS):
        assert f"`{key}`" in DOCS
    for error in ERRORS.values():
        assert f"`org.updated.Error.{error}`" in DOCS


def test_every_key_of_the_pollers_status_is_described() -> None:
    full = PollStatus(1, 1, 1, 1, "e", True, "s", "h", MANIFEST, 1, "u", 1, "t")
    status = variants.poll_status(full)
    for key in (*status, *status["bundle"].value):
        assert f"`{key}`" in DOCS, key


def test_every_example_runs(bus: str) -> None:
    async def run(command: list[str]) -> None:
        agent = FakeAgent(poller=FakePoller())
        if "Confirm" in command:
            agent.state("confirming", "")
        if "Consent" in command:
            agent.asking = "install"
        if "Reboot" in command:
            agent.state("reboot-pending", "")
        if "Release" in command:
            agent.inhibit("me", "mine", 60, ":1.0")
        async with serving(bus, agent) as peer:
            if {"Cancel", "Pause", "Resume"} & {*command}:
                agent.gate.clear()
                await peer.rauc("Install", "s", "/x")
            if "Resume" in command:
                agent.pause()
            process = await asyncio.create_subprocess_exec(
                "busctl",
                f"--address={bus}",
                *command[1:],
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            output, _ = await process.communicate()
            assert process.returncode == 0, (command, output.decode())

    assert len(EXAMPLES) > 10
    for example in EXAMPLES:
        asyncio.run(run(example))
