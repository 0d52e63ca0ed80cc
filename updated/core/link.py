"""How servers are reached, in words.  Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


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
    user: str = ""  # for basic authentication, to that origin only
    password: str = ""
    netrc: str = ""  # file; "": none
    rate_limit: int = 0  # bytes per second; 0: none
    stall_timeout: float = 60.0  # seconds without a byte until the connection is given up
    connect_timeout: float = 30.0  # seconds


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
