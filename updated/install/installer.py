"""Steps 3 to 7 of the trust order: which slots, are they fit, mark bad, write, prove, make primary."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from updated.bundle.manifest import Image, Manifest
from updated.core import events
from updated.core.model import Slot, SlotStatus
from updated.core.progress import Progress
from updated.core.target import (
    TargetGroup,
    check_not_running,
    check_size,
    choose_target,
    image_classes,
    map_images,
)
from updated.errors import DeviceError, NotSupportedError, Refused, SourceError, UpdatedError
from updated.finish import stop_if_cancelled, to_its_end
from updated.host import clock
from updated.host.journal import tell
from updated.install.adaptive import Adaptive, Saving, open_adaptive
from updated.install.adaptive_parts import Stats
from updated.install.checkpoint import Checkpoints, open_checkpoints
from updated.install.device import Device
from updated.install.opened import OpenedBundle
from updated.slots import status as slot_status
from updated.slots.filesystem import grow_ext4
from updated.slots.raw import open_slot

log = logging.getLogger(__name__)

OnBytes = Callable[[int, int], None]
"""Called with the image bytes that are written, and with how many there will be."""

ALIVE = 10.0  # seconds between two signs of life of a tool that moves no bytes of ours
CHECK_UNITS, COPY_UNITS = 1, 9  # of "Updating slots", for each image (RAUC src/install.c)


@dataclass(frozen=True, slots=True)
class InstallPlan:
    """Which image goes where."""

    manifest: Manifest
    target: TargetGroup
    pairs: tuple[tuple[Image, Slot], ...]

    @property
    def group(self) -> str:
        """Name of the slot that stands for the target: the bootable one, else the first."""
        return (self.target.bootable or self.pairs[0][1]).name

    @property
    def total(self) -> int:
        """Bytes of all images."""
        return sum(image.size for image, _ in self.pairs)


async def choose_group(device: Device, manifest: Manifest) -> TargetGroup:
    """The target group for what the manifest holds.  Raises DeviceError, NotSupportedError."""
    facts = await device.facts()
    return choose_target(
        device.slots,
        device.states(),
        image_classes(manifest.images),
        device.status,
        primary=facts.primary,
        bad=await device.bad_groups(),
    )


def refuse_what_only_rauc_can(device: Device, manifest: Manifest) -> None:
    """Raises NotSupportedError for handlers and hooks: better no install than half of one."""
    handlers = device.config.handlers
    for name, path in (
        ("system-info", handlers.system_info),
        ("pre-install", handlers.pre_install),
        ("post-install", handlers.post_install),
    ):
        if path is not None:
            raise NotSupportedError(f"The {name} handler of system.conf is not supported yet")
    if manifest.handler_filename is not None:
        raise NotSupportedError("The bundle has a full custom handler, which is not supported yet")
    if manifest.hooks:
        raise NotSupportedError("The bundle has an install-check hook, which is not supported yet")


async def plan_install(device: Device, opened: OpenedBundle, target: TargetGroup) -> InstallPlan:
    """Map images to slots and look at everything that can be wrong before anything is marked.

    Raises BundleError, DeviceError, NotSupportedError.
    """
    try:
        return await _plan_install(device, opened, target)
    except UpdatedError as error:
        raise _renamed(error, "Installation error: ") from error


async def _plan_install(device: Device, opened: OpenedBundle, target: TargetGroup) -> InstallPlan:
    pairs = map_images(opened.manifest.images, device.variant or None, target)
    plan = InstallPlan(opened.manifest, target, pairs)
    resolve = await asyncio.to_thread(device.resolve)
    check_not_running([slot for _, slot in plan.pairs], device.slots, device.states(), resolve)
    for image, slot in plan.pairs:
        await opened.image_layout(image)
        await asyncio.to_thread(_try_slot, image, slot)
    return plan


def _try_slot(image: Image, slot: Slot) -> None:
    """Is the slot there, free, writable and large enough?  Blocks."""
    writer = open_slot(slot, image_size=0)
    try:
        check_size(image, slot, writer.capacity)
    finally:
        writer.close()


@dataclass(frozen=True, slots=True)
class Ways:
    """How images get into slots; the defaults keep nothing and fetch everything."""

    workers: int = 0  # threads that decompress; 0: one for each core
    checkpoints: Path | None = None  # folder; None: an interrupted install begins anew
    indexes: Path | None = None  # RAUC's data directory; None: no adaptive installs
    saving: Saving = field(default_factory=Saving)


async def reached_before(plan: InstallPlan, ways: Ways) -> int:
    """Bytes of the images that earlier attempts have left in the slots, if their logs are right."""
    if ways.checkpoints is None:
        return 0
    logs = [await open_checkpoints(ways.checkpoints, slot, image) for image, slot in plan.pairs]
    return sum(log.reached for log in logs)


async def install(
    device: Device,
    opened: OpenedBundle,
    plan: InstallPlan,
    progress: Progress,
    *,
    transaction: str,
    ways: Ways,
    on_bytes: OnBytes,
    alive: Callable[[], None] = lambda: None,
) -> Stats | None:
    """Write every image of `plan`, then make the target primary; what adaptive images have saved.

    `alive` is called while it gets on without a byte being written.
    On any error, and when cancelled, the target stays bad.  Raises UpdatedError with RAUC's texts.
    """
    writing = _Writing(device, opened, progress, plan, transaction, ways, on_bytes, alive)
    try:
        await writing.prepare()
        await _install(writing)
    except UpdatedError as error:
        await writing.give_up(distrust=not isinstance(error, SourceError))
        raise
    except BaseException:
        await writing.give_up(distrust=False)
        raise
    return writing.stats


async def _install(writing: _Writing) -> None:
    device, plan, progress = writing.device, writing.plan, writing.progress
    units = (CHECK_UNITS + COPY_UNITS) * len(plan.pairs)
    with progress.step("Updating slots", weight=6, units=units):
        bootable = plan.target.bootable
        if bootable is not None and bootable.bootname is not None:
            await _named(
                f"Failed marking slot {bootable.name} non-bootable: ",
                device.bootloader.set_state(bootable.bootname, False),
            )
            tell(log, events.marked_bad(bootable.name, bootable.bootname, by="install"))
        for image, slot in plan.pairs:
            await writing.update_slot(image, slot)
        await writing.prove()
        if bootable is not None and device.config.system.activate_installed:
            # The only commit: whoever cancels now comes too late, or nobody knows which it was.
            await to_its_end(_activate(device, bootable))
        elif bootable is not None:
            log.info("Leaving target slot non-bootable as requested by activate_installed == false.")


async def _activate(device: Device, bootable: Slot) -> None:
    """Make `bootable` primary.  What failed may have been done all the same: then it is taken back."""
    try:
        what = f"Failed marking slot {bootable.name} bootable (active/primary): "
        await _named(what, device.activate(bootable, by="install"))
    except UpdatedError:
        try:
            await device.mark_group(bootable.name, good=False)
        except UpdatedError as error:
            log.error("%s", error)  # the first error is the one to tell
        raise


@dataclass(slots=True)
class _Writing:
    """The slots of one install, one after the other."""

    device: Device
    opened: OpenedBundle
    progress: Progress
    plan: InstallPlan
    transaction: str
    ways: Ways
    on_bytes: OnBytes
    alive: Callable[[], None]
    done: int = 0  # bytes of the images before this one
    size: int = 0  # bytes of this one
    stats: Stats | None = None
    checkpoints: dict[str, Checkpoints] = field(default_factory=dict)  # slot name: its log
    adaptive: dict[str, Adaptive] = field(default_factory=dict)  # slot name: what need not be fetched
    unproven: list[Callable[[], Awaitable[None]]] = field(default_factory=list)  # to be done after the proof

    async def prepare(self) -> None:
        """Find out what need not be fetched; nothing is written yet.  Raises UpdatedError."""
        status = dict(self.device.status)
        for image, slot in self.plan.pairs:
            if self._same(image, slot):
                continue
            log = None
            if self.ways.checkpoints is not None:
                log = self.checkpoints[slot.name] = await open_checkpoints(self.ways.checkpoints, slot, image)
            if self.ways.indexes is None:
                continue
            found = await open_adaptive(
                image=image,
                opened=self.opened,
                slot=slot,
                active=self._active(slot),
                status=status,
                data=self.ways.indexes,
                start=log.reached if log else 0,
                workers=self.ways.workers or None,
                saving=self.ways.saving,
                moved=self.alive,
            )
            if found is not None:
                self.adaptive[slot.name] = found

    async def prove(self) -> None:
        """Nothing is made primary, or said of a slot, that is not proven.  Raises SignatureError."""
        await self.opened.prove()
        for keep in self.unproven:
            await keep()
        for log in self.checkpoints.values():  # only now: a later image may yet be interrupted
            await log.clear()

    @property
    def _hash(self) -> str:
        """Of the manifest; "" while it is not proven."""
        return self.plan.manifest.hash if self.opened.proven else ""

    async def give_up(self, *, distrust: bool) -> None:
        """`distrust`: perhaps it was a hash index that was wrong."""
        for adaptive in self.adaptive.values():
            await adaptive.drop(distrust=distrust)

    def _active(self, slot: Slot) -> Slot | None:
        """The slot of the same class that runs."""
        states = self.device.states()
        same = (s for s in self.device.slots if s.slot_class == slot.slot_class and s.name != slot.name)
        return next((s for s in same if states[s.name] != "inactive"), None)

    def _same(self, image: Image, slot: Slot) -> bool:
        return not slot.install_same and _holds(self.device.status_of(slot), image)

    async def update_slot(self, image: Image, slot: Slot) -> None:
        self.size = image.size
        before = self.device.status_of(slot)
        label = f"{slot.name} ({slot.bootname})" if slot.bootname else slot.name
        with self.progress.step(f"Checking slot {label}", weight=CHECK_UNITS):
            same = self._same(image, slot)
            if not same:
                await self._save_pending(slot, before)
        if same:
            with self.progress.step("Copying image skipped", weight=COPY_UNITS):
                await self._save_end(slot, before, image, "ok")
        else:
            with self.progress.step(f"Copying image to {slot.name}", weight=COPY_UNITS):
                await self._copy(image, slot, before)
        self.done += image.size

    async def _copy(self, image: Image, slot: Slot, before: SlotStatus) -> None:
        tell(log, events.slot_write_started(slot.name, transaction=self.transaction, bundle_hash=self._hash))
        try:
            await self._write(image, slot)
            if self.opened.proven:
                await self._grow(image, slot)
        except UpdatedError as error:
            await self._save_failed(slot, before, image)
            raise _renamed(error, f"Installation error: Failed updating slot {slot.name}: ") from error
        except BaseException:
            await self._save_failed(slot, before, image)
            raise
        if self.opened.proven:
            await self._keep(slot, before, image)
        else:
            self.unproven.append(lambda: self._grow(image, slot))
            self.unproven.append(lambda: self._keep(slot, before, image))

    async def _keep(self, slot: Slot, before: SlotStatus, image: Image) -> None:
        """The slot holds the image now."""
        await self._save_end(slot, before, image, "ok")
        tell(log, events.slot_written(slot.name, transaction=self.transaction, bundle_hash=self._hash))
        adaptive = self.adaptive.pop(slot.name, None)
        if adaptive is not None:
            await adaptive.keep()
            self.stats = adaptive.stats if self.stats is None else self.stats + adaptive.stats

    async def _write(self, image: Image, slot: Slot) -> None:
        # Cancelled while it opens, the writer must not stay behind: nobody could open the slot again.
        writer = await to_its_end(asyncio.to_thread(open_slot, slot, image_size=image.size))
        try:
            stop_if_cancelled()
            adaptive = self.adaptive.get(slot.name)
            await self.opened.write_image(
                image,
                writer,
                workers=self.ways.workers or None,
                on_bytes=self._moved,
                checkpoints=self.checkpoints.get(slot.name),
                parts_from=adaptive.parts_from if adaptive else None,
            )
        finally:
            await asyncio.to_thread(writer.close)

    async def _grow(self, image: Image, slot: Slot) -> None:
        """The file system to the size of the slot, where that is wanted.  Raises DeviceError."""
        if slot.resize and slot.type == "ext4" and image.type == "ext4":
            with _every(ALIVE, lambda: self._moved(image.size)):
                await grow_ext4(slot.device)

    def _moved(self, written: int) -> None:
        self.progress.percent(written / max(self.size, 1))
        self.on_bytes(self.done + written, self.plan.total)

    async def _save_pending(self, slot: Slot, before: SlotStatus) -> None:
        # A status inside the slot is about to be overwritten, and the slot may hold no file system yet.
        if not self.device.status_in_slots:
            await self.device.save_status(slot, slot_status.begun(before))

    async def _save_failed(self, slot: Slot, before: SlotStatus, image: Image) -> None:
        try:
            await self._save_end(slot, before, image, "failed")
        except DeviceError as error:
            log.warning("%s", error)  # the first error is the one to tell

    async def _save_end(
        self, slot: Slot, before: SlotStatus, image: Image, result: Literal["ok", "failed"]
    ) -> None:
        status = slot_status.finished(
            before,
            result,
            manifest=self.plan.manifest,
            image=image,
            transaction=self.transaction,
            now=clock.now(),
        )
        try:
            await self.device.save_status(slot, status)
        except DeviceError as error:
            if not self.device.status_in_slots:
                raise
            log.warning("%s", error)  # not every file system can be mounted here; the image itself is good


def _holds(status: SlotStatus, image: Image) -> bool:
    return status.status == "ok" and status.sha256 is not None and status.sha256 == image.sha256


@contextlib.contextmanager
def _every(seconds: float, call: Callable[[], None]) -> Iterator[None]:
    """`call` every so many seconds meanwhile: what runs has a deadline of its own, and is not stuck."""

    async def again() -> None:
        while True:
            await asyncio.sleep(seconds)
            call()

    task = asyncio.create_task(again())
    try:
        yield
    finally:
        task.cancel()


async def _named(prefix: str, work: Awaitable[None]) -> None:
    try:
        await work
    except UpdatedError as error:
        raise _renamed(error, f"Installation error: {prefix}") from error


def _renamed(error: UpdatedError, prefix: str) -> UpdatedError:
    """The same kind of error, told as RAUC tells where it happened."""
    if isinstance(error, Refused):
        return Refused(f"{prefix}{error}", rule=error.rule, hint=error.hint)
    # The kind that says who must act: readers have kinds of their own below it, with other arguments.
    kind = next(each for each in type(error).__mro__ if each.__module__ == UpdatedError.__module__)
    renamed: UpdatedError = kind(f"{prefix}{error}", hint=error.hint)
    return renamed
