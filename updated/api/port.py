"""What the D-Bus interfaces and the command line ask of the service.  They translate, and decide nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from updated.bundle.manifest import Manifest
from updated.core.gate import Hold, Stage
from updated.core.health import Judgement
from updated.core.model import Access, Listener, Offer, Transfer
from updated.core.model import Outcome as Outcome
from updated.core.model import Quarantined as Quarantined
from updated.core.model import SlotReport as SlotReport
from updated.core.polling import PollStatus

NO_ACCESS = Access()


@dataclass(frozen=True, slots=True)
class SystemInfo:
    """What does not change while the service runs."""

    compatible: str
    variant: str  # "" if unset
    system_version: str  # "" without a system-info handler
    boot_slot: str  # what identifies the booted slot: a bootname, slot name or device; "_external_"
    bootloader: str


@dataclass(frozen=True, slots=True)
class Transaction:
    """The update that is being worked on, from the first read to the end of its confirmation."""

    id: str  # UUID
    source: str  # as in Offer
    location: str
    compatible: str  # "" until the manifest is verified, and so the next three
    version: str
    manifest_hash: str
    target: str  # root slot of the target group


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything a kiosk wants to draw, at one moment."""

    state: str  # idle discover download verify install reboot-pending confirming
    detail: str  # a sentence for a person
    operation: str  # idle | installing
    last_error: str
    progress: tuple[int, str, int]  # RAUC's: percentage, message, depth
    transfer: Transfer | None  # None: no bytes are moving
    transaction: Transaction | None
    last: Outcome | None
    paused: bool = False  # somebody has stopped the stream for a while
    hold: Hold | None = None  # why something that is known to be there does not begin
    health: Judgement | None = None  # of this boot; None: there is no group to judge
    floor: str = ""  # nothing below this version is installed; "": any version may be


@runtime_checkable
class Poller(Protocol):
    """Who looks at a server again and again."""

    def poll(self) -> None:
        """Look within 30 seconds (RAUC's delay); `changed` is called before this returns."""
        ...

    def next_poll(self) -> int:
        """Microseconds of CLOCK_BOOTTIME; 0: none is planned."""
        ...

    def status(self) -> PollStatus: ...

    def subscribe(self, changed: Callable[[], None]) -> None:
        """Call `changed` whenever the next poll or the status is another; at most one listener."""
        ...


class Agent(Protocol):
    """The running service."""

    @property
    def system(self) -> SystemInfo: ...

    def snapshot(self) -> Snapshot: ...

    def subscribe(self, listener: Listener) -> None:
        """The snapshot is already the new one whenever a listener is called."""
        ...

    def unsubscribe(self, listener: Listener) -> None: ...

    def submit(self, offer: Offer) -> None:
        """Start an install and return at once; all else is told to the listeners.

        `Listener.operation("installing")` is called before this returns.
        Raises Refused(rule="busy", "Already processing a different method").
        """
        ...

    async def inspect(self, path: str, access: Access = NO_ACCESS) -> Manifest:
        """Verify a bundle as an install does, without the compatible check.  Raises UpdatedError."""
        ...

    async def mark(self, state: str, identifier: str) -> tuple[str, str]:
        """RAUC's Mark: (slot names joined by blanks, message).  Raises UpdatedError with RAUC's texts.

        Raises Refused(rule="busy") during an install.
        """
        ...

    async def slots(self) -> Sequence[SlotReport]: ...

    async def primary(self) -> str:
        """Name of the primary slot.  Raises DeviceError."""
        ...

    async def cancel(self) -> None:
        """Stop the running install; the target stays bad.  Raises Refused if none runs."""
        ...

    async def confirm(self) -> None:
        """A person says the new system is good.  Raises Refused if nothing is to be confirmed."""
        ...

    async def rollback(self) -> str:
        """Mark the booted group bad and go back; returns the name of the group that starts next.

        Raises Refused where nothing is left to go back to.
        """
        ...

    def pause(self) -> None:
        """Let the stream of the running install rest.  Raises Refused if none runs."""
        ...

    def resume(self) -> None:
        """Let it go on.  Raises Refused if nothing is paused."""
        ...

    async def why(self) -> Sequence[str]:
        """Sentences: why nothing happens now, and when it will; the most important first."""
        ...

    async def consent(self, stage: Stage, allow: bool) -> None:
        """A person's answer before an install or a reboot.  Raises Refused if nothing was asked."""
        ...

    def inhibit(self, who: str, why: str, seconds: int, owner: str) -> int:
        """Let nothing begin and nothing reboot for a while; returns a number to release it with.

        `owner`: whoever holds it; `forget_owner` releases all that he has.
        Raises Refused if `seconds` is more than the configuration allows.
        """
        ...

    def release(self, number: int) -> None:
        """Raises Refused if there is no such hold."""
        ...

    def forget_owner(self, owner: str) -> None: ...

    async def reset_floor(self) -> None:
        """Any version may be installed again.  Raises DeviceError."""
        ...

    @property
    def poller(self) -> Poller | None:
        """None: nothing is polled."""
        ...

    def history(self, limit: int) -> Sequence[Outcome]:
        """The newest first."""
        ...

    def heartbeat(self, application: str) -> None:
        """An application says that it is well.  Raises Refused if no check of that name is configured."""
        ...

    def judgements(self) -> Sequence[Judgement]:
        """How healthy the last boots were, the newest first."""
        ...

    def quarantine(self) -> Sequence[Quarantined]:
        """What automatic sources must not try again, the newest first."""
        ...

    async def lift(self, manifest_hash: str) -> int:
        """A person allows it again; "" is all of it.  Returns how many that were.

        Raises Refused if there is no such bundle, DeviceError.
        """
        ...

    async def reboot(self) -> None:
        """Start what starts next, now, in the way that it needs.

        Raises Refused if nothing is waiting for a reboot, or something is being installed.
        """
        ...
