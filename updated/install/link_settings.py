"""How servers are reached: what the configuration says, what a caller wants, what is told of the device."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from updated.config.agent_tables import Http
from updated.config.sections import Streaming
from updated.core.link import LinkSettings, header
from updated.core.model import Access
from updated.errors import ConfigError, NotSupportedError, UpdatedError

OURS: Final = frozenset(
    ("accept-encoding", "connection", "content-length", "if-range", "range", "transfer-encoding")
)
"""Headers that the reading of bundles depends on."""

# RAUC reference, "[streaming] section", send-headers; src/bundle.c (assemble_info_headers).
SENT: Final[Mapping[str, str]] = {
    "boot-id": "RAUC-Boot-ID",
    "machine-id": "RAUC-Machine-ID",
    "system-version": "RAUC-System-Version",
    "serial": "RAUC-Serial",
    "variant": "RAUC-Variant",
    "transaction-id": "RAUC-Transaction-ID",
    "uptime": "RAUC-Uptime",
}


def settings_from(http: Http, streaming: Streaming) -> LinkSettings:
    """`[http]` of updated.toml, and where it is silent `[streaming]` of system.conf.

    No file is read: one that is missing matters to servers only, and they are told when it is needed.
    Raises ConfigError naming the key that is wrong.
    """
    return LinkSettings(
        proxy=http.proxy,
        tls_ca=http.ca or streaming.tls_ca or "",
        tls_cert=http.cert or streaming.tls_cert or "",
        tls_key=http.key or streaming.tls_key or "",
        headers=tuple(_configured(name, value) for name, value in http.headers.items()),
        bearer_file=http.bearer_token_file or "",
        user=http.user or "",
        password_file=http.password_file or "",
        netrc=http.netrc or "",
        rate_limit=http.rate_limit,
        stall_timeout=http.stall_timeout,
        connect_timeout=http.connect_timeout,
    )


def merge(settings: LinkSettings, access: Access) -> LinkSettings:
    """`settings` with what the caller of one install wants otherwise, each for itself as with RAUC.

    Raises NotSupportedError for PKCS#11 URLs, UpdatedError for a header that is none.
    """
    merged = replace(
        settings,
        tls_cert=access.tls_cert or settings.tls_cert,
        tls_key=access.tls_key or settings.tls_key,
        tls_ca=access.tls_ca or settings.tls_ca,
        tls_no_verify=access.tls_no_verify or settings.tls_no_verify,
        headers=_merged_headers(settings.headers, access.headers),
    )
    for what, value in (
        ("tls-cert", merged.tls_cert),
        ("tls-key", merged.tls_key),
        ("tls-ca", merged.tls_ca),
    ):
        if value.startswith("pkcs11:"):
            raise NotSupportedError(
                f"{what} is a PKCS#11 URL, which is not supported yet", hint="Use a PEM file."
            )
    return merged


def send_headers(names: Iterable[str], facts: Mapping[str, str]) -> dict[str, str]:
    """RAUC's `send-headers`: header -> value of those in `names` that have a value in `facts`.

    Keys of `facts` are as in system.conf: `boot-id`, `serial`, ...
    """
    values = {name: _one_line(facts.get(name, "")) for name in names}
    return {SENT[name]: value for name, value in values.items() if value}


def _merged_headers(
    configured: tuple[tuple[str, str], ...], lines: tuple[str, ...]
) -> tuple[tuple[str, str], ...]:
    wanted = tuple(map(header, lines))
    for name, _ in wanted:
        _check_name(name)
    names = {name.lower() for name, _ in wanted}
    return (*(one for one in configured if one[0].lower() not in names), *wanted)


def _check_name(name: str) -> None:
    if name.lower() in OURS:
        raise UpdatedError(f"HTTP header '{name}' cannot be set: bundles are read with it")


def _configured(name: str, value: str) -> tuple[str, str]:
    try:
        found = header(f"{name}: {value}")
        _check_name(found[0])
    except UpdatedError as error:
        raise ConfigError(f"headers in [http] of updated.toml: {error}") from error
    if found[0] != name:
        raise ConfigError(f"headers in [http] of updated.toml: '{name}' is no name of a header")
    return found


def _one_line(value: str) -> str:
    """What the firmware says may end in a NUL or a newline."""
    return re.sub(r"[^\x20-\x7e]", "", value).strip()
