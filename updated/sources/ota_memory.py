"""What is remembered of servers over restarts and reboots, in one small file."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Final

from updated.core.polling import Seen
from updated.core.schedule import Plan
from updated.document import Document
from updated.errors import DeviceError

log = logging.getLogger(__name__)

MAX_URLS: Final = 16  # that are remembered; the one used longest ago is forgotten first


@dataclass(frozen=True, slots=True)
class UrlMemory:
    """What is remembered of one server."""

    plan: Plan | None = None  # the next look; None: there never was one
    errors: int = 0  # in a row
    attempted: str = ""  # time of the last look, %Y-%m-%dT%H:%M:%SZ; "": never, and so below
    succeeded: str = ""
    seen: Seen = field(default_factory=Seen)


@dataclass(frozen=True, slots=True)
class OtaMemory:
    """The whole file."""

    urls: dict[str, UrlMemory] = field(default_factory=dict)


class Remembered:
    """The part of the file that is about `url`; the only one who writes it.  Belongs to the event loop."""

    def __init__(self, document: Document[OtaMemory], url: str) -> None:
        self.value = document.value.urls.get(url, UrlMemory())
        self._document = document
        self._url = url
        self._turn = asyncio.Lock()
        self._complained = False

    async def save(self, value: UrlMemory) -> None:
        """A disk that takes nothing is complained of once, and stops nobody."""
        self.value = value
        async with self._turn:
            others = {url: one for url, one in self._document.value.urls.items() if url != self._url}
            kept = dict(list(others.items())[1 - MAX_URLS :])
            try:
                await asyncio.to_thread(self._document.save, OtaMemory(kept | {self._url: value}))
                self._complained = False
            except DeviceError as error:
                if not self._complained:
                    log.warning("%s", error.with_hint())
                self._complained = True
