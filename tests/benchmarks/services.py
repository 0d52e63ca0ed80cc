"""The two services that are measured: each on a private bus, same system.conf, same client."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.benchmarks import measure, scene

Kind = Literal["updated", "rauc"]
START_TIMEOUT = 10.0  # seconds

CONFIG = """\
[system]
compatible={compatible}
bootloader=grub
grubenv={folder}/grubenv
mountprefix={folder}/mnt
data-directory={folder}/data
bundle-formats=plain verity

[keyring]
path={cert}

[slot.rootfs.0]
device={booted}
type=raw
bootname=A

[slot.rootfs.1]
device={device}
type=raw
bootname=B
"""


@dataclass(frozen=True, slots=True)
class Service:
    """A running update service."""

    pid: int
    environment: Mapping[str, str]
    ready: float  # seconds from the start of the process until it served
    log: Path

    def install(self, bundle: Path | str) -> measure.Sample:
        """One `rauc install` of a path or URL, with the figures of the service; the client only waits."""
        measure.reset_peak(self.pid)
        cpu, start = measure.cpu_seconds(self.pid), time.monotonic()
        if self.start_install(bundle).wait():
            raise RuntimeError(f"{bundle} was not installed:\n{self.log.read_text()[-2000:]}")
        wall = time.monotonic() - start
        return measure.Sample(wall, measure.cpu_seconds(self.pid) - cpu, measure.resident(self.pid))

    def start_install(self, bundle: Path | str) -> subprocess.Popen[bytes]:
        """The client of an install."""
        command = ["rauc", "install", str(bundle)]
        return subprocess.Popen(
            command, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )


Running = AbstractContextManager[Service]


@contextlib.contextmanager
def service(kind: Kind, folder: Path, device: Path, *, booted: Path | None = None) -> Iterator[Service]:
    """The service of `kind`, whose inactive slot is `device`, the active one `booted`."""
    own = folder / kind
    own.mkdir(exist_ok=True)
    config = _configure(folder, own, device, booted)
    with _bus() as address, (own / "log").open("w") as log:
        environment = {
            **os.environ,
            "DBUS_SESSION_BUS_ADDRESS": address,
            "DBUS_STARTER_BUS_TYPE": "session",
            "DBUS_STARTER_ADDRESS": address,
        }
        start = time.monotonic()
        with subprocess.Popen(
            _command(kind, own, config), env=environment, stdout=log, stderr=log
        ) as process:
            try:
                _wait_for_name(environment)
                yield Service(process.pid, environment, time.monotonic() - start, own / "log")
            finally:
                process.terminate()
                process.wait()


def time_to_ready(folder: Path, device: Path) -> float:
    """Seconds from the start of our service's process until it sends READY=1."""
    own = folder / "ready"
    own.mkdir(exist_ok=True)
    command = _command("updated", own, _configure(folder, own, device))
    address = str(own / "notify")
    Path(address).unlink(missing_ok=True)
    with _bus() as bus, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address)
        listener.settimeout(START_TIMEOUT)
        environment = {
            **os.environ,
            "DBUS_SESSION_BUS_ADDRESS": bus,
            "DBUS_STARTER_BUS_TYPE": "session",
            "NOTIFY_SOCKET": address,
        }
        start = time.monotonic()
        with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
            while b"READY=1" not in listener.recv(4096):
                pass
            ready = time.monotonic() - start
            process.terminate()
    return ready


def _command(kind: Kind, own: Path, config: Path) -> list[str]:
    if kind == "rauc":
        return ["rauc", f"--conf={config}", "--override-boot-slot=A", "service"]
    command = [sys.executable, "-m", "updated", "service", f"--conf={config}", "--override-boot-slot=A"]
    return [*command, f"--runtime-directory={own}/run", f"--agent-conf={own}/updated.toml"]


def _configure(folder: Path, own: Path, device: Path, booted: Path | None = None) -> Path:
    """A system.conf with a GRUB environment of its own."""
    cert, _ = scene.keys(folder)
    for name in ("mnt", "data"):
        (own / name).mkdir(exist_ok=True)
    if booted is None:
        booted = own / "booted"
        booted.touch()
    (own / "updated.toml").touch()
    grubenv = own / "grubenv"
    scene.call("grub-editenv", grubenv, "create")
    scene.call("grub-editenv", grubenv, "set", "ORDER=A B", "A_OK=1", "A_TRY=0", "B_OK=0", "B_TRY=0")
    path = own / "system.conf"
    words = {"folder": own, "cert": cert, "device": device, "booted": booted}
    path.write_text(CONFIG.format(compatible=scene.COMPATIBLE, **words))
    return path


@contextlib.contextmanager
def _bus() -> Iterator[str]:
    command = ["dbus-daemon", "--session", "--nofork", "--print-address"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as bus:
        assert bus.stdout is not None
        try:
            yield bus.stdout.readline().strip()
        finally:
            bus.terminate()


def _wait_for_name(environment: Mapping[str, str]) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while subprocess.run(["rauc", "status"], env=environment, capture_output=True, check=False).returncode:
        if time.monotonic() > deadline:
            raise TimeoutError("the service did not come up")
        time.sleep(0.02)
