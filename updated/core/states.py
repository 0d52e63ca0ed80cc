"""The words of the machine: what is updated, its states, events and effects, and the facts at start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

FELL_BACK: Final = "the bootloader fell back"  # all that is known of a system that never came up
INTERRUPTED: Final = "Interrupted: the power went, or the service died; the next install goes on from there."
TAKEN_BACK: Final = "rolled back by a person"
MAX_ATTEMPTS: Final = 3  # installs of one bundle by automatic sources; boots are counted by the bootloader


@dataclass(frozen=True, slots=True)
class Update:
    """A verified bundle and the slot group it goes to."""

    transaction: str
    source: str
    location: str
    manifest_hash: str
    version: str
    target: str  # name of the root slot of the target group
    compatible: str = ""


# States -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Idle:
    """Nothing to do."""


@dataclass(frozen=True, slots=True)
class Install:
    """The stream into the slots, up to "primary"."""

    update: Update
    attempt: int


@dataclass(frozen=True, slots=True)
class RebootPending:
    """Installed and primary; waiting for the reboot."""

    update: Update
    boot_id: str  # of the boot in which it was installed
    asked: bool = False  # we have asked for the reboot


Resting = Idle | RebootPending


@dataclass(frozen=True, slots=True)
class Discover:
    """Choosing among what a source offers."""

    source: str
    back: Resting


@dataclass(frozen=True, slots=True)
class Download:
    """Reading the tail of the chosen bundle."""

    source: str
    back: Resting


@dataclass(frozen=True, slots=True)
class Verify:
    """Signature, manifest, policy."""

    source: str
    back: Resting


@dataclass(frozen=True, slots=True)
class Confirming:
    """The new system is up and is being judged.

    Never saved: a saved RebootPending and the target booted are this state.
    """

    update: Update


State = Idle | Discover | Download | Verify | Install | RebootPending | Confirming
Saved = Idle | Install | RebootPending

NAMES: Final[Mapping[type[State], str]] = {
    Idle: "idle",
    Discover: "discover",
    Download: "download",
    Verify: "verify",
    Install: "install",
    RebootPending: "reboot-pending",
    Confirming: "confirming",
}

# Events -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Offered:
    source: str
    by_request: bool


@dataclass(frozen=True, slots=True)
class CandidateChosen:
    pass


@dataclass(frozen=True, slots=True)
class TailRead:
    pass


@dataclass(frozen=True, slots=True)
class Verified:
    update: Update
    attempt: int


@dataclass(frozen=True, slots=True)
class Activated:
    boot_id: str
    manifest_hash: str = ""  # where it is proven only now; "": it was known before


@dataclass(frozen=True, slots=True)
class Written:
    """Installed, but not made primary: `activate-installed=false`, somebody else will do that."""


@dataclass(frozen=True, slots=True)
class RebootAllowed:
    pass


@dataclass(frozen=True, slots=True)
class HealthGood:
    booted: str


@dataclass(frozen=True, slots=True)
class HealthBad:
    reason: str


@dataclass(frozen=True, slots=True)
class Failed:
    """Another try may succeed."""

    reason: str
    counts: bool = True  # as one of the MAX_ATTEMPTS of the bundle; False: a stick or a server failed


@dataclass(frozen=True, slots=True)
class Condemned:
    """The bundle itself is bad; the same bytes will fail again."""

    reason: str


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Somebody, or the end of the service, stopped it."""


@dataclass(frozen=True, slots=True)
class RollbackWanted:
    """A person wants the other group back."""

    running: Update  # what runs, its target the booted group; its hash and version "" if unknown
    boot_id: str


@dataclass(frozen=True, slots=True)
class NothingToFallBackTo:
    pass


Event = (
    Offered
    | CandidateChosen
    | TailRead
    | Verified
    | Activated
    | Written
    | RebootAllowed
    | HealthGood
    | HealthBad
    | Failed
    | Condemned
    | Cancelled
    | RollbackWanted
    | NothingToFallBackTo
)

# Effects ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Save:
    """Make this state durable."""

    state: Saved


@dataclass(frozen=True, slots=True)
class Rescan:
    """Ask every source what it has."""


@dataclass(frozen=True, slots=True)
class ChooseCandidate:
    source: str


@dataclass(frozen=True, slots=True)
class ReadTail:
    pass


@dataclass(frozen=True, slots=True)
class VerifyTail:
    pass


@dataclass(frozen=True, slots=True)
class InstallGroup:
    """Mark bad, write and sync every image, record the slot status, make primary."""

    update: Update


@dataclass(frozen=True, slots=True)
class AskToReboot:
    """Reboot as soon as policy allows."""


@dataclass(frozen=True, slots=True)
class Reboot:
    pass


@dataclass(frozen=True, slots=True)
class CheckHealth:
    """Judge the running system; answers HealthGood or HealthBad later."""


@dataclass(frozen=True, slots=True)
class MarkGood:
    group: str


@dataclass(frozen=True, slots=True)
class MarkBad:
    group: str


@dataclass(frozen=True, slots=True)
class RollBack:
    """Mark this group bad and reboot, or answer NothingToFallBackTo and do neither."""

    group: str
    by_request: bool  # a person's: he may want to reboot himself


@dataclass(frozen=True, slots=True)
class Reject:
    """Never try this bundle again on its own; a person may."""

    manifest_hash: str
    version: str
    reason: str


@dataclass(frozen=True, slots=True)
class Record:
    """A line of the history: how `update` ended."""

    update: Update
    code: str
    text: str


HookKind = Literal["installed", "confirmed", "fallback"]


@dataclass(frozen=True, slots=True)
class RunHook:
    """Run the device's own program for this moment.  It does not keep the machine from going on."""

    kind: HookKind
    update: Update


Effect = (
    Save
    | Rescan
    | ChooseCandidate
    | ReadTail
    | VerifyTail
    | InstallGroup
    | AskToReboot
    | Reboot
    | CheckHealth
    | MarkGood
    | MarkBad
    | RollBack
    | Reject
    | Record
    | RunHook
)
Step = tuple[State, tuple[Effect, ...]]


# Facts ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Facts:
    """What the device shows at start, read afresh, never from the state file."""

    boot_id: str
    booted: str  # root slot of the booted group; "" if the system runs from elsewhere
    primary: str  # root slot of the primary group; "" if there is none
    installed: Mapping[str, str | None]  # root slot: manifest hash of what is completely on its group
    by_argument: bool = False  # a new primary starts only after a reboot that is asked for in a special way
