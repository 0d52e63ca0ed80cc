"""Installs over HTTP under the unit's sandbox.  The server's access log is the witness of what went out."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.network.nginx import Nginx, nginx
from tests.system.board import UNIT, Board
from tests.system.conftest import Bundle, Signer

pytestmark = [pytest.mark.slow, pytest.mark.root]

MIB = 1 << 20
MAX_MEMORY = 80 * MIB
SLOW = "location /slow/ { limit_rate 20m; }"  # bytes per second
FIRST_LOOK = 60.0  # seconds; a server is never asked earlier than after 30
POLLER = "de.pengutronix.rauc.Poller"
INTROSPECT = "busctl call de.pengutronix.rauc / org.freedesktop.DBus.Introspectable Introspect"
PROGRESS = "busctl get-property org.updated.Agent1 /org/updated/Agent1 org.updated.Agent1 Progress"
PAUSED = PROGRESS.replace("Progress", "Paused")
DATA = "data-directory=/var/lib/updated"


@pytest.fixture
def server(board: Board, tmp_path: Path) -> Iterator[Nginx]:
    """Debian's nginx on the board's own loopback, the only network it has."""
    into = ("nsenter", f"--net=/proc/{board.container.leader}/ns/net")
    with nginx(tmp_path / "server", SLOW, prefix=into) as running:
        yield running


def test_from_a_url_with_little_memory(board: Board, server: Nginx, large: Bundle) -> None:
    url = serve(server, "large.raucb", large.path)
    board.configure(system=DATA)
    board.start()
    board.wait_for_idle()
    before = peak(board)
    assert "succeeded" in board.run(f"updated install {url}")
    assert board.holds(large.image)
    print(f"\npeak of memory: {before >> 20} MiB idle, {peak(board) >> 20} MiB after an install over HTTP")
    assert peak(board) <= MAX_MEMORY
    assert server.sent() < 1.01 * large.path.stat().st_size


def test_sources_are_turned_on_and_off_by_a_reload(
    board: Board, server: Nginx, small: Bundle, signer: Signer
) -> None:
    """First none, then a channel, then a folder, which has no turn before the reboot."""
    serve(server, "system.raucb", small.path)
    command = [sys.executable, "-m", "updated", "channel", f"--cert={signer.cert}", f"--key={signer.key}"]
    index = server.files / "index.json"
    subprocess.run([*command, str(index), str(server.files / "system.raucb")], check=True)
    board.configure(system=DATA, folder=None)
    board.start()
    board.wait_for_idle()
    first = board.pid()
    board.put(small.path, "/srv/drop/new.raucb")
    assert POLLER not in board.run(INTROSPECT)

    ota = f'[ota]\nindex = "{server.url("index.json")}"\nsignature = "required"\ninterval = 1.0'
    board.configure(system=DATA, folder=None, agent=ota)
    board.reload()
    board.wait("the poller", lambda: POLLER in board.run(INTROSPECT))
    board.wait_for_journal("installed: Installed to rootfs.1", FIRST_LOOK)
    assert board.holds(small.image)
    assert [line["source"] for line in board.history()] == ["ota"]

    board.run("updated rollback")
    board.put(small.path, "/srv/drop/new.raucb")
    board.configure(system=DATA)
    board.reload()
    board.wait("no poller", lambda: POLLER not in board.run(INTROSPECT))
    board.wait_for_journal("/srv/drop/new.raucb is not installed: Quarantined: rolled back by a person")
    assert board.pid() == first


def test_killed_in_the_middle_it_goes_on_when_asked_again(board: Board, server: Nginx, large: Bundle) -> None:
    url = serve(server, "slow/large.raucb", large.path)
    board.configure(system=DATA)
    board.start()
    board.wait_for_idle()
    board.run(f"updated install {url} >/tmp/install.log 2>&1 &")
    board.wait_for_writing(80 * MIB)
    board.run(f"systemctl kill --signal=KILL {UNIT}")
    board.wait("a restart", lambda: board.show("NRestarts") == "1" and board.show("ActiveState") == "active")
    board.wait_for_idle()
    assert board.grubenv()["B_OK"] == "0"
    assert "succeeded" in board.run(f"updated install {url}")
    assert board.holds(large.image)
    size = large.path.stat().st_size
    print(f"\nsent {server.sent() / size:.2f} of the bundle, with one kill in the middle")
    assert server.sent() < 1.2 * size


def test_resting_is_not_being_stuck(board: Board, server: Nginx, large: Bundle) -> None:
    """A pause lasts longer than the watchdog and the limit for an install that does not get on."""
    url = serve(server, "slow/large.raucb", large.path)
    board.override("WatchdogSec=2\nTimeoutAbortSec=1")
    board.configure(system=DATA, agent="[install]\nstall-timeout = 3")
    board.start()
    board.wait_for_idle()
    board.run(f"updated install {url} >/tmp/install.log 2>&1 &")
    board.wait_for_writing(16 * MIB)
    board.run("updated pause")
    time.sleep(1)  # what was under way is written
    before = board.run(PROGRESS)
    time.sleep(8)
    assert board.run(PROGRESS) == before
    assert board.run(PAUSED) == "b true\n"
    board.run("updated resume")
    board.wait_for_journal("installed: Installed to rootfs.1")
    assert board.show("NRestarts") == "0"
    assert board.holds(large.image)


def test_the_network_can_be_taken_away(board: Board, server: Nginx, small: Bundle) -> None:
    """With the drop-in of docs/install.md; from files it installs as ever."""
    url = serve(server, "small.raucb", small.path)
    board.override("RestrictAddressFamilies=\nRestrictAddressFamilies=AF_UNIX AF_NETLINK")
    board.configure(system=DATA)
    board.start()
    board.wait_for_idle()
    answer = board.run(f"updated install {url}", check=False)
    print(answer)
    assert "Address family not supported" in answer
    assert server.sent() == 0
    board.put(small.path, "/srv/drop/new.raucb")
    board.wait_for_journal("installed: Installed to rootfs.1")


def serve(server: Nginx, name: str, path: Path) -> str:
    target = server.files / name
    target.parent.mkdir(exist_ok=True)
    os.link(path, target)
    return server.url(name)


def peak(board: Board) -> int:
    """Bytes that the service had in memory at most."""
    status = Path(f"/proc/{board.pid()}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) << 10
