"""Who we are for a server, and whom we trust: credentials and TLS.  Everything here blocks: use a thread."""

from __future__ import annotations

import base64
import netrc
import os
import ssl
import stat
from collections.abc import Callable
from dataclasses import replace
from typing import Final, TypeVar

from updated.core.link import LinkSettings
from updated.errors import ConfigError, NotSupportedError

MAX_SECRET: Final = 16 * 1024  # bytes; a token that no server would take as a header

T = TypeVar("T")


def with_secrets(settings: LinkSettings) -> LinkSettings:
    """`settings` with what is in the files of its token and password.  Raises ConfigError."""
    bearer, password = settings.bearer_file, settings.password_file
    return replace(
        settings,
        bearer=_secret("bearer-token-file", bearer) if bearer else settings.bearer,
        password=_secret("password-file", password) if password else settings.password,
    )


def load_netrc(settings: LinkSettings) -> netrc.netrc | None:
    """Raises ConfigError."""
    path = settings.netrc
    return _read("netrc file", path, lambda: netrc.netrc(path)) if path else None


def authorization(
    settings: LinkSettings, entries: netrc.netrc | None, host: str, user: str, password: str
) -> str:
    """Value of the Authorization header; "": none.  `user` and `password` are those in the URL.

    The nearest wins: the URL's own, the configured token or user, then netrc's entry for the host.
    """
    if user or password:
        return basic(user, password)
    if settings.bearer:
        return f"Bearer {settings.bearer}"
    if settings.user or settings.password:
        return basic(settings.user, settings.password)
    entry = entries.authenticators(host) if entries else None
    return basic(entry[0] or "", entry[2] or "") if entry else ""


def basic(user: str, password: str) -> str:
    """RFC 7617, in UTF-8."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def tls_context(settings: LinkSettings) -> ssl.SSLContext:
    """Raises ConfigError naming the file that is wrong, NotSupportedError for PKCS#11 URLs.

    The system's roots take some 50 ms to load and some memory: make it when it is needed.
    """
    for value in (settings.tls_ca, settings.tls_cert, settings.tls_key):
        if value.startswith("pkcs11:"):
            raise NotSupportedError(
                "Keys and certificates in PKCS#11 tokens cannot be used for TLS yet", hint="Use a PEM file."
            )
    ca, cert, key = settings.tls_ca, settings.tls_cert, settings.tls_key
    context = _read("file of trusted roots", ca, lambda: ssl.create_default_context(cafile=ca or None))
    if settings.tls_no_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if key and not cert:
        raise ConfigError(f"TLS key {key} needs a certificate, but none is configured")
    if cert:
        # The password is asked on a terminal otherwise.
        what = f"TLS certificate {cert} and key" if key else "TLS certificate and key"
        _read(what, key or cert, lambda: context.load_cert_chain(cert, key or None, password=lambda: b""))
    return context


def _read(what: str, path: str, load_it: Callable[[], T]) -> T:
    try:
        return load_it()
    except netrc.NetrcParseError as error:
        reason = f"line {error.lineno}: {error.msg}"
    except ssl.SSLError as error:
        reason = error.reason or "not in PEM format"
    except OSError as error:
        reason = error.strerror or type(error).__name__
    except ValueError:  # of another encoding, or a NUL in the path
        reason = "not a text file"
    raise ConfigError(f"Failed to load {what} {path}: {reason}", hint="It must be readable for the service.")


def _secret(key: str, path: str) -> str:
    """What the file says, without the newline at its end."""
    prefix = f"{key} in [http] of updated.toml: {path} "
    try:
        data = _bytes(path)
    except OSError as error:
        raise ConfigError(f"{prefix}cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{prefix}{error}") from error
    text = data.removesuffix(b"\n").removesuffix(b"\r").decode(errors="replace")
    if not text or not text.isprintable() or "\ufffd" in text:
        raise ConfigError(f"{prefix}is not one line of text")
    return text


def _bytes(path: str) -> bytes:
    """Raises OSError, ValueError."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)  # a FIFO must not hang
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ValueError("is not a regular file")
        data = file.read(MAX_SECRET + 1)
    if len(data) > MAX_SECRET:
        raise ValueError(f"has more than {MAX_SECRET} bytes")
    return data
