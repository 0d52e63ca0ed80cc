"""RAUC's criteria, with its words."""

from __future__ import annotations

import pytest

from updated.bundle.manifest import Manifest
from updated.core import polling
from updated.core.polling import Criteria, Finding, PollStatus, Verdict, judge, wants_reboot
from updated.errors import SourceError, UpdatedError

HIGHER = "update candidate found: higher semantic version"
DIFFERENT = "update candidate found: different version"
NONE = "no update candidate available"


@pytest.mark.parametrize(
    ("candidate", "install", "offered", "running", "expected"),
    [
        (("higher-semver",), (), "1.1", "1.0", Verdict(True, HIGHER, False)),
        (("higher-semver",), (), "1.0", "1.0", Verdict(False, NONE, False)),
        (("higher-semver",), (), "0.9", "1.0", Verdict(False, NONE, False)),
        (("higher-semver",), (), "1.0", "1.0-rc1", Verdict(True, HIGHER, False)),
        (("different-version",), (), "0.9", "1.0", Verdict(True, DIFFERENT, False)),
        (("different-version",), (), "blue", "red", Verdict(True, DIFFERENT, False)),
        (("different-version",), (), "1.0", "1.0", Verdict(False, NONE, False)),
        (("different-version",), (), "1.0.0", "1.0", Verdict(True, DIFFERENT, False)),
        (("different-version", "higher-semver"), (), "2", "1", Verdict(True, HIGHER, False)),
        (("different-version", "higher-semver"), (), "1", "2", Verdict(True, DIFFERENT, False)),
        (("higher-semver",), ("always",), "2", "1", Verdict(True, HIGHER, True)),
        (("higher-semver",), ("always",), "1", "1", Verdict(False, NONE, False)),
        (("different-version",), ("higher-semver",), "1", "2", Verdict(True, DIFFERENT, False)),
        (("different-version",), ("higher-semver", "always"), "1", "2", Verdict(True, DIFFERENT, True)),
        (("different-version",), ("different-version",), "1", "2", Verdict(True, DIFFERENT, True)),
        ((), ("always",), "2", "1", Verdict(False, NONE, False)),
    ],
)
def test_criteria(
    candidate: tuple[str, ...], install: tuple[str, ...], offered: str, running: str, expected: Verdict
) -> None:
    assert judge(Criteria(candidate, install), offered, running) == expected


@pytest.mark.parametrize(
    ("criteria", "offered", "running", "text"),
    [
        (
            Criteria(("different-version", "higher-semver")),
            "blue",
            "1",
            "candidate criteria check failed: Failed to parse semantic version A for comparison: "
            "Failed to parse core version component 'blue' as uint: “blue” is not an unsigned number",
        ),
        (Criteria(), "1", "", "candidate criteria check failed: Failed to parse semantic version B"),
        (
            Criteria(("different-version",), ("always", "higher-semver")),
            "blue",
            "1",
            "installation criteria check failed: Failed to parse semantic version A for comparison: ",
        ),
        (Criteria(), None, "1", "candidate criteria check failed: the manifest has no version"),
    ],
)
def test_versions_that_cannot_be_read(
    criteria: Criteria, offered: str | None, running: str, text: str
) -> None:
    with pytest.raises(UpdatedError) as caught:
        judge(criteria, offered, running)
    assert str(caught.value).startswith(text)


@pytest.mark.parametrize(
    ("reboot", "succeeded", "slots", "artifacts", "expected"),
    [
        ((), True, True, True, False),
        ((), False, False, False, False),
        (("updated-slots",), True, True, False, True),
        (("updated-slots",), True, False, True, False),
        (("updated-slots",), False, True, False, False),
        (("updated-artifacts",), True, True, False, False),
        (("updated-artifacts",), True, False, True, True),
        (("failed-update",), False, False, False, True),
        (("failed-update",), True, True, True, False),
        (("updated-slots", "failed-update"), False, False, False, True),
        (("updated-slots", "updated-artifacts"), True, False, True, True),
    ],
)
def test_reboot(
    reboot: tuple[str, ...], succeeded: bool, slots: bool, artifacts: bool, expected: bool
) -> None:
    found = wants_reboot(
        Criteria(reboot=reboot), succeeded=succeeded, updated_slots=slots, updated_artifacts=artifacts
    )
    assert found == expected


def test_the_status_through_a_good_look_and_a_bad_one() -> None:
    manifest = Manifest("Board", version="2", hash="ab")
    found = Finding(
        None, HIGHER, available=True, manifest=manifest, size=7, effective_url="u", modified=8, etag='"e"'
    )
    begun = polling.attempted(PollStatus(attempted_hash="cd", recent_errors=3, last_error="x"), 12.5)
    assert begun == PollStatus(
        attempts=1, recent_errors=3, last_attempt=12_500_000, last_error="x", attempted_hash="cd"
    )
    good = polling.succeeded(begun, found, 13.0)
    assert good == PollStatus(
        attempts=1,
        last_attempt=12_500_000,
        last_success=13_000_000,
        update_available=True,
        summary=HIGHER,
        attempted_hash="cd",
        manifest=manifest,
        size=7,
        effective_url="u",
        modified=8,
        etag='"e"',
    )
    bad = polling.failed(polling.attempted(good, 20.0), SourceError("no route"))
    assert (bad.attempts, bad.recent_errors, bad.last_error) == (2, 1, "no route")
    assert (bad.update_available, bad.summary) == (False, "")
    assert (bad.manifest, bad.last_success) == (manifest, 13_000_000), "RAUC keeps what it knew"
