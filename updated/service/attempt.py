"""One attempt to install one bundle, in the phases that the machine allows one by one."""

from __future__ import annotations

import asyncio
import logging
import uuid
from contextlib import ExitStack
from typing import Final

from updated.api.port import Transaction
from updated.core import events, states
from updated.core.link import is_url
from updated.core.model import Offer, Outcome
from updated.core.policy import PolicyFacts, check, check_expected
from updated.core.progress import ROOT_WEIGHT, Progress
from updated.errors import BundleError, Cancelled, DeviceError, Refused, SourceError, UpdatedError
from updated.host import clock
from updated.host.journal import tell
from updated.install.adaptive_parts import Stats
from updated.install.installer import (
    InstallPlan,
    Ways,
    choose_group,
    install,
    plan_install,
    reached_before,
    refuse_what_only_rauc_can,
)
from updated.install.opened import OpenedBundle
from updated.readers.http_errors import shown
from updated.service.announce import Announcer
from updated.service.facts import policy_facts
from updated.service.offers import LATER
from updated.service.setting import Setting
from updated.service.watched import Pace, Watched
from updated.store import Store

log = logging.getLogger(__name__)

FRAIL: Final = ("usb", "ota")  # sources that may fail for reasons of their own
RETRY: Final = 10.0  # seconds until a failed install or a failed bootloader write is tried again


class Attempt:
    """What is told to listeners is in RAUC's order (`operation`, `last_error`, steps, `completed`)."""

    def __init__(
        self,
        offer: Offer,
        setting: Setting,
        store: Store,
        announcer: Announcer,
    ) -> None:
        self.offer = offer
        self.pace = Pace(announcer.moved)
        self.transaction = offer.args.transaction_id or str(uuid.uuid4())
        self.update: states.Update | None = None  # known once the bundle is verified
        self.error: BaseException | None = None  # why it ended, if it did not end well
        self.cancelled = "Installation cancelled"  # why, if it is
        self._setting = setting
        self._device = setting.device
        # It is written down: files of the data directory may be read by others, and go into backups.
        self._place = shown(offer.location) if is_url(offer.location) else offer.location
        self._saved: Stats | None = None  # what was here already
        self._store = store
        self._announce = announcer
        self._progress = Progress(announcer.step)
        self._installing = ExitStack()
        self._checking = ExitStack()
        self._wrote = False  # bytes reached a slot
        self._reader: Watched | None = None
        self._opened: OpenedBundle | None = None
        self._plan: InstallPlan | None = None

    def begin(self) -> None:
        """The offer is accepted; a D-Bus call is answered after this."""
        self._announce.transaction(self._shown())
        self._announce.operation("installing")

    async def start(self) -> states.Event:
        self._announce.last_error("")
        source = self.offer.source
        tell(log, events.install_started(self.transaction, source=source, location=self._place))
        self._installing.enter_context(self._progress.step("Installing", units=ROOT_WEIGHT))
        with self._progress.step("Determining slot states"):
            self._device.states()
        return states.CandidateChosen()

    async def read_tail(self) -> states.Event:
        self._checking.enter_context(self._progress.step("Checking bundle"))
        self._reader = await self._setting.bundles.open(
            self.offer, self.pace, transaction=self.transaction, on_spooled=self._spooled
        )
        return states.TailRead()

    async def verify(self) -> states.Event:
        assert self._reader is not None
        opened = await self._setting.bundles.verify(self._reader, on_step=self._progress.step)
        self._checking.close()
        manifest = opened.manifest
        check_expected(manifest, self.offer.expected)
        with self._progress.step("Checking manifest contents"):
            refuse_what_only_rauc_can(self._device, manifest)
        with self._progress.step("Determining target install group"):
            target = await choose_group(self._device, manifest)
        check(manifest, self._facts(), self.offer.args)
        self._opened, self._plan = opened, await plan_install(self._device, opened, target)
        self.update = states.Update(
            transaction=self.transaction,
            source=self.offer.source,
            location=self._place,
            manifest_hash=manifest.hash if opened.proven else "",  # somebody else's, perhaps
            version=manifest.version or "",
            target=self._plan.group,
            compatible=manifest.compatible,
        )
        count = 1  # a person may try as often as he likes
        if self.offer.source != "request" and opened.proven:
            reached = await reached_before(self._plan, self._ways(metered=False))
            count = await asyncio.to_thread(self._store.count_attempt, manifest.hash, reached)
        return states.Verified(self.update, count)

    async def install(self) -> states.Event:
        assert self._opened is not None
        assert self._plan is not None
        # A person who asks knows what it costs.
        metered = self.offer.source != "request" and await self._setting.gate.metered()
        self._saved = await install(
            self._device,
            self._opened,
            self._plan,
            self._progress,
            transaction=self.transaction,
            ways=self._ways(metered=metered),
            alive=self._announce.moved,
            on_bytes=self._moved,
        )
        if self._plan.target.bootable is not None and not self._activates:
            return states.Written()
        return states.Activated(self._device.boot_id, self._opened.manifest.hash)

    async def end(self, event: states.Event) -> Outcome:
        """Let go of everything; how it ended."""
        match event:
            case states.Cancelled():
                self.error = Cancelled(self.cancelled)
            case states.Failed(reason) | states.Condemned(reason) if self.error is None:
                self.error = DeviceError(reason)  # not the job's: what came of it could not be saved
        if self._reader is not None:
            if isinstance(self.error, Cancelled) or self.retry_after(event) is not None:
                self._reader.inner.keep_for_retry()
            await self._reader.close()
        return self._outcome()

    def tell(self) -> None:
        """Tell everybody how it ended."""
        self._announce.bytes_over()
        self._close_steps()
        if self.error is not None:
            self._announce.last_error(str(self.error))
        self._announce.completed(0 if self.error is None else 1)
        self._announce.operation("idle")

    def _ways(self, *, metered: bool) -> Ways:
        return self._setting.ways(metered=metered)

    def _spooled(self, there: int, size: int) -> None:
        self._announce.bytes_moved(there, size, fetched=there, bundle=size)

    def _moved(self, done: int, total: int) -> None:
        self._wrote = True
        fetched, bundle = (self._reader.fetched, self._reader.size) if self._reader else (0, 0)
        self._announce.bytes_moved(done, total, fetched=fetched, bundle=bundle)

    def counts(self, event: states.Event) -> bool:
        """Is this end one of the three tries that a bundle has?

        Not if none of it was written, and a stick or a server that fails says nothing of the bundle.
        """
        if isinstance(event, states.Failed) and not event.counts:
            return False
        return self._wrote and not isinstance(event, states.Cancelled)

    def retry_after(self, event: states.Event) -> float | None:
        """Seconds until the same bundle is tried again by itself; None: not before it changes."""
        if isinstance(self.error, SourceError):
            return None if self.offer.source == "usb" else LATER  # a stick is plugged again
        if isinstance(event, states.Failed) and self.counts(event):
            return RETRY  # the machine counts how often
        if isinstance(self.error, Refused) and self.error.rule == "metered":
            return LATER
        return LATER if isinstance(self.error, UpdatedError) and self.error.passing else None

    def _close_steps(self) -> None:
        kind = type(self.error) if self.error else None
        trace = self.error.__traceback__ if self.error else None
        self._checking.__exit__(kind, self.error, trace)
        self._installing.__exit__(kind, self.error, trace)

    def _outcome(self) -> Outcome:
        update = self.update
        return Outcome(
            transaction=self.transaction,
            source=self.offer.source,
            location=self._place,
            version=update.version if update else "",
            manifest_hash=update.manifest_hash if update else "",
            target=update.target if update else "",
            code=self._code(),
            text=self._text(),
            time=clock.timestamp(),
        )

    def _text(self) -> str:
        """For the journal and the history: RAUC's LastError has no place for the hint."""
        match self.error:
            case None:
                how = "" if self._activates else ", and not made primary, as system.conf wants it"
                return f"Installed to {self.update.target if self.update else '?'}{how}.{self._savings()}"
            case UpdatedError() as error:
                return error.with_hint()
        return str(self.error)

    def _savings(self) -> str:
        if self._saved is None or self._reader is None or not (self._saved.seeds or self._reader.remote):
            return ""
        return (
            f" {self._saved.saved:.1%} of it was here already:"
            f" {self._reader.fetched} of {self._reader.size} bytes were read."
        )

    def _code(self) -> str:
        match self.error:
            case None:
                return "installed"
            case Cancelled():
                return "cancelled"
            case Refused():
                return "refused"
            case _:
                return "failed"

    @property
    def _activates(self) -> bool:
        return self._device.config.system.activate_installed

    def _facts(self) -> PolicyFacts:
        automatic = self.offer.source != "request"
        return policy_facts(self._device, self._store, self._setting.config, automatic=automatic)

    def _shown(self) -> Transaction:
        """What is known before the bundle is verified."""
        return Transaction(self.transaction, self.offer.source, self._place, "", "", "", "")


def event_of(job: asyncio.Task[states.Event], source: str) -> states.Event:
    """What the end of a phase means to the machine."""
    if job.cancelled():
        return states.Cancelled()
    error = job.exception()
    match error:
        case None:
            return job.result()
        case BundleError():
            return states.Condemned(str(error))
        case SourceError():
            return states.Failed(str(error), counts=source not in FRAIL)
        case UpdatedError():
            return states.Failed(str(error))
    log.error("a bug in `updated`", exc_info=error)
    return states.Failed(f"internal error: {error!r}")
