"""Only one service at a time: a second one would take the first one's install for a power cut."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from updated.errors import DeviceError


def only_one(path: Path) -> None:
    """Lock the file `path`, made if missing, as long as this process lives.

    Raises DeviceError if another process has it, or if it cannot be made.  Blocks for no time.
    """
    try:
        # Not closed: the lock goes with the process, however it ends; its tools do not inherit it.
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise DeviceError(
            f"Another update service runs: it has locked {path}",
            hint="`systemctl status updated` shows it.",
        ) from error
    except OSError as error:
        raise DeviceError(f"Cannot lock {path}: {error.strerror}") from error
