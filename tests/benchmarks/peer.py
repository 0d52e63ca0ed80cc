"""RAUC's own service on a private bus: what we are measured against."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks import measure, scene

CONFIG = """\
[system]
compatible={compatible}
bootloader=grub
grubenv={folder}/grubenv
mountprefix={folder}/mnt
statusfile={folder}/central.raucs
bundle-formats=plain verity

[keyring]
path={cert}

[slot.rootfs.0]
device={folder}/booted
type=raw
bootname=A

[slot.rootfs.1]
device={device}
type=raw
bootname=B
"""


@dataclass(frozen=True, slots=True)
class Rauc:
    """A running `rauc service`."""

    pid: int
    environment: Mapping[str, str]

    def install(self, bundle: Path) -> measure.Sample:
        """One `rauc install`, with the figures of the service; the client only waits."""
        measure.reset_peak(self.pid)
        cpu, start = measure.cpu_seconds(self.pid), time.monotonic()
        subprocess.run(
            ["rauc", "install", str(bundle)], check=True, env=self.environment, stdout=subprocess.DEVNULL
        )
        wall = time.monotonic() - start
        return measure.Sample(wall, measure.cpu_seconds(self.pid) - cpu, measure.resident(self.pid))


def configuration(folder: Path, device: Path) -> Path:
    """A system.conf with a GRUB environment, for RAUC and for us."""
    cert, _ = scene.keys(folder)
    (folder / "mnt").mkdir(exist_ok=True)
    (folder / "booted").touch()
    scene.call("grub-editenv", folder / "grubenv", "create")
    path = folder / "system.conf"
    path.write_text(CONFIG.format(compatible=scene.COMPATIBLE, folder=folder, cert=cert, device=device))
    return path


@contextlib.contextmanager
def service(folder: Path, device: Path) -> Iterator[Rauc]:
    """`rauc service` whose inactive slot is `device`."""
    config = configuration(folder, device)
    with subprocess.Popen(
        ["dbus-daemon", "--session", "--nofork", "--print-address"], stdout=subprocess.PIPE, text=True
    ) as bus:
        assert bus.stdout is not None
        address = bus.stdout.readline().strip()
        environment = {
            **os.environ,
            "DBUS_SESSION_BUS_ADDRESS": address,
            "DBUS_STARTER_BUS_TYPE": "session",
            "DBUS_STARTER_ADDRESS": address,
        }
        with (
            (folder / "rauc.log").open("w") as log,
            subprocess.Popen(
                ["rauc", f"--conf={config}", "--override-boot-slot=A", "service"],
                env=environment,
                stdout=log,
                stderr=log,
            ) as rauc,
        ):
            try:
                _wait_for_name(environment)
                yield Rauc(rauc.pid, environment)
            finally:
                rauc.terminate()
                rauc.wait()
                bus.terminate()


def _wait_for_name(environment: Mapping[str, str]) -> None:
    deadline = time.monotonic() + 10
    while subprocess.run(["rauc", "status"], env=environment, capture_output=True, check=False).returncode:
        if time.monotonic() > deadline:
            raise TimeoutError("rauc service did not come up")
        time.sleep(0.05)
