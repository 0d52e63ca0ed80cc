"""A whole life on one event loop that nothing blocks: offer, install, rollback or confirmation, reload."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from blockbuster import BlockBusterFunction, BlockingError, blockbuster_ctx

from updated.core import states
from updated.core.model import Offer
from updated.host.systemd import Notifier
from updated.service.setting import make_setting
from updated.sources.folder import look

ALSO = ("open", "pread", "pwrite", "fsync", "fdatasync", "fchmod", "lseek", "posix_fadvise", "statvfs")
"""What the guard does not know by itself, but what may wait for a medium."""


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Nothing that `updated` does in an event loop may block."""
    with blockbuster_ctx("updated"), contextlib.ExitStack() as stack:
        for name in ALSO:
            function = BlockBusterFunction(os, name, scanned_modules="updated")
            function.activate()
            stack.callback(function.deactivate)
        yield


@pytest.fixture
def notifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Notifier]:
    """With a systemd that does not read."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        notifier = Notifier()
        yield notifier
        notifier.close()


@pytest.mark.parametrize("after", ["keep", "delete", "move"])
def test_from_the_folder_to_the_next_boot(
    site: Any, after: str, notifier: Notifier, caplog: pytest.LogCaptureFixture
) -> None:
    bundle, second = site.bundle("2.0.0"), site.bundle("3.0.0")
    settings = f'after = "{after}"' + (f'\nmove-to = "{site.root}/done"' if after == "move" else "")
    config = site.config(settings)

    async def first_boot() -> None:
        async with site.running(config) as service:
            watching = asyncio.create_task(service.sources[0].watch(service.runner.look))
            await service.until(lambda: service.offers.judged)
            await asyncio.to_thread(shutil.copy, bundle, site.root / "drop")
            await service.until(lambda: service.last == "installed")
            await service.runner.rest()
            notifier.status("installed")
            notifier.watchdog()
            assert isinstance(service.runner.state, states.RebootPending)
            with pytest.raises(BlockingError):
                look(bundle)  # the guard is awake
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def second_boot() -> None:
        async with site.running(config) as service:
            await service.until(lambda: service.last == "confirmed")
            with pytest.raises(Exception, match="No such file"):
                await service.agent.inspect("/nowhere.raucb")
            assert (await service.agent.inspect(str(second))).version == "3.0.0"
            await service.agent.slots()
            await service.install("/nowhere.raucb")
            assert service.last == "failed"
            service.runner.request(Offer("request", str(second)))
            await service.until(lambda: isinstance(service.runner.state, states.Install))
            await service.agent.cancel()
            await service.install(second)
            assert await service.agent.rollback() == "rootfs.1"
            device = await site.device()
            await service.until(lambda: not service.runner.busy)  # it looks into the folder again
            await service.agent.mark("good", "booted")
            await service.until(lambda: not service.runner.busy)
            service.runner.reconfigure(
                await make_setting(device, config, service.runner.gate, site.root / "data")
            )

    with guarded():
        asyncio.run(first_boot())
        site.write_env({**site.env(), "B_TRY": "1"})
        site.boot("B")
        asyncio.run(second_boot())
    left = {path.name for path in (site.root / "drop").iterdir()}
    assert left == ({"2.0.0.raucb"} if after == "keep" else set())
    assert (after == "move") == (site.root / "done/2.0.0.raucb").exists()
    assert "Blocking call" not in caplog.text  # nor caught by those who survive every error
