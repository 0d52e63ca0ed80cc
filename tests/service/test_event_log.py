"""RAUC's event logs, and the journal's fields, of a service that lives through an update."""

from __future__ import annotations

import json
import re
from typing import Any

from virtual_device import AGENT_CONF, SYSTEM_CONF

from tests.service.conftest import MakeDevice
from tests.service.rig import Device, Vendor, until
from updated.core.events import Id

LOGS = """
[log.all]
filename={root}/events.json
format=json

[log.boots]
filename={root}/boots
format=short
events=boot
"""


def told(device: Device) -> list[dict[str, Any]]:
    file = device.root / "events.json"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def ids(device: Device) -> list[str]:
    return [Id(entry["MESSAGE_ID"]).name for entry in told(device)]


def boots(device: Device) -> list[str]:
    return [line.partition(": ")[2] for line in (device.root / "boots").read_text().splitlines()]


def test_an_update_from_its_start_to_its_reboot(devices: MakeDevice, vendor: Vendor) -> None:
    device = devices(system_conf=SYSTEM_CONF + LOGS)
    assert device.install(vendor.bundle()) == ""
    until("the end", lambda: "INSTALL_SUCCEEDED" in ids(device))
    device.stop_service()
    assert [name for name in ids(device) if name in _OURS] == _OURS
    for entry in told(device):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", entry["TS"])
    started, written = (
        next(entry for entry in told(device) if entry["MESSAGE_ID"] == one)
        for one in (Id.INSTALL_STARTED, Id.SLOT_WRITTEN)
    )
    assert started["TRANSACTION_ID"] == written["TRANSACTION_ID"]
    assert started["MESSAGE"] == f"Installation {started['TRANSACTION_ID'][:8]} started"
    assert (written["SLOT_NAME"], written["RAUC_EVENT_TYPE"]) == ("rootfs.1", "writeslot")
    assert len(written["BUNDLE_HASH"]) == 64

    assert boots(device) == ["Booted into rootfs.0 (A)"]
    device.start()  # the same boot
    until("the restart", lambda: "SERVICE_RESTARTED" in ids(device))
    assert device.reboot() == ["B"]
    until("the boot", lambda: len(boots(device)) == 2)
    assert boots(device) == ["Booted into rootfs.0 (A)", "Booted into rootfs.1 (B)"]
    until("the end of the update", lambda: "CONFIRMED" in ids(device))
    confirmed = next(entry for entry in told(device) if entry["MESSAGE_ID"] == Id.CONFIRMED)
    assert (confirmed["TRANSACTION_ID"], confirmed["BUNDLE_VERSION"]) == (started["TRANSACTION_ID"], "2.0.0")


def test_a_bundle_for_another_device(devices: MakeDevice, vendor: Vendor) -> None:
    device = devices(system_conf=SYSTEM_CONF + LOGS)
    assert device.install(vendor.bundle(compatible="Another Device"))
    until("the rejection", lambda: "INSTALL_REJECTED" in ids(device))
    rejected = told(device)[-1]
    assert rejected["MESSAGE"].startswith(f"Installation {rejected['TRANSACTION_ID'][:8]} rejected: ")


_OURS = [
    "BOOTED",
    "SERVICE_STARTED",
    "MARKED_GOOD",
    "INSTALL_STARTED",
    "MARKED_BAD",
    "SLOT_WRITE_STARTED",
    "SLOT_WRITTEN",
    "MARKED_ACTIVE",
    "INSTALL_SUCCEEDED",
    "SERVICE_STOPPING",
]


def test_a_log_that_cannot_be_written_keeps_no_update_away(devices: MakeDevice, vendor: Vendor) -> None:
    logs = "\n[log.all]\nfilename={root}/none/events\n"
    device = devices(system_conf=SYSTEM_CONF + logs)
    assert device.install(vendor.bundle()) == ""
    assert device.said().count("[log.all]") == 1


def test_a_reload_takes_other_logs(devices: MakeDevice) -> None:
    device = devices()
    conf = device.root / "etc/system.conf"
    conf.write_text(conf.read_text() + LOGS.format(root=device.root))
    device.reload(AGENT_CONF)
    device.stop_service()
    assert ids(device) == ["SERVICE_STOPPING"]
