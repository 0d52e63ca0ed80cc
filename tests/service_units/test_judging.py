"""What is kept of a verdict, and from when on time is counted."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from typing import Any

import pytest

from updated.core import states
from updated.core.model import InstallArgs, Offer

SLOW = "deadline = 60\n"
NEVER = """
[[confirm.checks]]
type = "command"
name = "never"
command = ["sh", "-c", "test -e {root}/well"]
period = 0.1
"""


def installed_and_started(site: Any) -> None:
    async def scenario() -> None:
        async with site.running() as service:
            await service.install(site.bundle())

    asyncio.run(scenario())
    site.boot("B")


def never(site: Any, more: str = SLOW) -> Any:
    return site.config(more=more + NEVER.format(root=site.root))


def began(site: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((site.root / "judging.json").read_text())
    return found


@pytest.mark.parametrize(
    ("boot", "age", "kept"),
    [
        ("boot-1", 30.0, True),  # this boot
        ("boot-1", -30.0, False),  # of another clock
        ("boot-0", 30.0, False),  # another boot
    ],
)
def test_since_when(site: Any, boot: str, age: float, kept: bool) -> None:
    before = {"boot_id": boot, "monotonic": time.monotonic() - age}
    (site.root / "judging.json").write_text(json.dumps(before))

    async def scenario() -> None:
        async with site.running(never(site)) as service:
            await service.until(lambda: began(site)["boot_id"] == "boot-1")
            assert service.runner.judging.pending
            if not kept:
                await service.until(lambda: began(site) != before)

    asyncio.run(scenario())
    assert (began(site) == before) is kept
    assert began(site)["monotonic"] <= time.monotonic()


def test_where_nothing_can_be_written(site: Any) -> None:
    """Judged all the same."""
    (site.root / "judging.json").mkdir()
    (site.root / "judging.json.broken").mkdir()
    (site.root / "judging.json.broken/x").touch()

    async def scenario() -> None:
        async with site.running() as service:
            await service.until(lambda: service.offers.judged)

    asyncio.run(scenario())


def test_an_ordinary_boot_is_written_down_once(site: Any) -> None:
    """Flash is not worn by a device that is switched on every morning."""

    async def scenario() -> None:
        async with site.running(never(site)) as service:
            await service.until(lambda: service.agent.judgements()[0].checks)
            assert service.agent.judgements()[0].state == "judging"
            assert service.store.judgements() == []
            (site.root / "well").touch()
            await service.until(lambda: service.offers.judged)
            (kept,) = service.store.judgements()
            assert (kept.boot_id, kept.state, kept.text) == ("boot-1", "good", "Healthy for 0.02 s: never.")
            assert service.agent.judgements() == [kept]  # and not twice

    asyncio.run(scenario())


def test_a_trial_is_written_down_at_once(site: Any) -> None:
    """It may be the only thing that it ever says."""
    installed_and_started(site)

    async def scenario() -> None:
        async with site.running(never(site)) as service:
            await service.until(lambda: "rootfs.1" in [one.group for one in service.store.judgements()])
            (trial, *_) = service.store.judgements()
            assert (trial.state, trial.version) == ("judging", "2.0.0")

    asyncio.run(scenario())


def test_a_person_has_the_last_word(site: Any) -> None:
    installed_and_started(site)

    async def scenario() -> None:
        async with site.running(never(site)) as service:
            await service.until(lambda: isinstance(service.runner.state, states.Confirming))
            await service.agent.confirm()
            (trial, *_) = service.store.judgements()
            assert (trial.state, trial.text) == ("good", "A person said so.")
            assert not service.runner.judging.running
            assert service.last == "confirmed"

    asyncio.run(scenario())


def test_a_person_who_installs_does_not_wait(site: Any) -> None:
    """For a verdict on an ordinary boot; what nobody asked for does."""
    shutil.copy(site.bundle(), site.root / "drop")

    async def scenario() -> None:
        async with site.running(never(site)) as service:
            await asyncio.sleep(0.1)
            assert service.store.history() == []
            service.runner.request(Offer("request", str(site.bundle("3.0.0")), InstallArgs()))
            await service.runner.rest()
            assert service.last == "installed"
            assert "not confirmed yet" in service.agent.snapshot().detail

    asyncio.run(scenario())
