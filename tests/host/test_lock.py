"""The lock of the service, with a second process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from updated.errors import DeviceError
from updated.host.lock import only_one, only_user

HOLD = """\
import pathlib, sys
from updated.host import lock
getattr(lock, sys.argv[1])(pathlib.Path(sys.argv[2]))
print(flush=True)
input()
"""


@pytest.mark.parametrize("only", [only_one, only_user])
def test_only_one_until_it_dies(tmp_path: Path, only: Callable[[Path], None]) -> None:
    path = tmp_path / "lock" if only is only_one else tmp_path
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, only.__name__, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as first:
        assert first.stdout is not None
        first.stdout.readline()
        with pytest.raises(DeviceError, match="Another update service runs"):
            only(path)
        first.kill()
    only(path)


def test_where_no_file_can_be(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"Cannot lock .*: No such file or directory"):
        only_one(tmp_path / "missing" / "lock")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """The store says so."""
    only_user(tmp_path / "missing")
    assert not (tmp_path / "missing").exists()
