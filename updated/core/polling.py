"""What polling knows and decides: RAUC's criteria with RAUC's words (RAUC src/polling.c).  Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from updated.bundle.manifest import Manifest
from updated.core.source import Item
from updated.core.version import Version, VersionError, parse
from updated.errors import SourceError, UpdatedError

HIGHER: Final = "update candidate found: higher semantic version"
DIFFERENT: Final = "update candidate found: different version"
NO_CANDIDATE: Final = "no update candidate available"
NO_BUNDLE: Final = "no update bundle available"


@dataclass(frozen=True, slots=True)
class PollStatus:
    """What `de.pengutronix.rauc.Poller` shows (RAUC src/polling.c); empty and zero: not known."""

    attempts: int = 0
    recent_errors: int = 0  # in a row
    last_attempt: int = 0  # microseconds of CLOCK_BOOTTIME
    last_success: int = 0  # microseconds of CLOCK_BOOTTIME
    last_error: str = ""
    update_available: bool = False
    summary: str = ""
    attempted_hash: str = ""  # manifest hash of what was installed last by polling
    manifest: Manifest | None = None
    size: int = 0  # bytes of the bundle
    effective_url: str = ""  # after redirects
    modified: int = 0  # seconds since 1970
    etag: str = ""
    alarms: tuple[str, ...] = ()  # ours: sentences about what is wrong and stops nothing
    reasons: tuple[str, ...] = ()  # ours: why what the server has is not for this device


@dataclass(frozen=True, slots=True)
class Seen:
    """What signed indexes have proved so far: older ones are replays."""

    signed: bool = False  # there was a good signature once, so there must always be one
    counter: int | None = None  # the highest
    issued: float | None = None  # seconds since 1970; the latest


@dataclass(frozen=True, slots=True)
class Finding:
    """What a look at the server brought."""

    item: Item | None  # what should be installed by itself
    summary: str  # RAUC's words
    available: bool = False  # there is a candidate, installed by itself or not
    manifest: Manifest | None = None  # verified
    size: int = 0  # bytes of the bundle
    effective_url: str = ""  # after redirects
    modified: int = 0  # seconds since 1970
    etag: str = ""
    unchanged: bool = False  # the server says so (304), all else is from the last look
    alarms: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    seen: Seen | None = None  # None: as before


@dataclass(frozen=True, slots=True)
class FeedMemory:
    """What a feed is reminded of."""

    seen: Seen = field(default_factory=Seen)  # survives restarts
    last: Finding | None = None  # of the last successful look since the service started


class Feed(Protocol):
    """Something on a server that says whether there is an update."""

    @property
    def url(self) -> str: ...

    async def look(self, memory: FeedMemory) -> Finding:
        """One look.  Raises UpdatedError; one with a `status` and `retry_after` says what the server said."""
        ...


class FeedError(SourceError):
    """The server answered with an error."""

    def __init__(self, message: str, *, status: int, retry_after: float | None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.retry_after = retry_after  # seconds


# RAUC's criteria --------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Criteria:
    """`candidate-criteria`, `install-criteria` and `reboot-criteria` of `[polling]`."""

    candidate: tuple[str, ...] = ("higher-semver",)
    install: tuple[str, ...] = ()
    reboot: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    available: bool
    summary: str
    install: bool  # by itself


def judge(criteria: Criteria, offered: str | None, running: str) -> Verdict:
    """Is a bundle of version `offered` a candidate, and is it to be installed by itself?

    As in RAUC, one criterion that holds is enough; a version that is needed and cannot be read is an error
    even where another criterion would hold.  Raises UpdatedError.
    """
    if offered is None:
        raise UpdatedError("candidate criteria check failed: the manifest has no version")
    summary = _first(criteria.candidate, offered, running, "candidate")
    if not summary:
        return Verdict(False, NO_CANDIDATE, False)
    install = bool(_first(criteria.install, offered, running, "installation"))
    return Verdict(True, summary, install or "always" in criteria.install)


def _first(criteria: Sequence[str], offered: str, running: str, what: str) -> str:
    """RAUC's words for the criterion that holds, "" if none does."""
    if "higher-semver" in criteria and _is_higher(offered, running, f"{what} criteria check failed: "):
        return HIGHER
    if "different-version" in criteria and offered != running:
        return DIFFERENT
    return ""


def _is_higher(offered: str, running: str, prefix: str) -> bool:
    return _parsed(offered, f"{prefix}Failed to parse semantic version A for comparison: ") > _parsed(
        running, f"{prefix}Failed to parse semantic version B for comparison: "
    )


def _parsed(text: str, prefix: str) -> Version:
    try:
        return parse(text)
    except VersionError as error:
        raise UpdatedError(f"{prefix}{error}") from error


def wants_reboot(
    criteria: Criteria, *, succeeded: bool, updated_slots: bool, updated_artifacts: bool = False
) -> bool:
    """After an install by polling: shall the device reboot?"""
    if not succeeded:
        return "failed-update" in criteria.reboot
    return ("updated-slots" in criteria.reboot and updated_slots) or (
        "updated-artifacts" in criteria.reboot and updated_artifacts
    )


# The status, step by step -----------------------------------------------


def attempted(status: PollStatus, now: float) -> PollStatus:
    """A look begins; `now` in seconds of CLOCK_BOOTTIME, and so below."""
    return replace(
        status,
        attempts=status.attempts + 1,
        last_attempt=_microseconds(now),
        summary="",
        update_available=False,
    )


def succeeded(status: PollStatus, found: Finding, now: float) -> PollStatus:
    return replace(
        status,
        recent_errors=0,
        last_success=_microseconds(now),
        last_error="",
        update_available=found.available,
        summary=found.summary,
        manifest=found.manifest,
        size=found.size,
        effective_url=found.effective_url,
        modified=found.modified,
        etag=found.etag,
        alarms=found.alarms,
        reasons=found.reasons,
    )


def failed(status: PollStatus, error: UpdatedError) -> PollStatus:
    """What the last good look has found stays, as in RAUC."""
    return replace(status, recent_errors=status.recent_errors + 1, last_error=str(error))


def _microseconds(seconds: float) -> int:
    return int(seconds * 1_000_000)
