"""Bundles for the machines of ab_machine.py: a system that boots, or one that does not do as it should."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.system.ab_image import Files, System, change

# Variations: what is different in a new system.
GOOD: Files = {}
BROKEN_INIT: Files = {"/sbin/init": "#!/bin/false\n"}  # the kernel panics, and resets after a second
HANGING_INIT: Files = {"/sbin/init": "#!/bin/sh\nexec sleep infinity\n"}  # the hardware watchdog resets it
NO_KERNEL: Files = {"/boot/vmlinuz": None}  # the loader goes on to the next one
NEVER_READY: Files = {"/usr/libexec/app": "#!/bin/sh\nexec sleep infinity\n"}  # app.service ends in failure
UNHEALTHY: Files = {  # http://127.0.0.1:8080/health answers 500
    "/usr/libexec/health": """\
#!/bin/sh
while read -r line && [ ${#line} -gt 1 ]; do :; done
printf 'HTTP/1.1 500 Internal Server Error\\r\\nContent-Length: 4\\r\\nConnection: close\\r\\n\\r\\nILL\\n'
"""
}


def make_bundle(
    system: System,
    folder: Path,
    signer: tuple[Path, Path],
    version: str,
    variation: Files = GOOD,
    *,
    format: str = "verity",
) -> Path:
    """`system-<version>.raucb` in `folder`, which is made; its system says `version` in /etc/version.

    `signer`: certificate and key; `variation`: what is different in the new system.  Takes a few seconds.
    """
    cert, key = signer
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"system-{version}.raucb"
    with tempfile.TemporaryDirectory(dir=folder) as name:
        content = Path(name)
        change(system.rootfs, content / "rootfs.img", {"/etc/version": f"{version}\n", **variation})
        (content / "manifest.raucm").write_text(
            f"[update]\ncompatible=Test\nversion={version}\n[bundle]\nformat={format}\n"
            "[image.rootfs]\nfilename=rootfs.img\n"
        )
        options = [f"--cert={cert}", f"--key={key}", "--mksquashfs-args=-comp lz4"]
        command = [sys.executable, "-m", "updated", "bundle", *options, str(content), str(path)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return path
