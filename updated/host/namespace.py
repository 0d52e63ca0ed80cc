"""Mounts of the service belong to itself alone.

Under systemd `PrivateMounts=yes` sees to that; started by hand the service does it itself, or its mounts
would be left behind for everybody.  Mounts of others still come in (mount_namespaces(7), "slave").
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from updated.errors import DeviceError
from updated.syscalls import CLONE_NEWNS, MountFlag, mount, unshare

OURS: Final = Path("/proc/thread-self/ns/mnt")
INIT: Final = Path("/proc/1/ns/mnt")
MOUNTINFO: Final = Path("/proc/thread-self/mountinfo")

_made: set[int] = set()  # namespaces that this process made, by inode


def own_mount_namespace() -> None:
    """Give this thread, and those it starts from now on, a mount namespace unless it has its own already.

    Call it before the first thread is started.  Raises DeviceError where it is not permitted.
    """
    try:
        if _has_its_own():
            return
        unshare(CLONE_NEWNS)
        mount("none", Path("/"), None, MountFlag.REC | MountFlag.SLAVE)
        _made.add(OURS.stat().st_ino)
    except OSError as error:
        raise DeviceError(
            f"Cannot make a mount namespace: {error.strerror}",
            hint="Start the service as root with CAP_SYS_ADMIN, or with PrivateMounts=yes in its unit.",
        ) from error


def _has_its_own() -> bool:
    """Raises OSError."""
    ours = OURS.stat().st_ino
    if ours in _made:
        return True
    try:
        return ours != INIT.stat().st_ino
    except (
        PermissionError
    ):  # a unit without CAP_SYS_PTRACE: a root that is a slave is what PrivateMounts= makes
        return _root_is_slave(MOUNTINFO.read_bytes())


def _root_is_slave(mountinfo: bytes) -> bool:
    """Of several mounts on "/" the last one is seen."""
    roots = [line.split(b" - ")[0].split() for line in mountinfo.splitlines()]
    tags = [fields[6:] for fields in roots if len(fields) >= 6 and fields[4] == b"/"]
    return bool(tags) and any(tag.startswith(b"master:") for tag in tags[-1])
