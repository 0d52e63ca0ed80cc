"""Why something happened is kept and told; what may pass is tried again; what a person says stands."""

from __future__ import annotations

import asyncio
import shutil
import time
from typing import Any

import pytest

from updated.config.agent_toml import parse_agent_config
from updated.core import states
from updated.core.states import Update
from updated.health.gate import Gate
from updated.health.watchdog import Watchdog

UPDATE = Update("t-1", "folder", "/x.raucb", "h-new", "2.0.0", "rootfs.1")


def installed_and_started(site: Any, *, in_group: str) -> None:
    """The journal of an update that was installed to B, and the device started from `in_group`."""
    from updated.store import Store

    Store(site.root / "data", print).save_state(states.RebootPending(UPDATE, "boot-of-the-install"))
    site.write_env({"ORDER": "B A", "A_OK": "1", "A_TRY": "0", "B_OK": "1", "B_TRY": "0"})
    site.boot(in_group)


def test_a_fallback_after_a_failed_gate_tells_the_cause(site: Any) -> None:
    installed_and_started(site, in_group="B")
    config = site.config(more="deadline = 1\n")

    async def sick() -> None:
        async with site.running(config) as service:
            service.runner.post(states.HealthBad("the application does not answer"))
            await service.until(lambda: site.env()["B_OK"] == "0")

    async def back_again() -> None:
        async with site.running(config) as service:
            await service.until(lambda: service.last == "fallback")
            (line,) = service.store.history(1)
            assert line.text == (
                "The bootloader fell back to rootfs.0. Cause: the application does not answer."
            )
            assert service.store.quarantine()["h-new"].reason == "the application does not answer"

    asyncio.run(sick())
    site.boot("A")
    asyncio.run(back_again())


def test_a_fallback_without_a_word_from_the_new_system(site: Any) -> None:
    installed_and_started(site, in_group="A")

    async def scenario() -> None:
        async with site.running() as service:
            await service.until(lambda: service.last == "fallback")
            text = "The bootloader fell back to rootfs.0. It never came as far as the update service."
            assert service.store.history(1)[0].text == text
            assert service.store.quarantine()["h-new"].reason == states.FELL_BACK

    asyncio.run(scenario())


@pytest.mark.parametrize("cmdline", ["rauc.external\n", "root=/dev/disk/by-label/not-yet\n"])
def test_a_start_from_elsewhere_says_nothing_of_the_new_system(site: Any, cmdline: str) -> None:
    installed_and_started(site, in_group="A")
    (site.root / "cmdline").write_text(cmdline)

    async def scenario() -> None:
        async with site.running() as service:
            await service.until(lambda: service.offers.judged)
            assert service.runner.state == states.RebootPending(UPDATE, "boot-of-the-install")
            assert not service.store.quarantine()

    asyncio.run(scenario())


def test_a_quarantined_bundle_that_a_person_installs_is_on_trial_anew(site: Any) -> None:
    bundle = site.bundle()

    async def scenario() -> None:
        async with site.running() as service:
            await service.install(bundle)
            pending = service.runner.state
            assert isinstance(pending, states.RebootPending)
            await service.agent.rollback()
            await service.until(lambda: pending.update.manifest_hash in service.store.quarantine())
            await service.install(bundle)
            assert service.last == "installed"
            assert not service.store.quarantine()

    asyncio.run(scenario())


def test_marked_bad_by_hand_stays_bad_until_the_reboot(site: Any) -> None:
    site.write_env({"ORDER": "A B", "A_OK": "1", "A_TRY": "1", "B_OK": "1", "B_TRY": "0"})
    config = site.config(more="deadline = 60\n")

    async def scenario() -> None:
        async with site.running(config) as service:
            await service.agent.mark("bad", "booted")
            await asyncio.sleep(0.1)  # longer than the gate
            assert site.env()["A_OK"] == "0"

    asyncio.run(scenario())


def test_a_slot_that_is_busy_for_a_while(site: Any) -> None:
    """A device that is not there when the bundle comes is a fault that may pass: another look is due."""
    (site.root / "b.img").rename(site.root / "away")

    async def scenario() -> None:
        async with site.running() as service:
            shutil.copy(site.bundle(), site.root / "drop")
            await service.until(lambda: service.offers.judged)
            service.runner.look()
            await service.until(lambda: service.last == "failed")
            due = service.offers.due()
            assert due is not None
            assert 0 < due <= 600
            (site.root / "away").rename(site.root / "b.img")
            service.offers.forget()  # as if the time had come
            service.runner.look()
            await service.until(lambda: service.last == "installed")

    asyncio.run(scenario())


def test_a_bundle_that_is_refused_for_good_wakes_nobody(site: Any) -> None:
    async def scenario() -> None:
        async with site.running() as service:
            shutil.copy(site.bundle(compatible="Another"), site.root / "drop")
            await service.until(lambda: service.offers.judged)
            service.runner.look()
            await service.until(lambda: service.offers._put_off)
            assert service.offers.due() is None

    asyncio.run(scenario())


def test_not_activated_is_not_a_fallback(site: Any) -> None:
    """activate-installed=false: somebody else makes it primary, and nobody is to blame until then."""
    conf = site.root / "system.conf"
    conf.write_text(conf.read_text().replace("[system]\n", "[system]\nactivate-installed=false\n"))
    shutil.copy(site.bundle(), site.root / "drop")

    async def install() -> None:
        async with site.running() as service:
            await service.until(service.ear.results)
            assert service.store.history(1)[0].text.endswith("not made primary, as system.conf wants it.")
            assert service.ear.results() == [0]
            assert isinstance(service.runner.state, states.Idle)
            assert site.env()["ORDER"].startswith("A")
            assert site.env()["B_OK"] == "0"

    async def start_again() -> None:
        async with site.running() as service:
            await service.until(lambda: service.offers.judged)
            service.runner.look()
            await service.until(lambda: service.offers._put_off)
            assert len(service.store.history()) == 1  # neither a fallback nor the same install again
            assert not service.store.quarantine()

    asyncio.run(install())
    site.boot("A")
    asyncio.run(start_again())


def reboots(site: Any, stable_for: float) -> Any:
    text = f"""
        [confirm]
        stable-for = {stable_for}
        [reboot]
        when = "immediately"
        command = ["touch", "{site.root}/rebooted"]
    """
    return parse_agent_config(text.encode())


def test_the_reboot_waits_until_the_running_system_is_judged(site: Any) -> None:
    """Unconfirmed, it might be no way back."""
    bundle = site.bundle()

    async def scenario() -> None:
        async with site.running(reboots(site, 1)) as service:
            await service.install(bundle)
            assert service.last == "installed"
            assert "not confirmed yet" in service.agent.snapshot().detail
            assert not (site.root / "rebooted").exists()
            assert not service.offers.judged
            await service.until((site.root / "rebooted").exists)
            assert service.offers.judged

    asyncio.run(scenario())


def test_a_rescue_system_does_not_reboot_by_itself(site: Any) -> None:
    installed_and_started(site, in_group="A")
    (site.root / "cmdline").write_text("rauc.external\n")

    async def scenario() -> None:
        async with site.running(reboots(site, 0.02)) as service:
            await service.until(lambda: service.offers.judged)
            assert isinstance(service.runner.state, states.RebootPending)
            service.runner.reconsider()
            await asyncio.sleep(0.05)
            assert not (site.root / "rebooted").exists()

    asyncio.run(scenario())


@pytest.mark.parametrize("source", ["request", "folder"])
def test_a_sick_bootloader_is_not_the_bundle_s_fault(site: Any, source: str) -> None:
    bundle = site.bundle()

    async def scenario() -> None:
        async with site.running() as service:
            await service.until(lambda: service.offers.judged)
            good = (site.root / "grubenv").read_bytes()
            (site.root / "grubenv").write_bytes(b"torn")
            for _ in range(4):
                await service.install(bundle, source)
                assert service.last == "failed"
            assert not service.store.quarantine()
            (site.root / "grubenv").write_bytes(good)
            await service.install(bundle, source)
            assert service.last == "installed"

    asyncio.run(scenario())


def test_a_data_directory_that_was_removed_is_made_again(site: Any) -> None:
    bundle = site.bundle()

    async def scenario() -> None:
        async with site.running() as service:
            shutil.rmtree(site.root / "data")
            await service.install(bundle)
            assert service.last == "installed"

    asyncio.run(scenario())


def test_while_it_is_judged_the_pings_are_there_to_be_seen() -> None:
    async def scenario() -> None:
        pings: list[float] = []
        watchdog = Watchdog(None, lambda: pings.append(0))
        gate = Gate(watchdog, (), stable_for=0.2, deadline=10, began=time.monotonic())
        assert (await gate.judge()).good
        assert len(pings) >= 3

    asyncio.run(scenario())


def test_an_attempt_that_cannot_be_counted_is_not_made(site: Any) -> None:
    """Or a source that nobody watches would wear the medium out."""
    (site.root / "data/attempts.json/folder").mkdir(parents=True)
    before = (site.root / "b.img").read_bytes()

    async def scenario() -> None:
        async with site.running() as service:
            shutil.copy(site.bundle(), site.root / "drop")
            await service.until(lambda: service.offers.judged)
            (site.root / "data/attempts.json/folder").mkdir(parents=True, exist_ok=True)
            service.runner.look()
            await service.until(lambda: service.last == "failed")
            assert "directory" in service.store.history(1)[0].text

    asyncio.run(scenario())
    assert (site.root / "b.img").read_bytes() == before
