"""RAUC's `[polling]`: a URL behind which the newest bundle always is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Final

from updated.core.link import LinkSettings
from updated.core.model import Expected, Reader
from updated.core.polling import NO_BUNDLE, Criteria, FeedMemory, Finding, judge
from updated.core.source import Item
from updated.install.opened import OpenedBundle
from updated.readers.http import HttpClient, NoContent, Unchanged

OLDEST: Final = "0"  # stands for a running version that nobody knows

Verify = Callable[[Reader], Awaitable[OpenedBundle]]


class BundleFeed:
    """Looks at the end of the bundle: what it is, is signed there."""

    def __init__(
        self,
        url: str,
        criteria: Criteria,
        *,
        link: LinkSettings,
        headers: Callable[[], Mapping[str, str]],
        verify: Verify,
        running: Callable[[], str],
    ) -> None:
        """`running`: the version that runs, "" if nothing is known; all are above it then."""
        self._url = url
        self._criteria = criteria
        self._link = link
        self._headers = headers
        self._verify = verify
        self._running = running

    @property
    def url(self) -> str:
        return self._url

    async def look(self, memory: FeedMemory) -> Finding:
        """Raises UpdatedError."""
        last = memory.last
        client = HttpClient(self._link)
        try:
            reader = await client.open(self._url, headers=self._headers(), etag=last.etag if last else "")
            manifest = (await self._verify(reader)).manifest
        except Unchanged:
            assert last is not None
            return replace(last, unchanged=True)
        except NoContent:
            return Finding(None, NO_BUNDLE)
        finally:
            await client.close()
        verdict = judge(self._criteria, manifest.version, self._running() or OLDEST)
        expected = Expected(manifest.version or "", reader.size, etag=reader.etag)
        item = Item(self._url, (manifest.hash, reader.etag), expected)
        return Finding(
            item if verdict.install else None,
            verdict.summary,
            available=verdict.available,
            manifest=manifest,
            size=reader.size,
            effective_url=reader.url,
            modified=reader.modified,
            etag=reader.etag,
        )
