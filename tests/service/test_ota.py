"""`[ota]`: the real service follows a channel index.  Its CLOCK_BOOTTIME runs 300 times as fast."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from keys import make_signer

from tests.fakes.web import Fault, Server, serving
from tests.service.clock import Clock
from tests.service.conftest import MakeDevice
from tests.service.rig import COMPATIBLE, Device, Vendor, until, updated
from updated.api.client import Polled
from updated.authoring.signing import digest_algorithm, sign

FACTOR = 300
INDEX, P7S = "/v1/index.json", "/v1/index.json.p7s"
CONF = """
[confirm]
stable-for = {{stable_for}}
[ota]
index = "{0}"
interval = 60
max-interval = 1200
"""


class Channel:
    """An index on a server."""

    def __init__(self, server: Server, vendor: Vendor) -> None:
        self.server = server
        self.vendor = vendor
        self.conf = CONF.format(server.url(INDEX))
        self.more: dict[str, Any] = {}  # beside `channels`

    def publish(self, release: str = "2.0.0", bundle: Path | None = None, **entry: Any) -> None:
        """The bundle of version `release` in "stable", unsigned; None in `entry`: without this key."""
        bundle = bundle or self.vendor.bundle(release)
        data = bundle.read_bytes()
        path = f"/v1/{bundle.name}"
        found = {
            "version": release,
            "compatible": COMPATIBLE,
            "bundle_url": bundle.name,
            "bundle_sha256": hashlib.sha256(data).hexdigest(),
            "bundle_size": len(data),
            **entry,
        }
        stable = {key: value for key, value in found.items() if value is not None}
        self.server.files[path] = bundle
        self.show(json.dumps({"channels": {"stable": stable}, **self.more}).encode())

    def publish_nothing(self) -> None:
        """For this device."""
        self.publish(architectures=["z80"])

    def show(self, body: bytes) -> None:
        self.server.files[INDEX] = body

    def sign(self, *, by: Any = None) -> None:
        """What is there now; `by`: a Signer."""
        signer, body = by or self.vendor.signer, self.server.files[INDEX]
        assert isinstance(body, bytes)
        self.server.files[P7S] = sign(
            digest=hashlib.new(digest_algorithm(signer.certificate), body).digest(),
            certificate_pem=signer.certificate,
            key_pem=signer.key,
            signing_time=datetime.now(UTC),
        )

    def looks(self) -> int:
        return self.server.counts[INDEX]


@pytest.fixture
def channel(vendor: Vendor) -> Iterator[Channel]:
    with serving() as server:
        yield Channel(server, vendor)


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Clock:
    return Clock(tmp_path_factory.mktemp("clock"), boottime_factor=FACTOR)


@pytest.fixture
def made(devices: MakeDevice, channel: Channel, clock: Clock) -> Callable[..., Device]:
    def make(more: str = "", **settings: Any) -> Device:
        return devices(agent_conf=channel.conf + more, env=clock.env, **settings)

    return make


def look(device: Device) -> dict[str, Any]:
    """Poll now; the status after the look."""
    before = device.polled().status["attempt-count"]
    device.call(lambda client: client.poll())
    found: list[Polled] = []

    def over() -> bool:
        found.append(device.polled())
        status = found[-1].status  # both are told at once when a look is over
        return bool(
            status["attempt-count"] > before and found[-1].next_poll > status["last-attempt-time"] + 1_000_000
        )

    until("the look", over, lambda: f"{found[-1]}\n{device.log()}")
    return {"last-error-message": "", "summary": "", **found[-1].status}


def test_found_installed_confirmed_and_not_again(made: Callable[..., Device], channel: Channel) -> None:
    """Nobody asks for anything; after the reboot and the confirmation all is quiet."""
    channel.publish("2.0.0")
    device = made('[reboot]\nwhen = "manual"\n')
    device.wait_said("installed: Installed to rootfs.1.")
    assert device.outcomes()[0]["source"] == "ota"
    assert device.content("B") == channel.vendor.system("2.0.0")
    assert device.reboot() == ["B"]
    device.wait_rest("confirmed")
    device.wait_state("idle")
    looks, bundle = channel.looks(), {k: v for k, v in channel.server.counts.items() if "content" in k}
    until("two more looks", lambda: channel.looks() >= looks + 2)
    assert device.history() == ["installed", "confirmed"]
    assert {k: v for k, v in channel.server.counts.items() if "content" in k} == bundle
    assert device.polled().status["summary"] == "no update candidate available"
    assert "ota: no update candidate available; the next look is in" in device.why()
    shown = updated(device.address, "poll")
    assert shown.returncode == 0
    assert "no update candidate available" in shown.stdout
    # What is older is not, either; what is higher is.
    channel.publish("1.5.0")
    assert look(device)["summary"] == "no update candidate available"
    channel.publish("3.0.0")
    look(device)
    device.wait_said("installed: Installed to rootfs.0.")
    assert device.history() == ["installed", "confirmed", "installed"]


def test_what_fell_back_is_not_tried_again(made: Callable[..., Device], channel: Channel) -> None:
    """A system that never comes up: one trial, then it is left alone, but the next version is not."""
    vendor = channel.vendor
    bad = vendor.bundle("2.0.0", images={"rootfs.ext4": vendor.system("2.0.0", healthy=False)})
    channel.publish("2.0.0", bad)
    device = made()
    device.wait_said("installed: Installed to rootfs.1.")
    assert device.reboot()[-1] == "A"
    device.wait_rest("fallback")
    look(device)
    assert look(device)["update-available"]
    assert device.history() == ["installed", "fallback"]
    why = device.why()
    assert "Version 2.0.0 is quarantined: " in why
    assert "is not installed: " in why
    channel.publish("2.0.1")
    look(device)
    device.wait_said("installed: Installed to rootfs.1.")
    assert device.history() == ["installed", "fallback", "installed"]


def test_no_look_at_once_after_a_restart(made: Callable[..., Device], channel: Channel) -> None:
    """A service that is restarted again and again does not hammer the server."""
    channel.publish_nothing()
    device = made()
    look(device)
    for _ in range(3):
        device.stop_service(kill=True)
        device.start()
        seconds = re.search(r"index.json is looked at in (\d+) s", device.said())
        assert seconds is not None
        assert int(seconds[1]) >= 30
        looks = channel.looks()
        until("a look", lambda looks=looks: channel.looks() > looks)  # type: ignore[misc]


def forge(channel: Channel) -> None:
    channel.publish()
    channel.sign(by=make_signer("Mallory"))


def sign_another(channel: Channel) -> None:
    channel.publish("9.0.0")
    channel.sign()
    channel.publish("2.0.0")


LIES: dict[str, tuple[Callable[[Channel], None], str]] = {
    "no JSON": (lambda c: c.show(b"{"), "the index is no JSON"),
    "a login page": (lambda c: c.show(b"<html>login</html>"), "the index is no JSON"),
    "not UTF-8": (lambda c: c.show(b"\xff\xfe{}"), "the index is no JSON: it is not UTF-8"),
    "deep nesting": (lambda c: c.show(b"[" * 200_000), "the index is no JSON: it is nested too deeply"),
    "deep objects": (lambda c: c.show(b'{"a":' * 40_000), "the index is no JSON: it is nested too deeply"),
    "10 MB": (lambda c: c.show(b" " * 10_000_000), "it has more than 262144 bytes"),
    "no end": (
        lambda c: c.server.faults.update({INDEX: [Fault(endless=True, content=b"{")]}),
        "it has more than 262144 bytes",
    ),
    "nothing": (lambda c: c.show(b""), "the index is no JSON"),
    "no object": (lambda c: c.show(b"[]"), "the index is malformed"),
    "no channel": (lambda c: c.show(b'{"channels": {}}'), "the index has no channel 'stable'"),
    "twice": (lambda c: c.show(b'{"channels": {}, "channels": {}}'), "is there twice"),
    "size is a text": (lambda c: c.publish(bundle_size="many"), "channels.stable.bundle_size"),
    "a file": (lambda c: c.publish(bundle_url="file:///etc/passwd"), "bundle_url of the index is"),
    "no version": (lambda c: c.publish("2.0.0", version="new"), "version of channels.stable"),
    "wrong compatible": (
        lambda c: c.publish(compatible="Toaster"),
        "is for 'Toaster', expected 'Virtual Device'",
    ),
    "404": (lambda c: c.server.faults.update({INDEX: [Fault(status=404)]}), "404"),
    "500": (lambda c: c.server.faults.update({INDEX: [Fault(status=500)]}), "500"),
    "401": (lambda c: c.server.faults.update({INDEX: [Fault(status=401)]}), "401"),
    "reset": (lambda c: c.server.faults.update({INDEX: [Fault(cut=0, how="reset")]}), "Failed to read"),
    "in circles": (lambda c: c.server.faults.update({INDEX: [Fault(redirect=INDEX)]}), "redirects"),
    "somebody else's signature": (forge, "the signature of"),
    "a signature of something else": (sign_another, "the signature of"),
    "no signature at all": (lambda c: c.server.files.update({P7S: b"x" * 1000}), "the signature of"),
    "503 for the signature": (lambda c: c.server.faults.update({P7S: [Fault(status=503)]}), "503"),
}


def test_an_index_that_lies(made: Callable[..., Device], channel: Channel) -> None:
    """All of them to one service: each is told, nothing is written, and nobody is asked all the time."""
    channel.publish_nothing()
    device = made()
    before = device.untouched()
    for name, (lie, words) in LIES.items():
        channel.server.files.clear()
        channel.server.faults.clear()
        channel.publish_nothing()
        lie(channel)
        status = look(device)
        assert words in status["last-error-message"], name
        assert not status["update-available"], name
        assert words in device.why(), name
        assert device.status().state == "idle"
    assert device.untouched() == before
    assert "a bug" not in device.log()
    # Left alone it is slower and slower: after a minute, two, four ... of the service's time.
    looks = channel.looks()
    time.sleep(1.5)  # 450 s of the service's time
    assert channel.looks() <= looks + 2
    assert device.polled().status["recent-error-count"] >= 1
    channel.server.files.clear()
    channel.server.faults.clear()
    channel.publish("2.0.0")
    assert look(device)["last-error-message"] == ""
    device.wait_said("installed: Installed to rootfs.1.")


BUNDLE_LIES: dict[str, tuple[dict[str, Any], str]] = {
    "size": ({"bundle_size": 1234}, "expected 1234"),
    "version": ({"version": "2.5.0", "bundle_sha256": None}, "2.5.0"),
    "not there": ({"bundle_url": "nowhere.raucb", "bundle_sha256": None}, "Not found (404)"),
    "no bundle": (
        {"bundle_url": "index.json", "bundle_sha256": None, "bundle_size": None},
        "index.json from ota",
    ),
}


def test_an_index_that_lies_of_the_bundle(made: Callable[..., Device], channel: Channel) -> None:
    """The bundle's signature decides; the reason is in `updated why`, and there is no tight loop."""
    channel.publish_nothing()
    device = made()
    before = device.untouched()
    for name, (entry, words) in BUNDLE_LIES.items():
        channel.publish("2.0.0", **entry)
        assert look(device)["update-available"], name
        until(name, lambda words=words: words in device.why(), device.why)  # type: ignore[misc]
        assert "is not installed: " in device.why(), name
        count = sum(channel.server.counts.values()) - channel.looks()
        looks = channel.looks()
        until("more looks", lambda looks=looks: channel.looks() >= looks + 1)  # type: ignore[misc]
        assert sum(channel.server.counts.values()) - channel.looks() <= count + 6, name
    assert device.untouched() == before
    assert device.history() == []
    assert "a bug" not in device.log()
    channel.publish("2.0.0")
    look(device)
    device.wait_said("installed: Installed to rootfs.1.")


def test_wrong_hash_of_a_plain_bundle(made: Callable[..., Device], channel: Channel) -> None:
    """What is spooled is compared with the index; for a verity bundle its own signature is enough."""
    plain = channel.vendor.bundle("2.0.0", bundle_format="plain")
    channel.publish("2.0.0", plain, bundle_sha256="00" * 32)
    device = made()
    device.wait_rest("failed")
    assert "has the SHA-256" in device.outcomes()[0]["text"]
    assert device.primary() == "A"
    assert not [name for name in device.data_files() if name.startswith("spool/")]
    fetched = channel.server.sent[f"/v1/{plain.name}"]
    looks = channel.looks()
    until("more looks", lambda: channel.looks() >= looks + 2)
    assert channel.server.sent[f"/v1/{plain.name}"] == fetched  # not again and again
    channel.publish("2.0.0", plain)
    look(device)
    device.wait_said("installed: Installed to rootfs.1.")


def test_signed_once_signed_for_ever(made: Callable[..., Device], channel: Channel) -> None:
    """Stripped, set back, stale."""
    channel.more = {"counter": 10, "issued": "2026-01-10T00:00:00Z"}
    channel.publish_nothing()
    channel.sign()
    device = made()
    assert look(device)["last-error-message"] == ""

    channel.publish("2.0.0")
    del channel.server.files[P7S]
    assert "the index is not signed any more" in look(device)["last-error-message"]
    assert "the index is not signed any more" in device.why()

    for more in ({"counter": 9, "issued": "2026-01-10T00:00:00Z"}, {"counter": 11}, {}):
        channel.more = dict(more)
        channel.publish("2.0.0")
        channel.sign()
        assert "the index is older than one that was here before" in look(device)["last-error-message"], more

    device.stop_service()  # it is remembered
    device.start()
    assert "the index is older than one that was here before" in look(device)["last-error-message"]
    assert device.history() == []

    yesterday = (datetime.now(UTC) - timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    channel.more = {"counter": 12, "issued": "2026-01-11T00:00:00Z", "expires": yesterday}
    channel.publish_nothing()
    channel.sign()
    assert look(device)["last-error-message"] == ""
    assert "The index is stale since" in device.why()
    assert "The index is stale since" in device.said()
    channel.publish("2.0.0")  # stale is an alarm: the device goes on
    channel.sign()
    look(device)
    device.wait_said("installed: Installed to rootfs.1.")


def test_signature_required(made: Callable[..., Device], channel: Channel) -> None:
    channel.conf += 'signature = "required"\n'
    channel.publish("2.0.0")
    device = made()
    assert "the index is not signed: " in look(device)["last-error-message"]
    assert device.history() == []
    channel.sign()
    assert look(device)["last-error-message"] == ""
    device.wait_said("installed: Installed to rootfs.1.")


def test_a_server_that_asks_for_peace(made: Callable[..., Device], channel: Channel) -> None:
    """503 with Retry-After."""
    channel.publish_nothing()
    channel.server.faults[INDEX] = [Fault(status=503, headers={"Retry-After": "1000"})]
    device = made()
    until("a look", lambda: channel.looks() == 1)
    until("its end", lambda: device.polled().status["recent-error-count"] == 1)
    polled = device.polled()
    assert polled.next_poll - polled.status["last-attempt-time"] >= 1000 * 1_000_000
    assert "503" in polled.status["last-error-message"]
    time.sleep(1.0)  # 300 s of the service's time
    assert channel.looks() == 1


def test_turned_on_and_off(made: Callable[..., Device], channel: Channel) -> None:
    """By a reload; another URL is another server, of which nothing is remembered."""
    conf, channel.conf = channel.conf, "[confirm]\nstable-for = {stable_for}\n"
    channel.publish_nothing()
    device = made()
    assert "Nothing is polled" in updated(device.address, "poll").stderr
    device.reload(conf)
    assert look(device)["summary"] == "no update candidate available"
    assert updated(device.address, "poll", "--now").returncode == 0
    device.reload(channel.conf)
    assert "Nothing is polled" in updated(device.address, "poll").stderr
    looks = channel.looks()
    time.sleep(0.5)  # 150 s of the service's time
    assert channel.looks() == looks
    device.reload(conf)
    channel.publish("2.0.0")
    look(device)
    device.wait_said("installed: Installed to rootfs.1.")


def test_cancelled_by_a_person(made: Callable[..., Device], channel: Channel) -> None:
    """It does not begin again by itself before there is another; a stop of the service is no such word."""
    bundle = channel.vendor.bundle("2.0.0", images={"rootfs.ext4": channel.vendor.noise(8 << 20)})
    channel.server.rate = 4 << 20
    channel.publish("2.0.0", bundle)
    device = made()
    device.wait_fetched(1 << 20)
    device.call(lambda client: client.pause())
    device.stop_service()  # while it rests
    assert "a bug" not in device.log()
    device.start()
    device.wait_fetched(1 << 20)
    assert updated(device.address, "cancel").returncode == 0
    assert device.status().state == "idle"
    looks = channel.looks()
    until("more looks", lambda: channel.looks() >= looks + 3)
    assert device.status().state == "idle"
    assert "Installation cancelled" in device.why()
    assert device.history() == ["cancelled", "cancelled"]
    channel.server.rate = 0
    channel.publish("2.0.1")
    look(device)
    device.wait_said("installed: Installed to rootfs.1.")
