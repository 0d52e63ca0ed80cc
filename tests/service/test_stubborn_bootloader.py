"""Scripts and firmwares that start what was marked bad: the device does not reboot for ever."""

from __future__ import annotations

import uuid

from tests.service.conftest import MakeDevice
from tests.service.rig import CUSTOM_CONF, Device, Vendor, until, updated
from updated.service.departure import MAX_WAYS_BACK

CONF = """
[confirm]
stable-for = {stable_for}
deadline = 1

[[confirm.checks]]
type = "command"
name = "shop"
command = ["sh", "-c", "! grep slot=B {root}/run/cmdline"]
period = 0.1

[reboot]
command = ["touch", "{root}/rebooted"]
"""
BACKEND = """\
#!/bin/sh
# `primary` is what starts; nobody asks whether it is `good` or `bad`.
set -e
cd "$(dirname "$0")"
case "$1" in
    get-primary) cat primary ;;
    set-primary) echo "$2" > primary; echo good > "state-$2" ;;
    get-state) cat "state-$2" ;;
    set-state) echo "$3" > "state-$2" ;;
    get-current) cat current ;;
esac
"""


def factory(devices: MakeDevice) -> Device:
    device = devices(start=False, system_conf=CUSTOM_CONF, agent_conf=CONF)
    files = {"primary": "A\n", "state-A": "good\n", "state-B": "bad\n", "backend": BACKEND}
    for name, text in files.items():
        (device.root / "boot" / name).write_text(text)
    (device.root / "boot/backend").chmod(0o755)
    boot(device, "A")
    device.wait_said("marked rootfs.0 as good")
    return device


def boot(device: Device, name: str) -> None:
    if device.service is not None:
        device.stop_service()
    (device.root / "boot/current").write_text(f"{name}\n")
    (device.root / "run/cmdline").write_text(f"quiet rauc.slot={name}\n")
    (device.root / "run/boot-id").write_text(f"{uuid.uuid4()}\n")
    (device.root / "rebooted").unlink(missing_ok=True)
    device.start()


def primary(device: Device) -> str:
    return (device.root / "boot/primary").read_text().strip()


def test_a_script_for_which_bad_means_nothing(devices: MakeDevice, vendor: Vendor) -> None:
    device = factory(devices)
    assert device.install(vendor.bundle()) == ""
    boot(device, primary(device))
    until("the reboot", (device.root / "rebooted").exists)
    assert primary(device) == "A"
    boot(device, primary(device))
    device.wait_said("fallback: The bootloader fell back to rootfs.0. Cause: shop: not healthy")


def test_a_firmware_that_starts_it_all_the_same(devices: MakeDevice, vendor: Vendor) -> None:
    device = factory(devices)
    assert device.install(vendor.bundle()) == ""
    for _ in range(MAX_WAYS_BACK):
        boot(device, "B")
        until("the reboot", (device.root / "rebooted").exists)
    boot(device, "B")
    device.wait_said("rootfs.1 is not good, and the bootloader starts it all the same")
    assert device.wait_state("idle").detail.startswith("Degraded: rootfs.1 runs")
    assert not (device.root / "rebooted").exists()


def test_taken_back_while_the_reboot_is_on_its_way(devices: MakeDevice, vendor: Vendor) -> None:
    """It does not come any more, and nobody asks harder for it."""
    device = factory(devices)
    assert device.install(vendor.bundle()) == ""
    assert updated(device.address, "reboot").returncode == 0
    until("the reboot", (device.root / "rebooted").exists)
    assert "The reboot was asked for." in device.status().detail
    assert updated(device.address, "rollback").returncode == 0
    assert "The reboot was asked for." not in device.status().detail
    assert device.status().state == "idle"
