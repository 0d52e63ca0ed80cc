"""Announcer, details, offers and choice, each by itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from pathlib import Path
from typing import Any, get_args

import pytest

from updated.api.port import Transaction
from updated.core import states
from updated.core.model import Offer, Outcome, Quarantined, Transfer
from updated.core.policy import PolicyFacts
from updated.core.source import Source
from updated.errors import SourceError
from updated.install.opened import OpenedBundle
from updated.readers.file import open_file
from updated.service.announce import Announcer
from updated.service.choice import Peek, choose
from updated.service.details import describe, outcome_of, transaction_of
from updated.service.facts import policy_facts
from updated.service.offers import Offers
from updated.service.setting import make_setting
from updated.service.watched import Pace
from updated.sources.folder import AutoinstallSource, FolderSource, look
from updated.store import Store

FOLDER, AUTOINSTALL = FolderSource.name, AutoinstallSource.name
U = states.Update("t-1", "folder", "/drop/x.raucb", "h1", "2.0.0", "rootfs.1", "Test")


def outcome(code: str) -> Outcome:
    return Outcome("t-1", FOLDER, "/x", "2.0.0", "h1", "rootfs.1", code, "", "")


# Details


@pytest.mark.parametrize("state", get_args(states.State))
def test_every_state_is_a_sentence(state: type) -> None:
    values = {
        "source": FOLDER,
        "back": states.Idle(),
        "update": U,
        "attempt": 2,
        "boot_id": "b",
        "asked": False,
    }
    fields = state.__dataclass_fields__  # type: ignore[attr-defined]
    text = describe(state(**{name: values[name] for name in fields}), "rootfs.0")
    assert text.endswith(".")
    assert text[0].isupper()
    assert ("2.0.0" in text) == ("update" in fields)


def test_what_is_told_of_an_update() -> None:
    assert describe(states.Idle(), "") == "Waiting."
    assert "(attempt 2)" in describe(states.Install(U, 2), "a")
    assert "attempt" not in describe(states.Install(U, 1), "a")
    assert transaction_of(U) == Transaction("t-1", FOLDER, "/drop/x.raucb", "Test", "2.0.0", "h1", "rootfs.1")
    line = outcome_of(U, "confirmed", "Good.")
    assert (line.transaction, line.code, line.text, line.target) == ("t-1", "confirmed", "Good.", "rootfs.1")


# Announcer


def test_the_snapshot_is_new_when_listeners_are_called() -> None:
    announcer = Announcer()
    seen = []

    class Ear:
        def __getattr__(self, name: str) -> Any:
            return lambda *args: seen.append((name, args, announcer.snapshot))

    ear: Any = Ear()
    announcer.subscribe(ear)
    announcer.operation("installing")
    announcer.step(40, "Copying", 3)
    announcer.last_error("no")
    announcer.state("install", "Installing.")
    announcer.state("install", "Installing.")  # nothing new
    announcer.bytes_moved(1, 4)
    announcer.completed(1)
    assert [name for name, _, _ in seen] == [
        "operation",
        "step",
        "last_error",
        "state",
        "transfer",
        "completed",
    ]
    assert seen[0][2].operation == "installing"
    assert seen[1][2].progress == (40, "Copying", 3)
    assert seen[2][2].last_error == "no"
    assert seen[3][2].state == "install"
    assert seen[4][2].transfer == seen[4][1][0]
    announcer.bytes_over()
    assert announcer.snapshot.transfer is None
    announcer.unsubscribe(ear)
    announcer.operation("idle")
    assert len(seen) == 6


def test_a_listener_may_leave_while_it_is_called() -> None:
    announcer = Announcer()
    heard = []

    class Ear:
        def __init__(self, name: str) -> None:
            self.name = name

        def __getattr__(self, _: str) -> Any:
            return self.call

        def call(self, *_: object) -> None:
            heard.append(self.name)
            announcer.unsubscribe(self)

    for name in "abc":
        announcer.subscribe(Ear(name))
    announcer.operation("installing")
    announcer.operation("idle")
    assert heard == ["a", "b", "c"]


def test_rate_and_rest() -> None:
    """Bytes per second, unknown at first; the next install does not inherit it."""
    announcer = Announcer()

    def moved(done: int) -> Transfer:
        announcer.bytes_moved(done, 1000)
        assert announcer.snapshot.transfer is not None
        return announcer.snapshot.transfer

    assert moved(0) == Transfer(0, 1000, 0.0, -1.0)
    time.sleep(0.11)
    first = moved(100)
    assert 300 < first.rate <= 100 / 0.11
    assert first.eta == pytest.approx(900 / first.rate)
    time.sleep(0.11)
    assert 0 < moved(100).rate < first.rate  # it stands still: slower, but not forgotten
    assert moved(200).rate == moved(200).rate  # too soon to say
    announcer.bytes_over()
    assert moved(0).rate == 0


# Offers


async def facts(site: Any) -> tuple[Peek, PolicyFacts]:
    device = await site.device()
    store = Store(site.root / "data", lambda _: None)
    setting = await make_setting(device, site.config(), site.gate(site.config()), site.root / "data")

    async def peek(offer: Offer) -> OpenedBundle:
        return await setting.bundles.peek(offer, Pace(lambda: None))

    return peek, policy_facts(device, store, site.config(), automatic=True)


def offers_of(
    site: Any, *, after: str = "keep", move_to: Path | None = None, autoinstall: Path | None = None
) -> Offers:
    sources: list[Source] = [FolderSource(site.root / "drop", after=after, move_to=move_to)]
    if autoinstall is not None:
        sources.append(AutoinstallSource(autoinstall))
    offers = Offers(sources)
    offers.judged = True
    return offers


async def begin(offers: Offers, source: str, policy: PolicyFacts, peek: Peek) -> Offer | None:
    """What an attempt would be made of, which has begun then."""
    chosen = await offers.choose(source, policy, peek)
    return await offers.started(source, chosen) if chosen else None


def test_the_quarantine_and_the_floor_reach_the_policy(site: Any) -> None:
    async def scenario() -> None:
        device = await site.device()
        store = Store(site.root / "data", lambda _: None)
        store.reject(Quarantined("h9", "9", "sick", "", ""))
        store.raise_floor("3.0.0")
        store.record(outcome("confirmed"))
        none = policy_facts(device, store, site.config(), automatic=True)
        floor = site.config(more='[policy]\nversion-floor = "confirmed"\n')
        confirmed = policy_facts(device, store, floor, automatic=False)
        assert (none.floor, none.automatic, dict(none.quarantine)) == ("", True, {"h9": "sick"})
        assert (confirmed.floor, confirmed.automatic) == ("3.0.0", False)
        assert none.confirmed == {"h1"}

    asyncio.run(scenario())


def test_the_best_is_chosen_and_the_rest_is_not_looked_at_again(site: Any) -> None:
    async def scenario() -> None:
        for version in ("2.0.0", "3.0.0"):
            site.bundle(version).rename(site.root / f"drop/{version}.raucb")
        site.bundle("foreign", compatible="Another").rename(site.root / "drop/a.raucb")
        (site.root / "drop/torn.raucb").write_bytes((site.root / "drop/2.0.0.raucb").read_bytes()[5:])
        peek, policy = await facts(site)
        offers = offers_of(site)
        assert await offers.waiting() == FOLDER
        offer = await begin(offers, FOLDER, policy, peek)
        assert offer == Offer(FOLDER, str(site.root / "drop/3.0.0.raucb"))
        await offers.ended(offer, outcome("failed"), retry_after=None)
        offer = await begin(offers, FOLDER, policy, peek)
        assert offer is None or offer.location.endswith("2.0.0.raucb")
        while offer is not None:
            await offers.ended(offer, outcome("failed"), retry_after=None)
            offer = await begin(offers, FOLDER, policy, peek)
        assert await offers.waiting() == ""
        # Another file, or other rules: looked at again.
        os.utime(site.root / "drop/2.0.0.raucb")
        assert await offers.waiting() == FOLDER
        offers.forget()
        assert await offers.waiting() == FOLDER

    asyncio.run(scenario())


def test_nothing_before_the_system_is_judged(site: Any) -> None:
    async def scenario() -> None:
        site.bundle().rename(site.root / "drop/x.raucb")
        offers = offers_of(site)
        offers.judged = False
        assert await offers.waiting() == ""

    asyncio.run(scenario())


def test_a_fault_that_may_pass_is_tried_again(site: Any) -> None:
    async def scenario() -> None:
        path = site.bundle().rename(site.root / "drop/x.raucb")
        peek, policy = await facts(site)
        offers = offers_of(site, after="delete")
        offer = await begin(offers, FOLDER, policy, peek)
        assert offer is not None
        await offers.ended(offer, outcome("failed"), retry_after=0.05)
        assert await offers.waiting() == ""
        await asyncio.sleep(0.06)
        assert await offers.waiting() == FOLDER
        assert look(path) is not None

    asyncio.run(scenario())


@pytest.mark.parametrize("after", ["delete", "move"])
def test_a_file_that_took_the_place_of_the_tried_one_is_not_touched(site: Any, after: str) -> None:
    """Copied while the old one was being installed: it is tried in its turn."""

    async def scenario() -> None:
        path = site.bundle("2.0.0").rename(site.root / "drop/x.raucb")
        peek, policy = await facts(site)
        offers = offers_of(site, after=after, move_to=site.root / "done")
        offer = await begin(offers, FOLDER, policy, peek)
        assert offer is not None
        site.bundle("3.0.0").rename(path)
        await offers.ended(offer, outcome("installed"), retry_after=None)
        assert path.exists()
        assert await offers.waiting() == FOLDER

    asyncio.run(scenario())


def test_a_request_touches_no_file_of_the_folder(site: Any) -> None:
    async def scenario() -> None:
        path = site.bundle().rename(site.root / "drop/x.raucb")
        offers = offers_of(site, after="delete")
        await offers.ended(Offer("request", str(path)), outcome("installed"), retry_after=None)
        assert path.exists()
        assert await offers.waiting() == FOLDER

    asyncio.run(scenario())


def test_what_cannot_be_tidied_is_said(site: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        site.bundle().rename(site.root / "drop/x.raucb")
        (site.root / "file").touch()
        peek, policy = await facts(site)
        offers = offers_of(site, after="move", move_to=site.root / "file/done")
        offer = await begin(offers, FOLDER, policy, peek)
        assert offer is not None
        await offers.ended(offer, outcome("installed"), retry_after=None)
        assert await offers.waiting() == ""

    asyncio.run(scenario())
    assert "cannot move" in caplog.text


def test_names_that_are_gone_are_forgotten(site: Any) -> None:
    async def scenario() -> None:
        bundle = site.bundle("foreign", compatible="Another")
        peek, policy = await facts(site)
        offers = offers_of(site)
        for number in range(5):
            shutil.copy(bundle, site.root / f"drop/{number}.raucb")
            assert await begin(offers, FOLDER, policy, peek) is None
            (site.root / f"drop/{number}.raucb").unlink()
        assert await offers.waiting() == ""
        assert not offers.put_off

    asyncio.run(scenario())


def test_autoinstall(site: Any) -> None:
    async def scenario() -> None:
        path = site.bundle()
        peek, policy = await facts(site)
        offers = offers_of(site, after="delete", autoinstall=path)
        assert await offers.waiting() == AUTOINSTALL
        offer = await begin(offers, AUTOINSTALL, policy, peek)
        assert offer == Offer(AUTOINSTALL, str(path))
        await offers.ended(offer, outcome("installed"), retry_after=None)
        assert path.exists()  # `after` is the folder's
        assert await offers.waiting() == ""

    asyncio.run(scenario())


def test_choosing_is_a_sign_of_life(site: Any) -> None:
    """A hundred bundles on a slow card must not look like a stuck service."""

    async def scenario() -> None:
        path = site.bundle()
        _, policy = await facts(site)
        found = look(path)
        assert found is not None
        moved = []
        setting = await make_setting(
            await site.device(), site.config(), site.gate(site.config()), site.root / "data"
        )
        pace = Pace(lambda: moved.append(1))
        chosen, refused = await choose(
            FOLDER, [found], policy, lambda offer: setting.bundles.peek(offer, pace)
        )
        assert chosen is not None
        assert (chosen.item, refused) == (found, [])
        assert moved

    asyncio.run(scenario())


def test_a_file_that_vanishes_while_it_is_chosen(site: Any) -> None:
    async def scenario() -> None:
        path = site.bundle()
        peek, policy = await facts(site)
        found = look(path)
        assert found is not None
        path.unlink()
        chosen, refused = await choose(FOLDER, [found], policy, peek)
        assert chosen is None
        assert "No such file" in refused[0].reason
        assert refused[0].passing

    asyncio.run(scenario())


# Opening, cancelled


def test_an_opening_that_is_cancelled_leaves_no_file_open(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x")

    def fds() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    async def scenario() -> None:
        await (await open_file(str(tmp_path / "x"))).close()
        before = fds()
        for ticks in range(12):
            task = asyncio.create_task(open_file(str(tmp_path / "x")))
            for _ in range(ticks % 4):
                await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await (await task).close()
        missing = asyncio.create_task(open_file("/nowhere"))
        await asyncio.sleep(0)
        missing.cancel()
        with pytest.raises((asyncio.CancelledError, SourceError)):
            await missing
        await asyncio.sleep(0.1)
        assert fds() <= before

    asyncio.run(scenario())
