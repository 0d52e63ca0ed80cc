"""The example for kiosks, run as a program."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from tests.api.peer import DEADLINE, serving
from tests.fakes.agent import FakeAgent
from updated.core.gate import Hold

KIOSK = Path(__file__).parents[2] / "examples" / "kiosk" / "kiosk.py"
NOT_RUNNING = "The update service is not running."


async def lines_until(output: asyncio.StreamReader, wanted: str) -> list[str]:
    lines: list[str] = []
    async with asyncio.timeout(DEADLINE):
        while wanted not in lines:
            line = await output.readline()
            assert line, f"the kiosk ended after {lines}"
            lines.append(line.decode().strip())
    return lines


@pytest.mark.usefixtures("session")
def test_kiosk_draws_an_install_and_survives_a_restart(bus: str) -> None:
    async def scenario() -> None:
        kiosk = await asyncio.create_subprocess_exec(
            sys.executable, str(KIOSK), stdout=asyncio.subprocess.PIPE, env=os.environ
        )
        assert kiosk.stdout is not None
        await lines_until(kiosk.stdout, NOT_RUNNING)
        agent = FakeAgent()
        agent.gate.clear()
        async with serving(bus, agent) as peer:
            await lines_until(kiosk.stdout, "Nothing to do")
            await peer.agent1("Install", "sa{sv}", "/x", {})
            bar = "[##############......]  70 %  Copying image to rootfs.1"
            drawn = await lines_until(kiosk.stdout, f"{bar}  0.0 of 0.0 MB, 0.0 MB/s, 5 s left")
            assert all(line.startswith("[") for line in drawn)
            agent.pause()
            await lines_until(kiosk.stdout, f"{bar}  0.0 of 0.0 MB, 0.0 MB/s, 5 s left  (paused)")
            agent.resume()
            agent.gate.set()
            await lines_until(kiosk.stdout, "Nothing to do  Last update: installed (Installed)")
            agent.hold(Hold("consent", "Somebody has to agree."))
            waiting = "Nothing to do  Waiting: Somebody has to agree.  Last update: installed (Installed)"
            await lines_until(kiosk.stdout, waiting)
        assert await lines_until(kiosk.stdout, NOT_RUNNING) == [NOT_RUNNING]
        async with serving(bus, FakeAgent()):
            assert await lines_until(kiosk.stdout, "Nothing to do") == ["Nothing to do"]
        kiosk.terminate()
        await kiosk.wait()

    asyncio.run(scenario())


class HearingAgent(FakeAgent):
    def __init__(self) -> None:
        super().__init__()
        self.heard = asyncio.Event()

    def heartbeat(self, application: str) -> None:
        super().heartbeat(application)
        self.heard.set()


@pytest.mark.usefixtures("session")
def test_kiosk_says_that_it_is_well(bus: str) -> None:
    async def scenario() -> None:
        agent = HearingAgent()
        async with serving(bus, agent):
            kiosk = await asyncio.create_subprocess_exec(
                *(sys.executable, str(KIOSK), "kiosk"), stdout=asyncio.subprocess.PIPE, env=os.environ
            )
            async with asyncio.timeout(DEADLINE):
                await agent.heard.wait()
            assert agent.beats == ["kiosk"]
            kiosk.terminate()
            await kiosk.communicate()

    asyncio.run(scenario())
