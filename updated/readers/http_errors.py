"""What servers do instead of sending a bundle, and how URLs are shown to people."""

from __future__ import annotations

from http import HTTPStatus
from urllib.parse import urlsplit

from updated.errors import SourceError

_HINTS = {
    400: "The URL may have expired.",
    401: "Check the user, password or token in [http] of updated.toml.",
    403: "Check the user, password or token in [http] of updated.toml; a signed URL may have expired.",
    404: "It may have been withdrawn, or the URL is wrong.",
    407: "Put user and password into the proxy's URL: http://user:password@host:port",
    410: "It was withdrawn.",
    429: "The server is busy; try again later.",
    503: "The server is busy; try again later.",
}


class HttpError(SourceError):
    """A server answered, and it was a refusal."""

    def __init__(self, name: str, status: int, retry_after: float | None = None) -> None:
        phrase = "Not found" if status in (404, 410) else _phrase(status)
        super().__init__(f"Failed to read {name}: {phrase} ({status})", hint=_HINTS.get(status, ""))
        self.status = status
        self.retry_after = retry_after  # seconds that the server asks to be left alone; None: it does not say


class Interrupted(SourceError):
    """The connection could not be made, broke or stalled: the same request may succeed now."""

    def __init__(self, name: str, reason: str, *, hint: str = "") -> None:
        super().__init__(f"Failed to read {name}: {reason}", hint=hint)
        self.reason = reason


class NoRanges(SourceError):
    """The server cannot send parts of this object: it has to be read from its start to its end."""

    def __init__(self, name: str, *, size: int, etag: str, url: str) -> None:
        super().__init__(
            f"Server cannot send parts of {name}",
            hint="The server, or a proxy before it, must support HTTP range requests.",
        )
        self.size = size  # bytes; 0: not known
        self.etag = etag
        self.url = url  # after redirects


class Unchanged(SourceError):
    """304: the object still has the ETag that was asked about."""


class NoContent(SourceError):
    """204: the server has no bundle for this device."""


def shown(url: str) -> str:
    """`url` without what is secret in it: user, password, and the values of the query."""
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = None
    if parts is None or not parts.netloc:
        return repr(url.rpartition("@")[2].partition("?")[0])
    items = parts.query.split("&") if parts.query else []  # one without a name may be a token
    names = [f"{item.partition('=')[0]}=…" if "=" in item else "…" for item in items]
    query = "?" + "&".join(names) if names else ""
    clean = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}{query}"
    return clean if clean.isprintable() else repr(clean)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "unknown answer"
