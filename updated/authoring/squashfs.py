"""Running the real mksquashfs."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from updated.errors import BundleError, DeviceError

# RAUC's options (src/bundle.c, mksquashfs).
OPTIONS = ("-noappend", "-no-progress", "-all-root", "-no-xattrs", "-quiet")


def make(folder: Path, image: Path, options: Sequence[str] = ()) -> None:
    """Make a SquashFS `image` of `folder`; mksquashfs itself honours SOURCE_DATE_EPOCH.

    Raises DeviceError if mksquashfs is missing, BundleError if it fails.
    """
    command = ["mksquashfs", str(folder), str(image), *OPTIONS, *options]
    try:
        result = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
    except OSError as error:
        raise DeviceError(
            f"Failed to execute mksquashfs: {error.strerror}",
            hint="On Debian it is in the package squashfs-tools.",
        ) from error
    if result.returncode:
        output = result.stdout.decode(errors="replace").strip().splitlines()[-3:]
        raise BundleError(
            f"Failed to run mksquashfs: exit code {result.returncode}: {'; '.join(output) or 'no message'}"
        )
