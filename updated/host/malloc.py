"""The C library's heap."""

from __future__ import annotations

import ctypes

_M_ARENA_MAX = -8  # malloc.h of glibc


def one_arena() -> None:
    """Let all threads share one heap: glibc's default of one for each keeps megabytes that nobody uses.

    Our threads allocate rarely and in large pieces, so that sharing costs no time.  Other C libraries have
    one heap anyway.
    """
    try:
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
    except (OSError, AttributeError):
        return
