"""sd_notify against a real datagram socket."""

from __future__ import annotations

import calendar
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from updated.host import clock
from updated.host.systemd import MAX_STATUS, Notifier, watchdog_timeout


@pytest.fixture(params=["path", "abstract"])
def systemd(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    name = str(tmp_path / "notify") if request.param == "path" else f"@updated-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(name.replace("@", "\0", 1) if name.startswith("@") else name)
        server.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        yield server


@pytest.fixture
def notifier(systemd: socket.socket) -> Iterator[Notifier]:
    notifier = Notifier()
    yield notifier
    notifier.close()


def received(systemd: socket.socket) -> list[str]:
    """Everything that waits."""
    systemd.setblocking(False)
    messages = []
    while True:
        try:
            messages.append(systemd.recv(65536).decode())
        except BlockingIOError:
            return messages


def test_messages(systemd: socket.socket, notifier: Notifier) -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.ready()
    notifier.watchdog()
    notifier.reloading()
    notifier.stopping()
    ready, watchdog, reloading, stopping = received(systemd)
    assert (ready, watchdog, stopping) == ("READY=1", "WATCHDOG=1", "STOPPING=1")
    first, _, second = reloading.partition("\n")
    assert first == "RELOADING=1"
    assert before <= int(second.removeprefix("MONOTONIC_USEC=")) <= before + 10_000_000


def test_a_status_is_one_line_and_told_once(systemd: socket.socket, notifier: Notifier) -> None:
    for text in ("Idle.", "Idle.", "40% Copying\nREADY=1", "x" * 10_000):
        notifier.status(text)
    assert received(systemd) == ["STATUS=Idle.", "STATUS=40% Copying READY=1", "STATUS=" + "x" * MAX_STATUS]


def test_a_status_in_any_language(systemd: socket.socket, notifier: Notifier) -> None:
    """What GLib quotes, what versions are called, and what no decoder could read."""
    for text in ("“2.0” für 東京", "\udcff"):
        notifier.status(text)
    assert received(systemd) == ["STATUS=“2.0” für 東京", "STATUS=?"]


def test_a_busy_systemd_stops_nobody(systemd: socket.socket, notifier: Notifier) -> None:
    """Its queue is full: pings and progress are lost, the service goes on."""
    start = time.monotonic()
    for number in range(5000):
        notifier.status(f"{number}")
        notifier.watchdog()
    assert time.monotonic() - start < 5
    assert received(systemd)[0] == "STATUS=0"
    notifier.watchdog()
    assert received(systemd) == ["WATCHDOG=1"]


def test_systemd_goes_away(systemd: socket.socket, notifier: Notifier) -> None:
    systemd.close()
    notifier.ready()
    notifier.status("x")
    notifier.watchdog()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # sdnotify drops its socket
@pytest.mark.parametrize("address", ["", None, "/nowhere/notify", "relative", "@" + "x" * 200])
def test_nobody_listens(monkeypatch: pytest.MonkeyPatch, address: str | None) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if address is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    notifier = Notifier()
    notifier.ready()
    notifier.status("x")
    notifier.stopping()
    notifier.close()
    notifier.ready()


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid())}, 0.5),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": ""}, None),
    ],
)
def test_watchdog_timeout(environ: dict[str, str], seconds: float | None) -> None:
    assert watchdog_timeout(environ) == seconds


def test_clock() -> None:
    """UTC whatever the time zone, as RAUC writes it."""
    assert clock.now().utcoffset() is not None
    before = int(time.time())
    told = clock.timestamp()
    parsed = time.strptime(told, "%Y-%m-%dT%H:%M:%SZ")
    assert before <= calendar.timegm(parsed) <= before + 60
