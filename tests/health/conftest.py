"""A private dbus-daemon for each test, and what a look may leave behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.api.conftest import CONFIG, Daemon


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    config = tmp_path / "bus.conf"
    config.write_text(CONFIG.format(socket=tmp_path / "bus"))
    running = Daemon(config, tmp_path / "bus")
    yield running
    running.kill()


def _used() -> tuple[int, int]:
    return len(list(Path("/proc/self/fd").iterdir())), len(asyncio.all_tasks())


@pytest.fixture
def used() -> Callable[[], tuple[int, int]]:
    """File descriptors and tasks."""
    return _used
