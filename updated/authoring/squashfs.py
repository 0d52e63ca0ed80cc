"""Running the real mksquashfs."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from updated.errors import BundleError, DeviceError

# RAUC's options (src/bundle.c, mksquashfs).
OPTIONS = ("-noappend", "-no-progress", "-all-root", "-no-xattrs", "-quiet")

MAX_MESSAGE = 500  # characters of what mksquashfs says


def make(folder: Path, image: Path, options: Sequence[str] = ()) -> None:
    """Make a SquashFS `image` of `folder`; mksquashfs itself honours SOURCE_DATE_EPOCH.

    Raises DeviceError if mksquashfs is missing, BundleError if it fails.
    """
    command = ["mksquashfs", str(folder), str(image), *OPTIONS, *options]
    try:
        result = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False
        )
    except OSError as error:
        raise DeviceError(
            f"Failed to execute mksquashfs: {error.strerror}",
            hint="On Debian it is in the package squashfs-tools.",
        ) from error
    if result.returncode:
        lines = result.stderr.decode(errors="replace").split("\n")
        message = "; ".join(line.strip() for line in lines if line.strip())[:MAX_MESSAGE]
        raise BundleError(f"Failed to run mksquashfs: exit code {result.returncode}: {message}")
