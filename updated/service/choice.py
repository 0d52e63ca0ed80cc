"""Which of several offered files to install: each is verified first, then policy decides."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from updated.core.policy import Candidate, PolicyFacts
from updated.core.policy import choose as choose_candidate
from updated.errors import UpdatedError
from updated.host import clock
from updated.install.device import Device
from updated.install.keyring import load_keyring
from updated.install.opened import OpenedBundle, open_bundle
from updated.readers.file import open_file
from updated.sources.folder import Found

Refusals = list[tuple[Found, str]]


async def choose(found: Sequence[Found], device: Device, facts: PolicyFacts) -> tuple[Found | None, Refusals]:
    """The one to install, and those that are not worth another look, each with the reason."""
    candidates: dict[str, Candidate] = {}
    refused: Refusals = []
    for item in found:
        try:
            opened = await inspect(str(item.path), device, follow_symlinks=False)
        except UpdatedError as error:
            refused.append((item, str(error)))
        else:
            candidates[str(item.path)] = Candidate(str(item.path), opened.manifest)
    chosen, rejected = choose_candidate(list(candidates.values()), facts)
    by_name = {str(item.path): item for item in found}
    refused += [(by_name[candidate.name], reason) for candidate, reason in rejected]
    return (by_name[chosen.name] if chosen else None), refused


async def inspect(path: str, device: Device, *, follow_symlinks: bool = True) -> OpenedBundle:
    """Verify the bundle at `path` as an install does, without policy; its reader is closed again.

    Raises UpdatedError.
    """
    system = device.config.system
    reader = await open_file(path, follow_symlinks=follow_symlinks)
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
