"""Requests, one at a time, and what comes back: connections, TLS, proxies, redirects, credentials.

Credentials and configured headers go to the origin (scheme, host, port) of the URL that was asked for, and
nowhere else, whatever a redirect says; nothing leads from https to http.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import quote

from updated import __version__
from updated.core.link import LinkSettings
from updated.errors import SourceError
from updated.readers import http_secrets
from updated.readers.http_errors import Interrupted, shown
from updated.readers.http_pace import RateLimit
from updated.readers.http_proxy import Proxy, proxy_for
from updated.readers.http_response import READ_AHEAD, Response, reason

if TYPE_CHECKING:
    import netrc
    import ssl

    import aiohttp
    from multidict import CIMultiDict
    from yarl import URL

MAX_REDIRECTS = 10
MAX_HEADER = 32 * 1024  # bytes of one header: signed URLs are long
REDIRECTS = (301, 302, 303, 307, 308)
_CLOCK_HINT = "Is this device's clock right, and is the server's certificate authority known to it?"


class Link:
    """The connections of one client.  aiohttp and the files of the settings are read when first used."""

    def __init__(self, settings: LinkSettings) -> None:
        self.settings = settings
        self.rate = RateLimit(settings.rate_limit)
        self._session: aiohttp.ClientSession | None = None
        self._netrc: netrc.netrc | None = None
        self._tls: ssl.SSLContext | None = None
        self._setup = asyncio.Lock()
        self._closed = False

    async def get(
        self,
        url: str,
        *,
        own: Mapping[str, str] = {},
        headers: Mapping[str, str] = {},
        at: str = "",
        follow: bool = True,
    ) -> Response:
        """The head of the answer to GET `url`; close the `Response`.

        `headers` go to every server on the way, `own` only to the one of `url`.  `at`: where `url` led to
        before, asked instead of it.  `follow`: redirects.  Raises Interrupted, SourceError, ConfigError,
        NotSupportedError.
        """
        session = await self._ready()
        named, user, password = _parse(url)
        target = _parse(at)[0] if at else named
        for _ in range(MAX_REDIRECTS + 1):
            sent = _multi(headers)
            if target.origin() == named.origin():
                private = self._private(named, user, password, own)
                sent.update({key: value for key, value in private.items() if key not in sent})
            response = await self._once(session, target, sent)
            location = response.headers.get("Location")
            if not follow or response.status not in REDIRECTS or location is None:
                return response
            response.close()
            target = _redirected(target, location)
        raise SourceError(f"Failed to read {shown(url)}: more than {MAX_REDIRECTS} redirects")

    async def close(self) -> None:
        """Close all connections.  More than once is fine."""
        self._closed = True
        async with self._setup:
            session, self._session = self._session, None
        if session is not None:
            await session.close()
            await asyncio.sleep(0)  # what was aborted is closed in the next round of the loop

    async def _ready(self) -> aiohttp.ClientSession:
        async with self._setup:
            if self._closed:
                raise SourceError("The connection was closed")
            if self._session is None:
                self.settings = await asyncio.to_thread(http_secrets.with_secrets, self.settings)
                self._netrc = await asyncio.to_thread(http_secrets.load_netrc, self.settings)
                if self.settings.tls_ca or self.settings.tls_cert or self.settings.tls_key:
                    # A wrong file is told even if this URL does not need it.
                    self._tls = await asyncio.to_thread(http_secrets.tls_context, self.settings)
                await asyncio.to_thread(importlib.import_module, "aiohttp")  # some 200 ms
                self._session = _session(self.settings)
            return self._session

    async def _tls_for(self, url: URL, proxy: Proxy | None) -> ssl.SSLContext | bool:
        if url.scheme != "https" and (proxy is None or proxy.url.scheme != "https"):
            return True  # aiohttp's word for nothing of its own
        async with self._setup:
            if self._tls is None:
                self._tls = await asyncio.to_thread(http_secrets.tls_context, self.settings)
            return self._tls

    def _private(self, url: URL, user: str, password: str, own: Mapping[str, str]) -> Mapping[str, str]:
        headers = _multi(dict(self.settings.headers))
        headers.update(own)
        if "Authorization" not in headers:
            value = http_secrets.authorization(self.settings, self._netrc, url.host or "", user, password)
            if value:
                headers["Authorization"] = value
        return headers

    async def _once(self, session: aiohttp.ClientSession, url: URL, headers: Mapping[str, str]) -> Response:
        import aiohttp

        proxy = proxy_for(url, self.settings.proxy)
        to_proxy = {"Proxy-Authorization": proxy.authorization} if proxy and proxy.authorization else {}
        if url.scheme == "http":
            headers = _multi({**headers, **to_proxy})
        tls = await self._tls_for(url, proxy)
        wait = self.settings.connect_timeout + self.settings.stall_timeout
        try:
            async with asyncio.timeout(wait):
                raw = await session.get(
                    url,
                    headers=headers,
                    allow_redirects=False,
                    proxy=proxy.url if proxy else None,
                    proxy_headers=to_proxy or None,
                    ssl=tls,
                )
        except (aiohttp.ClientError, OSError, ValueError, RuntimeError) as error:
            raise _failed(url, proxy, error, self.settings) from error
        return Response(raw, self.settings, self.rate)


def _multi(headers: Mapping[str, str]) -> CIMultiDict[str]:
    from multidict import CIMultiDict

    return CIMultiDict(headers)


def _session(settings: LinkSettings) -> aiohttp.ClientSession:
    import aiohttp

    wait = settings.connect_timeout
    return aiohttp.ClientSession(
        # Its limit is none: two users of one client must not wait for each other for ever.
        connector=aiohttp.TCPConnector(limit=0, resolver=aiohttp.ThreadedResolver()),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": f"updated/{__version__}", "Accept-Encoding": "identity"},
        timeout=aiohttp.ClientTimeout(total=None, connect=wait, sock_connect=wait, sock_read=None),
        auto_decompress=False,
        trust_env=False,
        read_bufsize=READ_AHEAD,
        max_line_size=MAX_HEADER,
        max_field_size=MAX_HEADER,
    )


def _parse(text: str) -> tuple[URL, str, str]:
    """URL without user and password, user, password.  Raises SourceError."""
    from yarl import URL

    text = quote(text, safe="".join(map(chr, range(0x21, 0x7F)))) if text.isascii() else text
    try:
        # As it is where it can be: the signature of a signed URL covers its spelling.
        url = URL(text, encoded=text.isascii())
        if url.scheme in ("http", "https") and url.host and url.port != 0:
            return url.with_user(None).with_fragment(None), url.user or "", url.password or ""
    except ValueError:
        pass
    raise SourceError(f"Not a URL that can be read: {shown(text)}", hint="It must be http(s)://HOST/PATH.")


def _redirected(url: URL, location: str) -> URL:
    from yarl import URL

    try:
        joined = str(url.join(URL(location, encoded=location.isascii())))
    except ValueError as error:
        raise SourceError(f"Failed to read {shown(str(url))}: redirected to no URL") from error
    target = _parse(joined)[0]
    if url.scheme == "https" and target.scheme != "https":
        raise SourceError(
            f"Failed to read {shown(str(url))}: redirected from https to {shown(str(target))}",
            hint="The server must redirect to https.",
        )
    return target


def _failed(url: URL, proxy: Proxy | None, error: Exception, settings: LinkSettings) -> SourceError:
    import aiohttp

    via = f" through the proxy {shown(str(proxy.url))}" if proxy else ""
    text, hint = reason(error), ""
    match error:
        case aiohttp.ClientHttpProxyError():
            text, hint = f"the proxy answers {error.status}", "Check the proxy's user and password."
        case aiohttp.ClientConnectorCertificateError():
            detail = getattr(error.certificate_error, "verify_message", "")
            text, hint = f"the server's certificate is not good: {detail}".removesuffix(": "), _CLOCK_HINT
        case aiohttp.ClientSSLError():
            text, hint = f"TLS failed: {text}", _CLOCK_HINT
        case aiohttp.ServerTimeoutError():
            text = f"no connection within {settings.connect_timeout:g} s"
        case TimeoutError():
            text = f"no answer within {settings.connect_timeout + settings.stall_timeout:g} s"
    return Interrupted(f"{shown(str(url))}{via}", text, hint=hint)
