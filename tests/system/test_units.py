"""The units as `make install` leaves them, judged by systemd's own tools; test_systemd_*.py runs them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from updated import __version__
from updated.host.starts import LIMIT, WINDOW

ROOT = Path(__file__).parents[2]
MAX_EXPOSURE = 35  # tenths, 2 of them for reboot(2); systemd calls up to 4.9 OK; without a sandbox it is 9.6
UNITS = {"": 1, "min": 60}  # seconds


def run(*command: str) -> str:
    """What the command prints; fails with it."""
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert result.returncode == 0, result.stdout
    return result.stdout


def make_install(*variables: str) -> None:
    run(
        "make",
        "--quiet",
        "--directory",
        str(ROOT),
        "install",
        "DEPS=0",
        f"PYTHON={sys.executable}",
        *variables,
    )


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unusual PREFIX, with everything installed."""
    folder = tmp_path_factory.mktemp("installed")
    # What does not follow PREFIX would go to this machine.
    here = (f"STATE_DIR={folder}/state", f"DBUS_DIR={folder}/share/dbus-1")
    make_install(f"PREFIX={folder}", *here, f"TARGET_PYTHON={sys.executable}")
    return folder


def test_systemd_understands_every_line(prefix: Path) -> None:
    assert (
        run("systemd-analyze", "verify", "--man=no", str(prefix / "lib/systemd/system/updated.service")) == ""
    )


def test_the_sandbox_is_not_weakened_by_accident(prefix: Path) -> None:
    unit = str(prefix / "lib/systemd/system/updated.service")
    run("systemd-analyze", "security", "--offline=yes", f"--threshold={MAX_EXPOSURE}", unit)


def test_however_a_service_fails_it_reaches_the_limit(prefix: Path) -> None:
    """systemd counts the starts within StartLimitIntervalSec= of the first; then it counts anew."""
    unit = (prefix / "lib/systemd/system/updated.service").read_text()

    def value(name: str) -> float:
        found = re.search(rf"^{name}=(\d+)(|min)$", unit, re.MULTILINE)
        assert found, name
        return int(found[1]) * UNITS[found[2]]

    hangs_in_start = value("TimeoutStartSec") + value("TimeoutStopSec")
    hangs_later = value("TimeoutStartSec") + value("WatchdogSec") + value("TimeoutAbortSec")
    slowest = max(hangs_in_start, hangs_later) + value("RestartSec")
    assert value("StartLimitBurst") * slowest < value("StartLimitIntervalSec")
    assert (value("StartLimitBurst"), value("StartLimitIntervalSec")) == (LIMIT, WINDOW)


def test_the_program_runs_where_it_is_installed(prefix: Path) -> None:
    assert run(str(prefix / "bin/updated"), "--version") == f"updated {__version__}\n"
    assert not (prefix / "bin/rauc").exists()


def test_the_group_is_understood(prefix: Path) -> None:
    output = run(
        "systemd-sysusers", "--dry-run", f"--root={prefix}", str(prefix / "lib/sysusers.d/updated.conf")
    )
    assert "updated" in output


@pytest.mark.root
def test_the_data_directory_is_made(prefix: Path, tmp_path: Path) -> None:
    run("systemd-tmpfiles", "--create", f"--root={tmp_path}", str(prefix / "lib/tmpfiles.d/updated.conf"))
    assert (tmp_path / "var/lib/updated").stat().st_mode & 0o7777 == 0o700


def test_an_image_gets_every_file_where_a_distribution_has_it(tmp_path: Path) -> None:
    for _ in range(2):  # again over itself
        make_install(f"DESTDIR={tmp_path}", "RAUC=1")
    assert _files(tmp_path, outside_of="usr/lib/updated") == [
        "usr/bin/rauc",
        "usr/bin/updated",
        "usr/lib/systemd/catalog/updated.catalog",
        "usr/lib/systemd/system/updated.service",
        "usr/lib/sysusers.d/updated.conf",
        "usr/lib/tmpfiles.d/updated.conf",
        "usr/share/dbus-1/system-services/de.pengutronix.rauc.service",
        "usr/share/dbus-1/system-services/org.updated.Agent1.service",
        "usr/share/dbus-1/system.d/de.pengutronix.rauc.conf",
        "usr/share/dbus-1/system.d/org.updated.Agent1.conf",
    ]
    assert (tmp_path / "usr/bin/updated").read_text().startswith("#!/usr/bin/python3 -I\n")
    for file in tmp_path.rglob("*"):
        if file.is_file() and not file.is_symlink():
            assert str(tmp_path).encode() not in file.read_bytes(), f"{file} knows where it was built"


def _files(folder: Path, *, outside_of: str) -> Sequence[str]:
    names = (str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
    return sorted(name for name in names if not name.startswith(outside_of))
