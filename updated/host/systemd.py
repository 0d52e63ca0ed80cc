"""What the service tells systemd (sd_notify(3), sd_watchdog_enabled(3)).  Without systemd nobody listens."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

import sdnotify

MAX_STATUS = 500  # characters; `systemctl status` shows one line


class Notifier:
    """The NOTIFY_SOCKET of this process."""

    def __init__(self) -> None:
        self._systemd = sdnotify.SystemdNotifier()
        self._status = ""

    def ready(self) -> None:
        self._systemd.notify("READY=1")

    def status(self, text: str) -> None:
        """A sentence a person understands; sent only when it changes."""
        text = text.replace("\n", " ")[:MAX_STATUS]
        if text != self._status:
            self._status = text
            self._systemd.notify(f"STATUS={text}")

    def watchdog(self) -> None:
        self._systemd.notify("WATCHDOG=1")

    def reloading(self) -> None:
        """Must be followed by `ready`."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._systemd.notify(f"RELOADING=1\nMONOTONIC_USEC={now}")

    def stopping(self) -> None:
        self._systemd.notify("STOPPING=1")


def watchdog_timeout(environ: Mapping[str, str] = os.environ) -> float | None:
    """Seconds after which systemd ends a service that does not ping; None: no watchdog for this process."""
    usec = environ.get("WATCHDOG_USEC", "")
    pid = environ.get("WATCHDOG_PID", "")
    if not usec.isdecimal() or int(usec) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(usec) / 1_000_000
