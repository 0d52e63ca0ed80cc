"""The time to check certificates by, where the clock may be wrong (`core/trusted_time.py` has the rules)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from updated.core.events import clock_not_believed
from updated.core.model import TIMESTAMP
from updated.core.trusted_time import Build, Reading, counts, verification_time
from updated.document import Document, Warn
from updated.errors import DeviceError
from updated.host import clock
from updated.host.journal import tell
from updated.host.timing import boottime

if TYPE_CHECKING:
    from updated.bundle.chain import SignerChain
    from updated.bundle.trust import Keyring

log = logging.getLogger(__name__)

FILE: Final = "signed-time.json"  # in the data directory
STEP: Final = timedelta(hours=1)  # less is not worth a write: it wears flash out, certificates last for years
CLOCK_EPOCH: Final = "usr/lib/clock-epoch"  # systemd(1): "the mtime is the lowest date for the clock"
OS_RELEASE: Final = "usr/lib/os-release"  # os-release(5)


@dataclass(frozen=True, slots=True)
class SignedTime:
    """The whole file."""

    latest: str = ""  # %Y-%m-%dT%H:%M:%SZ; "": nothing signed was seen yet


def build_time(root: Path = Path("/")) -> Build | None:
    """When the running system was built; None: nobody says.  Blocks; never raises.

    That is the mtime of systemd's clock-epoch, which image builders make for this; else that of os-release,
    which each image has and nobody edits later (/etc/os-release may be changed on the device).  Where a
    package or a reproducible build gives it an older time it is still true that it is later now.
    """
    for name in (CLOCK_EPOCH, OS_RELEASE):
        with suppress(OSError, OverflowError, ValueError):
            moment = datetime.fromtimestamp((root / name).stat().st_mtime, UTC)
            return Build(moment, starts_clock=name == CLOCK_EPOCH)
    return None


class TrustedTime:
    """Belongs to the event loop; making it blocks."""

    def __init__(
        self,
        data: Path,
        warn: Warn,
        *,
        root: Path = Path("/"),
        wall: Callable[[], datetime] = clock.now,
        uptime: Callable[[], float] = boottime,
    ) -> None:
        """`data`: the data directory.  `wall`: the system clock, with a zone.  `uptime`: in seconds."""
        self._build = build_time(root)
        self._document = Document(data / FILE, SignedTime, SignedTime(), warn)
        self._seen = _parsed(self._document.value.latest)
        self._wall = wall
        self._uptime = uptime
        self._until: datetime | None = None
        self._saving = asyncio.Lock()
        self._said = False

    def now(self) -> datetime:
        """The time to check by, as far as `keyring` was asked by its keyring.  UTC."""
        return self._read().moment

    def keyring(self, keyring: Keyring) -> Keyring:
        """`keyring`, as it is to be used now; to be asked before `now`.

        Where the clock may be behind, a certificate that is not yet valid only shows that it is later.
        """
        self._until = keyring.not_after
        return replace(keyring, policy=replace(keyring.policy, clock_behind=self._read().behind))

    async def saw(self, chain: SignerChain, issued: datetime | None = None) -> None:
        """Something was verified: `chain` signed it, at the time that it claims.

        `issued`: a time that is part of what was signed, with a zone.  Never raises; what cannot be saved
        holds until the service ends.
        """
        claimed = (chain.signing_time, issued)
        believed = [one for one in claimed if one and counts(one, chain.not_before, chain.not_after)]
        if self._seen is not None:
            believed.append(self._seen)
        if not believed or max(believed) == self._seen:
            return
        self._seen = max(believed).astimezone(UTC)
        async with self._saving:
            saved = _parsed(self._document.value.latest)
            if saved is not None and self._seen - saved <= STEP:
                return
            try:
                value = SignedTime(self._seen.strftime(TIMESTAMP))
                await asyncio.to_thread(self._document.save, value)
            except DeviceError as error:
                log.warning("%s", error.with_hint())

    def _read(self) -> Reading:
        wall, uptime = self._wall(), timedelta(seconds=self._uptime())
        found = verification_time(wall, self._build, self._seen, uptime=uptime, until=self._until)
        if found.why and not self._said:
            event = clock_not_believed(wall.strftime(TIMESTAMP), found.moment.strftime(TIMESTAMP))
            tell(log, replace(event, text=found.why))
        self._said = bool(found.why)
        return found


def _parsed(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, TIMESTAMP).replace(tzinfo=UTC)
    except ValueError:
        return None
