"""The clock against the build, the hardware clock, and who synchronises it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from tests.doctor.conftest import Scene
from updated.doctor import clock
from updated.doctor.finding import Finding, Level

Find = Callable[..., Finding]
BUILT = datetime.fromtimestamp(1_700_000_000, UTC)
LATER = datetime(2026, 11, 20, 12, tzinfo=UTC)


def look(scene: Scene, at: datetime, sysfs: Path) -> list[Finding]:
    subject = scene.subject(at=at)
    return list(clock.check(replace(subject, places=replace(scene.places, sysfs=sysfs))))


def test_against_the_build(scene: Scene, find: Find, tmp_path: Path) -> None:
    assert find(look(scene, BUILT, tmp_path), "clock.build").level is Level.OK
    before = find(look(scene, datetime(1970, 1, 1, tzinfo=UTC), tmp_path), "clock.build")
    assert (before.level, before.expected) == (Level.WARNING, "2023-11-14 22:13 UTC or later")
    (scene.folder / "usr" / "lib" / "os-release").unlink()
    assert find(look(scene, BUILT, tmp_path), "clock.build").level is Level.UNKNOWN


def test_the_hardware_clock(scene: Scene, find: Find, tmp_path: Path) -> None:
    assert find(look(scene, LATER, tmp_path), "clock.rtc").level is Level.NOTE, "there is none"
    rtc = tmp_path / "class" / "rtc" / "rtc0"
    rtc.mkdir(parents=True)
    for text, level in (
        (f"{LATER.timestamp():.0f}\n", Level.OK),
        ("0\n", Level.WARNING),
        (f"{10**30}\n", Level.WARNING),
        ("broken", Level.WARNING),
    ):
        (rtc / "since_epoch").write_text(text)
        assert find(look(scene, LATER, tmp_path), "clock.rtc").level is level, text
    (rtc / "since_epoch").unlink()
    assert find(look(scene, LATER, tmp_path), "clock.rtc").text == "cannot be read"


def test_the_kernel_says_whether_it_is_synchronised(scene: Scene, find: Find, tmp_path: Path) -> None:
    finding = find(look(scene, LATER, tmp_path), "clock.synchronised")
    assert finding.level in (Level.OK, Level.WARNING), "it was asked"
