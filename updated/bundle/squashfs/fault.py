"""How this package refuses an image."""

from __future__ import annotations

from updated.errors import BundleError


def invalid(what: str) -> BundleError:
    """The error for a malformed image; `what` says what is wrong, what was expected, what was there."""
    return BundleError(
        f"Invalid squashfs: {what}", hint="build the bundle again and keep its bytes as they are"
    )
