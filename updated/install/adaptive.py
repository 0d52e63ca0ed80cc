"""Adaptive installs: what this device has already is not fetched (RAUC's `block-hash-index`).

The index of the image, from the bundle or kept from an earlier install, says which chunks it has; seeds (the
active slot, the old content of the target, what is written already) have most of them.  Only the blocks of
the SquashFS that hold another chunk are fetched.  What is written is proved by its SHA-256 afterwards as
always: a wrong index or seed can cost time, never more.

An index that had to be computed is not kept, as with RAUC: nothing would tell when the slot was changed, and
after the next install it is not needed any more.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, aclosing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from updated.bundle.block_index import CHUNK, DIGEST, METHOD, SUFFIX, chunks_of
from updated.bundle.manifest import Image
from updated.core.model import Slot, SlotStatus
from updated.errors import BundleError, Refused
from updated.install.adaptive_parts import Adaptive
from updated.install.index_cache import IndexCache
from updated.install.opened import OpenedBundle
from updated.install.payload import Payload
from updated.install.pipeline import unpack
from updated.install.runs import run_size
from updated.install.seeds import Index, Seed, hash_device, is_plausible, open_device, write_all
from updated.install.survey import AHEAD, Lookup, Source, Survey, survey
from updated.install.threads import in_thread, threads

if TYPE_CHECKING:
    from updated.bundle.squashfs import FileLayout

__all__ = ["Adaptive", "Saving", "open_adaptive"]

log = logging.getLogger(__name__)

UNFINISHED: Final = ("pending", "failed")  # slots that may hold a part of something else


@dataclass(frozen=True, slots=True)
class Saving:
    """`[install]` of updated.toml: how much of an image must be here already."""

    least: float = 0.0  # 0 to 1
    else_do: Literal["fetch", "stop-if-metered"] = "fetch"
    metered: bool = False

    def check(self, name: str, part: float, to_fetch: int) -> None:
        """Raises Refused if too little is saved.  `to_fetch` is in bytes."""
        if part >= self.least or self.else_do == "fetch" or not self.metered:
            return
        raise Refused(
            f"Only {part:.1%} of '{name}' would be saved, expected at least {self.least:.1%}:"
            f" {to_fetch} bytes would come over a metered link",
            rule="metered",
            hint="Connect over an unmetered link, or change min-saved or poorly-saved in updated.toml.",
        )


async def open_adaptive(
    *,
    image: Image,
    opened: OpenedBundle,
    slot: Slot,
    active: Slot | None,
    status: Mapping[str, SlotStatus],
    data: Path | None,
    start: int = 0,
    workers: int | None = None,
    saving: Saving = Saving(),
    moved: Callable[[], None] = lambda: None,
) -> Adaptive | None:
    """Find out what of `image` this device has; nothing is written to `slot`.  None: write all of it.

    `active` is the slot of the same class that runs; `status` is by slot name, as it was before the target
    became `pending`; `data` is RAUC's data-directory.  `start` bytes are on the target already, as far as is
    known.  `moved` is called in the event loop as a sign of life.  Raises BundleError if the image is not
    there, SourceError, and Refused (rule `metered`) if too little would be saved.
    """
    if METHOD not in image.adaptive or not opened.proven:
        return None  # what is proven at the end only is read as a whole anyway
    name, sha256 = image.filename or "", image.sha256 or ""
    layout = await opened.image_layout(image)
    if data is None:
        log.warning("Ignoring adaptive method since 'data-directory' is not configured")
        saving.check(name, 0.0, layout.stored_bytes)
        return None
    handles = ExitStack()
    payload = opened.payload
    opening = _Opening(payload, slot, active, status, IndexCache(data, slot.name), start, handles, moved)
    try:
        with threads(1, "seeds") as pool:
            index = await opening.index(pool, name, sha256, chunks_of(image.size))
            lookup = await opening.lookup(pool, index, layout)
            plan = await opening.survey(pool, layout, lookup)
        saving.check(name, plan.saved, plan.to_fetch)
    except (BundleError, OSError) as error:
        handles.close()
        log.warning("Continuing after adaptive mode error: %s", error)
        saving.check(name, 0.0, layout.stored_bytes)
        return None
    except BaseException:
        handles.close()
        raise
    log.info("%s: %.1f %% is here, %d bytes to fetch", name, 100 * plan.saved, plan.to_fetch)
    return Adaptive(
        payload, lookup, plan, opening.cache, handles, sha256=sha256, old=opening.holds(slot), workers=workers
    )


@dataclass(slots=True)
class _Opening:
    """The steps of `open_adaptive`.  All handles belong to `handles` as soon as they are open."""

    payload: Payload
    slot: Slot
    active: Slot | None
    status: Mapping[str, SlotStatus]
    cache: IndexCache
    start: int  # bytes
    handles: ExitStack
    moved: Callable[[], None]

    def holds(self, slot: Slot) -> str | None:
        """SHA-256 of the image that is on `slot`; None if nobody knows."""
        status = self.status.get(slot.name, SlotStatus())
        return status.sha256 if status.status == "ok" else None

    async def index(self, pool: ThreadPoolExecutor, name: str, sha256: str, chunks: int) -> Index:
        """The index of the image, kept or from the bundle.  Raises BundleError, SourceError, OSError."""
        kept = await in_thread(pool, self._kept, sha256, chunks)
        if kept is not None:
            return kept
        layout = await self.payload.find_layout(name + SUFFIX)
        if layout is None:
            raise BundleError(f"File '{name}{SUFFIX}' not found in bundle")
        if layout.size != chunks * DIGEST:
            raise BundleError(f"File '{name}{SUFFIX}' has {layout.size} bytes, expected {chunks * DIGEST}")
        index = Index(await in_thread(pool, self._scratch), chunks)
        done = 0
        async with aclosing(unpack(layout, self.payload.verifier, self.payload.reader, workers=1)) as parts:
            async for part in parts:
                await in_thread(pool, write_all, index.handle, part, done)
                done += len(part)
                self.moved()
        await in_thread(pool, self.cache.expect, sha256, index)
        return index

    async def lookup(self, pool: ThreadPoolExecutor, index: Index, layout: FileLayout) -> Lookup:
        """Open the seeds; one that cannot be had is none.  Raises OSError."""
        lag = AHEAD * max(run_size(self.payload.reader), layout.block_size) // CHUNK
        lookup = Lookup(index, {}, lag, self.start // CHUNK)
        remote = self.payload.reader.remote
        if self.active is not None:
            known = partial(self.cache.of_content, self.holds(self.active))
            seed = await in_thread(pool, self._seed, self.active, known)
            # For a file it does not pay: to read it is no slower than to hash a whole slot first.
            if seed is not None and (seed.index.chunks or remote):
                lookup.seeds[Source.ACTIVE] = await self._hashed(pool, self.active, seed, layout.size)
        # What an interrupted install wrote is in no index, unless it is known to be part of this image.
        before = self.status.get(self.slot.name, SlotStatus())
        interrupted = before.status in UNFINISHED and not self.start
        old = self.holds(self.slot)
        kept: Callable[[], Index | None]
        if old is not None:
            kept = partial(self.cache.of_content, old)
        elif remote and interrupted:
            kept = _no_index
        else:
            kept = self.cache.of_old_content
        seed = await in_thread(pool, self._seed, self.slot, kept)
        if seed is not None:
            lookup.seeds[Source.WRITTEN] = Seed(seed.device, index)
            if seed.index.chunks or (remote and (interrupted or self.active is None)):
                lookup.seeds[Source.TARGET] = await self._hashed(pool, self.slot, seed, layout.size)
        return lookup

    async def survey(self, pool: ThreadPoolExecutor, layout: FileLayout, lookup: Lookup) -> Survey:
        """Raises OSError."""
        steps = survey(layout, lookup, self.start, size=run_size(self.payload.reader))
        result = Survey(bytearray())
        while (step := await in_thread(pool, next, steps, None)) is not None:
            result = step
            self.moved()
        return result

    async def _hashed(self, pool: ThreadPoolExecutor, slot: Slot, seed: Seed, size: int) -> Seed:
        """`seed` with an index: computed if it has none.  Raises OSError."""
        if seed.index.chunks:
            return seed
        handle = await in_thread(pool, self._scratch)
        log.info("Building new hash index for slot %s", slot.name)
        steps = hash_device(seed.device, size, handle)
        chunks = 0
        while (step := await in_thread(pool, next, steps, None)) is not None:
            chunks = step
            self.moved()
        return Seed(seed.device, Index(handle, chunks))

    def _seed(self, slot: Slot, kept: Callable[[], Index | None]) -> Seed | None:
        """The device of `slot` and its index, one of no chunks if none is `kept`."""
        try:
            device = open_device(slot.device)
        except (OSError, ValueError) as error:
            log.warning("Nothing is taken from slot %s: %s", slot.name, error)
            return None
        self.handles.callback(os.close, device)
        index = self._own(kept())
        if index is None:
            return Seed(device, Index(-1, 0))
        there = os.lseek(device, 0, os.SEEK_END) // CHUNK
        seed = Seed(device, Index(index.handle, min(index.chunks, there)))
        # Each chunk that is missed costs a request; hashing the slot anew costs seconds.
        if self.payload.reader.remote and not is_plausible(seed):
            log.warning("Ignoring the hash index of slot %s: much of it is not what is there", slot.name)
            return Seed(device, Index(-1, 0))
        return seed

    def _kept(self, sha256: str, chunks: int) -> Index | None:
        return self._own(self.cache.of_image(sha256, chunks))

    def _scratch(self) -> int:
        handle = self.cache.scratch()
        self.handles.callback(os.close, handle)
        return handle

    def _own(self, index: Index | None) -> Index | None:
        if index is not None:
            self.handles.callback(os.close, index.handle)
        return index


def _no_index() -> Index | None:
    return None
