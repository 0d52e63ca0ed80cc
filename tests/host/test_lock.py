"""The lock of the service, with a second process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from updated.errors import DeviceError
from updated.host.lock import only_one

HOLD = """\
import pathlib, sys
from updated.host.lock import only_one
only_one(pathlib.Path(sys.argv[1]))
print(flush=True)
input()
"""


def test_only_one_until_it_dies(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as first:
        assert first.stdout is not None
        first.stdout.readline()
        with pytest.raises(DeviceError, match="Another update service runs"):
            only_one(path)
        first.kill()
    only_one(path)


def test_where_no_file_can_be(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"Cannot lock .*: No such file or directory"):
        only_one(tmp_path / "missing" / "lock")
