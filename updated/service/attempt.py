"""One attempt to install one bundle, in the phases that the machine allows one by one."""

from __future__ import annotations

import asyncio
import logging
import uuid
from contextlib import ExitStack
from typing import Final

from updated.api.port import Transaction
from updated.config.agent_toml import AgentConfig
from updated.core import states
from updated.core.model import Offer, Outcome
from updated.core.policy import PolicyFacts, check
from updated.core.progress import ROOT_WEIGHT, Progress
from updated.errors import BundleError, Cancelled, DeviceError, NotSupportedError, Refused, UpdatedError
from updated.host import clock
from updated.install.device import Device
from updated.install.installer import (
    InstallPlan,
    choose_group,
    install,
    plan_install,
    refuse_what_only_rauc_can,
)
from updated.install.keyring import load_keyring
from updated.install.opened import OpenedBundle, open_bundle
from updated.readers.file import open_file
from updated.service.announce import Announcer
from updated.service.choice import Watched
from updated.service.facts import policy_facts
from updated.service.offers import LATER
from updated.store import Store

log = logging.getLogger(__name__)

RETRY: Final = 10.0  # seconds until a failed install or a failed bootloader write is tried again


class Attempt:
    """What is told to listeners is in RAUC's order (`operation`, `last_error`, steps, `completed`)."""

    def __init__(
        self, offer: Offer, device: Device, config: AgentConfig, store: Store, announcer: Announcer
    ) -> None:
        self.offer = offer
        self.transaction = offer.args.transaction_id or str(uuid.uuid4())
        self.update: states.Update | None = None  # known once the bundle is verified
        self.error: BaseException | None = None  # why it ended, if it did not end well
        self._device = device
        self._config = config
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
        self._installing.enter_context(self._progress.step("Installing", units=ROOT_WEIGHT))
        with self._progress.step("Determining slot states"):
            self._device.states()
        return states.CandidateChosen()

    async def read_tail(self) -> states.Event:
        self._checking.enter_context(self._progress.step("Checking bundle"))
        location = self.offer.location
        if location.startswith(("http://", "https://")):
            raise NotSupportedError(
                f"Failed to stream bundle {location}: streaming is not supported yet",
                hint="Fetch the bundle first and hand over its path.",
            )
        by_person = self.offer.source == "request"
        reader = await open_file(location, follow_symlinks=by_person)
        self._reader = Watched(reader, self._announce.moved)
        return states.TailRead()

    async def verify(self) -> states.Event:
        opened = await self._open()
        self._checking.close()
        manifest = opened.manifest
        with self._progress.step("Checking manifest contents"):
            refuse_what_only_rauc_can(self._device, manifest)
        with self._progress.step("Determining target install group"):
            target = await choose_group(self._device, manifest)
        check(manifest, self._facts(), self.offer.args)
        self._opened, self._plan = opened, await plan_install(self._device, opened, target)
        self.update = states.Update(
            transaction=self.transaction,
            source=self.offer.source,
            location=self.offer.location,
            manifest_hash=manifest.hash,
            version=manifest.version or "",
            target=self._plan.group,
            compatible=manifest.compatible,
        )
        count = 1  # a person may try as often as he likes
        if self.offer.source != "request":
            count = await asyncio.to_thread(self._store.count_attempt, manifest.hash)
        return states.Verified(self.update, count)

    async def install(self) -> states.Event:
        assert self._opened is not None
        assert self._plan is not None
        await install(
            self._device,
            self._opened,
            self._plan,
            self._progress,
            transaction=self.transaction,
            workers=self._config.install.workers,
            on_bytes=self._moved,
        )
        if self._plan.target.bootable is not None and not self._activates:
            return states.Written()
        return states.Activated(self._device.boot_id)

    async def end(self, event: states.Event) -> Outcome:
        """Let go of everything; how it ended."""
        if self._reader is not None:
            await self._reader.close()
        match event:
            case states.Cancelled():
                self.error = Cancelled("Installation cancelled")
            case states.Failed(reason) | states.Condemned(reason) if self.error is None:
                self.error = DeviceError(reason)  # not the job's: what came of it could not be saved
        return self._outcome()

    def tell(self) -> None:
        """Tell everybody how it ended."""
        self._announce.bytes_over()
        self._close_steps()
        if self.error is not None:
            self._announce.last_error(str(self.error))
        self._announce.completed(0 if self.error is None else 1)
        self._announce.operation("idle")

    def _moved(self, done: int, total: int) -> None:
        self._wrote = True
        self._announce.bytes_moved(done, total)

    def counts(self, event: states.Event) -> bool:
        """Is this end one of the three tries that a bundle has?  Not if none of it was written."""
        return self._wrote and not isinstance(event, states.Cancelled)

    def retry_after(self, event: states.Event) -> float | None:
        """Seconds until the same bundle is tried again by itself; None: not before it changes."""
        if isinstance(event, states.Failed) and self.counts(event):
            return RETRY  # the machine counts how often
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
            location=self.offer.location,
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
                return f"Installed to {self.update.target if self.update else '?'}{how}."
            case UpdatedError() as error:
                return error.with_hint()
        return str(self.error)

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

    async def _open(self) -> OpenedBundle:
        assert self._reader is not None
        system = self._device.config.system
        return await open_bundle(
            self._reader,
            keyring=await asyncio.to_thread(load_keyring, self._device.config.keyring),
            formats=system.bundle_formats,
            max_signature_size=system.max_bundle_signature_size,
            now=clock.now(),
            on_step=self._progress.step,
        )

    @property
    def _activates(self) -> bool:
        return self._device.config.system.activate_installed

    def _facts(self) -> PolicyFacts:
        automatic = self.offer.source != "request"
        return policy_facts(self._device, self._store, self._config, automatic=automatic)

    def _shown(self) -> Transaction:
        """What is known before the bundle is verified."""
        return Transaction(self.transaction, self.offer.source, self.offer.location, "", "", "", "")


def event_of(job: asyncio.Task[states.Event]) -> states.Event:
    """What the end of a phase means to the machine."""
    if job.cancelled():
        return states.Cancelled()
    error = job.exception()
    match error:
        case None:
            return job.result()
        case BundleError():
            return states.Condemned(str(error))
        case UpdatedError():
            return states.Failed(str(error))
    log.error("a bug in `updated`", exc_info=error)
    return states.Failed(f"internal error: {error!r}")
