"""A new system proves that it is healthy, or the device goes back by itself, and never tries it again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.fakes.web import Fault, serving
from tests.service.conftest import MakeDevice
from tests.service.rig import Device, Vendor, until, updated

CONF = """
[folder]
path = "{{root}}/drop"

[confirm]
stable-for = 0
deadline = 1
fallback = "{fallback}"

[reboot]
command = ["touch", "{{root}}/rebooted"]
"""
LOCAL = """
[[confirm.checks]]
type = "command"
name = "shop"
command = ["sh", "-c", "if grep slot=B {root}/run/cmdline; then exit 3; fi"]
period = 0.1
"""  # fails in the new system only
SICK = "shop: not healthy for 0 s within 1 s: exit code 3, expected exit code 0: quiet rauc.slot=B"


def conf(*checks: str, fallback: str = "reboot") -> str:
    return CONF.format(fallback=fallback) + "".join(checks)


def file_check(more: str = "") -> str:
    """Holds while the test wants it to."""
    command = 'command = ["cat", "{root}/well"]\nperiod = 0.1\n'
    return f'[[confirm.checks]]\ntype = "command"\nname = "well"\n{command}{more}'


def asked_to_reboot(device: Device) -> bool:
    return (device.root / "rebooted").exists()


def started_anew(device: Device, vendor: Vendor) -> None:
    """Version 2.0.0 is installed and runs, perhaps not for long."""
    assert device.install(vendor.bundle()) == ""
    assert device.reboot() == ["B"]


def health(device: Device) -> dict[str, object]:
    found: dict[str, object] = device.call(lambda client: client.health(1))[0]
    return found


def test_not_healthy_in_time(devices: MakeDevice, vendor: Vendor) -> None:
    """Marked bad, reboot, back, told, quarantined under any name, until a person lifts it."""
    device = devices(agent_conf=conf(LOCAL))
    shutil.copy(vendor.bundle(), device.root / "drop/first.raucb")
    device.wait_said("installed:")
    assert device.reboot() == ["B"]
    trial = (device.root / "run/boot-id").read_text().strip()
    until("the reboot", lambda: asked_to_reboot(device))
    assert device.read_env()["B_OK"] == "0"
    status = device.status()
    assert status.state == "confirming"
    assert f"was given up: {SICK}; rootfs.0 starts next." in status.detail
    assert "The reboot was asked for." in status.detail
    assert (health(device)["state"], health(device)["decided"]) == ("bad", "shop")

    assert device.reboot() == ["A"]
    device.wait_said("is not installed: Quarantined")
    (last, *_) = device.outcomes()
    assert last["code"] == "fallback"
    assert last["text"] == f"The bootloader fell back to rootfs.0. Cause: {SICK}."
    assert device.history() == ["installed", "fallback"]
    (kept,) = device.call(lambda client: client.quarantine())
    assert (kept["version"], kept["reason"], kept["boot-id"]) == ("2.0.0", SICK, trial)
    assert kept["time"].startswith("20")
    shown = updated(device.address, "quarantine", "list").stdout
    assert kept["manifest-hash"] in shown
    assert SICK in shown
    device.wait_said("marked rootfs.0 as good")

    shutil.copy(vendor.bundle(), device.root / "drop/second.raucb")
    device.wait_said("second.raucb is not installed: Quarantined")
    assert "Version 2.0.0 is quarantined" in device.why()
    lifted = updated(device.address, "quarantine", "lift", kept["manifest-hash"])
    assert (lifted.returncode, lifted.stdout) == (
        0,
        f"Bundle {kept['manifest-hash']} may be installed again.\n",
    )
    assert updated(device.address, "quarantine", "list").stdout == "Nothing is quarantined.\n"
    device.wait_rest("installed")
    assert device.primary() == "B"


def test_the_way_back_without_a_reboot(devices: MakeDevice, vendor: Vendor) -> None:
    """fallback = "manual": marked bad at once, and whatever reboots next leads back."""
    device = devices(agent_conf=conf(LOCAL, fallback="manual"))
    started_anew(device, vendor)
    device.wait_said("marked rootfs.1 as bad")
    status = device.wait_state("confirming")
    until("the end of judging", lambda: "rootfs.0 starts next." in device.status().detail)
    assert not asked_to_reboot(device)
    assert "confirm" not in status.last_result.get("code", "")
    done = updated(device.address, "reboot")
    assert done.returncode == 0, done.stderr
    until("the reboot", lambda: asked_to_reboot(device))
    assert device.reboot() == ["A"]
    device.wait_said("fallback:")


def test_it_holds_late(devices: MakeDevice, vendor: Vendor) -> None:
    """As late as it likes, before its deadline; the verdict says what was asked."""
    device = devices(agent_conf=conf(file_check()).replace("deadline = 1", "deadline = 60"), start=False)
    (device.root / "well").touch()
    device.start()
    device.wait_said("marked rootfs.0 as good")
    assert device.install(vendor.bundle()) == ""
    (device.root / "well").unlink()
    assert device.reboot() == ["B"]

    def seen() -> bool:
        looks = [one for one in health(device)["checks"] if one["name"] == "well"]  # type: ignore[attr-defined]
        return [one["state"] for one in looks] == ["bad"]

    device.wait_state("confirming")
    until("a look", seen)
    assert device.status().state == "confirming"
    (device.root / "well").write_text("all tills are open\n")
    device.wait_said("confirmed: Version 2.0.0")
    assert device.read_env()["B_TRY"] == "0"
    shown = updated(device.address, "health")
    assert shown.returncode == 0
    assert "Healthy for 0 s: well." in shown.stdout
    assert "all tills are open" in shown.stdout


def test_one_that_flaps_never_holds_for_long_enough(devices: MakeDevice, vendor: Vendor) -> None:
    script = "n=$(cat {root}/count || echo 0); echo $((n+1)) > {root}/count; exit $((n % 2))"
    flapping = f"""
[[confirm.checks]]
type = "command"
name = "flapping"
command = ["sh", "-c", "grep slot=A {{root}}/run/cmdline || ({script})"]
period = 0.1
"""
    text = conf(flapping).replace("stable-for = 0\n", "stable-for = 0.5\n")
    device = devices(agent_conf=text.replace("deadline = 1", "deadline = 2"))
    started_anew(device, vendor)
    until("the reboot", lambda: asked_to_reboot(device))
    assert "flapping: not healthy for 0.5 s within 2 s" in str(health(device)["text"])
    assert int((device.root / "count").read_text()) > 4


def test_optional_ones_decide_nothing(devices: MakeDevice, vendor: Vendor) -> None:
    """They are shown."""
    device = devices(agent_conf=conf(LOCAL, "required = false\n"))
    started_anew(device, vendor)
    device.wait_said("confirmed: Version 2.0.0")
    found = json.loads(updated(device.address, "health", "--output-format=json").stdout)[0]
    assert found["state"] == "good"
    assert [check["name"] for check in found["checks"]][-1] == "shop"
    assert found["checks"][-1]["required"] is False


# Servers.  0.0.0.0 is no address of this device, but leads to it.


def server_check(url: str) -> str:
    return f"""
[[confirm.checks]]
type = "http"
name = "cloud"
url = "{url}"
required = true
period = 0.1
timeout = 1
"""


def test_what_the_old_system_could_not_reach_either_does_not_count(
    devices: MakeDevice, vendor: Vendor
) -> None:
    device = devices(agent_conf=conf(server_check("http://cloud.invalid/")), start=False)
    device.start()
    assert device.install(vendor.bundle()) == ""
    until("what is unreachable", (device.root / "data/unreachable.json").exists)
    assert device.reboot() == ["B"]
    device.wait_said("confirmed: Version 2.0.0")
    shown = updated(device.address, "health").stdout
    assert "cloud (does not count: the system before could not reach it either)" in shown
    assert device.saved("unreachable.json") == []  # the next one is asked anew


def with_server(device: Device, vendor: Vendor) -> None:
    """Installed while the server is there; then it vanishes, and the device goes back."""
    with serving({"/": Path(__file__)}) as server:
        device.reload(conf(server_check(far(server.url("/")))))
        assert device.install(vendor.bundle()) == ""
        until("a look at the server", lambda: len(server.requests) > 0)
    assert device.reboot() == ["B"]
    until("the reboot", lambda: asked_to_reboot(device))
    (device.root / "rebooted").unlink()


def far(url: str) -> str:
    return url.replace("127.0.0.1", "0.0.0.0")


def test_a_server_that_vanishes_is_not_held_against_the_new_system(
    devices: MakeDevice, vendor: Vendor
) -> None:
    """It goes back; then the old system finds that it is no better off, and the bundle has another chance.

    But one only: a bundle that takes the server away would be installed for ever.
    """
    device = devices(agent_conf=conf())
    with_server(device, vendor)
    assert device.reboot() == ["A"]
    until("the excuse", lambda: "excused" in device.history())
    assert device.history() == ["installed", "fallback", "excused"]
    assert device.outcomes()[0]["text"] == (
        "Not held against version 2.0.0: cloud cannot be reached from here either."
    )
    assert device.call(lambda client: client.quarantine()) == []

    with_server(device, vendor)
    assert device.reboot() == ["A"]
    device.wait_said("version 2.0.0 was excused before: it stays quarantined")
    assert len(device.call(lambda client: client.quarantine())) == 1


def test_an_outage_does_not_use_up_the_attempts_of_ordinary_boots(
    devices: MakeDevice, vendor: Vendor
) -> None:
    """Else a fleet that is switched off at night would be back in the old system after three days."""
    device = devices(agent_conf=conf())
    with serving({"/": Path(__file__)}) as server:
        device.reload(conf(server_check(far(server.url("/")))))
        assert device.install(vendor.bundle()) == ""
        assert device.reboot() == ["B"]
        device.wait_said("confirmed: Version 2.0.0")
    assert device.reboot() == ["B"]
    device.wait_said("marked rootfs.1 as good")
    assert device.read_env()["B_TRY"] == "0"
    shown = updated(device.address, "health").stdout
    assert "cloud (does not count: other machines are asked for on a trial only)" in shown


def test_a_network_that_comes_up_late_excuses_nothing(devices: MakeDevice, vendor: Vendor) -> None:
    """Else a new system without a network would be installed again after each fallback, for ever."""
    device = devices(agent_conf=conf())
    with_server(device, vendor)
    with serving({"/": Path(__file__)}) as server:
        server.faults["/"] = [Fault(last=10, status=503)]
        agent_conf = conf(server_check(far(server.url("/")))).replace("deadline = 1", "deadline = 60")
        (device.root / "etc/updated.toml").write_text(agent_conf.format(root=device.root))
        assert device.reboot() == ["A"]
        device.wait_said("cloud can be reached from here: version 2.0.0 stays quarantined")
        device.wait_said("marked rootfs.0 as good")
    assert device.history() == ["installed", "fallback"]
    assert len(device.call(lambda client: client.quarantine())) == 1


HEARTBEAT = """
[[confirm.checks]]
type = "heartbeat"
application = "till"
within = 60
required = true
period = 0.1
"""


def test_heartbeat(devices: MakeDevice, vendor: Vendor) -> None:
    """By D-Bus in the old system, by the command in the new one, which waits for it."""
    device = devices(agent_conf=conf(HEARTBEAT).replace("deadline = 1", "deadline = 60"))
    device.call(lambda client: client.heartbeat("till"))  # what could be heard before counts
    assert device.install(vendor.bundle()) == ""
    assert device.reboot() == ["B"]
    device.wait_state("confirming")
    refused = updated(device.address, "heartbeat", "tell")
    assert refused.returncode != 0
    assert "No heartbeat of 'tell' is expected" in refused.stderr
    assert "Known are: till." in refused.stderr
    assert device.status().state == "confirming"
    assert updated(device.address, "heartbeat", "till").returncode == 0
    device.wait_said("confirmed: Version 2.0.0")


def test_killed_while_it_judges(devices: MakeDevice, vendor: Vendor) -> None:
    """Started again it has no more time than it had; it looks before it condemns."""
    device = devices(agent_conf=conf(LOCAL).replace("deadline = 1", "deadline = 3"))
    started_anew(device, vendor)
    device.wait_state("confirming")
    boot_id = (device.root / "run/boot-id").read_text().strip()
    until("the judging", lambda: boot_id in (device.root / "run/judging.json").read_text())
    began = json.loads((device.root / "run/judging.json").read_text())
    for _ in range(2):
        device.wait_state("confirming")
        assert not asked_to_reboot(device)
        device.stop_service(kill=True)
        device.start()
    assert json.loads((device.root / "run/judging.json").read_text()) == began
    until("the reboot", lambda: asked_to_reboot(device))
    assert device.read_env()["B_OK"] == "0"


HOSTILE = {
    "garbage": b"\x00\xff{[",
    "another type": b'{"boot_id": [], "monotonic": "now", "a": {}}',
    "torn": b'[{"boot_id": "x", "gro',
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("content", [*HOSTILE, "a folder"])
def test_memory_that_is_damaged(devices: MakeDevice, content: str) -> None:
    """Said, set aside, and the system is judged all the same."""
    device = devices(agent_conf=conf(), start=False)
    data = device.root / "data"
    names = ("health.json", "hooks.json", "unreachable.json", "left.json")
    paths = [device.root / "run/judging.json", *(data / name for name in names)]
    for path in paths:
        if content == "a folder":
            path.mkdir()
        else:
            path.write_bytes(HOSTILE[content])
    device.start()
    device.wait_said("marked rootfs.0 as good")
    for path in paths:
        device.wait_said(f"{path.name} cannot be read")
        assert path.with_name(f"{path.name}.broken").exists()
    assert "bug" not in device.said()


@pytest.mark.parametrize("began", [-1e300, 1e300, 0.0])
def test_a_beginning_that_cannot_be(devices: MakeDevice, vendor: Vendor, began: float) -> None:
    """Whatever it says: there is time to look, and a healthy system is found healthy."""
    device = devices(agent_conf=conf(file_check()).replace("deadline = 1", "deadline = 2"), start=False)
    (device.root / "well").touch()
    device.start()
    device.wait_said("marked rootfs.0 as good")
    assert device.install(vendor.bundle()) == ""
    device.stop_service()
    config = device.root / "etc/updated.toml"
    config.write_text(config.read_text().replace("stable-for = 0\n", "stable-for = 1\n"))
    assert device.power_on() == ["B"]
    boot_id = (device.root / "run/boot-id").read_text().strip()
    (device.root / "run/judging.json").write_text(json.dumps({"boot_id": boot_id, "monotonic": began}))
    device.start()
    device.wait_said("confirmed: Version 2.0.0")
    assert not asked_to_reboot(device)
