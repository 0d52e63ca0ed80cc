"""The main job on machines that really boot, with GRUB and with U-Boot: install, reboot, confirm, and stay.

Each test brings a version of its own into the group that does not run.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.network.nginx import Nginx, nginx
from tests.system import sticks
from tests.system.ab_factory import Factory
from tests.system.ab_image import Loader
from tests.system.ab_machine import HTTP, Machine

pytestmark = [pytest.mark.root, pytest.mark.slow]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    with nginx(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module", params=("grub", "uboot"))
def machine(
    request: pytest.FixtureRequest, factory: Factory, server: Nginx, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machine]:
    """Booted once for all tests."""
    loader: Loader = request.param
    disk = factory.disk(loader, f"update-{loader}", factory.bundle(loader, "2"))
    folder = tmp_path_factory.mktemp(loader)
    with Machine(disk, folder, http_port=urlsplit(server.url("")).port) as machine:
        machine.wait_for_idle("A")
        assert machine.is_good("A")
        yield machine


def test_by_folder(machine: Machine) -> None:
    boots = len(machine.boots)
    target = other(machine)
    machine.run("mv /data/bundles/system-2.raucb /data/drop")
    runs(machine, target, "2")
    stays(machine, target, "2")
    assert len(machine.boots) == boots + 2
    assert machine.run("ls /data/drop") == ""


def test_by_stick(machine: Machine, factory: Factory, tmp_path: Path) -> None:
    bundle = factory.bundle(machine.loader, "3")
    stick = sticks.fat(tmp_path / "stick.img", {"system.raucb": bundle}, megabytes=120)
    target = other(machine)
    machine.plug(stick)
    runs(machine, target, "3")
    if machine.loader == "grub":  # what has brought it is nothing to the loader, and a boot takes its time
        stays(machine, target, "3")  # with the stick left in
    machine.pull()


def test_by_http(machine: Machine, factory: Factory, server: Nginx) -> None:
    bundle = factory.bundle(machine.loader, "4")
    (server.files / bundle.name).hardlink_to(bundle)
    target = other(machine)
    machine.run(f"systemd-run updated install {HTTP}/{bundle.name}")
    runs(machine, target, "4")
    if machine.loader == "grub":  # what has brought it is nothing to the loader, and a boot takes its time
        stays(machine, target, "4")
    (server.files / bundle.name).unlink()


def other(machine: Machine) -> str:
    return {"A": "B", "B": "A"}[machine.slot]


def runs(machine: Machine, slot: str, version: str) -> None:
    """The new system comes up in `slot` and is confirmed."""
    machine.wait_for_idle(slot)
    assert machine.version == version
    assert machine.boots[-1].slot == slot
    assert machine.is_good(slot)
    assert machine.history()[0] == "confirmed"


def stays(machine: Machine, slot: str, version: str) -> None:
    """It does so again after another reboot, and nothing is installed again."""
    machine.reboot()
    runs(machine, slot, version)
    assert machine.history().count("confirmed") == machine.history().count("installed")
