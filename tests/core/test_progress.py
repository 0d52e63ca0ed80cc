"""The percentages and texts that RAUC's clients see."""

from __future__ import annotations

import pytest

from updated.core.progress import ROOT_WEIGHT, Progress

Triples = list[tuple[int, str, int]]


def recorder() -> tuple[Progress, Triples]:
    seen: Triples = []
    return Progress(lambda *triple: seen.append(triple)), seen


def test_a_whole_install_of_two_images() -> None:
    progress, seen = recorder()
    with progress.step("Installing", units=ROOT_WEIGHT):
        with progress.step("Determining slot states"):
            pass
        with progress.step("Checking bundle"), progress.step("Verifying signature"):
            pass
        with progress.step("Checking manifest contents"):
            pass
        with progress.step("Determining target install group"):
            pass
        with progress.step("Updating slots", weight=6, units=20):
            for slot in ("rootfs.1", "appfs.1"):
                with progress.step(f"Checking slot {slot}"):
                    pass
                with progress.step(f"Copying image to {slot}", weight=9):
                    progress.percent(0.5)
                    progress.percent(0.501)
                    progress.percent(1.0)
    assert seen == [
        (0, "Installing", 1),
        (0, "Determining slot states", 2),
        (10, "Determining slot states done.", 2),
        (10, "Checking bundle", 2),
        (10, "Verifying signature", 3),
        (20, "Verifying signature done.", 3),
        (20, "Checking bundle done.", 2),
        (20, "Checking manifest contents", 2),
        (30, "Checking manifest contents done.", 2),
        (30, "Determining target install group", 2),
        (40, "Determining target install group done.", 2),
        (40, "Updating slots", 2),
        (40, "Checking slot rootfs.1", 3),
        (43, "Checking slot rootfs.1 done.", 3),
        (43, "Copying image to rootfs.1", 3),
        (56, "Copying image to rootfs.1", 3),
        (69, "Copying image to rootfs.1", 3),
        (70, "Copying image to rootfs.1 done.", 3),
        (70, "Checking slot appfs.1", 3),
        (73, "Checking slot appfs.1 done.", 3),
        (73, "Copying image to appfs.1", 3),
        (86, "Copying image to appfs.1", 3),
        (99, "Copying image to appfs.1", 3),
        (99, "Copying image to appfs.1 done.", 3),
        (99, "Updating slots done.", 2),
        (100, "Installing done.", 1),
    ]


def test_a_failure_closes_every_open_step() -> None:
    progress, seen = recorder()
    with (
        pytest.raises(ValueError),
        progress.step("Installing", units=ROOT_WEIGHT),
        progress.step("Checking bundle"),
    ):
        raise ValueError
    assert seen[-2:] == [(10, "Checking bundle failed.", 2), (100, "Installing failed.", 1)]
