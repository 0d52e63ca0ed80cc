"""The ways out of the running system: which reboot follows what, and a bootloader that cannot tell."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from updated.core import states
from updated.errors import DeviceError, Refused

GOOD = {"ORDER": "A B", "A_OK": "1", "A_TRY": "0", "B_OK": "1", "B_TRY": "0"}


def config(site: Any, *, when: str = "manual", fallback: str = "reboot") -> Any:
    reboot = f'[reboot]\nwhen = "{when}"\ncommand = ["touch", "{site.root}/rebooted"]\n'
    return site.config(more=f'fallback = "{fallback}"\n{reboot}')


@pytest.mark.parametrize("when", ["manual", "immediately"])
@pytest.mark.parametrize("fallback", ["manual", "reboot"])
@pytest.mark.parametrize("by_request", [True, False])
def test_whether_it_reboots(site: Any, when: str, fallback: str, by_request: bool) -> None:
    """A person may want to do it himself; a device that nobody can reach has to."""
    site.write_env(GOOD)
    reboots = (when == "immediately") if by_request else (fallback == "reboot")

    async def scenario() -> None:
        async with site.running(config(site, when=when, fallback=fallback)) as service:
            await service.until(lambda: service.offers.judged)
            departure = service.runner.departure
            await departure.roll_back("rootfs.0", by_request=by_request)
            assert (departure.left_for, departure.begun, service.runner.leaving) == (
                "rootfs.1",
                reboots,
                True,
            )
            assert site.env()["A_OK"] == "0"
            if reboots:
                await service.until((site.root / "rebooted").exists)

    asyncio.run(scenario())
    assert (site.root / "rebooted").exists() == reboots


def test_a_bootloader_that_cannot_tell(site: Any, caplog: pytest.LogCaptureFixture) -> None:
    """It may well have another group: nothing is decided."""
    site.write_env(GOOD)

    async def scenario() -> None:
        async with site.running(config(site)) as service:
            await service.until(lambda: service.offers.judged)
            (site.root / "grubenv").rename(site.root / "aside")
            (site.root / "grubenv").mkdir()
            with pytest.raises(DeviceError, match="GRUB environment"):
                await service.runner.departure.roll_back("rootfs.0", by_request=False)
            with pytest.raises(DeviceError, match="GRUB environment"):
                await service.agent.rollback()
            service.offers.judged = False
            service.runner.post(states.HealthBad("sick"))
            await service.until(lambda: "GRUB environment" in caplog.text)
            await service.until(service.runner._inbox.empty)
            assert not service.offers.judged
            assert not service.runner.leaving

    with caplog.at_level(logging.WARNING):
        asyncio.run(scenario())
    assert "a bug in" not in caplog.text


def test_a_bootloader_that_never_tells(site: Any) -> None:
    """noop: there is no other group as far as anybody knows, and a sick system is let alone."""
    conf = site.root / "system.conf"
    conf.write_text(
        conf.read_text().replace(f"bootloader=grub\ngrubenv={site.root}/grubenv", "bootloader=noop")
    )

    async def scenario() -> None:
        async with site.running(config(site)) as service:
            await service.until(lambda: service.offers.judged)
            service.offers.judged = False
            service.runner.post(states.HealthBad("sick"))
            await service.until(lambda: service.offers.judged)
            with pytest.raises(Refused, match="no other group"):
                await service.agent.rollback()

    asyncio.run(scenario())


def test_a_rollback_that_cannot_be_written(site: Any) -> None:
    """The running version is as good as before, in every memory."""
    site.write_env(GOOD)

    async def install() -> None:
        async with site.running(config(site)) as service:
            await service.install(site.bundle())

    async def fails() -> None:
        async with site.running(config(site)) as service:
            await service.until(lambda: service.last == "confirmed")
            service.device.bootloader = Broken(service.device.bootloader)
            with pytest.raises(DeviceError, match="read-only"):
                await service.agent.rollback()
            await service.until(lambda: not service.store.quarantine())
            assert (service.runner.state, service.store.saved_state()) == (states.Idle(), states.Idle())
            assert service.agent.snapshot().state == "idle"
            assert not service.runner.leaving

    asyncio.run(install())
    site.boot("B")
    asyncio.run(fails())
    assert site.env()["B_OK"] == "1"


class Broken:
    """A `Bootloader` that can only be read."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    async def set_state(self, bootname: str, good: bool) -> None:
        raise DeviceError("the file system is read-only")
