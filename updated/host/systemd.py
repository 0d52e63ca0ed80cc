"""What the service tells systemd (sd_notify(3), sd_watchdog_enabled(3)).  Without systemd nobody listens."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

import sdnotify

MAX_STATUS = 500  # characters; `systemctl status` shows one line


class Notifier:
    """The NOTIFY_SOCKET of this process."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._systemd = sdnotify.SystemdNotifier() if environ.get("NOTIFY_SOCKET") else None
        self._status = ""
        self.was_ready = False

    def close(self) -> None:
        """Nothing is told any more."""
        if self._systemd is not None and self._systemd.socket is not None:
            self._systemd.socket.close()
        self._systemd = None

    def ready(self) -> None:
        self.was_ready = True
        self._tell("READY=1")

    def status(self, text: str) -> None:
        """A sentence a person understands; sent only when it changes."""
        text = text.replace("\n", " ")[:MAX_STATUS]
        if text != self._status:
            self._status = text
            self._tell(f"STATUS={text}", wait=False)

    def watchdog(self) -> None:
        self._tell("WATCHDOG=1", wait=False)

    def reloading(self) -> None:
        """Must be followed by `ready`."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={now}")

    def stopping(self) -> None:
        self._tell("STOPPING=1")

    def _tell(self, message: str, *, wait: bool = True) -> None:
        """`wait` for a busy systemd; else the message is lost then, but the event loop goes on."""
        if self._systemd is None or self._systemd.socket is None:
            return
        self._systemd.socket.setblocking(wait)
        self._systemd.notify(message.encode(errors="replace").decode("latin-1"))  # it encodes Latin-1


def watchdog_timeout(environ: Mapping[str, str] = os.environ) -> float | None:
    """Seconds after which systemd ends a service that does not ping; None: no watchdog for this process."""
    usec = environ.get("WATCHDOG_USEC", "")
    pid = environ.get("WATCHDOG_PID", "")
    if not usec.isdecimal() or int(usec) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(usec) / 1_000_000
