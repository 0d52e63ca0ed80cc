"""A private dbus-daemon for each test."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.peer import RealRauc

CONFIG = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
"""


class Daemon:
    """A running dbus-daemon; `kill()` it to see what clients and services make of it."""

    def __init__(self, config: Path, socket: Path) -> None:
        self.address = f"unix:path={socket}"
        self._process = subprocess.Popen(
            ["dbus-daemon", f"--config-file={config}", "--nofork", "--print-address"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        if not self._process.stdout.readline():  # printed once it listens
            raise RuntimeError(f"dbus-daemon: {self._process.communicate()[1]}")

    def kill(self) -> None:
        """The bus is gone at once, without a word to anybody."""
        self._process.kill()
        self._process.communicate(timeout=10)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    socket = tmp_path / "bus"
    config = tmp_path / "bus.conf"
    config.write_text(CONFIG.format(socket=socket))
    running = Daemon(config, socket)
    yield running
    running.kill()


@pytest.fixture
def bus(daemon: Daemon) -> str:
    """Address of a private bus."""
    return daemon.address


@pytest.fixture
def session(bus: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The private bus as this process's (and its children's) session bus."""
    monkeypatch.setenv("DBUS_STARTER_BUS_TYPE", "session")
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", bus)
    return bus


@pytest.fixture(scope="session")
def real_rauc(tmp_path_factory: pytest.TempPathFactory) -> RealRauc:
    """What the real `rauc` needs, made once."""
    return RealRauc(tmp_path_factory.mktemp("real"))
