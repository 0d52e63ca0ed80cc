"""What is told of a state and of an update: `systemctl status`, the kiosk, `updated status`, the history."""

from __future__ import annotations

from typing import Final

from updated.api.port import Transaction
from updated.core import states
from updated.core.gate import Hold
from updated.core.model import Outcome
from updated.host.clock import timestamp

WHO: Final = {"usb": "USB stick", "ota": "server"}


def describe(
    state: states.State,
    booted_group: str,
    *,
    judging: bool = False,
    hold: Hold | None = None,
    paused: bool = False,
) -> str:
    """A sentence or two.

    `judging`: whether the running group is healthy is not known yet.  `hold`: why what is known to be there
    does not begin.
    """
    if paused:
        return f"Paused: {describe(state, booted_group)}"
    if hold is not None:
        return f"{describe(state, booted_group, judging=judging)} {hold.text}"
    match state:
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
            wait = " Wait with it: the running system is not confirmed yet." if judging else ""
            where = f"Version {update.version} is installed to {update.target}"
            return f"{where}; it starts with the next reboot.{wait}"
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
