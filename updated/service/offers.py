"""What the automatic sources have to offer: a level, looked at again whenever the machine comes to rest.

A file that was tried is not tried again until it changes or the service starts anew, except after a fault
that may pass.  What the manifest hash decides (quarantine, already installed) is on disk instead.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from updated.config.agent_tables import Folder as FolderSettings
from updated.core.model import Offer, Outcome
from updated.core.policy import PolicyFacts
from updated.install.device import Device
from updated.service.choice import choose
from updated.sources.folder import Folder, Found, look, move, remove

log = logging.getLogger(__name__)

LATER: Final = 600.0  # seconds until another look after a fault that may pass: a wrong clock, a busy slot
AUTOINSTALL: Final = "autoinstall"
FOLDER: Final = "folder"


@dataclass(frozen=True, slots=True)
class _PutOff:
    identity: tuple[int, int, int, int]
    until: float  # monotonic seconds; infinity: until the file changes
    tried: bool = False  # not only compared with others


class Offers:
    """The drop folder and `[autoinstall]`."""

    def __init__(self, settings: FolderSettings, autoinstall: Path | None) -> None:
        self.judged = False  # automatic sources wait until the running system is known to be healthy
        self.folder = Folder(Path(settings.path)) if settings.path else None
        self._settings = settings
        self._autoinstall = autoinstall
        self._chosen: Found | None = None  # what the attempt that runs was made for
        self._put_off: dict[Path, _PutOff] = {}

    async def waiting(self) -> str:
        """The first source that has something to look at; "" for none."""
        if not self.judged:
            return ""
        for source in (FOLDER, AUTOINSTALL):
            if await self._found(source):
                return source
        return ""

    def due(self) -> float | None:
        """Seconds until something that was put off is worth another look; None: nothing was."""
        times = [put.until for put in self._put_off.values() if put.until != float("inf")]
        return max(0.0, min(times) - time.monotonic()) if times else None

    def forget(self) -> None:
        """Look at everything again: the rules may have changed."""
        self._put_off.clear()

    async def choose(
        self, source: str, device: Device, facts: PolicyFacts, *, moved: Callable[[], None] = lambda: None
    ) -> Offer | None:
        """The best bundle of `source`; what is not worth another look is put off, with the reason said."""
        found = await self._found(source)
        chosen, refused = await choose(found, device, facts, moved=moved)
        for refusal in refused:
            log.info("%s is not installed: %s", refusal.item.path, refusal.reason)
            until = time.monotonic() + LATER if refusal.passing else float("inf")
            self._put_off[refusal.item.path] = _PutOff(refusal.item.identity, until)
        self._chosen = chosen
        return Offer(source, str(chosen.path)) if chosen else None

    async def ended(self, offer: Offer, outcome: Outcome, *, retry_after: float | None) -> None:
        """An attempt is over: remember it, and do with the file what the configuration says."""
        tried, self._chosen = self._chosen, None
        if tried is None or offer.source not in (FOLDER, AUTOINSTALL):
            return
        until = float("inf") if retry_after is None else time.monotonic() + retry_after
        if outcome.code in ("failed", "refused") and retry_after is None:
            # What was below it has another chance; what was tried before has not.
            self._put_off = {path: put for path, put in self._put_off.items() if put.tried}
        self._put_off[tried.path] = _PutOff(tried.identity, until, tried=True)
        if offer.source == FOLDER and outcome.code in ("installed", "failed", "refused") and not retry_after:
            await asyncio.to_thread(self._tidy, tried)

    def _tidy(self, tried: Found) -> None:
        """Blocks."""
        path = tried.path
        if look(path) != tried:
            return  # another file has taken its place: that one was not tried
        try:
            if self._settings.after == "delete":
                remove(path)
            elif self._settings.after == "move" and self._settings.move_to:
                move(path, Path(self._settings.move_to))
        except OSError as error:
            log.warning("cannot %s %s: %s", self._settings.after, path, error.strerror)

    async def _found(self, source: str) -> Sequence[Found]:
        if source == FOLDER:
            await asyncio.to_thread(self._forget_what_is_gone)
        return await asyncio.to_thread(self._scan, source)

    def _scan(self, source: str) -> Sequence[Found]:
        """Blocks."""
        if source == FOLDER:
            return self.folder.scan(known=self._is_put_off) if self.folder else []
        item = look(self._autoinstall) if self._autoinstall else None
        return [item] if item and not self._is_put_off(item) else []

    def _forget_what_is_gone(self) -> None:
        """Or names that never come again would be remembered for ever.  Blocks."""
        for path in tuple(self._put_off):
            if not os.path.lexists(path):
                self._put_off.pop(path, None)

    def _is_put_off(self, item: Found) -> bool:
        put_off = self._put_off.get(item.path)
        return bool(put_off and put_off.identity == item.identity and time.monotonic() < put_off.until)
