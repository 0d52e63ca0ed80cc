"""Every (state, event) cell, then power loss and service crash before every write."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from typing import get_args

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from updated.core import machine, states

U = states.Update("t-1", "folder", "/data/x.raucb", "h-new", "2", "B")
PENDING = states.RebootPending(U, "b0")
STATES: list[states.State] = [
    states.Idle(),
    states.Discover("s", states.Idle()),
    states.Download("s", states.Idle()),
    states.Verify("s", states.Idle()),
    states.Install(U, 1),
    PENDING,
    states.Confirming(U),
]
EVENTS: list[states.Event] = [
    states.Offered("s", by_request=False),
    states.CandidateChosen(),
    states.TailRead(),
    states.Verified(U, 1),
    states.Activated("b0"),
    states.Written(),
    states.RebootAllowed(),
    states.HealthGood("A"),
    states.HealthBad("x"),
    states.Failed("x"),
    states.Condemned("x"),
    states.Cancelled(),
    states.RollbackWanted(replace(U, target="A", manifest_hash="h-old", version="1"), "b1"),
    states.NothingToFallBackTo(),
]
# "." stays, "!" is a bug in the runner; columns as in EVENTS (R: reboot, B: health bad)
#                   Offer    Chosen   Tail   Verify  Activated     Writ R Good B Fail Cond Canc Roll None
EXPECTED = {
    "Idle":        "Discover !        !      !       !             !    . .    . !    !    !    Confirming .",
    "Discover":    ".        Download !      !       !             !    . .    . Idle Idle Idle !    .",
    "Download":    ".        !        Verify !       !             !    . .    . Idle Idle Idle !    .",
    "Verify":      ".        !        !      Install !             !    . .    . Idle Idle Idle !    .",
    "Install":     ".        !        !      !       RebootPending Idle . .    . Idle Idle Idle !    .",
    "RebootPending":".        !        !      !       !             !    . .    . !    !    !    Idle .",
    "Confirming":  ".        !        !      !       !             !    . Idle . !    !    !    .    Idle",
}  # fmt: skip


def test_samples_cover_every_type() -> None:
    assert {type(s) for s in STATES} == set(get_args(states.State)) == set(states.NAMES)
    assert {type(e) for e in EVENTS} == set(get_args(states.Event))


@pytest.mark.parametrize("state", STATES, ids=lambda s: type(s).__name__)
def test_every_cell(state: states.State) -> None:
    for event, want in zip(EVENTS, EXPECTED[type(state).__name__].split(), strict=True):
        if want == "!":
            with pytest.raises(machine.IllegalTransition):
                machine.step(state, event)
        else:
            got = type(machine.step(state, event)[0]).__name__
            assert got == (type(state).__name__ if want == "." else want), (state, event)


def test_a_request_may_replace_an_update_that_waits_for_its_reboot() -> None:
    state, effects = machine.step(PENDING, states.Offered("request", by_request=True))
    assert (state, effects) == (states.Discover("request", PENDING), (states.ChooseCandidate("request"),))
    for event in (states.CandidateChosen(), states.TailRead()):
        assert machine.step(state, states.Failed("no such file"))[0] == PENDING
        state, _ = machine.step(state, event)
    assert machine.step(state, states.Failed("bad signature"))[0] == PENDING


def test_what_is_about_to_happen_is_saved_before_it_happens() -> None:
    state, effects = machine.step(states.Verify("s", states.Idle()), states.Verified(U, 2))
    assert effects == (states.Save(states.Install(U, 2)), states.InstallGroup(U))
    state, effects = machine.step(state, states.Activated("b0"))
    assert effects == (states.RunHook("installed", U), states.Save(PENDING), states.AskToReboot())
    # Else a service that dies in between would never run it.
    facts = states.Facts("b0", booted="A", primary="B", installed={"B": U.manifest_hash})
    _, effects = machine.resume(states.Install(U, 2), facts)
    assert effects[:2] == (states.RunHook("installed", U), states.Save(PENDING))
    _, effects = machine.resume(states.Install(U, 2), replace(facts, booted=""))
    assert effects[0] == states.Save(PENDING)


def test_forgotten_only_after_it_is_over() -> None:
    _, effects = machine.step(states.Confirming(U), states.HealthGood("B"))
    kinds = [type(e).__name__ for e in effects]
    assert kinds == ["MarkGood", "Record", "RunHook", "Save", "Rescan"]


def test_the_reboot_is_written_down_before_it_is_asked_for() -> None:
    asked = replace(PENDING, asked=True)
    assert machine.step(PENDING, states.RebootAllowed()) == (asked, (states.Save(asked), states.Reboot()))


@pytest.mark.parametrize("asked", [False, True])
def test_a_trial_that_nobody_asked_for_is_still_to_come(asked: bool) -> None:
    """tryboot: a power cut before the special reboot starts the old group, and is no fallback."""
    facts = states.Facts("b1", "A", "B", {"B": "h-new"}, by_argument=True)
    state, effects = machine.resume(replace(PENDING, asked=asked), facts)
    if asked:
        assert state == states.Idle()
        assert states.MarkBad("B") in effects
    else:
        assert state == states.RebootPending(U, "b1")
        assert effects == (states.Save(state), states.CheckHealth(), states.AskToReboot())


def test_a_trial_that_somebody_else_asked_for_is_one() -> None:
    """`systemctl reboot` with the argument that was prepared: should it fail now, that is a fallback."""
    state, effects = machine.resume(PENDING, states.Facts("b1", "B", "B", {"B": "h-new"}, by_argument=True))
    assert state == states.Confirming(U)
    assert effects == (states.Save(replace(PENDING, asked=True)), states.CheckHealth())
    again = machine.resume(replace(PENDING, asked=True), states.Facts("b1", "B", "B", {}, by_argument=True))
    assert again == (state, (states.CheckHealth(),))


@pytest.mark.parametrize(("primary", "bad"), [("B", True), ("A", False), ("", False)])
def test_what_was_fallen_back_from_does_not_start_again(primary: str, bad: bool) -> None:
    """Somebody changed the boot order, or counts otherwise: one fallback for each update."""
    state, effects = machine.resume(PENDING, states.Facts("b1", "A", primary, {"B": "h-new"}))
    assert state == states.Idle()
    assert (states.MarkBad("B") in effects) is bad
    assert states.RunHook("fallback", U) in effects
    kinds = [type(effect).__name__ for effect in effects]
    assert kinds[-5:] == ["Reject", "Record", "RunHook", "Save", "CheckHealth"]


def test_a_confirmed_system_that_a_person_takes_back_is_on_trial_again() -> None:
    running = states.Update("t-0", "usb", "/x", "h-old", "1", "A")
    state, effects = machine.step(states.Idle(), states.RollbackWanted(running, "b1"))
    assert state == states.Confirming(running)
    assert effects == (
        states.Save(states.RebootPending(running, "b1")),
        states.Reject("h-old", "1", states.TAKEN_BACK),
        states.RollBack("A", by_request=True),
    )
    _, effects = machine.resume(states.RebootPending(running, "b1"), states.Facts("b2", "B", "B", {}))
    assert states.Record(running, "fallback", "The bootloader fell back to B.") in effects


def test_what_nobody_knows_is_taken_back_without_a_name() -> None:
    factory = states.Update("t-0", "request", "", "", "", "A")
    _, effects = machine.step(states.Idle(), states.RollbackWanted(factory, "b1"))
    assert not any(isinstance(effect, states.Reject) for effect in effects)


def test_an_ordinary_boot_is_marked_good_by_health_alone() -> None:
    state, effects = machine.resume(states.Idle(), states.Facts("b1", "A", "A", {}))
    assert effects == (states.CheckHealth(),)
    assert machine.step(state, states.HealthGood("A")) == (
        states.Idle(),
        (states.MarkGood("A"), states.Rescan()),
    )
    assert machine.step(state, states.HealthBad("late pings")) == (states.Idle(), ())


def test_third_failure_of_the_same_bundle_is_the_last() -> None:
    assert not any(
        isinstance(e, states.Reject) for e in machine.step(states.Install(U, 2), states.Failed("EIO"))[1]
    )
    assert (
        states.Reject("h-new", "2", "EIO, attempt 3")
        in machine.step(states.Install(U, 3), states.Failed("EIO"))[1]
    )


def test_an_interrupted_install_is_written_down() -> None:
    facts = states.Facts("b1", booted="A", primary="A", installed={})
    _, effects = machine.resume(states.Install(U, 1), facts)
    assert states.Record(U, "failed", states.INTERRUPTED) in effects


def test_a_stick_or_a_server_that_fails_says_nothing_of_the_bundle() -> None:
    effects = machine.step(states.Install(U, 3), states.Failed("EIO", counts=False))[1]
    assert not any(isinstance(effect, states.Reject) for effect in effects)


def test_what_is_proven_at_the_end_only_is_known_from_then_on() -> None:
    unproven = replace(U, manifest_hash="")
    state, effects = machine.step(states.Install(unproven, 1), states.Activated("b0", "h-new"))
    assert state == PENDING
    assert states.Save(PENDING) in effects


def test_a_bundle_that_is_bad_in_itself_is_rejected_at_once() -> None:
    assert (
        states.Reject("h-new", "2", "corrupt")
        in machine.step(states.Install(U, 1), states.Condemned("corrupt"))[1]
    )


def test_an_interrupted_group_is_marked_bad_again_but_never_the_booted_one() -> None:
    effects = machine.resume(states.Install(U, 1), states.Facts("b1", "A", "A", {}))[1]
    assert states.MarkBad("B") in effects
    effects = machine.resume(states.Install(U, 1), states.Facts("b1", "B", "B", {"B": "h-other"}))[1]
    assert not any(isinstance(e, states.MarkBad) for e in effects)


class PowerLoss(Exception):
    pass


class ServiceCrash(Exception):
    pass


FAULTS = (PowerLoss, ServiceCrash)
KINDS = ("good", "sick", "dead", "unwritable", "corrupt")  # what the new bundle is like


@dataclass
class Device:
    """What survives power loss, and a fuse that burns before one write."""

    kind: str
    content: dict[str, str] = field(default_factory=lambda: {"A": "h-old", "B": "h-older"})
    status: dict[str, str | None] = field(default_factory=lambda: {"A": "h-old", "B": "h-older"})
    order: list[str] = field(default_factory=lambda: ["A", "B"])
    left: dict[str, int] = field(default_factory=lambda: {"A": 3, "B": 3})
    state: states.Saved = field(default_factory=states.Idle)
    attempts: int = 0
    rejected: bool = False
    history: list[str] = field(default_factory=list)
    boots: int = 0
    booted: str = "A"
    fell_back: bool = False
    fuse: int = -1
    fault: type[Exception] = PowerLoss
    faults: int = 0
    writes: int = 0

    def write(self) -> None:
        if self.fuse == 0:
            self.fuse = -1
            self.faults += 1
            raise self.fault
        self.fuse -= 1
        self.writes += 1

    def primary(self) -> str:
        return next((g for g in self.order if self.left[g] > 0), "")

    def boot(self) -> None:
        """The bootloader: spend attempts until a group starts; with none left, any that starts."""
        self.boots += 1
        while g := self.primary():
            self.left[g] -= 1
            if self.starts(g):
                self.booted = g
                return
        self.booted = next(g for g in self.order if self.starts(g))

    def starts(self, g: str) -> bool:
        dead = self.kind == "dead" and self.content[g] == "h-new"
        return not dead and not self.content[g].startswith("partial")

    def facts(self) -> states.Facts:
        return states.Facts(f"b{self.boots}", self.booted, self.primary(), dict(self.status))

    def set_left(self, g: str, left: int) -> None:
        if self.left[g] != left:
            self.write()
            self.left[g] = left


def install(d: Device, u: states.Update) -> states.Event:
    assert u.target != d.booted, "wrote to the booted group"
    assert not d.fell_back, "installed again what the bootloader fell back from"
    d.set_left(u.target, 0)
    d.write()
    d.status[u.target] = None
    for i in range(3):
        d.write()
        d.content[u.target] = f"partial {i}"
        if d.kind == "unwritable":
            return states.Failed("EIO")
        if d.kind == "corrupt":
            return states.Condemned("bundle payload is corrupted")
    d.write()
    d.content[u.target] = u.manifest_hash
    d.write()
    d.status[u.target] = u.manifest_hash
    d.write()
    d.left[u.target] = 3
    d.order.sort(key=lambda g: g != u.target)
    return states.Activated(f"b{d.boots}")


def perform(d: Device, effect: states.Effect) -> states.Event | None:
    match effect:
        case states.Save(state):
            d.write()
            d.state = state
        case states.Rescan():
            nothing = d.rejected or d.status[d.booted] == "h-new"
            return None if nothing else states.Offered("folder", by_request=False)
        case states.ChooseCandidate():
            return states.CandidateChosen()
        case states.ReadTail():
            return states.TailRead()
        case states.VerifyTail():
            d.write()
            d.attempts += 1
            target = "B" if d.booted == "A" else "A"
            update = states.Update("t", "folder", "/x", "h-new", "2", target)
            return states.Verified(update, d.attempts)
        case states.InstallGroup(u):
            return install(d, u)
        case states.Reboot():
            raise PowerLoss
        case states.CheckHealth():
            sick = d.kind == "sick" and d.content[d.booted] == "h-new"
            return states.HealthBad("health") if sick else states.HealthGood(d.booted)
        case states.MarkGood(g):
            d.set_left(g, 3)
        case states.MarkBad(g):
            d.set_left(g, 0)
        case states.RollBack(g):
            if all(n == 0 for other, n in d.left.items() if other != g):
                return states.NothingToFallBackTo()
            d.write()
            d.left[g] = 0
            raise PowerLoss
        case states.Reject():
            d.write()
            d.rejected = True
        case states.Record(_, code):
            d.write()
            d.history.append(code)
    return None


def service(d: Device) -> states.State:
    """One life of the service: resume, then run until nothing is left to do."""
    facts = d.facts()
    if (
        isinstance(d.state, states.RebootPending)
        and facts.boot_id != d.state.boot_id
        and facts.booted != d.state.update.target
    ):
        d.fell_back = True
    state, effects = machine.resume(d.state, facts)
    todo = list(effects)
    for _ in range(200):
        assert not d.content.get(d.primary(), "").startswith("partial"), (
            "the primary group holds a torn image"
        )
        assert d.attempts <= 3 + d.faults, "tries for ever"
        if not todo and not isinstance(state, states.RebootPending):
            return state
        event = perform(d, todo.pop(0)) if todo else states.RebootAllowed()
        if event is not None:
            if isinstance(state, states.Confirming) and isinstance(event, states.HealthGood):
                assert d.content[d.booted] == state.update.manifest_hash, "confirmed another bundle"
            state, more = machine.step(state, event)
            todo += more
    raise AssertionError("the service never comes to rest")


def run(faults: list[tuple[int, int]], kind: str, *, other_active: bool = False) -> Device:
    d = Device(kind)
    d.boot()
    if other_active:  # somebody ran `rauc status mark-active other`
        d.order = ["B", "A"]
    plan = list(faults)
    for _ in range(60):
        d.fuse, fault = plan.pop(0) if plan else (-1, 0)
        d.fault = FAULTS[fault]
        try:
            if isinstance(service(d), states.Idle):
                return d
        except PowerLoss:
            d.boot()
        except ServiceCrash:
            pass
    raise AssertionError("the device never comes to rest")


def check_end(d: Device, kind: str, faults: list[tuple[int, int]]) -> None:
    new, other = d.content[d.booted] == "h-new", "A" if d.booted == "B" else "B"
    assert not d.content[d.booted].startswith("partial")
    assert d.left[d.booted] == 3, "not marked good"
    assert d.state == states.Idle(), "not forgotten"
    if kind != "good":
        assert not new or d.left[other] == 0, "runs the bad bundle though there is another"
        assert d.rejected
    if not faults:
        assert new is (kind == "good")
        assert d.attempts == (3 if kind == "unwritable" else 1)
        ends = {"good": ["confirmed"], "sick": ["fallback"], "dead": ["fallback"]}
        assert d.history == ends.get(kind, [])


@pytest.mark.parametrize(("primary", "still"), [("B", True), ("A", False), ("", False)])
def test_started_from_elsewhere_is_no_fallback(primary: str, still: bool) -> None:
    """While the bootloader would start the new group: a rescue system, or a booted slot that is not known."""
    pending = states.RebootPending(U, "b1")
    state, effects = machine.resume(pending, states.Facts("b2", "", primary, {"B": U.manifest_hash}))
    assert (state == pending) is still
    assert any(isinstance(effect, states.Reject) for effect in effects) is not still
    assert not any(isinstance(effect, states.AskToReboot) for effect in effects)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_every_fault_before_every_write(kind: str, depth: int) -> None:
    span = run([], kind).writes + 4
    for faults in itertools.product(itertools.product(range(span), (0, 1)), repeat=depth):
        for other_active in (False, True):
            d = run(list(faults), kind, other_active=other_active)
            if not other_active:
                check_end(d, kind, list(faults))


@settings(max_examples=3000, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 18), st.integers(0, 1)), max_size=8),
    st.sampled_from(KINDS),
    st.booleans(),
)
@example([(3, 0), (0, 0), (0, 0), (0, 0)], "good", False)
def test_any_run_of_faults(faults: list[tuple[int, int]], kind: str, other_active: bool) -> None:
    run(faults, kind, other_active=other_active)
