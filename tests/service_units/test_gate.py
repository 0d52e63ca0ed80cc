"""The gate: each rule, their order, and what is kept."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from updated.config.agent_tables import Consent, Policy, Window
from updated.core.gate import Hold, Inhibitor, Power, Subject
from updated.errors import Refused
from updated.host.timing import Clocks
from updated.service.gate import Gatekeeper, open_gate

EARLIEST = datetime(2026, 1, 1, tzinfo=UTC)
SUNDAY = datetime(2026, 7, 5, 17, 0, tzinfo=UTC)  # 19:00 in Berlin
MAINS = Power(mains=True)
ANYTHING = Policy()
NOBODY = Consent()
NIGHT = (Window(start="02:00", length=3600),)
OTA = Subject("ota", "1.3.0", "aa", remote=True)
STICK = Subject("usb", "1.3.0", "aa")
BY_HAND = Subject("request", "1.3.0", "aa", remote=True)


@dataclass
class Device:
    """`Conditions`, and a clock."""

    feed: Power = MAINS
    link: bool | None = None
    blockers: Sequence[Inhibitor] = ()
    free: int | None = 10**9
    there: set[str] = field(default_factory=set)
    boot: str = "one"
    boottime: float = 1000.0
    wall: datetime = SUNDAY
    asked: list[str] = field(default_factory=list)

    async def power(self) -> Power:
        self.asked.append("power")
        return self.feed

    async def metered(self) -> bool | None:
        self.asked.append("metered")
        return self.link

    async def inhibitors(self) -> Sequence[Inhibitor]:
        self.asked.append("inhibitors")
        return self.blockers

    async def free_space(self) -> int | None:
        self.asked.append("free_space")
        return self.free

    async def present(self, files: Sequence[str]) -> str:
        return next((file for file in files if file in self.there), "")

    def wait(self, seconds: float) -> None:
        self.boottime += seconds
        self.wall += timedelta(seconds=seconds)

    def reboot(self, *, off: float = 60) -> None:
        self.boot += "'"
        self.boottime = 10
        self.wall += timedelta(seconds=off)


def zone(name: str | None) -> tzinfo:
    return ZoneInfo(name or "UTC")


@dataclass
class Scene:
    data: Path
    device: Device
    warnings: list[str] = field(default_factory=list)

    def gate(
        self, policy: Policy = ANYTHING, consent: Consent = NOBODY, files: Sequence[str] = ()
    ) -> Gatekeeper:
        device = self.device
        clocks = Clocks(device.boot, lambda: device.boottime, lambda: device.wall, zone, lambda: EARLIEST)
        return Gatekeeper(
            policy=policy,
            consent=consent,
            system_inhibit_files=files,
            data=self.data,
            conditions=device,
            clocks=clocks,
            warn=self.warnings.append,
        )


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path, Device())


def install(gate: Gatekeeper, subject: Subject = OTA) -> Hold | None:
    return asyncio.run(gate.may_install(subject))


def reboot(gate: Gatekeeper, subject: Subject = OTA) -> Hold | None:
    return asyncio.run(gate.may_reboot(subject))


def rule(hold: Hold | None) -> str:
    return hold.rule if hold else ""


def test_with_nothing_configured_nothing_waits_and_nobody_is_asked(scene: Scene) -> None:
    scene.device = Device(Power(False, 1), link=True, free=0, wall=datetime(1970, 1, 1, tzinfo=UTC))
    gate = scene.gate()
    assert install(gate) is None
    assert reboot(gate) is None
    assert scene.device.asked == ["inhibitors"]
    assert not list(scene.data.iterdir())


# One rule after the other


def test_a_window(scene: Scene) -> None:
    gate = scene.gate(Policy(install_windows=NIGHT, time_zone="Europe/Berlin"))
    text = "Version 1.3.0 from ota waits for the install window; it opens on Mon 02:00 (in 7 h)."
    assert install(gate) == Hold("window", text, 3600)  # a clock that is set meanwhile is noticed
    assert reboot(gate) is None
    scene.device.wait(7 * 3600 - 30)
    held = install(gate)
    assert held is not None
    assert held.delay == 30
    scene.device.wait(30)
    assert install(gate) is None
    scene.device.wait(3600)
    assert rule(install(gate)) == "window"


def test_a_window_for_reboots(scene: Scene) -> None:
    gate = scene.gate(Policy(reboot_windows=NIGHT))
    text = "The reboot into version 1.3.0 waits for the reboot window; it opens on Mon 02:00 (in 9 h)."
    assert reboot(gate) == Hold("window", text, 3600)
    assert reboot(gate, BY_HAND) == Hold("window", text, 3600)  # whoever wanted the install
    assert install(gate) is None


def test_a_clock_that_is_not_set_opens_no_window(scene: Scene) -> None:
    scene.device.wall = datetime(1970, 1, 1, 2, 30, tzinfo=UTC)
    gate = scene.gate(Policy(install_windows=NIGHT))
    text = (
        "Version 1.3.0 from ota waits for the install window: the clock is not set; looked at again in 1 min."
    )
    assert install(gate) == Hold("clock", text, 60)
    scene.device.wall = datetime(2026, 7, 5, 2, 30, tzinfo=UTC)
    assert install(gate) is None


def test_files(scene: Scene) -> None:
    gate = scene.gate(Policy(inhibit_files=("/run/busy",)), files=("/run/no-polling",))
    assert install(gate) is None
    scene.device.there = {"/run/busy"}
    text = "Version 1.3.0 from ota waits while /run/busy is there; looked at again in 1 min."
    assert install(gate) == Hold("inhibit-file", text, 60)
    assert rule(reboot(gate)) == "inhibit-file"
    scene.device.there = {"/run/no-polling"}  # RAUC's are about polling
    assert rule(install(gate)) == "inhibit-file"
    assert reboot(gate) is None


def test_a_battery(scene: Scene) -> None:
    gate = scene.gate(Policy(min_battery=30))
    scene.device.feed = Power(mains=False, percent=29)
    text = (
        "Version 1.3.0 from ota waits for the battery: it has 29 %, expected 30 % or mains; "
        "looked at again in 5 min."
    )
    assert install(gate) == Hold("battery", text, 300)
    assert rule(reboot(gate)) == "battery"
    for power in (Power(False, 30), Power(True, 1), Power(False, None)):
        scene.device.feed = power
        assert install(gate) is None


@pytest.mark.parametrize(
    ("policy", "link", "metered"),
    [
        (Policy(metered="refuse"), True, True),
        (Policy(metered="refuse"), False, False),
        (Policy(metered="refuse"), None, False),
        (Policy(metered="refuse", link="metered"), False, True),
        (Policy(metered="refuse", link="unmetered"), True, False),
    ],
)
def test_a_metered_link(scene: Scene, policy: Policy, link: bool | None, metered: bool) -> None:
    scene.device.link = link
    gate = scene.gate(policy)
    assert asyncio.run(gate.metered()) is metered
    assert rule(install(gate)) == ("metered" if metered else "")
    assert install(gate, STICK) is None
    assert install(gate, BY_HAND) is None
    assert install(scene.gate(Policy(link=policy.link))) is None
    assert reboot(gate) is None


def test_who_blocks_the_shutdown(scene: Scene) -> None:
    scene.device.blockers = (Inhibitor("Burner\n", "a disc\x1b"), Inhibitor("Backup", ""))
    text = (
        "The reboot into version 1.3.0 waits: Burner blocks the shutdown (a disc); looked at again in 1 min."
    )
    assert reboot(scene.gate()) == Hold("logind", text, 60)
    assert install(scene.gate()) is None
    assert reboot(scene.gate(Policy(inhibit_logind=False))) is None


def test_room(scene: Scene) -> None:
    scene.device.free = 100_000_000
    large = replace(OTA, needs_space=90_000_000)
    gate = scene.gate(Policy(min_free=10_000_000))
    assert install(gate, large) is None
    scene.device.free -= 1
    text = (
        "Version 1.3.0 from ota needs room in the data directory: 100.0 MB, but there are 100.0 MB; "
        "looked at again in 5 min."
    )
    assert install(gate, large) == Hold("disk-space", text, 300)
    assert install(gate, replace(large, source="request")) is None
    scene.device.free = 80_000_000
    text = "Version 1.3.0 needs room in the data directory: 90.0 MB, but there are 80.0 MB."
    assert install(gate, replace(large, source="request")) == Hold("disk-space", text)
    scene.device.free = None
    assert install(gate, large) is None


def test_applications(scene: Scene) -> None:
    gate = scene.gate(Policy(max_hold=1000))
    woken: list[None] = []
    gate.changed = lambda: woken.append(None)
    number = gate.inhibit("kiosk", "a sale is running", 600, ":1.7")
    text = "Version 1.3.0 from ota waits: kiosk holds it back (a sale is running), for 10 min at most."
    assert install(gate) == Hold("hold", text, 600)
    assert rule(reboot(gate)) == "hold"
    assert install(gate, BY_HAND) is None
    gate.release(number)
    assert len(woken) == 1
    assert install(gate) is None
    gate.inhibit("kiosk", "", 600, ":1.7")
    gate.forget_owner(":1.8")
    assert len(woken) == 1
    gate.forget_owner(":1.7")
    assert len(woken) == 2
    assert install(gate) is None
    gate.inhibit("kiosk", "", 600, ":1.7")
    scene.device.wait(600)
    assert install(gate) is None
    with pytest.raises(Refused, match="expected 1 to 1000 s"):
        gate.inhibit("kiosk", "", 1001, ":1.7")


# Their order


def test_the_order_and_nothing_is_asked_in_vain(scene: Scene) -> None:
    """Everything says no; one after the other gives in."""
    device = scene.device
    device.feed, device.link, device.free = Power(False, 1), True, 0
    device.blockers, device.there = (Inhibitor("a", "b"),), {"/run/busy"}
    policy = Policy(
        inhibit_files=("/run/busy",),
        install_windows=NIGHT,
        reboot_windows=NIGHT,
        min_battery=50,
        min_free=1,
        metered="refuse",
    )
    gate = scene.gate(policy, Consent(install=True, reboot=True))
    number = gate.inhibit("app", "", 10, ":1.1")

    def agree() -> None:
        for stage in ("install", "reboot"):
            asyncio.run(gate.answer(stage, allow=True))

    gives_in: list[tuple[str, Callable[[], object]]] = [
        ("hold", lambda: gate.release(number)),
        ("inhibit-file", device.there.clear),
        ("consent", agree),
        ("window", lambda: device.wait(9 * 3600)),
        ("disk-space", lambda: setattr(device, "free", 1)),
        ("battery", lambda: setattr(device, "feed", Power(True, 1))),
        ("metered", lambda: setattr(device, "link", False)),
    ]
    for expected, give_in in gives_in:
        assert rule(install(gate)) == expected
        if expected == "metered":
            assert rule(reboot(gate)) == "logind"
        elif expected != "disk-space":
            assert rule(reboot(gate)) == expected
        if expected in ("hold", "inhibit-file", "consent", "window"):
            assert not device.asked
        give_in()
    assert install(gate) is None
    device.blockers = ()
    assert reboot(gate) is None


# Consent


ASKS = Consent(install=True, reboot=True, expires=1000)


def test_consent(scene: Scene) -> None:
    gate = scene.gate(consent=ASKS)
    woken: list[None] = []
    gate.changed = lambda: woken.append(None)
    assert not gate.questions()
    assert install(gate) == Hold(
        "consent", "Version 1.3.0 from ota waits until somebody at the device agrees."
    )
    assert [(q.stage, q.version, q.source) for q in gate.questions()] == [("install", "1.3.0", "ota")]
    asyncio.run(gate.answer("install", allow=True))
    assert len(woken) == 1
    assert not gate.questions()
    assert install(gate) is None
    assert rule(reboot(gate)) == "consent"  # another question
    assert [q.stage for q in gate.questions()] == ["reboot"]
    asyncio.run(gate.answer("reboot", allow=False))
    held = reboot(gate)
    assert held is not None
    assert held.text == "The reboot into version 1.3.0 was declined; it is asked about again in 17 min."
    assert install(gate, BY_HAND) is None


def test_only_what_was_asked_can_be_answered(scene: Scene) -> None:
    gate = scene.gate(consent=ASKS)
    with pytest.raises(Refused, match="Nobody was asked to agree to a reboot") as refusal:
        asyncio.run(gate.answer("reboot", allow=True))
    assert refusal.value.rule == "consent"
    install(gate)
    with pytest.raises(Refused):
        asyncio.run(gate.answer("reboot", allow=True))
    asyncio.run(gate.answer("install", allow=True))
    scene.device.wait(1000)
    with pytest.raises(Refused):  # that was another day
        asyncio.run(gate.answer("install", allow=True))


def test_a_question_is_withdrawn_an_answer_is_not(scene: Scene) -> None:
    gate = scene.gate(consent=ASKS)
    asyncio.run(gate.withdraw("install"))
    install(gate)
    asyncio.run(gate.withdraw("reboot"))
    assert gate.questions()
    asyncio.run(gate.withdraw("install"))
    assert not gate.questions()
    install(gate)
    asyncio.run(gate.answer("install", allow=False))
    asyncio.run(gate.withdraw("install"))
    held = install(gate)
    assert held is not None
    assert "declined" in held.text


@pytest.mark.parametrize("allow", [True, False])
def test_a_restart_and_a_reboot_keep_the_answer_as_long_as_it_holds(scene: Scene, allow: bool) -> None:
    gate = scene.gate(consent=ASKS)
    install(gate)
    asyncio.run(gate.answer("install", allow=allow))
    for reboots in (False, True):
        if reboots:
            scene.device.reboot()
        gate = scene.gate(consent=ASKS)
        held = install(gate)
        assert (held is None) if allow else (held is not None and "declined" in held.text)
    scene.device.wait(1000)
    held = install(scene.gate(consent=ASKS))
    assert held is not None
    assert "somebody" in held.text


def test_silence_goes_on_over_a_reboot_and_grants_nothing_early(scene: Scene) -> None:
    consent = Consent(install=True, expires=1000, default="allow")
    install(scene.gate(consent=consent))
    scene.device.wait(500)
    scene.device.reboot(off=100)
    held = install(scene.gate(consent=consent))
    assert held is not None
    assert held.delay == 400
    scene.device.wait(400)
    assert install(scene.gate(consent=consent)) is None


def test_what_cannot_be_saved_holds_all_the_same(scene: Scene) -> None:
    scene.data.rmdir()
    scene.data.write_text("no folder")
    gate = scene.gate(consent=ASKS)
    scene.warnings.clear()
    install(gate)
    asyncio.run(gate.answer("install", allow=True))
    assert install(gate) is None
    assert "Failed to save" in scene.warnings[0]


@pytest.mark.parametrize("broken", ["", "{", "[1]", json.dumps([{"stage": "install"}])])
def test_a_broken_file_grants_nothing(scene: Scene, broken: str) -> None:
    (scene.data / "consent.json").write_text(broken)
    assert rule(install(scene.gate(consent=ASKS))) == "consent"
    assert scene.warnings


def test_many_at_once_ask_one_question(scene: Scene) -> None:
    gate = scene.gate(consent=ASKS)

    async def crowd() -> None:
        await asyncio.gather(*(gate.may_install(OTA) for _ in range(20)))
        await asyncio.gather(*(gate.answer("install", allow=bool(n % 2)) for n in range(8)))

    asyncio.run(crowd())
    assert install(gate) is None  # the last one said yes
    assert not scene.warnings


def test_other_rules_keep_holds_and_answers(scene: Scene) -> None:
    gate = scene.gate(consent=ASKS)
    install(gate)
    asyncio.run(gate.answer("install", allow=True))
    gate.inhibit("app", "", 10, ":1.1")
    gate.reconfigure(Policy(install_windows=NIGHT), ASKS, ())
    assert rule(install(gate)) == "hold"
    gate.forget_owner(":1.1")
    assert rule(install(gate)) == "window"


def test_the_real_one(tmp_path: Path) -> None:
    """That of this very device: what it says is not known, that it answers is."""
    gate = open_gate(
        Policy(install_windows=NIGHT, min_free=2**50, inhibit_logind=False),
        Consent(),
        system_inhibit_files=("/nonexistent",),
        data=tmp_path,
        boot_id="one",
        warn=pytest.fail,
    )
    assert rule(install(gate)) in ("window", "disk-space")
    assert reboot(gate) is None
