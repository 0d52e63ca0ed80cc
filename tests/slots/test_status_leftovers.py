"""What a power cut, or somebody else, left where the central status file belongs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from updated.core.model import SlotStatus
from updated.slots.status_store import CentralStore


def test_leftovers_of_a_power_cut_go_away(tmp_path: Path) -> None:
    path = tmp_path / "central.raucs"
    (tmp_path / ".central.raucs.abc.tmp").write_text("half")
    (tmp_path / ".central.raucs2.abc.tmp").write_text("not ours")
    store = CentralStore(path)
    assert (asyncio.run(store.load()), store.warnings) == ({}, ())
    assert [left.name for left in tmp_path.iterdir()] == [".central.raucs2.abc.tmp"]


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to(path.name)])
def test_what_is_no_file_is_set_aside(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """And nobody waits for who may write to a FIFO."""
    path = tmp_path / "central.raucs"
    make(path)
    store = CentralStore(path)
    assert asyncio.run(store.load()) == {}
    assert "not a regular file" in store.warnings[0]
    asyncio.run(store.save("rootfs.0", SlotStatus(status="ok")))
    assert asyncio.run(store.load())["rootfs.0"].status == "ok"
