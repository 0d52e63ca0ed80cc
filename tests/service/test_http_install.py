"""`updated install http://...`: the real service, and a server that is right, poor, or lies."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.fakes.web import Fault, Server, serving
from tests.service.conftest import MakeDevice
from tests.service.rig import Device, Vendor, until, updated

ALONE = "[confirm]\nstable-for = {stable_for}\n"
SMALL = 256 << 10  # bytes; journals, logs of checkpoints, messages: what is written beside the image
NOISE = 8 << 20  # bytes
DEAD = Fault(cut=0, how="reset")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as web:
        yield web


@pytest.fixture(scope="module")
def device(module_devices: MakeDevice) -> Device:
    """One for all: each install begins where the one before has ended."""
    return module_devices(agent_conf=ALONE)


def offered(server: Server, bundle: Path, *faults: Fault, path: str = "/b.raucb") -> str:
    """The URL of `bundle`; requests are counted anew."""
    server.files, server.faults = {path: bundle}, {path: faults}
    server.counts.clear()
    server.sent.clear()
    server.requests.clear()
    return server.url(path)


def noise(vendor: Vendor, bundle_format: str = "verity") -> Path:
    """A bundle as large as what it holds."""
    return vendor.bundle("3.0.0", images={"rootfs.ext4": vendor.noise(NOISE)}, bundle_format=bundle_format)


def well(device: Device, server: Server, vendor: Vendor) -> None:
    """The service is there at once, and the next good bundle is installed."""
    assert device.status().state in ("idle", "reboot-pending")
    assert device.call(lambda client: client.system()).operation == "idle"
    assert device.install(offered(server, vendor.bundle("2.0.0"))) == ""
    assert device.content("B") == vendor.system("2.0.0")
    assert device.primary() == "B"


def test_nothing_of_a_bundle_lands_on_the_disk(device: Device, server: Server, vendor: Vendor) -> None:
    """All that is written is the image; what is fetched is the bundle, once."""
    bundle = noise(vendor)
    url = offered(server, bundle)
    server.rate = 24 << 20
    before = device.written()
    try:
        with device.installing(url) as running:
            progress = device.wait_fetched(1 << 20).progress
            assert max(device.data_files().values()) < SMALL
            assert running.result() == ""
    finally:
        server.rate = 0
    size = bundle.stat().st_size
    assert progress["bundle"] == size
    assert progress["fetched"] <= size
    assert NOISE <= device.written() - before < NOISE + SMALL
    assert size * 0.9 < server.sent["/b.raucb"] < size * 1.05
    assert device.content("B", NOISE) == vendor.noise(NOISE)
    assert device.outcomes()[0]["location"] == url


def test_from_the_command_line_to_the_confirmed_system(
    device: Device, server: Server, vendor: Vendor
) -> None:
    url = offered(server, vendor.bundle("2.0.0"))
    told = updated(device.address, "install", url.replace("http://", "http://user:secret@") + "?token=secret")
    assert (told.returncode, told.stderr) == (0, "")
    assert re.search(r"100% Installing done\.\n.*succeeded", told.stdout, re.DOTALL), told.stdout
    assert "Basic" in server.requests[-1].headers["authorization"]
    assert device.reboot() == ["B"]
    device.wait_rest("confirmed")
    device.wait_state("idle")
    shown = updated(device.address, "history").stdout + updated(device.address, "status").stdout
    assert url in shown
    assert "secret" not in shown + device.log()
    device.write_env({"ORDER": "A B", "A_OK": "1", "A_TRY": "0", "B_OK": "1", "B_TRY": "0"})
    assert device.reboot() == ["A"]
    device.wait_said("marked rootfs.0 as good")


def test_what_must_be_fetched_as_a_whole_is_spooled(device: Device, server: Server, vendor: Vendor) -> None:
    """A plain bundle, and one on a server without ranges; the spool is empty afterwards."""
    plain = noise(vendor, bundle_format="plain")
    ways: Sequence[tuple[Path, tuple[Fault, ...]]] = [
        (plain, ()),
        (noise(vendor), (Fault(ranges=False),)),
        (noise(vendor), (Fault(ranges=False, chunked=True, etag="", modified=""),)),
    ]
    for bundle, faults in ways:
        url = offered(server, bundle, *faults)
        server.rate = 24 << 20
        with device.installing(url) as running:
            until("the spool", lambda: max(device.data_files().values()) > 2 << 20 or running.done())
            assert any(name.startswith("spool/") for name in device.data_files())
            server.rate = 0
            assert running.result() == ""
        assert device.content("B", NOISE) == vendor.noise(NOISE)
        assert [name for name in device.data_files() if name.startswith("spool/")] == []
        assert server.sent["/b.raucb"] < bundle.stat().st_size * 1.1 + (1 << 20)


def test_plain_straight_into_the_slot_or_not_at_all(device: Device, server: Server, vendor: Vendor) -> None:
    plain = noise(vendor, bundle_format="plain")
    try:
        device.reload(f'{ALONE}[install]\nplain-over-http = "direct"\n')
        before = device.written()
        assert device.install(offered(server, plain)) == ""
        assert device.written() - before < NOISE + SMALL
        assert device.content("B", NOISE) == vendor.noise(NOISE)
        # Changed in its payload it is known to be bad only after it was written: it never becomes primary.
        changed = bytearray(plain.read_bytes())
        changed[NOISE // 2] ^= 1
        bad = plain.with_suffix(".bad")
        bad.write_bytes(changed)
        assert "has the SHA-256" in device.install(offered(server, bad))
        assert device.primary() == "A"

        device.reload(f'{ALONE}[install]\nplain-over-http = "refuse"\n')
        before_all = device.untouched()
        said = device.install(offered(server, plain))
        assert said == "Bundle format 'plain' not supported in streaming mode"
        assert 'plain-over-http = "spool"' in device.outcomes()[0]["text"]
        assert device.untouched() == before_all
        assert server.sent["/b.raucb"] < 1 << 20
    finally:
        device.reload(ALONE)
    well(device, server, vendor)


def test_no_room_to_spool(device: Device, server: Server, vendor: Vendor) -> None:
    """More is to stay free than there is: said before anything is fetched."""
    files, untouched = device.data_files(), device.untouched()
    try:
        device.reload(f"{ALONE}[install]\nspool-reserve = {2**50}\n")
        for bundle, fault in (
            (noise(vendor, bundle_format="plain"), Fault()),
            (noise(vendor), Fault(ranges=False)),
        ):
            server.rate = 24 << 20  # or the kernel's buffers take all of it
            said = device.install(offered(server, bundle, fault))
            server.rate = 0
            assert "No space to spool the bundle in" in said
            assert f"of which {2**50} are reserved" in said
            assert "spool-reserve" in device.outcomes()[0]["text"]
            assert device.data_files().keys() == files.keys()
            assert device.untouched() == untouched
            assert server.sent["/b.raucb"] < 2 << 20
        assert device.install(offered(server, noise(vendor))) == ""  # needs no room
    finally:
        device.reload(ALONE)
    well(device, server, vendor)


HTML = b"<!doctype html><html><title>Hotel Wi-Fi</title><body>Please log in</body></html>"
BEFORE_ANYTHING: dict[str, tuple[Fault, str]] = {
    "captive portal": (
        Fault(status=200, body=HTML, headers={"Content-Type": "text/html"}),
        "expected a bundle, got",
    ),
    "not there": (Fault(status=404), "404"),
    "forbidden": (Fault(status=403), "403"),
    "login": (Fault(status=401), "401"),
    "round and round": (Fault(redirect="/b.raucb?{n}"), "more than"),
    "to a file": (Fault(redirect="file:///etc/passwd"), "file:///etc/passwd"),
    "compressed": (Fault(gzip=True), "gzip"),
    "several parts": (Fault(multipart=True), "without a good Content-Range"),
    "another part": (Fault(shift=1), "another part"),
    "no bytes": (Fault(content=b""), "416"),
    "something else": (Fault(content=b"x" * 500_000), "bundle"),
}


@pytest.mark.parametrize("lie", BEFORE_ANYTHING)
def test_a_lie_that_is_found_out_before_anything_is_written(
    lie: str, device: Device, server: Server, vendor: Vendor
) -> None:
    fault, words = BEFORE_ANYTHING[lie]
    before = device.untouched()
    said = device.install(offered(server, vendor.bundle("2.0.0"), fault))
    assert words in said, said
    assert device.call(lambda client: client.system()).last_error == said
    assert device.untouched() == before
    assert device.outcomes()[0]["code"] == "failed"
    assert device.status().state in ("idle", "reboot-pending")
    assert sum(server.counts.values()) < 20
    assert "a bug" not in device.said()


LATE: dict[str, tuple[Fault, str]] = {
    "another object, same name": (Fault(content=b"x" * 9_000_000), "changed while it was read"),
    "gone": (Fault(status=404), "404"),
    "a login page": (
        Fault(status=200, body=HTML, headers={"Content-Type": "text/html"}),
        "changed while it was read",
    ),
    "no tag any more": (Fault(etag="", modified=""), "changed while it was read"),
}


@pytest.mark.parametrize("lie", LATE)
def test_a_lie_in_the_middle(lie: str, device: Device, server: Server, vendor: Vendor) -> None:
    """The target is bad, the running group is what starts next; then all is well again."""
    fault, words = LATE[lie]
    url = offered(server, noise(vendor), Fault(cut=1 << 20, how="reset"))  # a short read is not cut
    with device.installing(url) as running:
        until("the stream", lambda: server.sent["/b.raucb"] > 1 << 20)
        server.faults = {"/b.raucb": [fault]}
        said = running.result()
    assert words in said, said
    assert said.startswith("Installation error: Failed updating slot rootfs.1: ")
    assert device.primary() == "A"
    assert device.read_env()["B_OK"] == "0"
    assert device.outcomes()[0]["code"] == "failed"
    assert device.slot("rootfs.1")["status"] == "failed"
    well(device, server, vendor)
    assert "a bug" not in device.said()


def test_wrong_bytes_with_the_right_tag(device: Device, server: Server, vendor: Vendor) -> None:
    """Whatever a server sends: only what is signed gets into a slot."""
    bundle = noise(vendor)
    changed = bytearray(bundle.read_bytes())
    changed[NOISE // 2] ^= 1
    whole = bundle.stat()
    tag = f'"{whole.st_mtime_ns:x}-{whole.st_size:x}"'
    said = device.install(offered(server, bundle, Fault(content=bytes(changed), etag=tag)))
    assert "Failed updating slot rootfs.1" in said, said
    assert device.primary() == "A"
    # Only once: a proxy's cache was sick.
    url = offered(server, bundle, Fault(first=1, last=2, content=bytes(changed), etag=tag))
    assert device.install(url) == ""
    assert device.content("B", NOISE) == vendor.noise(NOISE)
    well(device, server, vendor)


def test_a_server_that_comes_back(device: Device, server: Server, vendor: Vendor) -> None:
    """It dies again and again: the install goes on where it was."""
    bundle = noise(vendor)
    faults = [
        Fault(first=2, last=2, cut=2 << 20, how="reset"),
        Fault(first=3, last=3, cut=0, how="reset"),
        Fault(first=4, last=4, status=503),
        Fault(first=5, last=5, cut=2 << 20, how="close"),
    ]
    assert device.install(offered(server, bundle, *faults)) == ""
    assert device.content("B", NOISE) == vendor.noise(NOISE)
    assert server.counts["/b.raucb"] >= 6
    assert server.sent["/b.raucb"] < bundle.stat().st_size + (3 << 20)


def test_a_server_that_is_not_there(device: Device, vendor: Vendor, server: Server) -> None:
    """Nobody listens; no such name; no host at all."""
    before = device.untouched()
    for url, words in (
        ("http://127.0.0.1:1/b.raucb", "127.0.0.1:1"),
        ("http:///b.raucb", ""),
        ("http://[::1/b.raucb", ""),
        ("ftp://127.0.0.1/b.raucb", "not supported"),
    ):
        said = device.install(url)
        assert said
        assert words in said
    assert device.untouched() == before
    well(device, server, vendor)
