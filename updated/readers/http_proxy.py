"""Which proxy leads to a server.  Source: curl's manual, "Environment"."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from updated.errors import ConfigError
from updated.readers.http_errors import shown
from updated.readers.http_secrets import basic

if TYPE_CHECKING:
    from yarl import URL


@dataclass(frozen=True, slots=True)
class Proxy:
    url: URL  # without user and password
    authorization: str  # "": none


def proxy_for(url: URL, configured: str | None, environment: Mapping[str, str] = os.environ) -> Proxy | None:
    """The proxy for `url`; None: none.

    `configured` None: the environment decides as with curl: `http_proxy` in lower case only (in CGI
    programs HTTP_PROXY is a header of a stranger), the others in both.  Raises ConfigError.
    """
    if configured is not None:
        return _parse(configured) if configured else None
    found = environment.get(f"{url.scheme}_proxy", "")
    if not found and url.scheme == "https":
        found = environment.get("HTTPS_PROXY", "")
    found = found or environment.get("all_proxy", "") or environment.get("ALL_PROXY", "")
    if not found or _bypassed(url, environment.get("no_proxy", "") or environment.get("NO_PROXY", "")):
        return None
    return _parse(found)


def _bypassed(url: URL, no_proxy: str) -> bool:
    """Is the host, or a domain or network around it, in the list?  An entry may have a port."""
    host = (url.host or "").lower().rstrip(".")
    for entry in no_proxy.lower().replace(",", " ").split():
        name = entry.removesuffix(f":{url.port}").strip("[]").strip(".")
        if entry == "*" or host == name or host.endswith(f".{name}") or _in_network(host, name):
            return True
    return False


def _in_network(host: str, network: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def _parse(text: str) -> Proxy:
    from yarl import URL

    text = text if "://" in text else f"http://{text}"
    try:
        url = URL(text)
        good = url.scheme in ("http", "https") and bool(url.host)
    except ValueError:
        good = False
    if not good:
        raise ConfigError(
            f"Proxy {shown(text)} cannot be used", hint="It must be http://[USER:PASSWORD@]HOST[:PORT]."
        )
    authorization = basic(url.user or "", url.password or "") if url.user or url.password else ""
    return Proxy(url.with_user(None), authorization)
