"""What may be installed, and which of several."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from updated.bundle.manifest import BundleFormat, Manifest
from updated.core.model import InstallArgs
from updated.core.policy import Candidate, PolicyFacts, check, choose
from updated.errors import Refused


def manifest(
    version: str | None = "1.0", bundle_format: BundleFormat = "verity", digest: str = ""
) -> Manifest:
    return Manifest(compatible="Board", version=version, format=bundle_format, hash=digest or f"h{version}")


FACTS = PolicyFacts(compatible="Board")


@pytest.mark.parametrize(
    ("bundle", "facts", "args"),
    [
        (manifest(), FACTS, InstallArgs()),
        (manifest(None), FACTS, InstallArgs()),
        (replace(manifest(), compatible="Other"), FACTS, InstallArgs(ignore_compatible=True)),
        (manifest("2.0"), replace(FACTS, min_bundle_version="2"), InstallArgs()),
        (manifest("0.1"), replace(FACTS, min_bundle_version="2"), InstallArgs(ignore_version_limit=True)),
        (manifest("1.0"), replace(FACTS, floor="1.0"), InstallArgs()),
        (manifest("0.9"), replace(FACTS, floor="1.0"), InstallArgs(ignore_version_limit=True)),
        (manifest("0.9"), replace(FACTS, floor="no version at all"), InstallArgs()),
        (manifest(), replace(FACTS, quarantine={"h1.0": "rolled back"}), InstallArgs()),
        (manifest(), replace(FACTS, automatic=True, quarantine={"h2.0": "rolled back"}), InstallArgs()),
        (manifest(), FACTS, InstallArgs(require_manifest_hash="h1.0")),
        (manifest(bundle_format="crypt"), FACTS, InstallArgs()),
        (manifest(bundle_format="plain"), FACTS, InstallArgs()),
    ],
)
def test_allowed(bundle: Manifest, facts: PolicyFacts, args: InstallArgs) -> None:
    check(bundle, facts, args)


@pytest.mark.parametrize(
    ("bundle", "facts", "args", "rule", "message"),
    [
        (
            replace(manifest(), compatible="Other"),
            FACTS,
            InstallArgs(),
            "compatible",
            "Compatible mismatch: Expected 'Board' but bundle manifest has 'Other'",
        ),
        (
            manifest(bundle_format="plain"),
            replace(FACTS, bundle_formats=frozenset(("verity",))),
            InstallArgs(ignore_compatible=True, ignore_version_limit=True),
            "bundle-format",
            "Bundle format 'plain' not allowed",
        ),
        (
            manifest("0.9"),
            replace(FACTS, min_bundle_version="1.0"),
            InstallArgs(),
            "version-limit",
            "Version mismatch: Expected at least '1.0' but bundle manifest has '0.9'",
        ),
        (
            manifest(None),
            replace(FACTS, min_bundle_version="1.0"),
            InstallArgs(),
            "version-limit",
            "Version mismatch: Expected at least '1.0' but bundle manifest has no version",
        ),
        (
            manifest("new"),
            replace(FACTS, min_bundle_version="1.0"),
            InstallArgs(),
            "version-limit",
            "Failed to parse semantic version B for comparison: "
            "Failed to parse core version component 'new' as uint: “new” is not an unsigned number",
        ),
        (
            manifest("1.0-rc1"),
            replace(FACTS, floor="1.0"),
            InstallArgs(),
            "version-floor",
            "Version mismatch: Version 1.0 was confirmed on this device but bundle manifest has '1.0-rc1'",
        ),
        (
            manifest(None),
            replace(FACTS, floor="1.0"),
            InstallArgs(),
            "version-floor",
            "Version mismatch: Version 1.0 was confirmed on this device but bundle manifest has no version",
        ),
        (
            manifest(),
            replace(FACTS, automatic=True, quarantine={"h1.0": "rolled back"}),
            InstallArgs(),
            "quarantine",
            "Quarantined: rolled back",
        ),
        (
            manifest(),
            FACTS,
            InstallArgs(require_manifest_hash="beef"),
            "manifest-hash",
            "Refusing to install bundle with unexpected hash (expected beef, got h1.0)",
        ),
        (
            manifest(bundle_format="plain"),
            FACTS,
            InstallArgs(require_manifest_hash="h1.0"),
            "manifest-hash",
            "Refusing to install plain bundle when using require-manifest-hash",
        ),
    ],
)
def test_refused(bundle: Manifest, facts: PolicyFacts, args: InstallArgs, rule: str, message: str) -> None:
    with pytest.raises(Refused) as caught:
        check(bundle, facts, args)
    assert (caught.value.rule, str(caught.value)) == (rule, message)


def test_a_crypt_bundle_must_have_come_encrypted() -> None:
    with pytest.raises(Refused, match="Refusing to install unencrypted crypt bundles"):
        check(manifest(bundle_format="crypt"), FACTS, encrypted=False)
    check(manifest(), FACTS, encrypted=False)


def offer(name: str, version: str | None, digest: str = "", compatible: str = "Board") -> Candidate:
    return Candidate(name, replace(manifest(version, digest=digest), compatible=compatible))


@pytest.mark.parametrize(
    ("offers", "facts", "chosen", "reasons"),
    [
        ([], FACTS, None, {}),
        ([offer("a", "1.0")], FACTS, "a", {}),
        ([offer("a", None)], FACTS, "a", {}),
        (
            [offer("a", "1.0"), offer("b", "1.10"), offer("c", "1.9")],
            FACTS,
            "b",
            {"a": "Version '1.0' is below '1.10' of b", "c": "Version '1.9' is below '1.10' of b"},
        ),
        (
            [offer("a", "1.0"), offer("b", "2.0", compatible="Other")],
            FACTS,
            "a",
            {"b": "Compatible mismatch: Expected 'Board' but bundle manifest has 'Other'"},
        ),
        (
            [offer("a", "1.0"), offer("b", "2.0")],
            replace(FACTS, automatic=True, quarantine={"h2.0": "rolled back"}),
            "a",
            {"b": "Quarantined: rolled back"},
        ),
        (
            [offer("a", "1.0"), offer("b", "2.0")],
            replace(FACTS, automatic=True, quarantine={"h2.0": "rolled back"}, booted_hash="h1.0"),
            None,
            {"a": "Already installed and running", "b": "Quarantined: rolled back"},
        ),
        (
            [offer("a", "1.0"), offer("b", "2.0")],
            replace(FACTS, booted_hash="h2.0"),
            None,
            {"a": "Version '1.0' is below '2.0' of b", "b": "Already installed and running"},
        ),
        (
            [offer("a", "1.0"), offer("b", "2.0")],
            replace(FACTS, booted_hash="h1.0", pending_hash="h2.0"),
            None,
            {"a": "Version '1.0' is below '2.0' of b", "b": "Already installed, waiting for the reboot"},
        ),
        (
            [offer("a", "1.0"), offer("b", "3.0")],
            replace(FACTS, booted_hash="h1.0", pending_hash="h2.0"),
            "b",
            {"a": "Version '1.0' is below '3.0' of b"},
        ),
        ([offer("a", "0.9")], replace(FACTS, booted_hash="h1.0"), "a", {}),  # nobody knows what runs
        (
            [offer("a", "0.9")],
            replace(FACTS, booted_hash="h1.0", booted_version="1.0"),
            None,
            {"a": "Version '0.9' is not above the running '1.0'"},
        ),
        (
            [offer("a", "1.0", "rebuilt")],
            replace(FACTS, booted_hash="h1.0", booted_version="1.0"),
            None,
            {"a": "Version '1.0' is not above the running '1.0'"},
        ),
        ([offer("a", "1.1")], replace(FACTS, booted_hash="h1.0", booted_version="1.0"), "a", {}),
        ([offer("a", "nightly")], replace(FACTS, booted_hash="h1.0", booted_version="1.0"), "a", {}),
        (
            [offer("a", "nightly")],
            replace(FACTS, booted_hash="h1.0", confirmed=frozenset(("hnightly",))),
            None,
            {"a": "Was installed and confirmed before"},
        ),
        (
            [offer("a", "1.0"), offer("b", "2.0")],
            replace(
                FACTS,
                automatic=True,
                quarantine={"h2.0": "rolled back"},
                booted_hash="h1.5",
                booted_version="1.5",
            ),
            None,
            {"a": "Version '1.0' is not above the running '1.5'", "b": "Quarantined: rolled back"},
        ),
        (
            [offer("b", "1.0", "h2"), offer("a", "1.0", "h1")],
            FACTS,
            "a",
            {"b": "Same version as a, which comes first by name"},
        ),
        ([offer("b", "1.0"), offer("a", "1.0")], FACTS, "a", {"b": "Same bundle as a"}),
        (
            [offer("b", "1.0+x"), offer("a", "1.0+y")],
            FACTS,
            "a",
            {"b": "Same version as a, which comes first by name"},
        ),
        (
            [offer("a", "nightly"), offer("b", "0.1"), offer("c", None)],
            FACTS,
            "b",
            {
                "a": "Its version cannot be compared with that of b",
                "c": "Its version cannot be compared with that of b",
            },
        ),
    ],
)
def test_choose(
    offers: list[Candidate], facts: PolicyFacts, chosen: str | None, reasons: dict[str, str]
) -> None:
    for order in permutations(offers):
        best, others = choose(order, facts)
        assert (best.name if best else None) == chosen
        assert {candidate.name: reason for candidate, reason in others} == reasons


VERSIONS = st.sampled_from([None, "", "x", "1", "1.0", "1.1", "1.1-rc1", "2.0"])
OFFERS = st.lists(
    st.tuples(st.sampled_from("abcdef"), VERSIONS, st.sampled_from("123")), unique_by=lambda one: one[0]
)


@given(OFFERS)
def test_a_folder_that_nobody_touches_comes_to_rest(offers: list[tuple[str, str | None, str]]) -> None:
    """Installing what is chosen, again and again, ends after one install: no two files alternate."""
    candidates = [offer(name, version, digest) for name, version, digest in offers]
    best, others = choose(candidates, FACTS)
    assert len(others) + (best is not None) == len(candidates)
    if best is not None:
        waiting = replace(FACTS, pending_hash=best.manifest.hash)
        assert choose(candidates, waiting)[0] is None
        assert choose(candidates, replace(FACTS, booted_hash=best.manifest.hash))[0] is None
