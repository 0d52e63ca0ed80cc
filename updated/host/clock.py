"""The wall clock, as RAUC writes it down."""

from __future__ import annotations

from datetime import UTC, datetime

from updated.core.model import TIMESTAMP


def now() -> datetime:
    return datetime.now(UTC)


def timestamp() -> str:
    """Now, UTC, to the second."""
    return now().strftime(TIMESTAMP)
