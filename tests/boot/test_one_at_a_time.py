"""Changes of the boot environment: never mixed, never left half done."""

from __future__ import annotations

import asyncio

import pytest

from updated.boot.base import VerifiedBootloader
from updated.errors import DeviceError


class Slow:
    """A bootloader that reads, thinks, and writes; as all of them do."""

    def __init__(self) -> None:
        self.good: frozenset[str] = frozenset()
        self.begun = 0

    async def set_state(self, bootname: str, good: bool) -> None:
        self.begun += 1
        read = self.good
        await asyncio.sleep(0.02)
        self.good = read | {bootname} if good else read - {bootname}

    async def set_primary(self, bootname: str) -> None:
        raise DeviceError("no")

    async def get_primary(self) -> str | None:
        return "A"

    async def get_state(self, bootname: str) -> bool:
        return bootname in self.good

    async def get_current(self) -> str | None:
        return None


def test_no_change_is_lost() -> None:
    async def scenario() -> None:
        slow = Slow()
        bootloader = VerifiedBootloader("slow", slow)
        await asyncio.gather(*(bootloader.set_state(name, True) for name in "ABC"), bootloader.get_primary())
        assert slow.good == {"A", "B", "C"}
        assert await bootloader.get_state("B")
        assert await bootloader.get_current() is None

    asyncio.run(scenario())


def test_cancelled_it_finishes_first() -> None:
    async def scenario() -> None:
        slow = Slow()
        bootloader = VerifiedBootloader("slow", slow)
        task = asyncio.create_task(bootloader.set_state("A", True))
        waiting = asyncio.create_task(bootloader.set_state("B", True))
        await asyncio.sleep(0.005)
        for _ in range(3):
            task.cancel()
            waiting.cancel()
            await asyncio.sleep(0.002)
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert slow.good == {"A"}
        assert slow.begun == 1
        await bootloader.set_state("C", True)  # the lock is free

    asyncio.run(scenario())


def test_errors_pass() -> None:
    async def scenario() -> None:
        bootloader = VerifiedBootloader("slow", Slow())
        for _ in range(2):
            with pytest.raises(DeviceError):
                await bootloader.set_primary("A")

    asyncio.run(scenario())
