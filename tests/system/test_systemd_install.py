"""Installs under the unit's sandbox, on real block devices, with everything that may happen to a service."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from tests.system.board import SLOT_SIZE, UNIT, Board
from tests.system.conftest import Bundle

pytestmark = [pytest.mark.slow, pytest.mark.root]


def test_from_the_folder_to_the_confirmed_new_system(board: Board, small: Bundle) -> None:
    board.configure(folder='after = "delete"', slot="resize=true")
    board.run("install -d --owner=games --mode=700 /srv/drop")
    board.start()
    board.wait_for_idle()
    board.put(small.path, "/srv/drop/new.raucb")
    board.wait_for_journal("installed: Installed to rootfs.1")
    assert board.grubenv() == {"ORDER": "B A", "A_OK": "1", "A_TRY": "0", "B_OK": "1", "B_TRY": "0"}
    assert not board.container.path("/srv/drop/new.raucb").exists()
    assert _size_of_filesystem(board.devices[1]) == SLOT_SIZE

    board.boot_from("B", "2")
    board.run(f"systemctl restart {UNIT}")
    board.wait_for_journal("confirmed:")
    board.wait_for_idle()
    assert board.show("StatusText").startswith("Running from rootfs.1")
    assert [line["code"] for line in board.history()] == ["confirmed", "installed"]


def test_by_command_with_the_status_in_the_slot(board: Board, small: Bundle) -> None:
    """There is no statusfile, so the sandbox must let it mount the slot."""
    board.start()
    board.wait_for_idle()
    board.put(small.path, "/tmp/new.raucb")
    assert "succeeded" in board.run("updated install /tmp/new.raucb")
    assert board.holds(small.image) is False  # the status is in it now
    assert "status=ok" in _file_in_slot(board.devices[1], "/slot.raucs")
    left = board.container.path("/run/updated").iterdir()
    assert [path.name for path in left if path.is_dir()] == []  # no mount point


def test_slots_that_are_files(board: Board, small: Bundle) -> None:
    """Such a slot is mounted through a loop device that mount makes."""
    for name in ("/srv/a.img", "/srv/b.img"):
        with board.container.path(name).open("wb") as file:
            file.truncate(16 << 20)
    board.devices = ("/srv/a.img", "/srv/b.img")
    board.configure()
    board.start()
    board.wait_for_idle()
    board.put(small.path, "/srv/drop/new.raucb")
    board.wait_for_journal("installed: Installed to rootfs.1")
    assert "status=ok" in _file_in_slot(str(board.container.path("/srv/b.img")), "/slot.raucs")


def test_stopped_in_the_middle(board: Board, small: Bundle, large: Bundle) -> None:
    board.configure(system="data-directory=/var/lib/updated")
    board.start()
    board.wait_for_idle()
    board.put(large.path, "/srv/drop/large.raucb")
    board.wait_for_writing()
    os.kill(board.pid(), signal.SIGSTOP)  # or a quick disk is done before; systemd sends SIGCONT with SIGTERM
    board.run(f"systemctl stop {UNIT}")
    assert board.show("Result") == "success"
    assert "cancelled: The service was stopped; the next install goes on" in board.journal()
    assert not board.holds(large.image)
    _is_bad_and_the_next_install_works(board, small)


def test_frozen_in_the_middle(board: Board, small: Bundle, large: Bundle) -> None:
    """The watchdog ends it; a request by a person dies with the service."""
    board.override("WatchdogSec=1\nTimeoutAbortSec=1")
    board.configure(system="data-directory=/var/lib/updated")
    board.start()
    board.wait_for_idle()
    board.put(large.path, "/root/large.raucb")
    board.run("updated install /root/large.raucb >/tmp/install.log 2>&1 &")
    board.wait_for_writing()
    os.kill(board.pid(), signal.SIGSTOP)
    board.wait("a restart", lambda: board.show("NRestarts") == "1" and board.show("ActiveState") == "active")
    assert "Failed with result 'watchdog'" in board.journal()
    assert not board.holds(large.image)
    _is_bad_and_the_next_install_works(board, small)


def test_killed_in_the_middle_it_begins_again(board: Board, large: Bundle) -> None:
    board.configure(system="data-directory=/var/lib/updated")
    board.start()
    board.wait_for_idle()
    board.put(large.path, "/srv/drop/large.raucb")
    board.wait_for_writing()
    os.kill(board.pid(), signal.SIGKILL)
    board.wait_for_journal("installed: Installed to rootfs.1")
    assert board.holds(large.image)
    assert board.grubenv()["ORDER"] == "B A"


def test_reboots_into_the_new_system(board: Board, small: Bundle) -> None:
    """`systemctl reboot` works from inside the sandbox."""
    board.configure(agent='[reboot]\nwhen = "immediately"')
    board.start()
    board.wait_for_idle()
    board.put(small.path, "/srv/drop/new.raucb")
    assert board.container.wait_for_reboot(20)


def _is_bad_and_the_next_install_works(board: Board, small: Bundle) -> None:
    assert board.grubenv()["B_OK"] == "0"
    assert board.grubenv()["ORDER"].startswith("A")
    board.run("rm -f /srv/drop/*")
    board.run(f"systemctl start {UNIT}")
    board.wait_for_idle()
    board.put(small.path, "/srv/drop/new.raucb")
    board.wait_for_journal("installed: Installed to rootfs.1")
    assert board.grubenv()["ORDER"] == "B A"
    assert board.holds(small.image)


def _size_of_filesystem(device: str) -> int:
    """Bytes of the ext4 file system on `device`."""
    lines = subprocess.run(["dumpe2fs", "-h", device], check=True, capture_output=True, text=True).stdout
    fields = dict(line.split(":", 1) for line in lines.splitlines() if ":" in line)
    return int(fields["Block count"]) * int(fields["Block size"])


def _file_in_slot(device: str, path: str) -> str:
    command = ["debugfs", "-R", f"cat {path}", device]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
