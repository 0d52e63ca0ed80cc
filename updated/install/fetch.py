"""How the stored bytes of runs are read: in the order that was announced, each byte once, and good ones.

Runs are read in groups: first the digests of a whole group, then its data, run by run.  So a server sees a
few long requests instead of two small ones for every run.

    [digests of group 1][data of its runs ......................][digests of group 2][data ...

Neighbours share the granule in which one ends and the next begins.  It is read with the first of them and
handed on, not read twice: the ranges of a group lie strictly side by side, so a server streams them as one
request, and the 64 KiB granules of plain bundles cost nothing on the wire.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, TypeVar

from updated.bundle import verity
from updated.bundle.plan import Range, run
from updated.bundle.verifier import Verifier
from updated.bundle.verity import VerityParams, VerityTree
from updated.core.model import Reader
from updated.errors import BundleError, SourceError
from updated.install.runs import Run

log = logging.getLogger(__name__)

GROUP_DATA: Final = 128 << 20  # stored bytes of a group: two requests for so many cost no time
GROUP_DIGESTS: Final = 1 << 20  # bytes; what 128 MiB need, and the memory of a group
GROUP_RUNS: Final = 512  # runs that are laid out at once, in a few milliseconds of the event loop
REREADS: Final = 3

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Job:
    """A run, and where its bytes come from."""

    run: Run
    offset: int  # of its first granule
    length: int  # of its granules; 0: nothing is stored
    read: Range  # what has to be read of them; those before it were read with the run before
    proof: Range | None  # its digests


@dataclass(slots=True, eq=False)
class Group:
    """Runs with ascending places, whose digests are read at once."""

    jobs: list[Job] = field(default_factory=list)
    proofs: list[Range] = field(default_factory=list)
    stored: int = 0  # bytes of all jobs
    place: int = 0  # where the last of them begins in the payload
    begun: bool = False
    _digests: list[bytes] = field(default_factory=list)

    def add(self, job: Job) -> bool:
        """Take `job` in; False if it must begin a new group."""
        proofs = _merged(self.proofs, job.proof)
        if self.jobs and not self._has_room(job, proofs):
            return False
        self.jobs.append(job)
        self.proofs = proofs
        if job.run.stored:
            self.stored += job.run.stored
            self.place = job.run.start
        return True

    def ranges(self) -> Iterator[Range]:
        """All that is read for the group, in order."""
        yield from self.proofs
        yield from (job.read for job in self.jobs if job.read.length)

    async def read_digests(self, reader: Reader) -> None:
        self.begun = True
        self._digests = [await reader.read(*proof) for proof in self.proofs]

    def digests(self, job: Job) -> bytes:
        """Those of `job`, as they were read."""
        if job.proof is None:
            return b""
        for proof, digests in zip(self.proofs, self._digests, strict=True):
            if proof.offset <= job.proof.offset < proof.offset + proof.length:
                return digests[job.proof.offset - proof.offset :][: job.proof.length]
        raise AssertionError("a job of another group")

    def _has_room(self, job: Job, proofs: list[Range]) -> bool:
        if len(self.jobs) == GROUP_RUNS:
            return False
        if not job.run.stored:
            return True
        return (
            job.run.start >= self.place
            and self.stored + job.run.stored <= GROUP_DATA
            and sum(proof.length for proof in proofs) <= GROUP_DIGESTS
        )


def _merged(proofs: list[Range], proof: Range | None) -> list[Range]:
    if proof is None:
        return proofs
    end = proof.offset + proof.length
    if proofs:
        last = proofs[-1]
        last_end = last.offset + last.length
        if last.offset <= proof.offset <= last_end:
            return [*proofs[:-1], Range(last.offset, max(end, last_end) - last.offset)]
    return [*proofs, proof]


def in_groups(verifier: Verifier, runs: Iterable[Run]) -> Iterator[tuple[Group, Job]]:
    """Every run with its group, in order; looks ahead as far as the group reaches.  Raises BundleError."""
    group, end = Group(), 0
    for some in runs:
        job = _job(verifier, some, end)
        if job.length:
            end = job.offset + job.length
        if not group.add(job):
            yield from ((group, done) for done in group.jobs)
            group = Group()
            group.add(job)
    yield from ((group, done) for done in group.jobs)


def _job(verifier: Verifier, some: Run, end: int) -> Job:
    """`end` is where the granules of the run before end."""
    if not some.stored:
        return Job(some, 0, 0, Range(0, 0), None)
    offset, length = aligned(verifier, some.start, some.stored)
    begin = end if 0 < end - offset <= min(length, verifier.granule) else offset
    read = Range(begin, offset + length - begin)
    return Job(some, offset, length, read, verifier.digests(offset, length))


class Fetcher:
    """Reads for the jobs of `in_groups`: call `fetch` for one after the other, without waiting in between."""

    def __init__(self, verifier: Verifier, reader: Reader) -> None:
        self._verifier = verifier
        self._reader = reader
        self._turn = asyncio.Lock()  # first come, first served: the order in which the reads were announced
        self._last = b""  # the granule that was read last

    async def fetch(self, group: Group, job: Job) -> tuple[list[bytes], bytes]:
        """The granules of `job`, in one or two pieces, and its digests.  Raises SourceError."""
        async with self._turn:
            if not group.begun:
                self._reader.expect(group.ranges())
                await group.read_digests(self._reader)
            handed_on = job.read.offset - job.offset
            pieces = [self._last[-handed_on:]] if handed_on else []
            if job.read.length:
                data = await self._reader.read(*job.read)
                self._last = data[-self._verifier.granule :]
                pieces.append(data)
        return pieces, group.digests(job)

    async def fetch_again(self, job: Job) -> tuple[list[bytes], bytes]:
        """The same, but from the medium or the server, whatever was read of it before."""
        async with self._turn:
            return await _fetch(self._reader, job.offset, job.length, job.proof, again=True)


async def read_verified(verifier: Verifier, reader: Reader, offset: int, length: int) -> bytes:
    """`length` good bytes of the payload; they are hashed in the event loop, so they should be few.

    Raises BundleError (outside of it), SourceError.
    """
    start, size = aligned(verifier, offset, length)

    async def attempt(again: bool) -> bytes | None:
        (data,), digests = await _fetch(reader, start, size, verifier.digests(start, size), again=again)
        return data if is_good(verifier, start, data, digests) else None

    data = await insist(attempt, reader.name, start, size)
    return data[offset - start : offset - start + length]


async def load_tree(params: VerityParams, reader: Reader) -> VerityTree:
    """The upper levels of the hash tree, good ones.  Raises SourceError."""
    size = verity.tree_size(params.data_size)

    async def attempt(again: bool) -> VerityTree | None:
        if again:
            reader.forget(params.data_size, size)
        try:
            return await run(verity.load(params), reader.read)
        except BundleError:
            return None

    return await insist(attempt, reader.name, params.data_size, size)


async def insist(attempt: Callable[[bool], Awaitable[T | None]], name: str, offset: int, length: int) -> T:
    """What `attempt` makes of good bytes.

    It returns None for bad ones, and is asked again then, up to REREADS times, with True: not from a cache.
    Good bytes are signed, so bad ones are the fault of the medium or the network, never that of the bundle.
    Raises SourceError.
    """
    where = f"bytes {offset} to {offset + length} of {name} are not those that were signed"
    for left in reversed(range(REREADS + 1)):
        found = await attempt(left < REREADS)
        if found is not None:
            return found
        log.warning("%s (%d tries left)", where, left)
    raise SourceError(
        f"bundle payload is corrupted: {where}",
        hint="The signature is good, the bytes are not: copy the bundle again, or check the medium.",
    )


def is_good(verifier: Verifier, offset: int, data: bytes, digests: bytes) -> bool:
    try:
        verifier.check(offset, data, digests)
    except BundleError:
        return False
    return True


def aligned(verifier: Verifier, start: int, length: int) -> tuple[int, int]:
    """(offset, length) of the granules around `length` bytes from `start`.  Raises BundleError if outside."""
    end = start + length
    if start < 0 or end > verifier.data_size:
        raise BundleError(
            f"Bundle payload has {verifier.data_size} bytes, but bytes {start} to {end} are needed"
        )
    offset = start - start % verifier.granule
    rounded = -(-end // verifier.granule) * verifier.granule
    return offset, min(rounded, verifier.data_size) - offset


async def _fetch(
    reader: Reader, offset: int, length: int, proof: Range | None, *, again: bool
) -> tuple[list[bytes], bytes]:
    if again:
        reader.forget(offset, length)
        if proof:
            reader.forget(*proof)
    data = await reader.read(offset, length)
    return [data], await reader.read(*proof) if proof else b""
