"""Secrets: files that are missing or come later, and what is written down of them."""

from __future__ import annotations

import shutil

from tests.fakes.web import Fault, serving
from tests.service.conftest import MakeDevice
from tests.service.rig import Vendor

CONF = """
[folder]
path = "{root}/drop"
[confirm]
stable-for = {stable_for}
[http]
bearer-token-file = "{root}/etc/token"
"""


def test_a_token_that_is_not_there_yet(devices: MakeDevice, vendor: Vendor) -> None:
    """The service starts, the folder is served, a server is not; with the token it is, without a reload."""
    bundle = vendor.bundle("2.0.0")
    device = devices(agent_conf=CONF)
    with serving({"/b.raucb": bundle}, {"/b.raucb": [Fault(needs="Bearer t0ken")]}) as server:
        said = device.install(server.url("/b.raucb"))
        assert said.startswith("bearer-token-file in [http] of updated.toml: ")
        assert said.endswith("cannot be read: No such file or directory")
        assert server.requests == []
        shutil.copy(bundle, device.root / "drop/b.raucb")
        device.wait_said("installed: Installed to rootfs.1.")
        (device.root / "etc/token").write_text("t0ken\n")
        assert device.install(server.url("/b.raucb")) == ""
    assert device.history() == ["failed", "installed", "installed"]
    assert "t0ken" not in device.log()


def test_what_is_secret_in_a_url_is_not_kept(devices: MakeDevice, vendor: Vendor) -> None:
    """The history and the journal hold a URL as it is shown."""
    device = devices()
    with serving({"/b.raucb": vendor.bundle("2.0.0")}) as server:
        url = server.url("/b.raucb", user="anna:s3cret") + "?sig=s3cret&s3cret#s3cret"
        assert device.install(url) == ""
        shown = server.url("/b.raucb?sig=…&…")
    assert device.saved("history.json")[-1]["location"] == shown
    assert device.outcomes()[0]["location"] == shown
    kept = {path.name for path in (device.root / "data").rglob("*") if path.is_file()}
    assert {"history.json", "journal.json"} <= kept
    leaky = [p for p in (device.root / "data").rglob("*") if p.is_file() and b"s3cret" in p.read_bytes()]
    assert leaky == []
    assert "s3cret" not in device.log()
