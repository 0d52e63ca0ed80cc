"""When something may begin by itself: windows, consent, holds, files, links; and who comes first."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.web import Fault, Server, serving
from tests.service.clock import Clock
from tests.service.conftest import MakeDevice
from tests.service.rig import COMPATIBLE, Device, Vendor, until, updated

BASE = '[folder]\npath = "{root}/drop"\n[confirm]\nstable-for = {stable_for}\n'
INDEX = "/index.json"


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as web:
        yield web


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path, boottime_factor=300)


def window(kind: str, hours: float) -> str:
    """A window of two hours, that begins in `hours`."""
    start = datetime.now(UTC) + timedelta(hours=hours)
    return f'time-zone = "UTC"\n{kind}-windows = [{{{{start = "{start:%H:%M}", length = 7200}}}}]\n'


def channel(server: Server, vendor: Vendor, version: str) -> str:
    """A server with `version`; the part of updated.toml that follows it."""
    bundle = vendor.bundle(version)
    entry = {"version": version, "compatible": COMPATIBLE, "bundle_url": "b.raucb"}
    server.files = {"/b.raucb": bundle, INDEX: json.dumps({"channels": {"stable": entry}}).encode()}
    return f'[ota]\nindex = "{server.url(INDEX)}"\ninterval = 60\n'


def drop(device: Device, bundle: Path) -> None:
    shutil.copy(bundle, device.root / "drop/.new")
    (device.root / "drop/.new").rename(device.root / "drop" / bundle.name)


def wait_hold(device: Device, rule: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = []

    def there() -> bool:
        found.append(dict(device.status().hold))
        return found[-1].get("rule") == rule

    until(f"the hold {rule}", there, lambda: f"{found[-1]}\n{device.log()}")
    return found[-1]


def gone_on(device: Device, group: str = "rootfs.1") -> None:
    device.wait_said(f"installed: Installed to {group}.")


def test_install_windows(devices: MakeDevice, vendor: Vendor) -> None:
    """Closed: it is told when it opens; a person need not wait; open: it begins."""
    device = devices(agent_conf=f"{BASE}[policy]\n{window('install', 6)}")
    before = device.untouched()
    drop(device, vendor.bundle("2.0.0"))
    hold = wait_hold(device, "window")
    assert "waits for the install window; it opens on " in hold["text"]
    assert hold["text"] in device.why()
    assert hold["text"] in device.status().detail
    assert "Waiting:" in updated(device.address, "status").stdout
    assert device.untouched() == before
    assert device.install(vendor.bundle("1.5.0")) == ""
    assert device.reboot() == ["B"]
    device.wait_rest("confirmed")
    wait_hold(device, "window")
    assert device.history() == ["installed", "confirmed"]
    device.reload(f"{BASE}[policy]\n{window('install', -1)}")
    gone_on(device, "rootfs.0")
    assert device.outcomes()[0]["version"] == "2.0.0"
    assert not device.status().hold


def test_consent(devices: MakeDevice, vendor: Vendor) -> None:
    """Asked, still asked after a restart, declined, allowed."""
    device = devices(agent_conf=f"{BASE}[consent]\ninstall = true\n")
    before = device.untouched()
    assert "Nobody was asked" in updated(device.address, "consent", "install").stderr
    drop(device, vendor.bundle("2.0.0"))
    asked = wait_hold(device, "consent")["text"]
    assert "2.0.0" in asked
    assert asked in device.why()
    device.stop_service(kill=True)
    device.start()
    assert wait_hold(device, "consent")["text"].split(";")[0] == asked.split(";")[0]
    told = updated(device.address, "consent", "install", "--deny")
    assert (told.returncode, told.stdout) == (0, "The install is denied.\n")
    until("the denial", lambda: "was declined" in device.why())
    assert device.untouched() == before
    device.stop_service()
    device.start()
    until("the denial", lambda: "was declined" in device.why())
    assert updated(device.address, "consent", "install").returncode == 0
    gone_on(device)
    assert "consent" not in device.status().hold.get("rule", "")


def test_an_application_that_holds_and_dies(devices: MakeDevice, vendor: Vendor) -> None:
    """As long as it is on the bus nothing begins; when it dies the install does."""
    device = devices(agent_conf=BASE)
    before = device.untouched()
    argv = [sys.executable, "-m", "updated", "inhibit", "--who=Pump", "--why=therapy runs", "--for=80000"]
    environment = {**os.environ, **device.env}
    with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True) as application:
        assert application.stdout is not None
        application.stdout.readline()
        drop(device, vendor.bundle("2.0.0"))
        text = wait_hold(device, "hold")["text"]
        assert "Pump" in text
        assert "therapy runs" in text
        assert text in device.why()
        assert device.untouched() == before
        application.send_signal(signal.SIGKILL)
    gone_on(device)


def test_inhibit_files(devices: MakeDevice, vendor: Vendor, clock: Clock, tmp_path: Path) -> None:
    """Removed, it begins within a minute by itself."""
    file = tmp_path / "busy"
    file.touch()
    device = devices(agent_conf=f'{BASE}[policy]\ninhibit-files = ["{file}"]\n', env=clock.env)
    before = device.untouched()
    drop(device, vendor.bundle("2.0.0"))
    hold = wait_hold(device, "inhibit-file")
    assert str(file) in hold["text"]
    assert 0 < hold["delay"] <= 60
    file.unlink()
    assert device.untouched() == before
    clock.jump(61)
    device.status()  # wakes it up
    gone_on(device)


def test_reboots(devices: MakeDevice, vendor: Vendor, tmp_path: Path) -> None:
    """`when = "immediately"` waits for the window, for consent and for files, whoever wanted the install."""
    file = tmp_path / "busy"
    file.touch()
    reboot = '[reboot]\nwhen = "immediately"\ncommand = ["touch", "{root}/run/rebooted"]\n'
    consent = "[consent]\nreboot = true\n"
    device = devices(agent_conf=f'{BASE}{reboot}{consent}[policy]\ninhibit-files = ["{file}"]\n')
    assert device.install(vendor.bundle("2.0.0")) == ""
    rebooted = device.root / "run/rebooted"
    assert str(file) in wait_hold(device, "inhibit-file")["text"]
    file.unlink()
    device.reload(f"{BASE}{reboot}{consent}[policy]\n{window('reboot', 6)}")
    assert "2.0.0" in wait_hold(device, "consent")["text"]
    assert device.status().state == "reboot-pending"
    assert updated(device.address, "consent", "reboot").stdout == "The reboot is agreed to.\n"
    text = wait_hold(device, "window")["text"]
    assert "reboot window" in text
    assert text in device.why()
    assert not rebooted.exists()
    device.reload(f"{BASE}{reboot}{consent}[policy]\n{window('reboot', -1)}")
    until("the reboot", rebooted.exists)


def test_metered_is_for_servers(devices: MakeDevice, vendor: Vendor, server: Server, clock: Clock) -> None:
    """A metered link holds the channel's bundle back, not the folder's, and not a person's."""
    ota = channel(server, vendor, "3.0.0")
    metered = '[policy]\nmetered = "refuse"\nlink = "metered"\n'
    device = devices(agent_conf=BASE + ota + metered, env=clock.env)
    text = wait_hold(device, "metered")["text"]
    assert "Version 3.0.0" in text
    assert text in device.why()
    sent = server.sent["/b.raucb"]
    assert sent < 300_000  # its signature only
    drop(device, vendor.bundle("2.0.0"))
    gone_on(device)
    assert device.outcomes()[0]["source"] == "folder"
    assert device.install(server.url("/b.raucb")) == ""
    assert device.content("B") == vendor.system("3.0.0")


def test_the_folder_comes_before_the_server(
    devices: MakeDevice, vendor: Vendor, server: Server, clock: Clock, tmp_path: Path
) -> None:
    """Both are known when the way is free."""
    file = tmp_path / "busy"
    file.touch()
    ota = channel(server, vendor, "3.0.0")
    device = devices(agent_conf=f'{BASE}{ota}[policy]\ninhibit-files = ["{file}"]\n', env=clock.env)
    wait_hold(device, "inhibit-file")
    drop(device, vendor.bundle("2.0.0"))
    device.wait_said(f"waits while {file} is there", 2)
    file.unlink()
    clock.jump(3600)
    device.status()
    gone_on(device)
    assert device.outcomes()[-1]["version"] == "2.0.0"
    assert device.outcomes()[-1]["source"] == "folder"


def test_a_person_comes_before_who_only_looks(
    devices: MakeDevice, vendor: Vendor, server: Server, clock: Clock
) -> None:
    """The channel's bundle is being looked at on a server that does not answer."""
    ota = channel(server, vendor, "3.0.0")
    server.faults["/b.raucb"] = [Fault(latency=60)]
    device = devices(agent_conf=BASE + ota, env=clock.env)
    device.wait_state("discover")
    assert "server" in device.status().detail
    assert device.install(vendor.bundle("2.0.0")) == ""
    assert device.outcomes()[-1]["source"] == "request"
    assert device.content("B") == vendor.system("2.0.0")
    server.faults.clear()
    assert device.reboot() == ["B"]
    gone_on(device, "rootfs.0")
    assert device.outcomes()[0]["version"] == "3.0.0"
