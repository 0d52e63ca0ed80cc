"""SIGHUP at the wrong moment."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from updated.core import states
from updated.core.model import Offer
from updated.host.systemd import Notifier
from updated.service.journal import Events
from updated.service.main import Service
from updated.service.options import ServiceOptions


def options(site: Any) -> ServiceOptions:
    (site.root / "updated.toml").write_text(f'[folder]\npath = "{site.root}/drop"\n')
    return ServiceOptions(
        conf=site.root / "system.conf",
        agent_conf=site.root / "updated.toml",
        runtime_directory=site.root / "run",
        cmdline=site.root / "cmdline",
        boot_id=site.root / "boot-id",
    )


def service_on(site: Any, running: Any) -> Service:
    return Service(
        options(site), running.runner, running.agent, running.watchdog, Notifier({}), journal=Events()
    )


def test_a_request_while_the_configuration_is_read(site: Any) -> None:
    """The install goes on with the old device, and the new one is read after it."""
    bundle = site.bundle()

    async def scenario(ticks: int) -> None:
        async with site.running() as running:
            await running.until(lambda: running.offers.judged)
            reloading = asyncio.create_task(service_on(site, running)._reload_now())
            for _ in range(ticks):
                await asyncio.sleep(0)
            running.runner.request(Offer("request", str(bundle)))
            await reloading
            await running.runner.rest()
            assert running.last == "installed"
            assert isinstance(running.runner.state, states.RebootPending)
            assert running.runner.device is not running.device
            if not ticks:  # what the install wrote is known to the new device, too
                assert running.runner.device.status["rootfs.1"].status == "ok"

    for ticks in (0, 1, 5, 20, 60):
        asyncio.run(scenario(ticks))
        site.boot("A")
        site.write_env({"ORDER": "A B", "A_OK": "1", "A_TRY": "0", "B_OK": "0", "B_TRY": "0"})


def test_a_request_while_the_old_sources_are_let_go_of(site: Any) -> None:
    """Which may take a while; it is taken by the new device, and nothing breaks."""
    bundle = site.bundle()

    async def scenario() -> None:
        async with site.running() as running:
            await running.until(lambda: running.offers.judged)
            service = service_on(site, running)
            asked = asyncio.Event()

            async def source_that_takes_its_time() -> None:
                try:
                    await asyncio.Event().wait()
                finally:
                    running.runner.request(Offer("request", str(bundle)))
                    asked.set()

            service._watching = [asyncio.create_task(source_that_takes_its_time())]
            await asyncio.sleep(0)
            await service._reload_now()
            assert asked.is_set()
            await running.runner.rest()
            assert running.last == "installed"
            assert running.runner.device is not running.device

    asyncio.run(scenario())


def test_a_bad_configuration_changes_nothing(site: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with site.running() as running:
            await running.until(lambda: running.offers.judged)
            service = service_on(site, running)
            (site.root / "updated.toml").write_text("[nonsense]\n")
            await service._reload_now()
            assert running.runner.device is running.device
            (site.root / "updated.toml").write_text("[confirm]\nstable-for = 5\n")
            await service._reload_now()
            assert running.runner.device is not running.device
            assert running.runner.config.confirm.stable_for == 5

    asyncio.run(scenario())
    assert "not reloaded:" in caplog.text
