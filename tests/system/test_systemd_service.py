"""The unit under a real systemd: ready, status, reload, and RAUC's name."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system.board import UNIT, Board
from tests.system.conftest import Bundle, Signer

pytestmark = [pytest.mark.slow, pytest.mark.root]


def test_says_when_it_is_ready_and_what_it_does(board: Board) -> None:
    board.start()
    assert board.show("ActiveState") == "active"
    assert "on the bus as de.pengutronix.rauc" in board.journal()
    board.wait_for_idle()
    assert board.show("StatusText") == "Running from rootfs.0; waiting for an update."
    _print_measures(board)


def test_answers_to_the_name_of_rauc(board: Board) -> None:
    board.start()
    first = board.pid()
    board.run("systemctl restart rauc")
    board.wait_for_idle()
    assert board.pid() != first
    assert "on the bus as" in board.run("journalctl --no-pager -u rauc")
    assert "rootfs.1" in board.run("rauc status")


def test_a_call_over_the_bus_starts_it(board: Board) -> None:
    assert board.show("ActiveState") == "inactive"
    assert "rootfs.1" in board.run("rauc status")
    assert board.show("ActiveState") == "active"


def test_reload_takes_a_new_keyring_and_keeps_the_old_if_the_new_is_bad(
    board: Board, small: Bundle, stranger: Signer
) -> None:
    board.start()
    board.wait_for_idle()
    board.put(small.path, "/root/new.raucb")
    first = board.pid()

    board.write("/etc/rauc/keyring.pem", stranger.cert.read_bytes())
    board.run(f"systemctl reload {UNIT}")
    board.wait_for_journal("configuration reloaded")
    assert "signature verification failed" in board.run("updated install /root/new.raucb", check=False)

    board.write("/etc/updated/updated.toml", '[folder]\npaht = "/srv"\n')
    board.run(f"systemctl reload {UNIT}", check=False)
    board.wait_for_journal("not reloaded: Failed to load /etc/updated/updated.toml: unknown key")
    board.wait("active", lambda: board.show("ActiveState") == "active")
    assert board.pid() == first
    assert "signature verification failed" in board.run("updated install /root/new.raucb", check=False)


def test_reload_takes_new_rules(board: Board, small: Bundle) -> None:
    board.configure(system="min-bundle-version=3")
    board.start()
    board.wait_for_idle()
    board.put(small.path, "/root/new.raucb")
    assert "failed" in board.run("updated install /root/new.raucb", check=False)
    board.configure()
    board.run(f"systemctl reload {UNIT}")
    board.wait_for_journal("configuration reloaded")
    assert "succeeded" in board.run("updated install /root/new.raucb")


def test_goes_on_without_a_message_bus(board: Board, small: Bundle) -> None:
    board.run("systemctl mask --now --runtime dbus.socket dbus.service")
    board.start()
    assert "going on without D-Bus" in board.journal()
    board.put(small.path, "/srv/drop/new.raucb")
    board.wait_for_journal("installed: Installed to rootfs.1")
    assert board.grubenv()["ORDER"] == "B A"


def test_a_read_only_root_only_needs_the_folder_to_be_there(board: Board) -> None:
    board.configure(system="data-directory=/srv/data")
    board.run("mount -t tmpfs tmpfs /var/lib && install -d -m 700 /var/lib/updated")
    board.run("mount -o remount,ro /var/lib")
    board.run(f"systemctl start {UNIT}")
    assert board.container.path("/srv/data").is_dir()


def test_the_drop_in_for_a_hardware_watchdog_is_understood(board: Board) -> None:
    drop_in = Path(__file__).parents[2] / "units/hardware-watchdog.conf"
    board.write("/etc/systemd/system.conf.d/hardware-watchdog.conf", drop_in.read_bytes())
    board.run("systemctl daemon-reexec")
    assert board.run("systemctl show --property=RuntimeWatchdogUSec --value").strip() == "15s"
    assert board.run("systemctl show --property=RebootWatchdogUSec --value").strip() == "15s"


def _print_measures(board: Board) -> None:
    """Figures for a person: `pytest -s`.  Nothing is asserted, machines differ."""
    started, ready = (
        int(board.show(name)) for name in ("ExecMainStartTimestampMonotonic", "ActiveEnterTimestampMonotonic")
    )
    status = Path(f"/proc/{board.pid()}/status").read_text()
    resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    print(f"\nstart to READY {(ready - started) / 1e6:.2f} s, {' '.join(resident.split())}")
