"""Starts that fail, counted by boots."""

from __future__ import annotations

import json
import os
import resource
import time
from pathlib import Path

import pytest

from updated.errors import DeviceError
from updated.host.starts import CONFIRMED, FAILED, LIMIT, MAX_BOOTS, OPEN, WINDOW, Starts

COUNTED = "it has failed in 10 boots in a row"


class Unit:
    """What systemd gives to one, on a machine that can be rebooted."""

    def __init__(self, folder: Path) -> None:
        self.state, self.runtime, self.boot_id = folder / "state", folder / "run", folder / "boot_id"
        self.state.mkdir()
        self.boot(0)

    def boot(self, number: int) -> None:
        self.boot_id.write_text(f"boot-{number}\n")
        for file in self.runtime.glob("*"):
            file.unlink()
        self.runtime.mkdir(exist_ok=True)

    @property
    def starts(self) -> Starts:
        """Of a new process."""
        environ = {"STATE_DIRECTORY": f"{self.state}:/other", "RUNTIME_DIRECTORY": str(self.runtime)}
        return Starts(self.boot_id, environ)

    @property
    def noted(self) -> list[str]:
        noted: list[str] = json.loads((self.state / FAILED).read_text())
        return noted


@pytest.fixture
def unit(tmp_path: Path) -> Unit:
    return Unit(tmp_path)


def fail_in_boots(unit: Unit, first: int, last: int) -> list[str]:
    answers = []
    for number in range(first, last + 1):
        unit.boot(number)
        answers.append(unit.starts.failed())
    return answers


def test_the_tenth_boot_in_a_row_is_the_last(unit: Unit) -> None:
    assert fail_in_boots(unit, 1, MAX_BOOTS - 1) == [""] * (MAX_BOOTS - 1)
    assert fail_in_boots(unit, 10, 14) == [COUNTED] * 5
    assert unit.noted == [f"boot-{number}" for number in range(5, 15)]


def test_one_boot_counts_once_however_often_it_fails(unit: Unit) -> None:
    assert [unit.starts.failed() for _ in range(3 * MAX_BOOTS)] == [""] * (3 * MAX_BOOTS)
    assert unit.noted == ["boot-0"]


def test_a_confirmation_begins_anew(unit: Unit) -> None:
    fail_in_boots(unit, 1, MAX_BOOTS - 1)
    unit.starts.clear()
    assert unit.noted == []
    assert fail_in_boots(unit, 11, 19) == [""] * 9
    assert fail_in_boots(unit, 20, 20) == [COUNTED]


def test_where_nothing_failed_nothing_is_written(unit: Unit) -> None:
    unit.starts.clear()
    assert list(unit.state.iterdir()) == []


def test_after_a_confirmation_no_reboot_of_that_boot_is_a_help(unit: Unit) -> None:
    unit.starts.clear()
    assert unit.starts.failed() == "this system was confirmed before, so a reboot is no help"
    assert list(unit.state.iterdir()) == []
    unit.boot(1)
    assert unit.starts.failed() == ""


def test_the_confirmation_of_another_boot_says_nothing(unit: Unit) -> None:
    """Wherever the folder lies."""
    unit.starts.clear()
    unit.boot_id.write_text("other\n")
    assert unit.starts.failed() == ""


def test_one_that_keeps_dying_is_not_tried_again_where_a_reboot_is_no_help(unit: Unit) -> None:
    unit.starts.clear()
    for _ in range(LIMIT - 1):
        unit.starts.begin()
    with pytest.raises(DeviceError, match="ended 4 times within 45 minutes"):
        unit.starts.begin()
    unit.starts.end()
    unit.starts.begin()


def test_one_that_keeps_dying_is_left_to_systemd_where_nothing_is_known_to_be_good(unit: Unit) -> None:
    """Until it was so in ten boots; then only the last start that systemd allows stays up."""
    for number in range(1, MAX_BOOTS):
        unit.boot(number)
        for _ in range(LIMIT):
            unit.starts.begin()
    assert len(unit.noted) == MAX_BOOTS - 1
    unit.boot(MAX_BOOTS)
    for _ in range(LIMIT - 1):
        unit.starts.begin()
    with pytest.raises(DeviceError, match="ended 4 times"):
        unit.starts.begin()
    assert unit.starts.failed() == COUNTED


def test_a_few_deaths_and_a_good_end_note_nothing(unit: Unit) -> None:
    for _ in range(3 * LIMIT):
        unit.starts.begin()
        unit.starts.begin()
        unit.starts.end()
    assert list(unit.state.iterdir()) == []


def test_deaths_of_long_ago_do_not_count(unit: Unit) -> None:
    unit.starts.clear()
    now = time.monotonic()
    old = [now - WINDOW - 1, now + 1000, now - 10, now - 5, now - 1]
    (unit.runtime / OPEN).write_text("\n".join(map(str, old)))
    unit.starts.begin()
    with pytest.raises(DeviceError):
        unit.starts.begin()


@pytest.mark.parametrize("content", [b"", b"rubbish", b"nan\n" * 10, b"1e999\n" * 9, b"\xff" * 10_000])
def test_a_list_of_deaths_that_is_not_ours_counts_as_none(unit: Unit, content: bytes) -> None:
    unit.starts.clear()
    (unit.runtime / OPEN).write_bytes(content)
    unit.starts.begin()
    assert len((unit.runtime / OPEN).read_text().splitlines()) == 1


def test_without_systemd_nothing_is_counted(unit: Unit) -> None:
    starts = Starts(unit.boot_id, {})
    for number in range(2 * MAX_BOOTS):
        unit.boot_id.write_text(str(number))
        starts.begin()
        assert starts.failed() == ""
        starts.clear()


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 4096, b"{", b'{"boots": 3}', b"[1, 2]", b'["\xff"]', b"[" * 100_000, b'["a"] rubbish'],
    ids=["empty", "zeros", "torn", "object", "numbers", "no-utf8", "deep", "more"],
)
def test_a_file_that_is_not_ours_counts_as_none(unit: Unit, content: bytes) -> None:
    (unit.state / FAILED).write_bytes(content)
    assert unit.starts.failed() == ""
    assert unit.noted == ["boot-0"]
    (unit.state / FAILED).write_bytes(content)
    unit.starts.clear()
    assert unit.starts.failed()  # confirmed


def test_the_same_boot_many_times_is_one(unit: Unit) -> None:
    (unit.state / FAILED).write_text(json.dumps(["boot-7"] * 1000))
    assert unit.starts.failed() == ""
    assert unit.noted == ["boot-7", "boot-0"]


def test_no_folder_and_no_boot_id(unit: Unit) -> None:
    unit.boot_id.unlink()
    assert unit.starts.failed() == ""
    unit.starts.clear()
    unit.boot_id.write_text("boot")
    unit.state.rmdir()
    (unit.runtime / CONFIRMED).mkdir()
    (unit.runtime / OPEN).mkdir()
    unit.starts.begin()
    unit.starts.end()
    assert unit.starts.failed() == ""  # made anew
    assert unit.noted == ["boot"]
    unit.starts.clear()


def test_no_folder_in_its_place(unit: Unit) -> None:
    blocked = unit.state.with_name("blocked")
    blocked.write_bytes(b"")
    starts = Starts(unit.boot_id, {"STATE_DIRECTORY": str(blocked), "RUNTIME_DIRECTORY": str(blocked)})
    assert starts.failed() == ""
    starts.clear()


def test_where_nothing_can_be_written_what_is_known_still_counts(unit: Unit) -> None:
    fail_in_boots(unit, 1, MAX_BOOTS - 1)
    noted = unit.noted
    unit.boot(MAX_BOOTS)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))  # like a full medium, also for root
    try:
        assert unit.starts.failed() == COUNTED
        unit.starts.clear()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert unit.noted == noted


def test_a_pipe_in_its_place_does_not_hang_it(unit: Unit) -> None:
    os.mkfifo(unit.state / FAILED)
    assert unit.starts.failed() == ""
