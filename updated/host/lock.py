"""Only one service at a time: a second one would take the first one's install for a power cut."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from updated.errors import DeviceError


def only_one(path: Path) -> None:
    """Lock the file `path`, made if missing, as long as this process lives.

    Raises DeviceError if another process has it, or if it cannot be made.  Blocks for no time.
    """
    try:
        _lock(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
    except OSError as error:
        raise DeviceError(f"Cannot lock {path}: {error.strerror}") from error


def only_user(folder: Path) -> None:
    """The same for an existing folder; one that cannot be opened or locked has no users to fear.

    Raises DeviceError if another process has it.  Writes nothing: the medium may be full or read-only.
    """
    with contextlib.suppress(OSError):
        _lock(folder, os.O_RDONLY | os.O_DIRECTORY)


def _lock(path: Path, flags: int) -> None:
    """Raises DeviceError if another process has it, else OSError."""
    # Not closed: the lock goes with the process, however it ends; its tools do not inherit it.
    handle = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise DeviceError(
            f"Another update service runs: it has locked {path}",
            hint="`systemctl status updated` shows it.",
        ) from error
    except OSError:
        os.close(handle)
        raise
