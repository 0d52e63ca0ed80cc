"""How servers are reached, in words.  Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol
from urllib.parse import urlsplit

from updated.errors import UpdatedError

_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """All that a connection needs beside the URL."""

    proxy: str | None = None  # URL; None: from the environment (http_proxy, https_proxy, no_proxy); "": none
    tls_ca: str = ""  # PEM file of trusted roots; "": the system's
    tls_cert: str = ""  # PEM file of the client's certificate, its key may be in it
    tls_key: str = ""  # PEM file
    tls_no_verify: bool = False
    headers: tuple[tuple[str, str], ...] = ()  # sent to the origin of the URL only
    bearer: str = ""  # token, to that origin only
    bearer_file: str = ""  # file with it; "": none
    user: str = ""  # for basic authentication, to that origin only
    password: str = ""
    password_file: str = ""  # file with it; "": none
    netrc: str = ""  # file; "": none
    rate_limit: int = 0  # bytes per second; 0: none
    stall_timeout: float = 60.0  # seconds without a byte until the connection is given up
    connect_timeout: float = 30.0  # seconds


def header(line: str) -> tuple[str, str]:
    """`Name: value` as a pair (RFC 9110, sections 5.1 and 5.5).  Raises UpdatedError."""
    found = _HEADER.fullmatch(line)
    if found is None:
        raise UpdatedError(f"Invalid HTTP header {line[:80]!r}: expected one line 'NAME: VALUE'")
    return found[1], found[2].rstrip(" \t")


def retry_after(value: str, now: datetime) -> float | None:
    """Seconds that a `Retry-After` asks for (RFC 9110, section 10.2.3), never less than 0; None: unreadable.

    `now` has a time zone.
    """
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text[:10])  # 300 years are enough
    from email.utils import parsedate_to_datetime  # rarely needed, and it brings a lot

    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())


def without_credentials(link: LinkSettings, url: str) -> LinkSettings:
    """`link` for a server that shall not know who asks; a client's certificate tells no secret.

    A netrc file names servers itself, but only TLS proves to be one of them.
    """
    bare = replace(link, headers=(), bearer="", bearer_file="", user="", password="", password_file="")
    return bare if origin(url)[0] == "https" else replace(bare, netrc="")


def is_url(location: str) -> bool:
    """Is it on a server?  All else is a path, as with RAUC."""
    scheme, found, _ = location.partition("://")
    return bool(found) and scheme.lower() in ("http", "https")


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port (RFC 6454); three times nothing for what is none."""
    try:
        parts = urlsplit(url)
        scheme = parts.scheme.lower()
        return scheme, parts.hostname or "", parts.port or {"http": 80, "https": 443}.get(scheme, 0)
    except ValueError:
        return "", "", 0


def without_secrets(url: str) -> str:
    """`url` for messages: without user, password, query and fragment.  A path stays what it is."""
    if not is_url(url):
        return url
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        clean = parts._replace(netloc=host, query="", fragment="").geturl()
    except ValueError:
        clean = url.rpartition("@")[2].partition("?")[0]
    return clean if clean.isprintable() else repr(clean)


@dataclass(frozen=True, slots=True)
class Answer:
    """A small document from a server."""

    status: int  # 200, 204, 304 or an error
    headers: Mapping[str, str]  # names in lower case
    body: bytes
    url: str  # after redirects


class Fetch(Protocol):
    """Gets a small document."""

    async def __call__(self, url: str, *, limit: int, headers: Mapping[str, str]) -> Answer:
        """Any status is an answer.  Raises SourceError if none comes, or one with more than `limit` bytes."""
        ...
