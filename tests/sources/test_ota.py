"""When a server is looked at, and what comes of it: time passes when told."""

# ruff: noqa: ASYNC110, ASYNC240 - conditions that nobody signals, and /proc

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import resource
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.ota import EPOCH, FakeClock, ScriptedFeed
from updated.api.port import Poller
from updated.bundle.manifest import Manifest
from updated.core.model import Expected, Outcome
from updated.core.polling import HIGHER, NO_CANDIDATE, FeedError, Finding, Seen
from updated.core.schedule import Timing, first_delay
from updated.core.source import Item, Source
from updated.document import Document
from updated.errors import SignatureError, SourceError, UpdatedError
from updated.sources.clock import BootClock
from updated.sources.ota import Identity, OtaSource
from updated.sources.ota_memory import MAX_URLS, OtaMemory

HOUR = 3600.0
OTA = Timing(6 * HOUR, 24 * HOUR)
RAUC = Timing(24 * HOUR, 96 * HOUR, linear=True)
ITEM = Item("https://cdn/2.raucb", ("2", "ab", 7), Expected("2", 7, "ab"))
UPDATE = Finding(ITEM, HIGHER, available=True)
NOTHING = Finding(None, NO_CANDIDATE)
DOWN = SourceError("no route")
OUTCOME = Outcome("t", "ota", ITEM.location, "2", "beef", "rootfs.1", "failed", "", "")


@dataclass
class Bench:
    """A source over restarts and reboots of its device."""

    folder: Path
    clock: FakeClock = field(default_factory=FakeClock)
    feed: ScriptedFeed = field(default_factory=lambda: ScriptedFeed([NOTHING]))
    timing: Timing = OTA
    boot: int = 1
    forbidden: str = ""
    inhibit_files: tuple[str, ...] = ()
    warnings: list[str] = field(default_factory=list)
    changes: int = 0
    told: list[tuple[int, str]] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[OtaSource]:
        """Until the service ends."""
        document = Document(self.folder / "ota.json", OtaMemory, OtaMemory(), self.warnings.append)
        source = OtaSource(
            self.feed,
            self.timing,
            document,
            Identity("machine", f"boot-{self.boot}"),
            self.clock,
            allowed=lambda: self.forbidden,
            inhibit_files=self.inhibit_files,
            jitter=lambda: 0.0,
        )
        poller: Poller = source
        poller.subscribe(lambda: self.told.append((source.next_poll(), source.status().summary)))
        watched: Source = source
        task = asyncio.create_task(watched.watch(self._changed))
        try:
            await self.until(lambda: source.next_poll() != 0)
            await self.quiet(source)
            yield source
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def _changed(self) -> None:
        self.changes += 1

    @property
    def looks(self) -> int:
        return len(self.feed.heard)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.001)

    async def quiet(self, source: OtaSource) -> None:
        """It waits for the clock, or for an answer, or for ever."""
        for _ in range(10):
            await asyncio.sleep(0)
        await self.until(lambda: self.clock.waited_for or self.feed.looking or source.next_poll() == 0)

    def reboot(self, *, off: float = 0.0, up: float = 10.0, wall: float | None = None) -> None:
        self.boot += 1
        wall = self.clock.time_of_day + off + up if wall is None else wall
        self.clock = FakeClock(up, wall)

    async def wait(self, source: OtaSource) -> float:
        """Seconds until the next look, to the hundredth."""
        await self.quiet(source)
        return round(source.next_poll() / 1e6 - self.clock.now, 2)

    async def pass_by(self, source: OtaSource, seconds: float) -> None:
        self.clock.pass_by(seconds)
        await self.quiet(source)

    async def next_look(self, source: OtaSource) -> None:
        before = self.looks
        self.clock.pass_by(max(0.0, await self.wait(source)) + 0.01)
        await self.until(lambda: self.looks > before)
        await self.quiet(source)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario)


async def nobody_knows(source: OtaSource) -> list[Item]:
    return list(await source.scan(lambda item: False))


def test_a_new_device_waits_a_part_of_the_interval_that_is_its_own(bench: Bench) -> None:
    async def scenario() -> None:
        async with bench.running() as source:
            wait = await bench.wait(source)
            assert 0.1 * OTA.interval <= wait <= 0.9 * OTA.interval
            await bench.pass_by(source, wait - 1)
            assert bench.looks == 0
            await bench.next_look(source)
            assert bench.looks == 1
            assert await bench.wait(source) == OTA.interval

    run(scenario())


def test_restarts_neither_look_at_once_nor_wait_anew(bench: Bench) -> None:
    async def scenario() -> None:
        async with bench.running() as source:
            due = source.next_poll()
        for _ in range(5):
            bench.clock.pass_by(300)
            async with bench.running() as source:
                assert source.next_poll() == due
        bench.clock.pass_by(100 * HOUR)
        async with bench.running() as source:
            assert await bench.wait(source) == 30
            assert bench.looks == 0

    run(scenario())


def test_a_service_that_dies_of_an_answer_does_not_ask_again_at_once(bench: Bench) -> None:
    async def scenario() -> None:
        bench.feed.open.clear()  # it is killed while it looks
        async with bench.running() as source:
            await bench.next_look(source)
        async with bench.running() as source:
            assert await bench.wait(source) == 60
            assert bench.looks == 1

    run(scenario())


def test_after_a_reboot_the_rest_of_the_wait(bench: Bench) -> None:
    async def scenario() -> None:
        async with bench.running() as source:
            await bench.next_look(source)
        bench.reboot(off=2 * HOUR, up=10)
        async with bench.running() as source:
            assert await bench.wait(source) == pytest.approx(4 * HOUR - 10)

    run(scenario())


def test_after_a_long_time_without_power_soon_but_not_at_once(bench: Bench) -> None:
    async def scenario() -> None:
        async with bench.running() as source:
            await bench.next_look(source)
        bench.reboot(off=1000 * HOUR)
        async with bench.running() as source:
            assert 30 <= await bench.wait(source) <= 600

    run(scenario())


def test_a_clock_that_is_set_after_the_start(bench: Bench) -> None:
    """No battery: 1970 until the network is there.  A device that runs an hour a day must look as well."""

    async def scenario() -> None:
        async with bench.running() as source:
            await bench.next_look(source)
        later = bench.clock.time_of_day + 23 * HOUR
        bench.reboot(wall=0.0)
        async with bench.running() as source:
            assert await bench.wait(source) > 600
            bench.clock.set(later)
            assert 30 <= await bench.wait(source) <= 600
            bench.clock.set(later - 50 * HOUR)
            assert await bench.wait(source) <= 600, "what was found out stays so"
            await bench.next_look(source)
            bench.clock.set(later)
            assert await bench.wait(source) == OTA.interval, "that is known exactly"

    run(scenario())


def test_time_that_is_set_changes_nothing_in_the_same_boot(bench: Bench) -> None:
    async def scenario() -> None:
        async with bench.running() as source:
            due = source.next_poll()
            for wall in (0.0, EPOCH + 1e8, EPOCH):
                bench.clock.set(wall)
                await bench.quiet(source)
                assert source.next_poll() == due

    run(scenario())


def test_poll_looks_in_30_seconds(bench: Bench) -> None:
    async def scenario() -> None:
        async with bench.running() as source:
            bench.told.clear()
            source.poll()
            assert bench.told == [(int((bench.clock.now + 30) * 1e6), "")], "told before it returns"
            await bench.pass_by(source, 20)
            source.poll()
            assert await bench.wait(source) == 10, "who asks again and again does not put it off"
            await bench.next_look(source)
            assert bench.looks == 1

    run(scenario())


def test_poll_right_after_a_look(bench: Bench) -> None:
    async def scenario() -> None:
        async with bench.running() as source:
            await bench.next_look(source)
            await bench.pass_by(source, 1)
            source.poll()
            assert await bench.wait(source) == 30

    run(scenario())


def test_poll_while_looking_looks_again(bench: Bench) -> None:
    async def scenario() -> None:
        async with bench.running() as source:
            bench.feed.open.clear()
            await bench.next_look(source)
            source.poll()
            bench.feed.open.set()
            assert await bench.wait(source) == 30
            await bench.next_look(source)
            assert await bench.wait(source) == OTA.interval

    run(scenario())


def test_poll_before_the_start(bench: Bench) -> None:
    async def scenario() -> None:
        document = Document(bench.folder / "x.json", OtaMemory, OtaMemory(), bench.warnings.append)
        identity = Identity("", "boot")
        source = OtaSource(bench.feed, OTA, document, identity, bench.clock, allowed=lambda: "")
        source.poll()
        assert source.next_poll() == 0
        task = asyncio.create_task(source.watch(lambda: None))
        await bench.until(lambda: source.next_poll() == int((bench.clock.now + 30) * 1e6))
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    run(scenario())


def test_errors_are_backed_off_from(bench: Bench) -> None:
    async def scenario() -> None:
        bench.feed.says = [DOWN]
        waits = []
        async with bench.running() as source:
            for _ in range(4):
                await bench.next_look(source)
                waits.append(await bench.wait(source))
            assert source.status().recent_errors == 4
            assert source.status().last_error == "no route"
        async with bench.running() as source:
            assert source.status().recent_errors == 4, "a restart does not forget"
            await bench.next_look(source)
            waits.append(await bench.wait(source))
            bench.feed.says = [NOTHING]
            await bench.next_look(source)
            assert (source.status().recent_errors, source.status().last_error) == (0, "")
            assert await bench.wait(source) == OTA.interval
        assert waits == [60, 120, 240, 480, 960]

    run(scenario())


def test_rauc_s_backoff(bench: Bench) -> None:
    async def scenario() -> None:
        bench.timing, bench.feed.says = RAUC, [DOWN]
        waits = []
        async with bench.running() as source:
            for _ in range(5):
                await bench.next_look(source)
                waits.append(await bench.wait(source) / HOUR)
        assert waits == [48, 72, 96, 96, 96]

    run(scenario())


@pytest.mark.parametrize(
    ("status", "retry_after", "wait"),
    [
        (503, None, 60),
        (503, 1000.0, 1000),
        (429, 1.0, 60),
        (503, 1e12, 24 * HOUR),
        (404, None, 6 * HOUR),
        (410, 7 * HOUR, 7 * HOUR),
    ],
)
def test_what_the_server_says(bench: Bench, status: int, retry_after: float | None, wait: float) -> None:
    async def scenario() -> None:
        bench.feed.says = [FeedError("no", status=status, retry_after=retry_after)]
        async with bench.running() as source:
            await bench.next_look(source)
            assert await bench.wait(source) == pytest.approx(wait)

    run(scenario())


def test_errors_of_readers_are_understood_by_their_attributes(bench: Bench) -> None:
    class ReaderError(SourceError):
        status = 503
        retry_after = 500

    class OddError(SourceError):
        status = "503"
        retry_after = "later"

    async def scenario() -> None:
        bench.feed.says = [ReaderError("busy"), OddError("odd")]
        async with bench.running() as source:
            await bench.next_look(source)
            assert await bench.wait(source) == 500
            await bench.next_look(source)
            assert await bench.wait(source) == 120

    run(scenario())


def test_what_is_found_is_offered(bench: Bench) -> None:
    async def scenario() -> None:
        bench.feed.says = [UPDATE]
        async with bench.running() as source:
            assert await nobody_knows(source) == []
            await bench.next_look(source)
            assert bench.changes == 1
            assert await nobody_knows(source) == [ITEM]
            assert await source.scan(lambda item: item == ITEM) == []
            assert not await source.gone(ITEM.location)
            assert await source.gone("https://cdn/1.raucb")
            assert source.status().update_available

    run(scenario())


@pytest.mark.parametrize("after", [NOTHING, DOWN, SignatureError("bad")])
def test_what_is_not_there_any_more_is_not_offered(bench: Bench, after: Finding | UpdatedError) -> None:
    async def scenario() -> None:
        bench.feed.says = [UPDATE, after]
        async with bench.running() as source:
            await bench.next_look(source)
            await bench.next_look(source)
            assert bench.changes == 2
            assert await nobody_knows(source) == []
            assert await source.gone(ITEM.location)
            assert not source.status().update_available

    run(scenario())


def test_what_was_tried_is_not_offered_again(bench: Bench) -> None:
    async def scenario() -> None:
        bench.feed.says = [UPDATE]
        async with bench.running() as source:
            await bench.next_look(source)
            await source.started(ITEM)
            await source.ended(ITEM, OUTCOME, again=False)
            assert source.status().attempted_hash == "beef"
            assert await bench.wait(source) == OTA.interval, "nothing is urgent"
            await bench.next_look(source)
            assert await nobody_knows(source) == []
            other = replace(ITEM, identity=("2", "cd", 7))
            bench.feed.says = [replace(UPDATE, item=other)]
            await bench.next_look(source)
            assert await nobody_knows(source) == [other]

    run(scenario())


def test_after_a_failure_that_may_pass_another_look(bench: Bench) -> None:
    async def scenario() -> None:
        bench.feed.says = [UPDATE]
        waits = []
        async with bench.running() as source:
            await bench.next_look(source)
            for _ in range(3):
                await bench.pass_by(source, 100)
                await source.started(ITEM)
                await source.ended(ITEM, OUTCOME, again=True)
                waits.append(await bench.wait(source))
                assert await nobody_knows(source) == [ITEM]
                await bench.next_look(source)
        assert waits == [60, 120, 240]

    run(scenario())


def test_rauc_looks_soon_after_each_install(bench: Bench) -> None:
    async def scenario() -> None:
        manifest = Manifest("Board", version="2", hash="cafe")
        bench.timing, bench.feed.says = RAUC, [replace(UPDATE, manifest=manifest)]
        async with bench.running() as source:
            await bench.next_look(source)
            await source.started(ITEM)
            assert source.status().attempted_hash == "cafe"
            await bench.pass_by(source, 600)
            await source.ended(ITEM, replace(OUTCOME, manifest_hash=""), again=False)
            assert await bench.wait(source) == 30
            assert source.status().attempted_hash == "cafe"

    run(scenario())


def test_not_while_something_forbids_it(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def scenario() -> None:
        bench.forbidden = "the running system is not confirmed yet"
        async with bench.running() as source:
            waits = []
            for _ in range(7):
                await bench.pass_by(source, await bench.wait(source) + 0.01)
                waits.append(await bench.wait(source))
            assert waits == [30, 60, 120, 240, 480, 600, 600]
            assert bench.looks == 0
            assert source.status().attempts == 0
            bench.forbidden = ""
            source.nudge()
            await bench.until(lambda: bench.looks == 1)
            source.nudge()
            assert await bench.wait(source) == OTA.interval, "nothing was put off"
        assert caplog.text.count("not confirmed yet") == 1

    run(scenario())


def test_not_while_a_file_is_there(bench: Bench, tmp_path: Path) -> None:
    async def scenario() -> None:
        busy = tmp_path / "busy"
        bench.inhibit_files = ("/nowhere", "\0", str(busy))
        busy.touch()
        async with bench.running() as source:
            await bench.pass_by(source, await bench.wait(source) + 0.01)
            assert (bench.looks, await bench.wait(source)) == (0, 30)
            busy.unlink()
            await bench.next_look(source)

    run(scenario())


def test_a_short_interval(bench: Bench) -> None:
    async def scenario() -> None:
        bench.timing, bench.feed.says = Timing(1.0, 2.0), [UPDATE]
        async with bench.running() as source:
            for _ in range(3):
                assert await bench.wait(source) == 30
                await bench.next_look(source)
            await bench.pass_by(source, 10)
            await source.ended(ITEM, OUTCOME, again=True)
            assert await bench.wait(source) == 20

    run(scenario())


def test_a_nudge_does_not_look_twice_within_30_seconds(bench: Bench) -> None:
    async def scenario() -> None:
        async with bench.running() as source:
            await bench.next_look(source)
            source.poll()
            await bench.pass_by(source, 15)
            bench.forbidden = "busy"
            await bench.pass_by(source, 15)
            bench.forbidden = ""
            assert await bench.wait(source) == 30
            source.nudge()
            await bench.until(lambda: bench.looks == 2)

    run(scenario())


def test_status_and_next_poll_are_told_together(bench: Bench) -> None:
    async def scenario() -> None:
        bench.feed.says = [UPDATE]
        async with bench.running() as source:
            bench.told.clear()
            await bench.next_look(source)
            at = int((bench.clock.now + OTA.interval) * 1e6)
            assert bench.told == [(at, HIGHER)]
            status = source.status()
            assert status.attempts == 1
            assert status.last_attempt == status.last_success == int(bench.clock.now * 1e6)

    run(scenario())


def test_before_a_reboot_nothing_is_planned(bench: Bench) -> None:
    async def scenario() -> None:
        async with bench.running() as source:
            source.stop()
            assert source.next_poll() == 0
            await bench.pass_by(source, 100 * HOUR)
            source.poll()
            await bench.pass_by(source, 100 * HOUR)
            assert bench.looks == 0

    run(scenario())


def test_stopped_while_looking(bench: Bench) -> None:
    async def scenario() -> None:
        async with bench.running() as source:
            bench.feed.open.clear()
            await bench.next_look(source)
            source.stop()
            bench.feed.open.set()
            await bench.quiet(source)
            assert (source.next_poll(), source.status().summary) == (0, NO_CANDIDATE)

    run(scenario())


def test_what_signed_indexes_proved_is_remembered(bench: Bench) -> None:
    async def scenario() -> None:
        seen = Seen(True, 7, 1000.0)
        bench.feed.says = [replace(NOTHING, seen=seen), DOWN, NOTHING]
        async with bench.running() as source:
            for _ in range(3):
                await bench.next_look(source)
        bench.reboot()
        async with bench.running() as source:
            await bench.next_look(source)
        heard = bench.feed.heard
        assert [memory.seen for memory in heard] == [Seen(), seen, seen, seen]
        lasts = [memory.last.seen if memory.last else "none" for memory in heard]
        assert lasts == ["none", seen, seen, "none"], "what was found is of this run"

    run(scenario())


def test_servers_are_remembered_one_by_one_and_not_for_ever(bench: Bench) -> None:
    async def scenario() -> None:
        for number in range(MAX_URLS + 3):
            bench.feed = ScriptedFeed([NOTHING], url=f"https://example.com/{number}")
            async with bench.running():
                pass
        urls = list(json.loads((bench.folder / "ota.json").read_text())["urls"])
        assert urls == [f"https://example.com/{number}" for number in range(3, MAX_URLS + 3)]

    run(scenario())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '{"urls": []}',
        '{"urls": {"https://example.com/manifest.json": {"plan": {"due": 1}}}}',
        '{"urls": {"https://example.com/manifest.json": {"errors": "many"}}}',
    ],
)
def test_a_broken_memory_is_set_aside(bench: Bench, text: str) -> None:
    async def scenario() -> None:
        (bench.folder / "ota.json").write_text(text)
        async with bench.running() as source:
            assert await bench.wait(source) >= first_delay(OTA, 0.0)
        assert len(bench.warnings) == 1
        assert (bench.folder / "ota.json.broken").read_text() == text

    run(scenario())


@pytest.mark.parametrize("due", [-1e300, 1e300, 0.0])
def test_a_memory_with_impossible_times(bench: Bench, due: float) -> None:
    plan = {"due": due, "boot_id": "boot-1", "made": -1e300, "wait": due}
    memory = {"urls": {bench.feed.url: {"plan": plan, "errors": 10**12}}}
    (bench.folder / "ota.json").write_text(json.dumps(memory))

    async def scenario() -> None:
        async with bench.running() as source:
            assert 30 <= await bench.wait(source) <= OTA.max_interval
            bench.feed.says = [DOWN]
            await bench.next_look(source)
            assert await bench.wait(source) == OTA.max_interval

    run(scenario())


def test_a_disk_that_takes_nothing(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    (bench.folder / "file").touch()
    bench.folder = bench.folder / "file"  # where a folder should be

    async def scenario() -> None:
        async with bench.running() as source:
            await bench.next_look(source)
            assert await bench.wait(source) == OTA.interval

    run(scenario())
    assert caplog.text.count("Failed to save") == 1


def test_a_server_that_is_gone_is_said_once(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """Until it says something else, or works again."""
    caplog.set_level(logging.INFO)

    async def scenario() -> None:
        bench.feed.says = [DOWN, DOWN, DOWN, SourceError("no answer"), NOTHING, NOTHING, DOWN]
        async with bench.running() as source:
            for _ in range(7):
                await bench.next_look(source)
            told = [line for line in caplog.messages if line.startswith("polling failed")]
            assert [line.partition(": ")[2] for line in told] == ["no route", "no answer", "no route"]
            assert caplog.text.count("polling works again: ") == 1

    run(scenario())


def test_alarms_and_reasons_are_said_once(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def scenario() -> None:
        stale = replace(NOTHING, alarms=("The index is stale",), reasons=("Version '2' is not for you",))
        bench.feed.says = [stale, DOWN, stale, NOTHING, stale]
        async with bench.running() as source:
            for _ in range(3):
                await bench.next_look(source)
            assert source.status().alarms == ("The index is stale",)
            assert caplog.text.count("The index is stale") == 1
            assert caplog.text.count("is not for you") == 1
            await bench.next_look(source)
            assert source.status().alarms == ()
            await bench.next_look(source)
            assert caplog.text.count("The index is stale") == 2

    run(scenario())


def test_sources_do_not_mind_what_becomes_of_others(bench: Bench) -> None:
    async def scenario() -> None:
        bench.feed.says = [UPDATE]
        async with bench.running() as source:
            await bench.next_look(source)
            await source.refused(ITEM, "quarantined")
            await source.settled()
            assert await nobody_knows(source) == [ITEM]
            assert source.name == "ota"

    run(scenario())


# The real clock ---------------------------------------------------------------


def test_the_clock_waits_until_then() -> None:
    async def scenario() -> None:
        clock = BootClock()
        due = clock.boottime() + 0.05
        await clock.until(due)
        assert clock.boottime() >= due
        await clock.until(due)
        assert abs(clock.wall().timestamp() - time.time()) < 5

    run(scenario())


def test_waits_leave_no_files_open() -> None:
    async def scenario() -> None:
        clock = BootClock()
        before = set(Path("/proc/self/fd").iterdir())
        task = asyncio.create_task(clock.until(clock.boottime() + 100))
        await asyncio.sleep(0.01)
        during = set(Path("/proc/self/fd").iterdir())
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert len(during) > len(before)
        assert set(Path("/proc/self/fd").iterdir()) == before

    run(scenario())


def test_without_files_the_clock_waits_all_the_same() -> None:
    async def scenario() -> None:
        clock = BootClock()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            due = clock.boottime() + 0.05
            await clock.until(due)
            assert clock.boottime() >= due
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    run(scenario())
