"""The update state machine: pure.  No I/O, no clock, no asyncio, no logging.

step()   decides what an event means in a state; it returns the next state and the effects that the runner
         must perform, in order.
resume() decides, after any start of the service, what the saved state means given what the device shows
         (booted group, primary group, boot id).  Where the two disagree, the bootloader wins.

Saving the state is an effect too, so its place among the others is decided and tested here.  Save what is
about to happen before it happens, and forget it only after it is over.  Only the bootloader's primary group
commits an update.  Sources are levels: what is found while busy is looked at again on the way back to idle.

                Idle      Discover  Download  Verify   Install        RebootPending  Confirming
 Offered        Discover  .         .         .        .              Discover¹      .
 CandidateChosen          Download
 TailRead                           Verify
 Verified                                     Install
 Activated                                             RebootPending
 Written                                               Idle
 RebootAllowed  .         .         .         .        .              .              .
 HealthGood     .         .         .         .        .              .              Idle
 HealthBad      .         .         .         .        .              .              .
 Failed                   back      back      back     Idle
 Condemned                back      back      back     Idle
 Cancelled                back      back      back     Idle
 RollbackWanted Confirming                                            Idle           .
 NothingToFallBackTo . .        .         .        .              .              Idle

 . stays; an empty cell is a bug in the runner; ¹ only for a request; back: the state before Discover.
"""

from __future__ import annotations

from dataclasses import replace

from updated.core.states import (
    FELL_BACK,
    INTERRUPTED,
    MAX_ATTEMPTS,
    TAKEN_BACK,
    Activated,
    AskToReboot,
    Cancelled,
    CandidateChosen,
    CheckHealth,
    ChooseCandidate,
    Condemned,
    Confirming,
    Discover,
    Download,
    Effect,
    Event,
    Facts,
    Failed,
    HealthBad,
    HealthGood,
    Idle,
    Install,
    InstallGroup,
    MarkBad,
    MarkGood,
    NothingToFallBackTo,
    Offered,
    ReadTail,
    Reboot,
    RebootAllowed,
    RebootPending,
    Record,
    Reject,
    Rescan,
    RollBack,
    RollbackWanted,
    RunHook,
    Save,
    Saved,
    State,
    Step,
    TailRead,
    Update,
    Verified,
    Verify,
    VerifyTail,
    Written,
)


class IllegalTransition(Exception):
    """A bug: the runner delivered an event that this state cannot have."""

    def __init__(self, state: State, event: Event) -> None:
        super().__init__(f"{type(event).__name__} cannot happen in {type(state).__name__}")
        self.state = state
        self.event = event


def step(state: State, event: Event) -> Step:
    """The next state, and what to do on the way.  Raises IllegalTransition on a bug of the runner."""
    match event:
        case Offered():
            return _offered(state, event)
        case HealthGood() | HealthBad() | NothingToFallBackTo():
            return _judged(state, event)
        case RollbackWanted():
            return _rollback_wanted(state, event)
        case Failed() | Condemned() | Cancelled():
            return _stopped(state, event)
        case _:
            return _advanced(state, event)


def _offered(state: State, event: Offered) -> Step:
    match state:
        case Idle():
            return Discover(event.source, state), (ChooseCandidate(event.source),)
        case RebootPending() if event.by_request:
            return Discover(event.source, state), (ChooseCandidate(event.source),)
        case _:
            return state, ()


def _advanced(state: State, event: Event) -> Step:
    match state, event:
        case Discover(source, back), CandidateChosen():
            return Download(source, back), (ReadTail(),)
        case Download(source, back), TailRead():
            return Verify(source, back), (VerifyTail(),)
        case Verify(), Verified(update, attempt):
            return _saved(Install(update, attempt), InstallGroup(update))
        case Install(update), Activated(boot_id, manifest_hash):
            update = replace(update, manifest_hash=manifest_hash or update.manifest_hash)
            state = RebootPending(update, boot_id)
            # Before: while the state on disk is Install, a start of the service runs the hook again.
            return state, (RunHook("installed", update), Save(state), AskToReboot())
        case Install(), Written():
            return Idle(), (Save(Idle()), Rescan())
        case RebootPending(), RebootAllowed():
            return _saved(replace(state, asked=True), Reboot())
        case _, RebootAllowed():  # it comes late; whatever began meanwhile goes on
            return state, ()
        case _:
            raise IllegalTransition(state, event)


def _judged(state: State, event: HealthGood | HealthBad | NothingToFallBackTo) -> Step:
    match state, event:
        case Confirming(update), HealthGood():
            done = Record(update, "confirmed", f"Version {update.version} is confirmed.")
            hook = RunHook("confirmed", update)
            return Idle(), (MarkGood(update.target), done, hook, Save(Idle()), Rescan())
        # Still confirming: the next boot, in the old group, finds out and forgets.
        case Confirming(update), HealthBad(reason):
            return state, (_reject(update, reason), RollBack(update.target, by_request=False))
        # Better a sick system that can be reached than one that reboots for ever.
        case Confirming(update), NothingToFallBackTo():
            text = "The new system is not healthy, but there is no other group to go back to."
            return Idle(), (Record(update, "failed", text), Save(Idle()), Rescan())
        # An ordinary boot is judged beside everything else.
        case Idle(), HealthGood(booted):
            return state, (MarkGood(booted), Rescan())
        case _, HealthGood(booted):
            return state, (MarkGood(booted),)
        # The answers come late; whatever began meanwhile goes on.
        case _:
            return state, ()


def _rollback_wanted(state: State, event: RollbackWanted) -> Step:
    match state:
        # What was good is on trial again: the next boot, in the other group, finds out as after any trial.
        case Idle():
            update = event.running
            saved = Save(RebootPending(update, event.boot_id))
            return Confirming(update), (saved, *_taken_back(update))
        case RebootPending(update):
            done = Record(update, "rollback", "Taken back by a person before the reboot.")
            hook = RunHook("fallback", update)
            bad = MarkBad(update.target)
            return Idle(), (bad, _reject(update, TAKEN_BACK), done, hook, Save(Idle()), Rescan())
        case Confirming(update):
            return state, _taken_back(update)
        case _:
            raise IllegalTransition(state, event)


def _taken_back(update: Update) -> tuple[Effect, ...]:
    reject = (_reject(update, TAKEN_BACK),) if update.manifest_hash else ()
    return *reject, RollBack(update.target, by_request=True)


def _stopped(state: State, event: Failed | Condemned | Cancelled) -> Step:
    match state, event:
        case ((Discover(_, back) | Download(_, back) | Verify(_, back)), _):
            return back, (Rescan(),)
        case Install(update, attempt), Failed(reason, counts):
            given_up = _given_up(update, attempt, reason) if counts else ()
            return Idle(), (*given_up, Save(Idle()), Rescan())
        case Install(update), Condemned(reason):
            return Idle(), (_reject(update, reason), Save(Idle()), Rescan())
        case Install(), Cancelled():
            return Idle(), (Save(Idle()), Rescan())
        case _:
            raise IllegalTransition(state, event)


def resume(saved: Saved, facts: Facts) -> Step:
    """What the saved state means after a start of the service.  Total: never raises."""
    match saved:
        case Install(update) if facts.booted == update.target and _complete(update, facts):
            return Confirming(update), (Save(RebootPending(update, facts.boot_id)), CheckHealth())
        case Install(update) if facts.primary == update.target and _complete(update, facts):
            pending = RebootPending(update, facts.boot_id)
            if not facts.booted:  # a rescue system does not reboot by itself
                return _saved(pending, CheckHealth())
            return pending, (RunHook("installed", update), Save(pending), CheckHealth(), AskToReboot())
        case Install(update, attempt):
            # A power cut may have come at any byte: nothing of it may start.
            bad = () if facts.booted == update.target else (MarkBad(update.target),)
            given_up = _given_up(update, attempt, "interrupted")
            done = Record(update, "failed", INTERRUPTED)
            return Idle(), (*bad, *given_up, done, Save(Idle()), CheckHealth())
        case RebootPending(update) if facts.booted == update.target:
            # The trial has begun, whoever asked for the reboot: what comes next is no ordinary restart.
            begun = () if saved.asked else (Save(replace(saved, asked=True)),)
            return Confirming(update), (*begun, CheckHealth())
        case RebootPending(_, boot_id) if boot_id == facts.boot_id:
            return saved, (CheckHealth(), AskToReboot())
        # Started from elsewhere (a rescue system), or not known from where: the trial is still to come.
        case RebootPending(update) if not facts.booted and facts.primary == update.target:
            return saved, (CheckHealth(),)
        # An ordinary restart starts the old group by design: the trial is still to be asked for.
        case RebootPending(update, _, asked=False) if facts.by_argument and facts.primary == update.target:
            return _saved(RebootPending(update, facts.boot_id), CheckHealth(), AskToReboot())
        case RebootPending(update):
            return _fallen_back(update, facts)
        case Idle():
            return Idle(), (CheckHealth(),)


def _fallen_back(update: Update, facts: Facts) -> Step:
    text = f"The bootloader fell back to {facts.booted or 'another system'}."
    # It would start what it has just given up: one fallback for each update is enough.
    bad = (MarkBad(update.target),) if facts.booted and facts.primary == update.target else ()
    return Idle(), (
        *bad,
        _reject(update, FELL_BACK),
        Record(update, "fallback", text),
        RunHook("fallback", update),
        Save(Idle()),
        CheckHealth(),
    )


def _saved(state: Install | RebootPending, *then: Effect) -> Step:
    return state, (Save(state), *then)


def _complete(update: Update, facts: Facts) -> bool:
    return facts.installed.get(update.target) == update.manifest_hash


def _reject(update: Update, reason: str) -> Reject:
    return Reject(update.manifest_hash, update.version, reason)


def _given_up(update: Update, attempt: int, reason: str) -> tuple[Effect, ...]:
    if attempt < MAX_ATTEMPTS:
        return ()
    return (_reject(update, f"{reason}, attempt {attempt}"),)
