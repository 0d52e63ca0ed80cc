"""May this bundle be installed here, and which of several offered ones?  Pure.

RAUC's rules with RAUC's texts come first, in RAUC's order (src/bundle.c, src/install.c); then ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from updated.bundle.manifest import BundleFormat, Manifest
from updated.core.model import Expected, InstallArgs
from updated.core.version import Version, VersionError, parse
from updated.errors import Refused

ALL_FORMATS: frozenset[BundleFormat] = frozenset(("plain", "verity", "crypt"))
NO_ARGS = InstallArgs()


@dataclass(frozen=True, slots=True)
class PolicyFacts:
    """What the device knows when it decides."""

    compatible: str
    bundle_formats: frozenset[BundleFormat] = ALL_FORMATS
    min_bundle_version: str | None = None  # [system] min-bundle-version
    floor: str = ""  # highest confirmed version; "": the rule is off, or nothing was confirmed yet
    automatic: bool = False  # nobody asked for this bundle: the quarantine counts
    quarantine: Mapping[str, str] = field(default_factory=dict)  # manifest hash -> why
    booted_hash: str = ""  # manifest hash of what runs
    booted_version: str = ""  # its version; "" if nothing is known
    confirmed: frozenset[str] = frozenset()  # manifest hashes that were confirmed here before
    pending_hash: str = ""  # manifest hash of what is installed and waits for the reboot
    only_above: bool = True  # an automatic source installs only versions above the running one


@dataclass(frozen=True, slots=True)
class Candidate:
    """A bundle whose signature and manifest are verified."""

    name: str  # its path
    manifest: Manifest


def check(
    manifest: Manifest, facts: PolicyFacts, args: InstallArgs = NO_ARGS, *, encrypted: bool = True
) -> None:
    """Say nothing if `manifest` may be installed.

    `encrypted`: the manifest of a crypt bundle came encrypted.
    Raises Refused; its `rule` is one of bundle-format, manifest-hash, encryption, compatible, version-limit,
    version-floor, quarantine.
    """
    check_format(manifest, facts)
    _check_manifest_hash(manifest, args)
    if manifest.format == "crypt" and not encrypted:
        raise Refused("Refusing to install unencrypted crypt bundles", rule="encryption")
    _check_compatible(manifest, facts, args)
    _check_version_limit(manifest, facts, args)
    _check_floor(manifest, facts, args)
    if facts.automatic and manifest.hash in facts.quarantine:
        raise Refused(
            f"Quarantined: {facts.quarantine[manifest.hash]}",
            rule="quarantine",
            hint="Install it by hand to try it again.",
        )


def check_format(manifest: Manifest, facts: PolicyFacts) -> None:
    """The rule that also holds where nothing is installed (`info`).  Raises Refused."""
    if manifest.format not in facts.bundle_formats:
        raise Refused(
            f"Bundle format '{manifest.format}' not allowed",
            rule="bundle-format",
            hint=f"bundle-formats in system.conf allows {', '.join(sorted(facts.bundle_formats))}.",
        )


def _check_manifest_hash(manifest: Manifest, args: InstallArgs) -> None:
    expected = args.require_manifest_hash
    if not expected:
        return
    if manifest.format == "plain":
        raise Refused(
            "Refusing to install plain bundle when using require-manifest-hash", rule="manifest-hash"
        )
    if manifest.hash != expected:
        raise Refused(
            f"Refusing to install bundle with unexpected hash (expected {expected}, got {manifest.hash})",
            rule="manifest-hash",
        )


def _check_compatible(manifest: Manifest, facts: PolicyFacts, args: InstallArgs) -> None:
    if not args.ignore_compatible and manifest.compatible != facts.compatible:
        raise Refused(
            f"Compatible mismatch: Expected '{facts.compatible}' "
            f"but bundle manifest has '{manifest.compatible}'",
            rule="compatible",
        )


def _check_version_limit(manifest: Manifest, facts: PolicyFacts, args: InstallArgs) -> None:
    minimum = facts.min_bundle_version
    if minimum is None or args.ignore_version_limit:
        return
    prefix = f"Version mismatch: Expected at least '{minimum}' but bundle manifest has "
    if manifest.version is None:
        raise Refused(prefix + "no version", rule="version-limit")
    try:
        reached = parse(manifest.version) >= parse(minimum)
    except VersionError as error:
        text = f"Failed to parse semantic version B for comparison: {error}"
        raise Refused(text, rule="version-limit") from error
    if not reached:
        raise Refused(f"{prefix}'{manifest.version}'", rule="version-limit")


def _check_floor(manifest: Manifest, facts: PolicyFacts, args: InstallArgs) -> None:
    """`ignore-version-limit` lifts this limit as well."""
    floor = _version(facts.floor)
    if floor is None or args.ignore_version_limit:
        return
    version = _version(manifest.version or "")
    if version is None or version < floor:
        raise Refused(
            f"Version mismatch: Version {floor} was confirmed on this device "
            f"but bundle manifest has {_quoted(manifest.version)}",
            rule="version-floor",
            hint="Use --ignore-version-limit to go back on purpose.",
        )


def choose(
    candidates: Sequence[Candidate], facts: PolicyFacts
) -> tuple[Candidate | None, tuple[tuple[Candidate, str], ...]]:
    """The one to install of several bundles that an automatic source offers, and why not each of the others.

    The highest version that is allowed is the only one that matters: where it runs already, waits for the
    reboot, was confirmed before or is not above what runs, nothing is chosen, so that an older file lying
    about never brings the device back.
    A version that cannot be compared is below all that can; of equal versions the first by name counts.
    """
    rejected: list[tuple[Candidate, str]] = []
    allowed: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda one: one.name):
        try:
            check(candidate.manifest, facts)
        except Refused as refusal:
            rejected.append((candidate, str(refusal)))
        else:
            allowed.append(candidate)
    if not allowed:
        return None, tuple(rejected)
    best = max(allowed, key=_rank)  # the first of equals
    rejected += [(other, _why_not(other, best)) for other in allowed if other is not best]
    installed = _installed(best.manifest, facts)
    if installed:
        return None, ((best, installed), *rejected)
    return best, tuple(rejected)


def _rank(candidate: Candidate) -> tuple[bool, Version | None]:
    version = _version(candidate.manifest.version or "")
    return (version is not None, version)


def _why_not(other: Candidate, best: Candidate) -> str:
    if other.manifest.hash == best.manifest.hash:
        return f"Same bundle as {best.name}"
    comparable, version = _rank(other)
    if not comparable:
        return f"Its version cannot be compared with that of {best.name}"
    if version == _rank(best)[1]:
        return f"Same version as {best.name}, which comes first by name"
    return f"Version '{other.manifest.version}' is below '{best.manifest.version}' of {best.name}"


def _installed(manifest: Manifest, facts: PolicyFacts) -> str:
    """Why an automatic source has nothing to do: a person may go back, a file that lies about may not."""
    if manifest.hash == facts.booted_hash:
        return "Already installed and running"
    if manifest.hash == facts.pending_hash:
        return "Already installed, waiting for the reboot"
    if manifest.hash in facts.confirmed:
        return "Was installed and confirmed before"
    if not facts.only_above:
        return ""
    version, running = _version(manifest.version or ""), _version(facts.booted_version)
    if version is not None and running is not None and version <= running:
        return f"Version {_quoted(manifest.version)} is not above the running '{facts.booted_version}'"
    return ""


def _version(text: str) -> Version | None:
    try:
        return parse(text) if text else None
    except VersionError:
        return None


def _quoted(version: str | None) -> str:
    return "no version" if version is None else f"'{version}'"


def check_expected(manifest: Manifest, expected: Expected) -> None:
    """Is the bundle the one that an index promised?  Raises Refused(rule="index")."""
    if expected.version and manifest.version != expected.version:
        raise Refused(
            f"The index promises version '{expected.version}' but bundle manifest has "
            f"{_quoted(manifest.version)}",
            rule="index",
            hint="The index and the bundle on the server do not belong together.",
        )
