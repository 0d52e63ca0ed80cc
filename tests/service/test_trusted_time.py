"""A real service whose clock is behind what it has seen signed."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.service.certificates import NOW, Authority
from tests.service.conftest import MakeDevice
from tests.service.rig import Device, Vendor

NO_FOLDER = "[confirm]\nstable-for = {stable_for}\n"
SIZE = 50_000  # bytes of the image
FORMAT = "%Y-%m-%dT%H:%M:%SZ"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority("Root")


@pytest.fixture
def device(devices: MakeDevice, authority: Authority) -> Device:
    return devices(start=False, agent_conf=NO_FOLDER, keyring=authority.certificate)


def memory(device: Device) -> Path:
    return device.root / "data" / "signed-time.json"


def start(device: Device) -> None:
    device.start()
    device.wait_said("marked rootfs.0 as good")


@pytest.mark.parametrize(("days", "ends"), [(400, True), (4000, False)])
def test_what_it_has_seen_signed_ends_a_certificate(
    device: Device, vendor: Vendor, authority: Authority, days: int, ends: bool
) -> None:
    """By the system's clock the signer is good for 300 days; after 3000 nobody is, so that is no time."""
    bundle = vendor.bundle(
        "2.0.0", images={"rootfs.img": vendor.noise(SIZE)}, signer=authority.issue("Vendor")
    )
    memory(device).parent.mkdir(exist_ok=True)
    memory(device).write_text(json.dumps({"latest": f"{NOW + timedelta(days=days):{FORMAT}}"}))
    start(device)
    assert ("certificate has expired" in device.install(bundle)) == ends
    assert ("something trusted was signed at" in device.log()) == ends


def test_it_remembers_when_a_bundle_was_signed(device: Device, vendor: Vendor, authority: Authority) -> None:
    start(device)
    assert not memory(device).exists()
    signer = authority.issue("Vendor")
    assert (
        device.install(vendor.bundle("2.0.0", images={"rootfs.img": vendor.noise(SIZE)}, signer=signer)) == ""
    )
    seen = datetime.strptime(json.loads(memory(device).read_text())["latest"], FORMAT).replace(tzinfo=UTC)
    assert abs(seen - NOW) < timedelta(hours=1)
