"""The files of `[log.*]`: which events, rotation, and all that can be wrong with a file."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from updated.config.log_sections import EventLog
from updated.core import events
from updated.core.events import Event
from updated.event_log.logs import EventLogs

TIME = "2026-06-14T20:18:07Z"
BOOT = events.booted_external("b-1")
MARK = events.marked_good("rootfs.0", "A", by="updated")
INSTALL = events.install_started("0a1b2c3d-1", source="usb", location="x")
SERVICE = events.service_stopping()
WRITE = events.slot_written("rootfs.1", transaction="t", bundle_hash="h")
ALL = (BOOT, MARK, INSTALL, SERVICE, WRITE)


class Written:
    """One event log, and what it complains of."""

    def __init__(self, path: Path, **settings: Any) -> None:
        self.path = path
        self.warnings: list[str] = []
        self.logs = EventLogs(
            [EventLog("test", path, **{"format": "short", **settings})], self.warnings.append
        )

    def write(self, *found: Event) -> None:
        for event in found:
            self.logs.write(event, TIME)

    def lines(self, suffix: str = "") -> list[str]:
        """Their texts."""
        file = self.path.with_name(self.path.name + suffix)
        return [line.removeprefix(f"{TIME}: ") for line in file.read_text().splitlines()]

    def files(self) -> list[str]:
        return sorted(file.name for file in self.path.parent.iterdir())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (("all",), ALL),
        (("boot",), (BOOT,)),
        (("mark", "install"), (MARK, INSTALL)),
        (("service",), (SERVICE,)),
        (("writeslot",), (WRITE,)),
    ],
)
def test_only_what_is_wanted(path: Path, wanted: tuple[str, ...], expected: tuple[Event, ...]) -> None:
    log = Written(path, events=wanted)
    log.write(*ALL)
    assert log.lines() == [event.text for event in expected]


def test_events_are_appended(path: Path) -> None:
    Written(path).write(BOOT)
    Written(path).write(SERVICE)
    assert Written(path).lines() == [BOOT.text, SERVICE.text]
    assert path.stat().st_mode & 0o777 == 0o644 & ~_umask()


def test_several_logs(tmp_path: Path) -> None:
    configs = [
        EventLog("a", tmp_path / "a", format="json", events=("boot",)),
        EventLog("b", tmp_path / "missing" / "b"),
        EventLog("c", tmp_path / "c", format="short"),
    ]
    warnings: list[str] = []
    logs = EventLogs(configs, warnings.append)
    logs.write(BOOT, TIME)
    logs.write(MARK, TIME)
    assert json.loads((tmp_path / "a").read_text())["MESSAGE"] == BOOT.text
    assert len((tmp_path / "c").read_text().splitlines()) == 2
    assert len(warnings) == 1


def test_no_log_is_nothing(tmp_path: Path) -> None:
    assert not EventLogs([], pytest.fail)
    assert EventLogs([EventLog("a", tmp_path / "a")], pytest.fail)
    assert list(tmp_path.iterdir()) == []


# Rotation

SIZE = len(f"{TIME}: {SERVICE.text}\n")


def test_it_is_rotated_before_it_is_larger_than_it_may_be(path: Path) -> None:
    log = Written(path, max_size=2 * SIZE, max_files=3)
    log.write(SERVICE, SERVICE)
    assert log.files() == ["log"]
    assert path.stat().st_size == 2 * SIZE
    log.write(SERVICE)
    assert log.files() == ["log", "log.1"]
    assert path.stat().st_size == SIZE


def test_the_oldest_goes(path: Path) -> None:
    log = Written(path, max_size=1, max_files=3)
    for number in range(5):
        log.write(events.degraded(str(number)))
    assert log.files() == ["log", "log.1", "log.2"]
    assert [log.lines(suffix) for suffix in ("", ".1", ".2")] == [
        [f"Degraded: {number}"] for number in (4, 3, 2)
    ]
    assert log.warnings == []


def test_one_file_only(path: Path) -> None:
    log = Written(path, max_size=1, max_files=1)
    log.write(BOOT, MARK)
    assert log.files() == ["log"]
    assert log.lines() == [MARK.text]


def test_gaps_and_a_file_that_somebody_took_away(path: Path) -> None:
    log = Written(path, max_size=1, max_files=4)
    log.write(BOOT, MARK, SERVICE)
    path.with_name("log.1").unlink()
    log.write(WRITE)
    assert log.files() == ["log", "log.1", "log.3"]
    path.unlink()
    log.write(BOOT)
    assert log.lines() == [BOOT.text]
    assert log.lines(".1") == [SERVICE.text]
    assert log.warnings == []


def test_without_a_size_it_is_never_rotated(path: Path) -> None:
    log = Written(path)
    log.write(*[SERVICE] * 200)
    assert log.files() == ["log"]


# What can be wrong


def test_a_missing_folder_is_said_once_and_tried_again(path: Path) -> None:
    log = Written(path.parent / "folder" / "log")
    log.write(BOOT, MARK)
    assert len(log.warnings) == 1
    assert "[log.test]" in log.warnings[0]
    assert "No such file or directory" in log.warnings[0]
    log.path.parent.mkdir()
    log.write(SERVICE)
    assert log.lines() == [SERVICE.text]
    shutil.rmtree(log.path.parent)
    log.write(BOOT)
    assert len(log.warnings) == 2


@pytest.mark.parametrize("kind", ["folder", "fifo", "device", "nul"])
def test_what_is_no_file(path: Path, kind: str) -> None:
    """A FIFO without a reader would hang who opens it."""
    match kind:
        case "folder":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/null")
        case "nul":
            path = Path("/\0")
    log = Written(path, max_size=1)
    log.write(BOOT, MARK)
    assert len(log.warnings) == 1


def test_a_rotation_that_fails(path: Path) -> None:
    log = Written(path, max_size=1, max_files=2)
    path.with_name("log.1").mkdir()
    (path.with_name("log.1") / "x").touch()
    log.write(BOOT, MARK, SERVICE)
    assert log.lines() == [BOOT.text]
    assert len(log.warnings) == 1


def test_a_line_that_a_power_cut_has_torn(path: Path) -> None:
    path.write_text(f"{TIME}: {BOOT.text}\n{TIME}: Mar")
    log = Written(path)
    log.write(SERVICE)
    assert log.lines() == [BOOT.text, "Mar", SERVICE.text]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """4 pages."""
    point = tmp_path / "disk"
    point.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16384", "tmpfs", point], check=True)
    yield point
    subprocess.run(["umount", point], check=True)


@pytest.mark.root
def test_a_full_disk(small_disk: Path) -> None:
    """An event is there or not, never a part of it; and it goes on when there is room."""
    log = Written(small_disk / "log", format="json")
    long = events.degraded("x" * 1000)
    log.write(*[long] * 30)
    whole = [json.loads(line) for line in log.path.read_text().splitlines()]
    assert 5 < len(whole) < 30
    assert log.path.read_text().endswith("}\n")
    assert len(log.warnings) == 1
    assert "No space left on device" in log.warnings[0]
    log.path.unlink()
    log.write(long, long)
    assert len(log.path.read_text().splitlines()) == 2
    assert len(log.warnings) == 1


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
