"""The effects that only remember something."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from updated.core import events, states
from updated.core.model import Outcome, Quarantined
from updated.errors import UpdatedError
from updated.host.clock import timestamp
from updated.service.announce import Announcer
from updated.service.details import outcome_of
from updated.service.trials import cause
from updated.store import Store

log = logging.getLogger(__name__)


class Memory:
    """Writes to the store in threads, and shows the last result."""

    def __init__(self, store: Store, announcer: Announcer) -> None:
        self._store = store
        self._announce = announcer

    async def remember(
        self, effect: states.Save | states.Reject | states.Record, *, boot_id: str, raises_floor: bool
    ) -> None:
        """`raises_floor`: a confirmed version does.

        Raises DeviceError if an install cannot be saved: nothing may be written then."""
        match effect:
            case states.Save(states.Install() as state):
                await asyncio.to_thread(self._store.save_state, state)
            case states.Save(state):
                await self.keep(self._store.save_state, state)
            case states.Reject(manifest_hash="", reason=reason):
                log.warning("a bundle that was not proven yet failed: %s", reason)
            case states.Reject(manifest_hash) if manifest_hash in self._store.quarantine():
                pass  # what comes after the first reason is its consequence
            case states.Reject(manifest_hash, version, reason):
                event = events.quarantined(manifest_hash, version, reason)
                log.warning("%s", event.text, extra={"event": event})
                entry = Quarantined(manifest_hash, version, reason, timestamp(), boot_id)
                await self.keep(self._store.reject, entry)
            case states.Record(update, code, text):
                if code == "confirmed":
                    await self.keep(self._confirmed, update, raises_floor)
                await self.record(outcome_of(update, code, f"{text}{self._cause(update, code)}"))

    async def record(self, outcome: Outcome) -> None:
        """Add a line to the history and show it as the last result."""
        log.info("%s: %s", outcome.code, outcome.text, extra={"event": events.ended(outcome)})
        self._announce.outcome(outcome)
        await self.keep(self._store.record, outcome)

    async def note(self, outcome: Outcome) -> None:
        """Add a line to the history that is no end of a transaction."""
        log.info("%s: %s", outcome.code, outcome.text)
        await self.keep(self._store.record, outcome)

    async def keep(self, save: Callable[..., None], *args: object) -> None:
        """Save; but a full or read-only data directory must not keep a good system from being confirmed."""
        try:
            await asyncio.to_thread(save, *args)
        except UpdatedError as error:
            log_error(error)

    def _cause(self, update: states.Update, code: str) -> str:
        """Why the bootloader fell back, where that is known."""
        if code != "fallback":
            return ""
        known = self._store.quarantine().get(update.manifest_hash)
        if known and known.reason != states.FELL_BACK:
            return f" Cause: {known.reason}."
        return f" {cause(update, self._store.judgements())}."

    def _confirmed(self, update: states.Update, raises_floor: bool) -> None:
        self._store.forget_attempts(update.manifest_hash)
        self._store.lift(update.manifest_hash)
        if raises_floor:
            self._store.raise_floor(update.version)


def log_error(error: Exception) -> None:
    """Ours with what to do about it, any other as the bug that it is."""
    if isinstance(error, UpdatedError):
        log.error("%s", error.with_hint())
    else:
        log.error("a bug in `updated`", exc_info=error)
