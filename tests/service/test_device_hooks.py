"""The device's own programs around an update: in order, with what they must know, also after a power cut."""

from __future__ import annotations

import shutil

from tests.service.conftest import MakeDevice
from tests.service.rig import Device, Vendor, until, updated

CONF = """
[folder]
path = "{root}/drop"

[confirm]
stable-for = 0
deadline = 1

[[confirm.checks]]
type = "command"
name = "shop"
command = ["sh", "-c", "! grep slot=B {root}/run/cmdline || test -e {root}/well"]
period = 0.1

[reboot]
command = ["touch", "{root}/rebooted"]
"""
# Tells what it is told, then waits while it is held.
SCRIPT = """\
#!/bin/sh
echo "$UPDATED_HOOK $UPDATED_VERSION $UPDATED_BOOTED $UPDATED_TARGET $UPDATED_SOURCE" >> {root}/hooked
echo "$UPDATED_REASON" > {root}/reason
while test -e {root}/hold-$UPDATED_HOOK; do sleep 0.05; done
echo "3 files saved"
"""
HOOKS = """
[hooks]
on-installed = ["{root}/hook"]
on-confirmed = ["{root}/hook"]
on-fallback = ["{root}/hook"]
"""


def with_hooks(devices: MakeDevice, more: str = "", reboot: str = "") -> Device:
    device = devices(agent_conf=CONF + reboot + HOOKS + more, start=False)
    (device.root / "hook").write_text(SCRIPT.format(root=device.root))
    (device.root / "hook").chmod(0o755)
    device.start()
    device.wait_said("marked rootfs.0 as good")
    return device


def hooked(device: Device) -> list[str]:
    """What was run, with what it was told."""
    path = device.root / "hooked"
    return path.read_text().splitlines() if path.exists() else []


def asked_to_reboot(device: Device) -> bool:
    return (device.root / "rebooted").exists()


def hook_lines(device: Device) -> list[str]:
    """Of the history, the oldest first."""
    return [line["text"] for line in device.outcomes() if line["code"] == "hook"][::-1]


def test_when_it_goes_well(devices: MakeDevice, vendor: Vendor) -> None:
    device = with_hooks(devices)
    (device.root / "well").touch()
    assert device.install(vendor.bundle()) == ""
    device.wait_rest("hook")
    assert hooked(device) == ["on-installed 2.0.0 rootfs.0 rootfs.1 request"]
    assert device.reboot() == ["B"]
    until("the second one", lambda: device.history().count("hook") == 2, device.log)
    assert hooked(device)[1:] == ["on-confirmed 2.0.0 rootfs.1 rootfs.1 request"]
    assert device.history() == ["installed", "hook", "confirmed", "hook"]
    assert device.status().last_result["code"] == "confirmed"  # a hook is no end of an update
    for line, kind in zip(hook_lines(device), ("installed", "confirmed"), strict=True):
        assert line.startswith(f"on-{kind}: Done after ")
        assert line.endswith(" s: 3 files saved")
    assert "3 files saved" in updated(device.address, "history").stdout


def test_after_a_fallback_sources_wait(devices: MakeDevice, vendor: Vendor) -> None:
    """It may carry data back from the new system's format: nothing begins before its end."""
    device = with_hooks(devices)
    assert device.install(vendor.bundle()) == ""
    device.wait_rest("hook")
    assert device.reboot() == ["B"]
    until("the reboot", lambda: asked_to_reboot(device))
    (device.root / "hold-on-fallback").touch()
    shutil.copy(vendor.bundle("3.0.0"), device.root / "drop")
    assert device.reboot() == ["A"]
    until("the hook", lambda: len(hooked(device)) == 2)
    device.wait_said("marked rootfs.0 as good")
    assert hooked(device)[1] == "on-fallback 2.0.0 rootfs.0 rootfs.1 request"
    assert (device.root / "reason").read_text().startswith("shop: not healthy for 0 s within 1 s")
    assert device.status().detail.endswith("The hook on-fallback runs.")
    assert device.history()[-1] == "fallback"
    (device.root / "hold-on-fallback").unlink()
    until("the next install", lambda: "installed" in device.history()[3:])
    assert device.history()[:5] == ["installed", "hook", "fallback", "hook", "installed"]


def test_the_reboot_waits_for_it(devices: MakeDevice, vendor: Vendor) -> None:
    """A backup is no use if the reboot comes in the middle of it; nobody may ask for it, either."""
    device = with_hooks(devices, reboot='when = "immediately"\n')
    (device.root / "hold-on-installed").touch()
    assert device.install(vendor.bundle()) == ""
    until("the hook", lambda: hooked(device))
    status = device.status()
    assert status.state == "reboot-pending"
    assert status.detail.endswith("The hook on-installed runs.")
    assert not asked_to_reboot(device)
    refused = updated(device.address, "reboot")
    assert "The hook on-installed is not over yet" in refused.stderr
    (device.root / "hold-on-installed").unlink()
    until("the reboot", lambda: asked_to_reboot(device))
    assert hook_lines(device)[0].startswith("on-installed: Done")


def test_one_that_fails_or_hangs(devices: MakeDevice, vendor: Vendor) -> None:
    """Told; the update goes on without it."""
    device = with_hooks(devices, more="timeout = 1\n", reboot='when = "immediately"\n')
    (device.root / "well").touch()
    (device.root / "hold-on-installed").touch()
    assert device.install(vendor.bundle()) == ""
    until("the reboot", lambda: asked_to_reboot(device))
    (line,) = hook_lines(device)
    assert line == f"on-installed: Failed: {device.root}/hook did not finish within 1 s."
    assert "hook on-installed failed" in device.said().lower()
    (device.root / "hook").write_text("#!/bin/sh\necho no room >&2\nexit 3\n")
    assert device.reboot() == ["B"]
    until("the second one", lambda: device.history().count("hook") == 2, device.log)
    assert "on-confirmed: Failed with exit code 3 after " in hook_lines(device)[1]
    assert hook_lines(device)[1].endswith(": no room")
    assert device.status().state == "idle"


def test_a_power_cut_in_the_middle_of_it(devices: MakeDevice, vendor: Vendor) -> None:
    """It runs again: before the reboot in the same boot, and after the fallback in the next one, too."""
    device = with_hooks(devices, reboot='when = "immediately"\n')
    (device.root / "hold-on-installed").touch()
    assert device.install(vendor.bundle()) == ""
    until("the hook", lambda: len(hooked(device)) == 1)
    device.stop_service(kill=True)
    device.start()
    until("the hook again", lambda: len(hooked(device)) == 2)
    assert not asked_to_reboot(device)
    (device.root / "hold-on-installed").unlink()
    until("the reboot", lambda: asked_to_reboot(device))
    assert len(hook_lines(device)) == 1

    (device.root / "rebooted").unlink()
    assert device.reboot() == ["B"]
    until("the reboot", lambda: asked_to_reboot(device))
    (device.root / "hold-on-fallback").touch()
    assert device.reboot() == ["A"]
    until("the hook", lambda: len(hooked(device)) == 3)
    assert device.reboot(kill=True) == ["A"]
    until("the hook again", lambda: len(hooked(device)) == 4)
    (device.root / "hold-on-fallback").unlink()
    until("its end", lambda: len(hook_lines(device)) == 2)
    assert hooked(device)[2] == hooked(device)[3] == "on-fallback 2.0.0 rootfs.0 rootfs.1 request"
    assert device.history() == ["installed", "hook", "fallback", "hook"]
    until("nothing to be run", lambda: device.saved("hooks.json") == [])
