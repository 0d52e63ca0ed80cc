"""RAUC's `[polling]`: the real service looks at a URL behind which the newest bundle always is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from virtual_device import SYSTEM_CONF

from tests.fakes.web import Fault, Server, serving
from tests.service.clock import Clock
from tests.service.conftest import MakeDevice
from tests.service.rig import Device, Vendor, until

URL = "/latest.raucb"
ALONE = "[confirm]\nstable-for = {stable_for}\n"
POLLING = "\n[polling]\nurl={0}\ninterval-sec=60\nmax-interval-sec=600\n"


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as web:
        yield web


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Clock:
    """Polls come after 0.1 to 2 s."""
    return Clock(tmp_path_factory.mktemp("clock"), boottime_factor=300)


@pytest.fixture
def polling(devices: MakeDevice, server: Server, clock: Clock) -> Callable[..., Device]:
    def make(more: str = "", other: str = "", **settings: Any) -> Device:
        conf = SYSTEM_CONF + POLLING.format(server.url(URL)) + more + other
        return devices(system_conf=conf, agent_conf=ALONE, env=clock.env, **settings)

    return make


def wait_summary(device: Device, text: str) -> dict[str, Any]:
    """The status of a poll that has ended so."""
    found: list[dict[str, Any]] = []

    def there() -> bool:
        found.append(dict(device.polled().status))
        return bool(found[-1].get("summary", "") == text)

    until(repr(text), there, lambda: f"{found[-1]}\n{device.log()}")
    return found[-1]


def installed(device: Device) -> int:
    return device.history().count("installed")


def test_a_candidate_is_shown_and_left_alone(
    polling: Callable[..., Device], server: Server, vendor: Vendor
) -> None:
    """Without install-criteria; unchanged it costs one request without a body, 204 is no bundle."""
    bundle = vendor.bundle("2.0.0")
    server.files = {URL: bundle}
    device = polling("candidate-criteria=different-version\n")
    before = device.untouched()
    status = wait_summary(device, "update candidate found: different version")
    assert status["update-available"]
    assert status["manifest"]["update"]["version"] == "2.0.0"
    assert status["bundle"]["size"] == bundle.stat().st_size
    assert status["bundle"]["effective-url"] == server.url(URL)
    assert "attempted-hash" not in status
    assert device.polled().next_poll > status["last-attempt-time"] > 0
    sent, count = server.sent[URL], server.counts[URL]
    until("two polls", lambda: server.counts[URL] >= count + 2)
    assert server.sent[URL] == sent
    assert all("if-none-match" in request.headers for request in server.requests[count:])
    server.faults[URL] = [Fault(status=204)]
    assert not wait_summary(device, "no update bundle available")["update-available"]
    assert "no update bundle available" in device.why()
    server.faults[URL] = [Fault(status=500)]
    until("an error", lambda: device.polled().status["recent-error-count"] >= 1)
    status = dict(device.polled().status)
    assert "500" in status["last-error-message"]
    count = server.counts[URL]
    time.sleep(1.0)  # 300 s of the service's time: at 60 s more each time no more than three looks
    assert server.counts[URL] <= count + 3
    assert device.untouched() == before
    assert device.history() == []


def test_installed_rebooted_and_not_again(
    polling: Callable[..., Device], server: Server, vendor: Vendor
) -> None:
    """install-criteria=always, reboot-criteria with a command of its own; servers are told who asks."""
    server.files = {URL: vendor.bundle("2.0.0")}
    device = polling(
        "candidate-criteria=different-version\ninstall-criteria=always\nreboot-criteria=updated-slots\n"
        "reboot-cmd=touch {root}/run/rebooted\n",
        "\n[streaming]\nsend-headers=boot-id;machine-id;transaction-id;uptime\n",
    )
    device.wait_said("installed: Installed to rootfs.1.")
    until("the reboot", (device.root / "run/rebooted").exists)
    assert device.outcomes()[0]["source"] == "ota"
    boot_id = (device.root / "run/boot-id").read_text().strip()
    assert {request.headers["rauc-boot-id"] for request in server.requests} == {boot_id}
    assert all("rauc-uptime" in request.headers for request in server.requests)
    told = {request.headers.get("rauc-transaction-id") for request in server.requests}
    assert told == {None, device.outcomes()[0]["transaction"]}  # looks are no transaction
    attempted = device.polled().status["attempted-hash"]
    assert attempted == device.outcomes()[0]["manifest-hash"]
    assert device.reboot() == ["B"]
    device.wait_rest("confirmed")
    wait_summary(device, "no update candidate available")
    assert installed(device) == 1
    # A higher one, and one that is only different: always means whatever is a candidate.
    server.files = {URL: vendor.bundle("1.5.0")}
    device.wait_said("installed: Installed to rootfs.0.")
    assert device.outcomes()[0]["version"] == "1.5.0"


def test_higher_only(polling: Callable[..., Device], server: Server, vendor: Vendor) -> None:
    server.files = {URL: vendor.bundle("2.0.0")}
    device = polling("install-criteria=higher-semver\n")
    device.wait_said("installed: Installed to rootfs.1.")
    assert device.reboot() == ["B"]
    device.wait_rest("confirmed")
    server.files = {URL: vendor.bundle("1.5.0")}
    count = server.counts[URL]
    until("two polls", lambda: server.counts[URL] >= count + 4)
    wait_summary(device, "no update candidate available")
    assert installed(device) == 1
    server.files = {URL: vendor.bundle("3.0.0")}
    device.wait_said("installed: Installed to rootfs.0.")
    assert installed(device) == 2


def test_what_failed_is_not_tried_for_ever(
    polling: Callable[..., Device], server: Server, vendor: Vendor
) -> None:
    """Corrupt in the middle: three tries at most, and the hash of what was attempted is shown."""
    data = bytearray(vendor.bundle("2.0.0").read_bytes())
    data[len(data) // 3] ^= 1
    server.files = {URL: bytes(data)}
    device = polling("install-criteria=always\n")
    device.wait_rest("failed")
    until("its hash", lambda: "attempted-hash" in device.polled().status)
    count = server.counts[URL]
    until("polls", lambda: server.counts[URL] >= count + 3)
    assert device.history().count("failed") <= 3
    assert device.primary() == "A"
    server.files = {URL: vendor.bundle("2.0.1")}
    device.wait_said("installed: Installed to rootfs.1.")


def test_inhibited(polling: Callable[..., Device], server: Server, vendor: Vendor, tmp_path: Path) -> None:
    """While the file is there nobody is asked; afterwards it goes on by itself."""
    file = tmp_path / "busy"
    file.touch()
    server.files = {URL: vendor.bundle("2.0.0")}
    device = polling(f"install-criteria=always\ninhibit-files={file}\n")
    device.wait_said("is not looked at now")
    time.sleep(0.5)  # 150 s of the service's time
    assert server.requests == []
    assert device.polled().next_poll > 0
    file.unlink()
    device.wait_said("installed: Installed to rootfs.1.")


def test_plain_is_refused(polling: Callable[..., Device], server: Server, vendor: Vendor) -> None:
    """It would have to be fetched as a whole, again and again, just to be looked at."""
    server.files = {URL: vendor.bundle("2.0.0", bundle_format="plain")}
    device = polling("install-criteria=always\n")
    until("an error", lambda: device.polled().status["recent-error-count"] >= 1)
    said = device.polled().status["last-error-message"]
    assert said == "Bundle format 'plain' not supported in streaming mode"
    assert device.history() == []
