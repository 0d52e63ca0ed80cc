"""Where a bundle is, as the command line names it."""

from __future__ import annotations

import os
from urllib.parse import unquote, urlsplit

from updated.cli.parser import Arguments, UsageError
from updated.errors import NotSupportedError, SourceError

_ACCESS = ("tls-cert", "tls-key", "tls-ca", "tls-no-verify", "http-header")


def only_argument(arguments: Arguments, missing: str) -> str:
    """The one argument of a command.  Raises UsageError with RAUC's texts."""
    if not arguments.positional:
        raise UsageError(missing, command=arguments.command)
    if len(arguments.positional) > 1:
        raise UsageError(f"Excess argument: {arguments.positional[1]}", command=arguments.command)
    return arguments.positional[0]


def local_bundle(arguments: Arguments) -> str:
    """The absolute path of the bundle that `install` and `info` are about.

    Raises UsageError, SourceError if there is no such file, NotSupportedError for what needs a network.
    """
    path = only_argument(arguments, "A bundle path or URL must be provided")
    for option in _ACCESS:
        if arguments.flag(option):
            raise NotSupportedError(f"--{option}: bundles on a server are not supported yet")
    scheme = path.partition("://")[0].lower() if "://" in path else ""
    if scheme in ("http", "https"):
        hint = "Download the bundle and name the file."
        raise NotSupportedError(f"{path}: bundles on a server are not supported yet", hint=hint)
    if scheme == "file":
        path = _from_uri(path)
    path = os.path.join(os.getcwd(), path)  # noqa: PTH109, PTH118 - as given, without resolving anything
    if not os.path.exists(path):  # noqa: PTH110 - a text, not a Path
        raise SourceError(f"No such file: {path}")
    return path


def _from_uri(uri: str) -> str:
    parts = urlsplit(uri)
    if parts.netloc:
        raise SourceError("file URI with hostname detected. Did you forget to add a leading / ?")
    return unquote(parts.path)
