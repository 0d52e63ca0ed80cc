"""What policy holds back is asked about again and again, but not the server that has it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from tests.fakes.web import serving
from tests.service.clock import Clock
from tests.service.conftest import MakeDevice
from tests.service.rig import COMPATIBLE, Vendor
from updated.api.client import Client

CONF = """
[confirm]
stable-for = {{stable_for}}
[ota]
index = "{0}"
interval = 60
[policy]
inhibit-files = ["{{root}}/sale"]
"""
BUNDLE = "/b.raucb"


def test_nothing_is_fetched_while_it_waits(devices: MakeDevice, vendor: Vendor, tmp_path: Path) -> None:
    """Applications take and release their holds all day; in the end, it is looked at once more."""
    bundle = vendor.bundle("2.0.0")
    with serving({BUNDLE: bundle}) as server:
        server.files["/index.json"] = json.dumps({"channels": {"stable": entry(bundle)}}).encode()
        clock = Clock(tmp_path, boottime_factor=300)
        device = devices(agent_conf=CONF.format(server.url("/index.json")), env=clock.env, start=False)
        (device.root / "sale").touch()
        device.start()
        device.wait_said("waits while")
        looked_at = server.counts[BUNDLE]
        assert looked_at >= 1
        said = device.said().count("\n")
        device.call(lambda client: sell(client, times=20))
        assert server.counts[BUNDLE] == looked_at
        assert device.said().count("\n") < said + 5
        (device.root / "sale").unlink()
        device.call(lambda client: sell(client, times=1))
        device.wait_said("installed: Installed to rootfs.1.")
        assert device.history() == ["installed"]


def entry(bundle: Path) -> dict[str, str]:
    digest = hashlib.sha256(bundle.read_bytes()).hexdigest()
    return {
        "version": "2.0.0",
        "compatible": COMPATIBLE,
        "bundle_url": BUNDLE,
        "bundle_sha256": digest,
    }


async def sell(client: Client, *, times: int) -> None:
    """A hold for a moment, after which everything is thought over."""
    for _ in range(times):
        async with client.holding("till", "a sale", 60):
            pass
        await client.why()
