"""The runner under hostile orders: events at the wrong moment, cancellation everywhere, failing disks."""

from __future__ import annotations

import asyncio
import gc
import logging
import pathlib
import shutil
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest

from updated.core import states
from updated.core.model import Offer, Outcome
from updated.errors import DeviceError, Refused

U = states.Update("t", "request", "/x", "h", "9", "rootfs.1", "Test")
STRAY: list[states.Event] = [
    states.Offered("folder", by_request=False),
    states.CandidateChosen(),
    states.TailRead(),
    states.Verified(U, 1),
    states.Activated("b0"),
    states.Written(),
    states.RebootAllowed(),
    states.HealthGood("rootfs.0"),
    states.HealthBad("x"),
    states.Failed("x"),
    states.Condemned("x"),
    states.Cancelled(),
    states.NothingToFallBackTo(),
]


def test_every_event_is_tried() -> None:
    assert {type(event) for event in STRAY} | {states.RollbackWanted} == set(get_args(states.Event))


@pytest.mark.parametrize("event", STRAY, ids=lambda event: type(event).__name__)
def test_no_event_kills_it(site: Any, event: states.Event, caplog: pytest.LogCaptureFixture) -> None:
    """A bug in the field is logged and survived: the device still takes updates."""

    async def scenario() -> None:
        async with site.running() as service:
            await service.until(lambda: service.offers.judged)
            service.runner.post(event)
            await service.until(service.runner._inbox.empty)
            await service.runner.rest()
            await service.install(site.bundle())
            assert service.last == "installed"
            service.runner.post(event)
            await service.until(lambda: not service.runner.busy)
            assert service.runner.state == states.RebootPending(service.runner.state.update, "boot-1")

    with caplog.at_level(logging.ERROR):
        asyncio.run(scenario())


def test_an_illegal_event_is_logged_loudly(site: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with site.running() as service:
            with pytest.raises(Refused):
                await service.runner.deliver(states.TailRead())

    asyncio.run(scenario())
    assert "a bug in `updated`: the event is ignored" in caplog.text
    assert "TailRead cannot happen in Idle" in caplog.text


def test_an_install_that_loses_its_way_ends(site: Any) -> None:
    """The job's answer does not fit: the attempt fails, instead of being busy for ever."""

    async def scenario() -> None:
        async with site.running() as service:
            bundle = site.bundle()
            service.runner.request(Offer("request", str(bundle)))
            await service.until(
                lambda: isinstance(service.runner.state, states.Download | states.Verify | states.Install)
            )
            service.runner.state = states.Idle()
            async with asyncio.timeout(10):
                await service.runner.rest()
            assert service.ear.results() == [1]
            await service.install(bundle)
            assert service.ear.results() == [1, 0]

    asyncio.run(scenario())


def test_a_listener_that_fails_hurts_nobody(site: Any, caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def __getattr__(self, name: str) -> Callable[..., None]:
            def call(*_: object) -> None:
                raise RuntimeError("the bus is gone")

            return call

    async def scenario() -> None:
        async with site.running() as service:
            service.announcer._listeners.insert(0, Broken())
            await service.install(site.bundle())
            assert service.ear.results() == [0]

    asyncio.run(scenario())
    assert "a listener failed" in caplog.text


# Cancelling


def cancel_after(site: Any, ticks: int) -> tuple[list[object], str, str]:
    """Cancel after so many turns of the loop; (results, history, state)."""

    async def scenario() -> tuple[list[object], str, str]:
        async with site.running() as service:
            service.runner.request(Offer("request", str(site.root / "2.0.0.raucb")))
            for _ in range(ticks):
                await asyncio.sleep(0)
            if service.runner.busy:
                async with asyncio.timeout(10):
                    await service.agent.cancel()
            await service.runner.rest()
            assert not service.runner.busy
            return service.ear.results(), service.last, states.NAMES[type(service.runner.state)]

    return asyncio.run(scenario())


def test_cancelled_at_any_moment(site: Any) -> None:
    """What everybody is told, the history, the state and the bootloader agree."""
    site.bundle()
    seen = set()
    for ticks in [*range(30), *range(30, 400, 9), 100_000]:
        before = site.env()
        results, code, state = cancel_after(site, ticks)
        seen.add(code)
        if code == "installed":
            assert (results, state) == ([0], "reboot-pending")
            assert site.env()["ORDER"] == "B A"
        else:
            assert (results, code, state) == ([1], "cancelled", "idle")
            assert site.env()["ORDER"] == before["ORDER"]
        shutil.rmtree(site.root / "data")
        site.write_env({"ORDER": "A B", "A_OK": "1", "A_TRY": "0", "B_OK": "0", "B_TRY": "0"})
    assert seen == {"cancelled", "installed"}


def test_cancel_in_the_moment_of_the_switch(site: Any) -> None:
    """The primary is the only commit: who comes too late does not hear "cancelled"."""

    async def scenario() -> None:
        async with site.running() as service:
            service.runner.request(Offer("request", str(site.bundle())))
            await service.until(lambda: "Copying image to rootfs.1 done." in str(service.ear.heard))
            await service.agent.cancel()
            cancelled = service.last == "cancelled"
            assert (site.env()["ORDER"] == "A B") == cancelled
            assert service.ear.results() == [1 if cancelled else 0]

    asyncio.run(scenario())


def test_cancel_before_it_has_begun(site: Any) -> None:
    async def scenario() -> None:
        async with site.running() as service:
            service.runner.request(Offer("request", str(site.bundle())))
            async with asyncio.timeout(5):
                await service.agent.cancel()
            assert (service.last, service.ear.results()) == ("cancelled", [1])
            with pytest.raises(Refused, match="No installation is running"):
                await service.agent.cancel()

    asyncio.run(scenario())


def test_cancelled_with_a_full_disk(site: Any) -> None:
    """The attempts cannot be forgotten on disk: the runner lives, and everybody is told."""

    async def scenario() -> None:
        async with site.running() as service:
            service.runner.request(Offer("request", str(site.bundle())))
            await service.until(lambda: isinstance(service.runner.state, states.Install))
            with site.no_data_directory():
                await service.agent.cancel()
            assert service.ear.results() == [1]
            assert service.ear.heard[-1][0] in ("operation", "state")

    asyncio.run(scenario())


def test_stopped_at_any_moment_and_resumed(site: Any) -> None:
    """SIGTERM at some await: it ends in order, and the next start knows what to do."""
    site.bundle()
    for ticks in range(0, 120, 8):

        async def stop(ticks: int = ticks) -> None:
            async with site.running(resumed=False) as service:
                for _ in range(ticks):
                    await asyncio.sleep(0)
                if service.runner.resumed.is_set():
                    service.runner.request(Offer("request", str(site.root / "2.0.0.raucb")))
                    for _ in range(ticks):
                        await asyncio.sleep(0)

        async def start() -> None:
            async with site.running() as service:
                assert not service.runner.busy
                assert service.warnings == []

        asyncio.run(stop())
        asyncio.run(start())


def test_no_install_without_a_journal(site: Any) -> None:
    """What cannot be saved beforehand is not begun, and nobody hears that it is installed."""

    async def scenario() -> None:
        async with site.running() as service:
            (site.root / "data/journal.json/x").mkdir(parents=True)
            await service.install(site.bundle())
            assert (service.last, service.ear.results()) == ("failed", [1])
            assert "Failed to save" in service.announcer.snapshot.last_error
            assert (site.root / "b.img").read_bytes() == bytes(2 * 256 * 1024)
            assert site.env()["ORDER"] == "A B"

    asyncio.run(scenario())


# Sources


def test_a_request_while_a_source_looks(site: Any) -> None:
    """At any moment of the looking: either it gives way, or the person hears "busy"."""
    drop, other = site.bundle("3.0.0"), site.bundle("2.0.0")
    heard = set()
    for ticks in (*range(0, 60, 5), 100, 150):
        shutil.copy(drop, site.root / "drop")

        async def scenario(ticks: int = ticks) -> str:
            async with site.running() as service:
                await service.until(lambda: service.offers.judged)
                await service.until(lambda: service.runner.jobs._job is not None or service.last)
                for _ in range(ticks):
                    await asyncio.sleep(0)
                try:
                    await service.install(other)
                except Refused as error:
                    assert error.rule == "busy"
                    await service.runner.rest()
                    return "busy"
                newest = [o.version for o in service.store.history() if o.source == "request"]
                assert newest == ["2.0.0"]
                return "given way"

        heard.add(asyncio.run(scenario()))
        shutil.rmtree(site.root / "data")
        site.write_env({"ORDER": "A B", "A_OK": "1", "A_TRY": "0", "B_OK": "0", "B_TRY": "0"})
    assert "given way" in heard


def test_cancel_of_a_request_for_which_a_source_gives_way(site: Any) -> None:
    async def scenario() -> None:
        async with site.running() as service:
            await service.until(lambda: service.offers.judged)
            bundle = site.bundle()
            await service.runner.rest()
            service.runner.post(states.Offered("folder", by_request=False))
            for _ in range(3):
                await asyncio.sleep(0)
            assert isinstance(service.runner.state, states.Discover)
            service.runner.request(Offer("request", str(bundle)))
            async with asyncio.timeout(5):
                await service.agent.cancel()
            assert service.ear.results() == [1]
            assert site.env()["ORDER"] == "A B"

    asyncio.run(scenario())


def test_a_thousand_looks_are_two(site: Any) -> None:
    async def scenario() -> None:
        async with site.running() as service:
            await service.until(lambda: service.offers.judged and service.runner._looker._task is None)
            before = len(asyncio.all_tasks())
            for _ in range(1000):
                service.runner.look()
            assert len(asyncio.all_tasks()) == before + 1
            (site.root / "drop/late.raucb").write_bytes(site.bundle().read_bytes())
            service.runner.look()
            await service.until(lambda: service.last == "installed")

    asyncio.run(scenario())


# The way back


def installed_and_started(site: Any) -> None:
    async def scenario() -> None:
        async with site.running() as service:
            await service.install(site.bundle())
            assert service.last == "installed"

    asyncio.run(scenario())
    site.write_env({**site.env(), "B_TRY": "1"})
    site.boot("B")


def test_a_rollback_is_not_undone_by_a_restart(site: Any) -> None:
    """Nothing marks the group good again before the reboot, and nothing overwrites the other one."""
    installed_and_started(site)
    config = site.config(more="deadline = 60\n")
    shutil.copy(site.bundle("3.0.0"), site.root / "drop")

    history: list[Outcome] = []

    async def roll_back() -> None:
        async with site.running(config) as service:
            assert await service.agent.rollback() == "rootfs.0"
            assert site.env()["B_OK"] == "0"
            await asyncio.sleep(0.1)  # longer than the gate
            assert site.env()["B_OK"] == "0"
            history.extend(service.store.history())

    async def restart() -> None:
        async with site.running(config) as service:
            await asyncio.sleep(0.1)
            assert site.env()["B_OK"] == "0"
            with pytest.raises(Refused):
                service.runner.request(Offer("request", str(site.root / "3.0.0.raucb")))
            assert list(service.store.history()) == history

    asyncio.run(roll_back())
    asyncio.run(restart())
    assert site.env()["A_OK"] == "1"


def test_after_a_rollback_in_idle_nothing_is_installed(site: Any) -> None:
    """The other group is the only one left that starts."""
    site.write_env({"ORDER": "A B", "A_OK": "1", "A_TRY": "0", "B_OK": "1", "B_TRY": "0"})

    async def scenario() -> None:
        async with site.running() as service:
            await service.until(lambda: service.offers.judged)
            assert await service.agent.rollback() == "rootfs.1"
            shutil.copy(site.bundle(), site.root / "drop")
            service.runner.look()
            with pytest.raises(Refused, match="given up"):
                service.runner.request(Offer("request", str(site.root / "2.0.0.raucb")))
            await asyncio.sleep(0.05)
            assert service.store.history() == []
            assert site.env()["B_OK"] == "1"
            # Until a person changes his mind.
            await service.agent.mark("good", "booted")
            await service.until(lambda: service.last == "installed")

    asyncio.run(scenario())


def test_a_rollback_before_the_gate_has_spoken(site: Any) -> None:
    site.write_env({"ORDER": "A B", "A_OK": "1", "A_TRY": "1", "B_OK": "1", "B_TRY": "0"})

    async def scenario() -> None:
        async with site.running() as service:
            assert await service.agent.rollback() == "rootfs.1"
            await asyncio.sleep(0.1)
            assert site.env()["A_OK"] == "0"

    asyncio.run(scenario())


def test_a_verdict_that_comes_while_it_is_rolled_back(site: Any) -> None:
    """The gate has spoken, but a person was quicker."""
    site.write_env({"ORDER": "A B", "A_OK": "1", "A_TRY": "1", "B_OK": "1", "B_TRY": "0"})

    async def scenario() -> None:
        for ticks in range(40):
            site.write_env({"ORDER": "A B", "A_OK": "1", "A_TRY": "1", "B_OK": "1", "B_TRY": "0"})
            site.boot("A")
            async with site.running(site.config(more="deadline = 60\n")) as service:
                await asyncio.sleep(ticks / 2000)
                assert await service.agent.rollback() == "rootfs.1"
                await asyncio.sleep(0.03)
                assert site.env()["A_OK"] == "0"

    asyncio.run(scenario())


def test_a_rollback_in_the_moment_a_source_begins(site: Any) -> None:
    """Done, or refused; never forgotten, never fatal."""
    site.write_env({"ORDER": "A B", "A_OK": "1", "A_TRY": "0", "B_OK": "1", "B_TRY": "0"})

    async def scenario() -> None:
        async with site.running() as service:
            await service.until(lambda: service.offers.judged)
            await service.until(lambda: not service.runner._tasks)
            service.runner.post(states.Offered("folder", by_request=False))
            with pytest.raises(Refused) as caught:
                await service.runner.deliver(states.RollbackWanted(U, "boot-1"))
            assert caught.value.rule == "busy"
            await service.runner.rest()
            assert site.env()["A_OK"] == "1"
            assert await service.agent.rollback() == "rootfs.1"

    asyncio.run(scenario())


def test_a_sick_bootloader_is_told_to_who_asks(site: Any) -> None:
    async def scenario() -> None:
        async with site.running() as service:
            await service.until(lambda: service.offers.judged)
            (site.root / "grubenv").rename(site.root / "aside")
            (site.root / "grubenv").mkdir()
            with pytest.raises(DeviceError, match="GRUB environment"):
                await service.runner.deliver(states.HealthGood("rootfs.0"))
            (site.root / "grubenv").rmdir()
            (site.root / "aside").rename(site.root / "grubenv")
            await service.runner.deliver(states.HealthGood("rootfs.0"))

    asyncio.run(scenario())


# Starting, stuck, and for ever


def test_nobody_may_ask_before_it_has_resumed(site: Any) -> None:
    """A request between start and resume would be lost, and its caller would wait for ever."""
    installed_and_started(site)

    async def scenario() -> None:
        async with site.running(resumed=False) as service:
            with pytest.raises(Refused):
                service.runner.request(Offer("request", "/x"))
            assert not service.runner.busy
            await service.until(service.runner.resumed.is_set)

    asyncio.run(scenario())


def test_stuck_only_while_busy(site: Any) -> None:
    config = site.config(more="[install]\nstall-timeout = 1\n")

    async def scenario() -> None:
        async with site.running(config) as service:
            service.announcer.moved_at -= 1000
            assert service.runner.shown.stuck() == ""  # idle is no fault
            service.runner.request(Offer("request", str(site.bundle())))
            assert service.runner.shown.stuck() == ""
            service.announcer.moved_at -= 1000
            assert service.runner.shown.stuck().startswith("nothing moved for 1000 s in state")
            await service.runner.rest()
            service.announcer.moved_at -= 1000
            assert service.runner.shown.stuck() == ""  # waiting for a reboot is none either

    asyncio.run(scenario())


def test_a_bug_in_an_effect_is_survived(site: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Not only our own errors."""

    async def scenario() -> None:
        async with site.running() as service:
            await service.until(lambda: service.offers.judged)
            kept = service.runner.setting
            service.runner.setting = replace(kept, config=None)  # who reads it gets an AttributeError
            service.runner.state = states.Install(U, 1)
            service.runner.post(states.Activated("boot-1"))
            await service.until(lambda: isinstance(service.runner.state, states.RebootPending))
            await service.runner.rest()
            service.runner.setting = kept
            await service.install(site.bundle())
            assert service.last == "installed"

    asyncio.run(scenario())
    assert "AttributeError" in caplog.text


def fds() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_failing_attempts_leave_nothing_behind(site: Any) -> None:
    bad = site.bundle("bad", compatible="Another")
    torn = site.root / "torn.raucb"
    torn.write_bytes(bad.read_bytes()[:-1])
    good = site.bundle("good")
    corrupt = site.root / "corrupt.raucb"
    data = bytearray(good.read_bytes())
    data[200] ^= 1
    corrupt.write_bytes(data)
    bundles = [bad, torn, corrupt, site.root / "missing.raucb", site.root]

    async def scenario() -> None:
        async with site.running() as service:
            service.ear.quiet = True
            for bundle in bundles:
                await service.install(bundle)
            gc.collect()
            before = fds()
            for round_ in range(50):
                await service.install(bundles[round_ % len(bundles)])
            await service.until(lambda: fds() <= before, "closed files")
            assert set(service.ear.results()) == {1}
            assert len(service.ear.results()) == 55

    asyncio.run(scenario())


# pathlib interns names: the interpreter's table of them doubles now and then, whoever adds the next one.
NOT_OURS = [
    tracemalloc.Filter(inclusive=False, filename_pattern=str(module.__file__))
    for module in (tracemalloc, pathlib)
]


def test_memory_does_not_grow(site: Any) -> None:
    bad = site.bundle("bad", compatible="Another")

    async def attempts(service: Any, count: int) -> None:
        for _ in range(count):
            await service.install(bad)
            service.ear.heard.clear()

    logging.disable()  # pytest keeps every record

    async def scenario() -> None:
        async with site.running() as service:
            service.ear.quiet = True
            tracemalloc.start()
            await attempts(service, 20)
            line = service.store.history(1)[0]
            for number in range(200):  # full: from here on it forgets as much as it remembers
                service.store.record(
                    replace(line, transaction=f"{number:036}", text=f"{number:0{len(line.text)}}")
                )
            gc.collect()
            before = tracemalloc.take_snapshot().filter_traces(NOT_OURS)
            await attempts(service, 160)
            gc.collect()
            after = tracemalloc.take_snapshot().filter_traces(NOT_OURS)
            tracemalloc.stop()
            growth = after.compare_to(before, "filename")
            grown = sum(line.size_diff for line in growth)
            assert grown < 200_000, [str(line) for line in growth[:10]]
            assert len(service.runner._tasks) <= 1
            assert len(service.offers._put_off) == 0

    try:
        asyncio.run(scenario())
    finally:
        logging.disable(logging.NOTSET)
