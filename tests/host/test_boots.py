"""Earlier boots in a real journal, which systemd-journal-remote writes with boot ids of our own."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

from updated.host import boots

JOURNAL_REMOTE = "/lib/systemd/systemd-journal-remote"
FIRST, BROKEN, SILENT, NOW = (digit * 32 for digit in "1234")
OTHER = "5" * 32
START = 1_700_000_000_000_000  # microseconds since 1970


def entry(boot: str, second: int, message: str, priority: int = 6) -> bytes:
    """One entry in the journal's export format (systemd.io, Journal Export Formats)."""
    start = START + int(boot[0], 16) * 10**10
    fields = {
        "__REALTIME_TIMESTAMP": start + second * 10**6,
        "__MONOTONIC_TIMESTAMP": second * 10**6,
        "_BOOT_ID": boot,
        "_MACHINE_ID": "a" * 32,
        "_HOSTNAME": "board",
        "SYSLOG_IDENTIFIER": "app",
        "_PID": 7,
        "PRIORITY": priority,
    }
    data = message.encode()
    text = "".join(f"{name}={value}\n" for name, value in fields.items()).encode()
    return text + b"MESSAGE\n" + len(data).to_bytes(8, "little") + data + b"\n\n"


def write_journal(folder: Path, entries: Iterable[bytes]) -> Path:
    folder.mkdir()
    subprocess.run(
        [JOURNAL_REMOTE, f"--output={folder}/system.journal", "-"],
        input=b"".join(entries),
        capture_output=True,
        check=True,
    )
    return folder


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of four boots, each with 30 lines; only the second has errors."""
    return write_journal(
        tmp_path_factory.mktemp("boots") / "journal",
        (
            entry(boot, second, f"line {second}", 3 if boot == BROKEN and second % 10 == 5 else 6)
            for boot in (FIRST, BROKEN, SILENT, NOW)
            for second in range(30)
        ),
    )


def between(after: str, before: str, folder: Path | None = None) -> tuple[str, ...]:
    return asyncio.run(boots.boots_between(after, before, folder=folder))


def lines_of(boot: str, folder: Path, lines: int = 20) -> tuple[str, ...]:
    return asyncio.run(boots.last_lines(boot, lines, folder=folder))


def dashed(boot: str) -> str:
    """As in /proc/sys/kernel/random/boot_id."""
    return "-".join((boot[:8], boot[8:12], boot[12:16], boot[16:20], boot[20:])) + "\n"


@pytest.mark.parametrize(
    ("after", "before", "expected"),
    [
        (FIRST, NOW, (BROKEN, SILENT)),
        (dashed(FIRST), dashed(NOW), (BROKEN, SILENT)),
        (FIRST, BROKEN, ()),
        (BROKEN, NOW, (SILENT,)),
        (FIRST, FIRST, ()),
        (NOW, FIRST, ()),
        (FIRST, OTHER, (BROKEN, SILENT, NOW)),  # the running boot is not in the journal yet
        (OTHER, NOW, ()),
        ("", "", ()),
        ("--all", "%", ()),
    ],
)
def test_boots_between(journal: Path, after: str, before: str, expected: tuple[str, ...]) -> None:
    assert between(after, before, journal) == expected


def test_not_more_boots_than_can_be_of_one_update(tmp_path: Path) -> None:
    made = [f"{number:032x}" for number in range(0x10, 0x10 + boots.MAX_BOOTS + 3)]
    folder = write_journal(tmp_path / "journal", (entry(boot, int(boot, 16), "started") for boot in made))
    assert between(made[0], made[-1], folder) == tuple(made[2:-1])


def test_the_last_errors(journal: Path) -> None:
    expected = tuple(f"[ {second}.000000] app[7]: line {second}" for second in (5, 15, 25))
    assert lines_of(BROKEN, journal) == expected
    assert lines_of(dashed(BROKEN), journal, lines=2) == expected[1:]


def test_the_last_lines_where_there_are_no_errors(journal: Path) -> None:
    found = lines_of(SILENT, journal)
    assert len(found) == 20
    assert found[0] == "[ 10.000000] app[7]: line 10"
    assert found[-1] == "[ 29.000000] app[7]: line 29"


@pytest.mark.parametrize("boot", [OTHER, "", "1" * 31, "1" * 33, "-1", "all", "0 --rotate"])
def test_a_boot_that_is_not_there(journal: Path, boot: str) -> None:
    assert lines_of(boot, journal) == ()


@pytest.mark.parametrize("lines", [0, -1])
def test_no_lines_wanted(journal: Path, lines: int) -> None:
    assert lines_of(BROKEN, journal, lines) == ()


def test_lines_are_clean_and_short(tmp_path: Path) -> None:
    evil = "red \x1b[31m alert\t\n" + "\n".join("x" * 1000 for _ in range(50)) + "\u202e\nend"
    folder = write_journal(tmp_path / "journal", [entry(FIRST, 1, evil, 2)])
    found = lines_of(FIRST, folder, lines=10)
    assert len(found) == 10
    assert found[-1] == "end"
    assert all(len(line) <= boots.MAX_LINE and line.isprintable() for line in found)


def test_a_message_that_is_no_text(tmp_path: Path) -> None:
    folder = write_journal(tmp_path / "journal", [entry(FIRST, 1, "bell \x07", 2)])
    assert lines_of(FIRST, folder) == ("[ 1.000000] app[7]: [6B blob data]",)


def test_no_journal(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        assert between(FIRST, NOW, folder) == ()
        assert lines_of(FIRST, folder) == ()


@pytest.mark.parametrize("size", [0, 100, 4096, 100_000])
def test_a_torn_journal(journal: Path, tmp_path: Path, size: int) -> None:
    """Whatever is left of it: nothing raises, and no boot is invented."""
    whole = (journal / "system.journal").read_bytes()
    (tmp_path / "system.journal").write_bytes(whole[:size] + bytes(max(len(whole) - size - 4096, 0)))
    assert set(between(FIRST, NOW, tmp_path)) <= {BROKEN, SILENT}
    assert len(lines_of(BROKEN, tmp_path)) <= 20


# Other versions, and what may happen to a program


@pytest.fixture
def journalctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program to be written by the test; the only one on PATH, with the shell's own commands."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder / "journalctl"


def write(program: Path, script: str) -> None:
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


OLD = f"""\
-2 {FIRST} Tue 2023-11-14 22:13:20 UTC—Tue 2023-11-14 22:13:49 UTC
-1 {BROKEN} Tue 2023-11-14 22:30:00 UTC—Tue 2023-11-14 22:30:29 UTC
 0 {NOW} Tue 2023-11-14 23:03:20 UTC—Tue 2023-11-14 23:03:49 UTC"""
NEW = f"""\
IDX BOOT ID                          FIRST ENTRY                 LAST ENTRY
 -2 {FIRST} Tue 2023-11-14 22:13:20 UTC Tue 2023-11-14 22:13:49 UTC
 -1 {BROKEN} Tue 2023-11-14 22:30:00 UTC Tue 2023-11-14 22:30:29 UTC
  0 {NOW} Tue 2023-11-14 23:03:20 UTC Tue 2023-11-14 23:03:49 UTC"""


@pytest.mark.parametrize("table", [OLD, NEW])
def test_tables(journalctl: Path, table: str) -> None:
    write(journalctl, f"echo '{table}'")
    assert between(FIRST, NOW) == (BROKEN,)


def test_no_journalctl(journalctl: Path) -> None:
    assert not journalctl.exists()
    assert between(FIRST, NOW) == ()
    assert asyncio.run(boots.last_lines(FIRST)) == ()


@pytest.mark.parametrize(
    "script",
    ["exit 1", "echo garbage >&2; exit 3", "while :; do echo x; done", "while :; do :; done", "kill -9 $$"],
)
def test_a_journalctl_that_fails(journalctl: Path, script: str) -> None:
    write(journalctl, script)
    assert asyncio.run(boots.boots_between(FIRST, NOW, timeout=0.2)) == ()
    assert asyncio.run(boots.last_lines(FIRST, timeout=0.2)) == ()
