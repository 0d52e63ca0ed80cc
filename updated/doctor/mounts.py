"""Where the bytes of a file end up: through mounts and overlays, down to a device."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from updated.devices import Mount, read_mounts

VOLATILE: Final = ("tmpfs", "ramfs", "rootfs", "devtmpfs")
MAX_LAYERS: Final = 4  # overlays on overlays


@dataclass(frozen=True, slots=True)
class Home:
    """The file system that a path is written to."""

    mount: Mount
    overlay: str = ""  # mount point of the overlay on top; "": none

    @property
    def volatile(self) -> bool:
        """True: gone with the power."""
        return self.mount.fstype in VOLATILE or self.mount.source.startswith(("/dev/zram", "/dev/ram"))


def nearest(path: Path) -> Path:
    """`path`, or the nearest folder above it that is there; without links.  Blocks."""
    path = Path(os.path.abspath(path))  # noqa: PTH100 - `..` first, then links, as for a path not there yet
    while not path.exists() and path != path.parent:
        path = path.parent
    return path.resolve()


def home_of(path: Path, mountinfo: Path) -> Home | None:
    """None: no mount is known for it.  Blocks.  Raises DeviceError if the mounts cannot be read."""
    mounts = read_mounts(mountinfo)
    overlay = ""
    for _ in range(MAX_LAYERS):
        mount = _covering(nearest(path), mounts)
        if mount is None:
            return None
        upper = _upper(mount)
        if upper is None:
            return Home(mount, overlay)
        overlay, path = overlay or mount.mountpoint, upper
    return None


def _covering(path: Path, mounts: Iterable[Mount]) -> Mount | None:
    """The longest mount point that holds `path`; of the same ones the last, which hides the others."""
    best: Mount | None = None
    depth = 0
    for mount in mounts:
        point = Path(mount.mountpoint)
        if path.is_relative_to(point) and len(point.parts) >= depth:
            best, depth = mount, len(point.parts)
    return best


def _upper(mount: Mount) -> Path | None:
    """Where an overlay keeps what is written (Linux Documentation/filesystems/overlayfs.rst)."""
    if mount.fstype != "overlay":
        return None
    for option in mount.options.split(","):
        name, _, value = option.partition("=")
        if name == "upperdir" and Path(value).exists():
            return Path(value)
    return None
