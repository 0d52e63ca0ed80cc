"""Which of several offered bundles to install: each is verified first, then policy decides."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from updated.bundle.manifest import Manifest
from updated.core.model import Offer
from updated.core.policy import Candidate, PolicyFacts, check_expected
from updated.core.policy import choose as choose_candidate
from updated.core.source import Item
from updated.errors import UpdatedError
from updated.install.location import CannotPeek
from updated.install.opened import OpenedBundle

log = logging.getLogger(__name__)

Peek = Callable[[Offer], Awaitable[OpenedBundle]]
"""Verifies what is offered, and lets go of it again.  Raises UpdatedError; CannotPeek if only a whole
download could tell."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a bundle is not installed."""

    item: Item
    reason: str
    passing: bool = False  # True: it may be installed later


@dataclass(frozen=True, slots=True)
class Chosen:
    """The bundle to install."""

    item: Item
    manifest: Manifest | None  # None: not known before all of it was fetched


async def choose(
    source: str, found: Sequence[Item], facts: PolicyFacts, peek: Peek
) -> tuple[Chosen | None, list[Refusal]]:
    """The one to install, and those that are not worth another look, each with the reason."""
    candidates: dict[str, Candidate] = {}
    refused: list[Refusal] = []
    for item in found:
        try:
            opened = await peek(Offer(source, item.location, expected=item.expected))
            check_expected(opened.manifest, item.expected)
        except CannotPeek:
            return Chosen(item, None), refused
        except UpdatedError as error:
            refused.append(Refusal(item, error.with_hint(), error.passing))
        except Exception as error:
            log.exception("a bug in `updated`")  # or this bundle would be looked at for ever
            refused.append(Refusal(item, f"internal error: {error!r}"))
        else:
            candidates[item.location] = Candidate(item.location, opened.manifest)
    chosen, rejected = choose_candidate(list(candidates.values()), facts)
    by_name = {item.location: item for item in found}
    refused += [Refusal(by_name[candidate.name], reason) for candidate, reason in rejected]
    return (Chosen(by_name[chosen.name], chosen.manifest) if chosen else None), refused
