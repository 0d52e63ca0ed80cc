"""One door for every place where a bundle can be: a path, a server that sends parts, and one that does not.

Plain bundles on a server are a matter of their own.  Their signature covers all of the payload, so it is read
once to be verified, and again to be installed: over HTTP that would be twice the traffic.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from updated.core.link import LinkSettings, is_url, origin, without_credentials
from updated.core.model import Offer, Reader
from updated.errors import NotSupportedError, Refused, SourceError, UpdatedError
from updated.finish import to_its_end
from updated.install.direct import open_direct
from updated.install.link_settings import merge
from updated.install.opened import Detached, OpenedBundle, open_plain
from updated.readers.around import ReaderAround
from updated.readers.file import open_file
from updated.readers.spool import Body, SpoolReader, no_rest, spool

if TYPE_CHECKING:
    from updated.readers.http import HttpClient, HttpReader


class CannotPeek(UpdatedError):
    """Only a whole download could tell what this bundle is."""


SPOOL: Final = "spool"  # folder in the data directory
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")

Plain = Literal["spool", "direct", "refuse"]


@dataclass(frozen=True, slots=True)
class Locations:
    """What holds for all bundles as long as the configuration does."""

    link: LinkSettings
    data_directory: Path
    trusted: str = ""
    """URL of the index or of what is polled: what shows who this device is goes to its server.  An index may
    name bundles on other servers; they get none of it."""
    spool_reserve: int = 64 * 1024 * 1024  # bytes that stay free there
    plain: Plain = "spool"  # `plain-over-http`

    @property
    def spool(self) -> Path:
        """The folder to `sweep` when the service starts."""
        return self.data_directory / SPOOL


@dataclass(frozen=True, slots=True)
class Spooling:
    """Who is told, and asked, while a bundle is fetched to disk (`readers.spool.spool`)."""

    on_progress: Callable[[], None] = lambda: None
    on_bytes: Callable[[int, int], None] = lambda _there, _size: None
    rest: Callable[[], Awaitable[None]] = no_rest


async def open_location(
    offer: Offer,
    locations: Locations,
    *,
    headers: Mapping[str, str] = {},
    spooling: Spooling = Spooling(),
    peek: bool = False,
) -> Located:
    """Open the bundle that is offered; close what comes back.

    `peek`: only to look at it, so nothing is spooled: CannotPeek instead.

    `headers` go to its server (`send_headers`).  `spooling` is told how a spool gets on, which may take
    minutes.  Raises SourceError, DeviceError (no space to spool), NotSupportedError, ConfigError.
    """
    if not is_url(offer.location):
        return Located(await _open_path(offer))
    from updated.readers.http import HttpClient, NoRanges

    link = locations.link
    if offer.source == "ota" and origin(offer.location) != origin(locations.trusted):
        link, headers = without_credentials(link, offer.location), {}
    client = HttpClient(merge(link, offer.access))
    server = _Server(client, offer, locations, headers, spooling, peek)
    try:
        try:
            reader = await server.open()
        except NoRanges as error:
            return Located(await server.spool(error.etag), server)
        return Located(reader, server, reader.etag)
    except BaseException:
        await to_its_end(client.close())
        raise


async def _open_path(offer: Offer) -> Reader:
    try:
        return await open_file(offer.location, follow_symlinks=offer.source == "request")
    except SourceError as error:
        scheme = _SCHEME.match(offer.location)
        if scheme is None:
            raise
        raise NotSupportedError(
            f"{error} ({scheme[1]} URLs are not supported)", hint="Use a path, or an http or https URL."
        ) from error


@dataclass(frozen=True, slots=True)
class _Server:
    """Where one bundle comes from."""

    client: HttpClient
    offer: Offer
    locations: Locations
    headers: Mapping[str, str]
    spooling: Spooling
    peek: bool

    async def open(self) -> HttpReader:
        """Raises NoRanges, SourceError."""
        expected = self.offer.expected
        url = self.offer.location
        reader = await self.client.open(url, headers=self.headers, expected_size=expected.size)
        self._check_etag(reader.etag)
        return reader

    async def spool(self, etag: str) -> SpoolReader:
        """`etag`: of the object as it is now.  Raises SourceError, DeviceError."""
        from updated.readers.http import shown

        url = self.offer.location
        if self.peek:
            raise CannotPeek(f"Bundle {shown(url)} can only be looked at when all of it was fetched")
        self._check_etag(etag)
        return await spool(
            url,
            partial(self._body, url),
            folder=self.locations.spool,
            reserve=self.locations.spool_reserve,
            name=shown(url),
            etag=etag,
            expected=self.offer.expected,
            on_progress=self.spooling.on_progress,
            on_bytes=self.spooling.on_bytes,
            rest=self.spooling.rest,
        )

    def _body(self, url: str, start: int, etag: str) -> AbstractAsyncContextManager[Body]:
        return self.client.body(url, start=start, etag=etag, headers=self.headers)

    def _check_etag(self, etag: str) -> None:
        from updated.readers.http import shown

        expected = self.offer.expected.etag
        if expected and etag and expected.removeprefix("W/") != etag.removeprefix("W/"):
            raise SourceError(
                f"Bundle {shown(self.offer.location)} is not the one that was looked at:"
                f" its ETag is {etag}, expected {expected}"
            )


class Located(ReaderAround[Reader]):
    """A `Reader` of an offered bundle.  Hand its `plain` to `open_bundle`."""

    def __init__(self, reader: Reader, server: _Server | None = None, etag: str = "") -> None:
        """`server`: where it comes from; None: from a path.  `etag`: of the object on it."""
        super().__init__(reader)
        self._server = server
        self._etag = etag
        self._before = 0  # bytes fetched by readers that this one had before

    @property
    def fetched(self) -> int:
        return self._before + self.inner.fetched

    def keep_for_retry(self) -> None:
        """The same bundle will be tried again: what was spooled shall stay when this is closed."""
        if isinstance(self.inner, SpoolReader):
            self.inner.keep_for_retry()

    async def close(self) -> None:
        """Close all that was opened for it.  More than once is fine."""
        await to_its_end(self._close())

    async def plain(self, found: Detached) -> OpenedBundle:
        """Open a plain bundle as `plain-over-http` wants it; from a path it is read twice.

        Raises Refused (rule `plain-over-http`), and as `open_plain`, `open_direct` and `spool` do.
        """
        server = self._server
        if server is None:
            return await open_plain(found)
        if server.locations.plain == "refuse":
            raise Refused(
                "Bundle format 'plain' not supported in streaming mode",
                rule="plain-over-http",
                hint='Make it in verity format, or set `plain-over-http = "spool"` in [install]'
                " of updated.toml.",
            )
        if self.remote and server.locations.plain == "direct" and not server.peek:
            return await open_direct(found)
        if self.remote:
            await self._spool(server)
        return await open_plain(found)  # whoever is around this reader, its bytes now come from the spool

    async def _spool(self, server: _Server) -> None:
        size = self.inner.size
        await self.inner.close()
        spooled = await server.spool(self._etag)
        self._before, self.inner = self.fetched, spooled
        if spooled.size != size:
            raise SourceError(
                f"Bundle {self.name} changed while it was read: it had {size} bytes, now {spooled.size}",
                hint="Give each bundle a URL of its own.",
            )

    async def _close(self) -> None:
        try:
            await self.inner.close()
        finally:
            if self._server is not None:
                await self._server.client.close()
