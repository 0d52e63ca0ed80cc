"""What polling knows and decides.  Pure."""

from __future__ import annotations

from dataclasses import dataclass

from updated.bundle.manifest import Manifest


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
