"""Which output format was asked for, and what the terminal can show."""

from __future__ import annotations

import os
from collections.abc import Mapping

from updated.cli.parser import Arguments, UsageError


def chosen_format(arguments: Arguments, known: tuple[str, ...]) -> str:
    """The output format.  Raises UsageError if it is not one of `known`."""
    chosen = arguments.text("output-format") or known[0]
    if chosen not in known:
        supported = f"Supported formats are: {', '.join(known)}."
        raise UsageError(f"Unknown output format: '{chosen}'", command=arguments.command, hint=supported)
    return chosen


def colors_wanted(environment: Mapping[str, str] = os.environ) -> bool:
    """RAUC colors its output even in a pipe, and scripts know that; who wants none says so (no-color.org)."""
    return not environment.get("NO_COLOR")


def terminal_has_utf8(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether RAUC would find a UTF-8 locale.

    Python makes `C.UTF-8` of a missing or `C` locale (PEP 538) and says so only in LC_CTYPE.
    """
    import locale

    language = environment.get("LC_ALL") or environment.get("LANG") or "C"
    if environment.get("LC_CTYPE") == "C.UTF-8" and language in ("C", "POSIX"):
        return False
    return locale.nl_langinfo(locale.CODESET) == "UTF-8"
