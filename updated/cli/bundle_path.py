"""Where a bundle is, as the command line names it."""

from __future__ import annotations

import os
from urllib.parse import unquote, urlsplit

from updated.cli.parser import Arguments, UsageError
from updated.core.link import header, is_url
from updated.core.model import Access
from updated.errors import SourceError, UpdatedError


def only_argument(arguments: Arguments, missing: str) -> str:
    """The one argument of a command.  Raises UsageError with RAUC's texts."""
    if not arguments.positional:
        raise UsageError(missing, command=arguments.command)
    if len(arguments.positional) > 1:
        raise UsageError(f"Excess argument: {arguments.positional[1]}", command=arguments.command)
    return arguments.positional[0]


def bundle(arguments: Arguments) -> str:
    """The absolute path, or the http(s) URL, of the bundle that `install` and `info` are about.

    Raises UsageError, SourceError if there is no such file.
    """
    path = only_argument(arguments, "A bundle path or URL must be provided")
    if is_url(path):
        return path
    if path.lower().startswith("file://"):
        path = _from_uri(path)
    path = _absolute(path)
    if not os.path.exists(path):  # noqa: PTH110 - a text, not a Path
        raise SourceError(f"No such file: {path}")
    return path


def access(arguments: Arguments) -> Access:
    """How a server is to be reached.  Raises UsageError for what is no header."""
    for line in arguments.texts("http-header"):
        try:
            header(line)
        except UpdatedError as error:
            raise UsageError(str(error), command=arguments.command) from error

    def file(option: str) -> str:
        """The service has another working directory."""
        name = arguments.text(option) or ""
        return name if not name or name.startswith("pkcs11:") else _absolute(name)

    return Access(
        tls_cert=file("tls-cert"),
        tls_key=file("tls-key"),
        tls_ca=file("tls-ca"),
        tls_no_verify=arguments.flag("tls-no-verify"),
        headers=arguments.texts("http-header"),
    )


def _absolute(path: str) -> str:
    return os.path.join(os.getcwd(), path)  # noqa: PTH109, PTH118 - as given, without resolving anything


def _from_uri(uri: str) -> str:
    parts = urlsplit(uri)
    if parts.netloc:
        raise SourceError("file URI with hostname detected. Did you forget to add a leading / ?")
    return unquote(parts.path)
