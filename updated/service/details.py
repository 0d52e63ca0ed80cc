"""What a state means, in a sentence for a person: `systemctl status`, the kiosk, `updated status`."""

from __future__ import annotations

from updated.core import machine as m


def describe(state: m.State, booted_group: str) -> str:
    """One sentence without the full stop of a log line."""
    match state:
        case m.Idle():
            return f"Running from {booted_group}; waiting for an update." if booted_group else "Waiting."
        case m.Discover(source):
            return f"Looking at what the {source} offers."
        case m.Download():
            return "Reading the bundle's signature."
        case m.Verify():
            return "Verifying the bundle."
        case m.Install(update, attempt):
            again = f" (attempt {attempt})" if attempt > 1 else ""
            return f"Installing version {update.version} to {update.target}{again}."
        case m.RebootPending(update):
            return (
                f"Version {update.version} is installed to {update.target}; it starts with the next reboot."
            )
        case m.Confirming(update):
            return f"Running version {update.version} from {update.target}; checking that it is healthy."
