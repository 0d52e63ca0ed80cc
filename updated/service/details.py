"""What is told of a state and of an update: `systemctl status`, the kiosk, `updated status`, the history."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from updated.api.port import Transaction
from updated.core import states
from updated.core.gate import Hold
from updated.core.model import Outcome
from updated.host.clock import timestamp

WHO: Final = {"usb": "USB stick", "ota": "server"}


@dataclass(frozen=True, slots=True)
class Course:
    """What else is going on in a state."""

    judging: bool = False  # whether the running group is healthy is not known yet
    sick: str = ""  # why it is not; "": it is, or nobody knows yet
    left_for: str = ""  # the running group was given up, and this one starts next
    hook: str = ""  # which of the device's own programs runs
    rebooting: bool = False  # the reboot was asked for


NOTHING: Final = Course()


def describe(
    state: states.State,
    booted_group: str,
    course: Course = NOTHING,
    *,
    hold: Hold | None = None,
    paused: bool = False,
) -> str:
    """A sentence or two.  `hold`: why what is known to be there does not begin."""
    if paused:
        return f"Paused: {describe(state, booted_group)}"
    parts = [_state(state, booted_group, course)]
    if course.hook:
        parts.append(f"The hook {course.hook} runs.")
    if course.rebooting:
        parts.append("The reboot was asked for.")
    elif hold is not None:
        parts.append(hold.text)
    return " ".join(parts)


def _state(state: states.State, booted_group: str, course: Course) -> str:
    match state:
        case states.Idle() if course.left_for:
            return f"{booted_group} was given up; {course.left_for} starts next."
        case states.Idle() if course.sick:
            return f"Degraded: {booted_group} runs, and is not healthy ({course.sick})."
        case states.Idle() if course.judging and booted_group:
            return f"Running from {booted_group}; checking that it is healthy."
        case states.Idle():
            return f"Running from {booted_group}; waiting for an update." if booted_group else "Waiting."
        case states.Discover(source):
            return f"Looking at what the {WHO.get(source, source)} offers."
        case states.Download():
            return "Reading the bundle's signature."
        case states.Verify():
            return "Verifying the bundle."
        case states.Install(update, attempt):
            again = f" (attempt {attempt})" if attempt > 1 else ""
            return f"Installing version {update.version} to {update.target}{again}."
        case states.RebootPending(update):
            wait = " Wait with it: the running system is not confirmed yet." if course.judging else ""
            where = f"Version {update.version} is installed to {update.target}"
            return f"{where}; it starts with the next reboot.{wait}"
        case states.Confirming(update) if course.left_for:
            why = f": {course.sick}" if course.sick else ""
            return f"Version {update.version} was given up{why}; {course.left_for} starts next."
        case states.Confirming(update):
            return f"Running version {update.version} from {update.target}; checking that it is healthy."


def transaction_of(update: states.Update) -> Transaction:
    """What is shown of a verified update while it is worked on."""
    return Transaction(
        id=update.transaction,
        source=update.source,
        location=update.location,
        compatible=update.compatible,
        version=update.version,
        manifest_hash=update.manifest_hash,
        target=update.target,
    )


def outcome_of(update: states.Update, code: str, text: str) -> Outcome:
    """The history line of a verified update."""
    return Outcome(
        transaction=update.transaction,
        source=update.source,
        location=update.location,
        version=update.version,
        manifest_hash=update.manifest_hash,
        target=update.target,
        code=code,
        text=text,
        time=timestamp(),
    )
