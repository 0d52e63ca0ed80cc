"""Which of several offered files to install: each is verified first, then policy decides."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from updated.core.model import Reader
from updated.core.policy import Candidate, PolicyFacts
from updated.core.policy import choose as choose_candidate
from updated.errors import UpdatedError
from updated.host import clock
from updated.install.device import Device
from updated.install.keyring import load_keyring
from updated.install.opened import OpenedBundle, open_bundle
from updated.readers.file import open_file
from updated.sources.folder import Found

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a file is not installed."""

    item: Found
    reason: str
    passing: bool = False  # True: it may be installed later


class Watched:
    """A `Reader` around another that says when it gets on: a plain bundle is read for minutes."""

    def __init__(self, reader: Reader, moved: Callable[[], None]) -> None:
        self._reader = reader
        self._moved = moved

    @property
    def size(self) -> int:
        return self._reader.size

    @property
    def name(self) -> str:
        return self._reader.name

    @property
    def remote(self) -> bool:
        return self._reader.remote

    @property
    def fetched(self) -> int:
        return self._reader.fetched

    def expect(self, ranges: Iterable[tuple[int, int]]) -> None:
        self._reader.expect(ranges)

    async def read(self, offset: int, length: int) -> bytes:
        data = await self._reader.read(offset, length)
        self._moved()
        return data

    async def close(self) -> None:
        await self._reader.close()


async def choose(
    found: Sequence[Found], device: Device, facts: PolicyFacts, *, moved: Callable[[], None]
) -> tuple[Found | None, list[Refusal]]:
    """The one to install, and those that are not worth another look, each with the reason.

    `moved` is called whenever it gets on.
    """
    candidates: dict[str, Candidate] = {}
    refused: list[Refusal] = []
    for item in found:
        try:
            opened = await inspect(str(item.path), device, follow_symlinks=False, moved=moved)
        except UpdatedError as error:
            refused.append(Refusal(item, str(error), error.passing))
        except Exception as error:
            log.exception("a bug in `updated`")  # or this file would be looked at for ever
            refused.append(Refusal(item, f"internal error: {error!r}"))
        else:
            candidates[str(item.path)] = Candidate(str(item.path), opened.manifest)
    chosen, rejected = choose_candidate(list(candidates.values()), facts)
    by_name = {str(item.path): item for item in found}
    refused += [Refusal(by_name[candidate.name], reason) for candidate, reason in rejected]
    return (by_name[chosen.name] if chosen else None), refused


async def inspect(
    path: str,
    device: Device,
    *,
    follow_symlinks: bool = True,
    moved: Callable[[], None] = lambda: None,
) -> OpenedBundle:
    """Verify the bundle at `path` as an install does, without policy; its reader is closed again.

    Raises UpdatedError.
    """
    system = device.config.system
    reader = Watched(await open_file(path, follow_symlinks=follow_symlinks), moved)
    try:
        return await open_bundle(
            reader,
            keyring=await asyncio.to_thread(load_keyring, device.config.keyring),
            formats=system.bundle_formats,
            max_signature_size=system.max_bundle_signature_size,
            now=clock.now(),
        )
    finally:
        await reader.close()
