"""A private bus, a vendor for the session, and devices whose service is stopped after the test."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from keys import make_signer

from tests.service.rig import Device, Saboteur, Vendor

MakeDevice = Callable[..., Device]


@pytest.fixture(scope="session")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Vendor:
    return Vendor(tmp_path_factory.mktemp("vendor"), make_signer("Vendor"))


@pytest.fixture(scope="module")
def bus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a private bus; its name is gone before the next service wants it."""
    socket = tmp_path_factory.mktemp("bus") / "socket"
    argv = ["dbus-daemon", "--session", "--nofork", "--print-address", f"--address=unix:path={socket}"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as daemon:
        assert daemon.stdout is not None
        yield daemon.stdout.readline().strip()
        daemon.kill()


@pytest.fixture(scope="module")
def module_devices(
    bus: str, vendor: Vendor, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MakeDevice]:
    """Makes devices that live as long as the tests of a module."""
    yield from _devices(bus, vendor, tmp_path_factory.mktemp("devices"))


@pytest.fixture
def devices(bus: str, vendor: Vendor, tmp_path: Path) -> Iterator[MakeDevice]:
    """Makes devices, switched on and running, unless `start=False`."""
    yield from _devices(bus, vendor, tmp_path)


def _devices(bus: str, vendor: Vendor, folder: Path) -> Iterator[MakeDevice]:
    made: list[Device] = []

    def make(*, start: bool = True, env: dict[str, str] | None = None, **settings: Any) -> Device:
        settings = {"keyring": vendor.signer.certificate, "stable_for": 0.05, **settings}
        device = Device(folder / f"device-{len(made)}", **settings)
        device.address = bus
        device.env = {"DBUS_STARTER_BUS_TYPE": "session", "DBUS_SESSION_BUS_ADDRESS": bus, **(env or {})}
        made.append(device)
        device.power_on()
        if start:
            device.start()
            device.wait_said("marked rootfs.0 as good")
        return device

    yield make
    for device in made:
        if device.service is not None:
            device.stop_service(kill=True)


@pytest.fixture(scope="session")
def interpose(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """interpose.c as a library."""
    library = tmp_path_factory.mktemp("interpose") / "interpose.so"
    source = Path(__file__).with_name("interpose.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


@pytest.fixture
def saboteur(interpose: Path, tmp_path: Path) -> Saboteur:
    return Saboteur(tmp_path / "page", interpose)
