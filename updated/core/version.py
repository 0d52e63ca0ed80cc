"""Semantic versions, read and ordered as RAUC does (RAUC src/utils.c, r_semver_*)."""

from __future__ import annotations

from dataclasses import dataclass, field

from updated.errors import UpdatedError

RAUC_VERSION = "1.15.2"
"""The RAUC whose bundles, configuration and D-Bus interface we are compatible with."""

_UINT64_MAX = 2**64 - 1
_DIGITS = frozenset("0123456789")


class VersionError(UpdatedError):
    """A text is not `Major[.Minor[.Patch]][-pre_release][+build]`."""


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """Ordered: core numbers, then a release after all of its pre-releases, which compare field by field."""

    core: tuple[int, int, int]
    released: bool  # no pre-release
    pre_release: tuple[tuple[bool, int, bytes], ...]  # (alphanumeric, number, text) of each dot field
    text: str = field(compare=False)  # as it was written

    def __str__(self) -> str:
        return self.text


def parse(text: str) -> Version:
    """Read a version; the build after the last `+` does not count.  Raises VersionError with RAUC's text."""
    without_build = text.rpartition("+")[0] if "+" in text else text
    core, dash, pre_release = (
        without_build.rpartition("-") if "-" in without_build else (without_build, "", "")
    )
    if not core:
        raise VersionError(f"Failed to parse semantic version '{text}', 'version core' has no components.")
    numbers = [_component(part) for part in core.split(".", 2)]
    major, minor, patch = numbers + [0] * (3 - len(numbers))
    fields = tuple(_field(part) for part in pre_release.split(".")) if pre_release else ()
    return Version((major, minor, patch), not dash, fields, text)


def _component(part: str) -> int:
    prefix = f"Failed to parse core version component '{part}' as uint: "
    if not part:
        raise VersionError(prefix + "Empty string is not a number")
    if not _DIGITS.issuperset(part):
        raise VersionError(f"{prefix}“{part}” is not an unsigned number")
    number = _uint64(part)
    if number is None:
        raise VersionError(f"{prefix}Number “{part}” is out of bounds [0, {_UINT64_MAX}]")
    return number


def _field(part: str) -> tuple[bool, int, bytes]:
    number = _uint64(part) if part and _DIGITS.issuperset(part) else None
    if number is None:
        return (True, 0, part.encode(errors="surrogatepass"))
    return (False, number, b"")


def _uint64(digits: str) -> int | None:
    """The number, None if it needs more than 64 bits."""
    significant = digits.lstrip("0") or "0"
    if len(significant) > 20 or int(significant) > _UINT64_MAX:
        return None
    return int(significant)
