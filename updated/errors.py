"""What can go wrong, by who must act.

The text of an error is what happened (what, expected, got) and goes to `LastError` and the journal as it is;
`hint` says what the reader can do about it.  Where RAUC has a text for the same fault, ours is the same.
"""

from __future__ import annotations


class UpdatedError(Exception):
    """Base of all errors of this project that are not bugs."""

    passing = False  # True: the same thing may succeed later, so it is worth another try by itself

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def with_hint(self) -> str:
        """The text, and in brackets what to do about it."""
        return f"{self} ({self.hint})" if self.hint else str(self)


class BundleError(UpdatedError):
    """The bundle is bad: its maker must act.  Trying the same bytes again is useless."""


class SignatureError(BundleError):
    """The bundle is not signed by somebody this device trusts, or was changed afterwards."""


class ValidityError(SignatureError):
    """A certificate or a revocation list is expired or not yet valid: the device's clock may be wrong."""

    passing = True


class SourceError(UpdatedError):
    """The bundle could not be read: a medium, a file or a server."""

    passing = True


class DeviceError(UpdatedError):
    """This device could not do it: a slot, the bootloader, a disk, a missing tool."""

    passing = True


class ConfigError(UpdatedError):
    """A configuration file is wrong: the text names file, key and nearest known key."""


class NotSupportedError(UpdatedError):
    """RAUC can do it, this version of `updated` cannot yet."""


class Refused(UpdatedError):
    """A rule said no.  `rule` names it (`compatible`, `version-floor`, `quarantine`, `busy`, ...)."""

    def __init__(self, message: str, *, rule: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.rule = rule


class Cancelled(UpdatedError):
    """Somebody asked for the install to stop."""
