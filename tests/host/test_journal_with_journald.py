"""A real systemd-journald, in a mount namespace of its own, reads what we write."""

from __future__ import annotations

import json
import logging
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from updated.core import events
from updated.host.journal import JournalHandler, tell

pytestmark = pytest.mark.root

NAMESPACE = "updated-test"
WAIT = 10.0  # seconds; it takes some hundredths
JOURNALD = f"""
mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /var/log && echo mounted
exec /lib/systemd/systemd-journald {NAMESPACE}
"""


class Journald:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.socket = Path(f"/proc/{process.pid}/root/run/systemd/journal.{NAMESPACE}/socket")

    def entries(self, *match: str) -> list[dict[str, str]]:
        journalctl = ["journalctl", f"--namespace={NAMESPACE}", "--sync"]
        enter = ["nsenter", f"--target={self.process.pid}", "--mount"]
        subprocess.run([*enter, *journalctl], check=True, capture_output=True)
        read = [*enter, *journalctl[:-1], "--output=json", "--all", "SYSLOG_IDENTIFIER=updated", *match]
        shown = subprocess.run(read, check=True, capture_output=True, text=True).stdout
        return [json.loads(line) for line in shown.splitlines()]


@pytest.fixture
def journald() -> Iterator[Journald]:
    command = ["unshare", "--mount", "--propagation=private", "sh", "-ec", JOURNALD]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "mounted\n"  # before that, its /run is everybody's
        found = Journald(process)
        deadline = time.monotonic() + WAIT
        while not found.socket.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield found
        process.terminate()


def test_it_takes_all_that_we_write(journald: Journald) -> None:
    log = logging.Logger("updated.test", logging.DEBUG)
    handler = JournalHandler(journald.socket)
    log.addHandler(handler)
    log.debug("two\nlines, and \x1b[31m")
    tell(log, events.booted("rootfs.0", "A", boot_id="b-1", bundle_hash="h"))
    log.info("%s", "large " * 100_000)
    handler.close()

    first, second, third = journald.entries()
    assert (first["MESSAGE"], first["PRIORITY"]) == ("two\nlines, and \\x1b[31m", "7")
    assert first["_TRANSPORT"] == "journal"
    assert second["MESSAGE"] == "Booted into rootfs.0 (A)"
    assert second["SLOT_BOOTNAME"] == "A"
    assert second["CODE_FUNC"] == "test_it_takes_all_that_we_write"
    assert third["MESSAGE"] == "large " * 100_000
    assert journald.entries(f"MESSAGE_ID={events.Id.BOOTED}") == [second]
    assert journald.entries("RAUC_EVENT_TYPE=boot", "SLOT_NAME=rootfs.0") == [second]
