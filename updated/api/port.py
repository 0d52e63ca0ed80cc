"""What the D-Bus interfaces and the command line ask of the service.  They translate, and decide nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from updated.bundle.manifest import Manifest
from updated.core.model import Listener, Offer, Transfer
from updated.core.model import Outcome as Outcome
from updated.core.model import SlotReport as SlotReport


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
    source: str  # "request", "folder", "autoinstall"
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

    async def inspect(self, path: str) -> Manifest:
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

    def history(self, limit: int) -> Sequence[Outcome]:
        """The newest first."""
        ...
