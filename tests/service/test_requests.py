"""Requests while something else goes on: one at a time, cancelled at any moment, and always an answer."""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from tests.service.conftest import MakeDevice
from tests.service.rig import Device, Saboteur, Vendor, eventually, install, operation, rauc, until, updated
from updated.api.client import Client
from updated.core.model import InstallArgs
from updated.errors import UpdatedError

T = TypeVar("T")
BUSY = "Already processing a different method"
READ, WRITE, SYNC, RENAME = Saboteur.READ, Saboteur.WRITE, Saboteur.SYNC, Saboteur.RENAME
NO_FOLDER = "[confirm]\nstable-for = {stable_for}\n"


async def refused(work: Awaitable[object]) -> str:
    try:
        await work
    except UpdatedError as error:
        return str(error)
    raise AssertionError("it was not refused")


def held(
    device: Device,
    saboteur: Saboteur,
    vendor: Vendor,
    where: tuple[int, int, str],
    work: Callable[[Client], Awaitable[T]],
) -> tuple[str, T]:
    """Install; do `work` while the service is held; (why the install failed, what `work` returned)."""

    async def run() -> tuple[str, T]:
        saboteur.hold(*where)
        async with Client(device.address) as client, Client(device.address) as other:
            running = asyncio.create_task(install(client, vendor.bundle()))
            try:
                await eventually("the call that is held", lambda: saboteur.acted)
                done = await work(other)
            finally:
                saboteur.release()
            return await running, done

    return asyncio.run(run())


def test_one_at_a_time(devices: MakeDevice, vendor: Vendor, saboteur: Saboteur) -> None:
    """The second is refused with RAUC's words; the first goes on as if nothing had been said."""
    device = devices(env=saboteur.env)

    async def bother(client: Client) -> None:
        assert await refused(_all(client, vendor)) == BUSY
        for state, name in (("good", "booted"), ("bad", "other"), ("active", "rootfs.1")):
            assert "already processing a different method" in await refused(client.mark(state, name))
        assert "already processing a different method" in await refused(client.rollback())
        assert "nothing to confirm" in await refused(client.confirm())
        status = await client.status()
        assert (status.state, status.transaction["version"]) == ("install", "2.0.0")
        assert (await client.system()).operation == "installing"
        assert {slot.name: slot.values["state"] for slot in await client.slots()} == {
            "rootfs.0": "booted",
            "rootfs.1": "inactive",
        }
        assert await client.primary() == "rootfs.0"
        assert await client.info(str(vendor.bundle("3.0.0"))) == ("Virtual Device", "3.0.0")
        assert (await client.inspect(str(vendor.bundle("3.0.0"))))["update"]["version"] == "3.0.0"
        assert await client.history(10) == []
        busy = await asyncio.to_thread(rauc, device.address, "install", vendor.bundle("3.0.0"))
        assert busy.returncode != 0
        assert BUSY in busy.stderr
        shown = await asyncio.to_thread(rauc, device.address, "status")
        assert "Activated: rootfs.0 (A)" in shown.stdout
        shown = await asyncio.to_thread(updated, device.address, "status")
        assert "State:       install" in shown.stdout

    assert held(device, saboteur, vendor, (WRITE, 2, "rootfs.1.img"), bother) == ("", None)
    assert device.content("B") == vendor.system("2.0.0")
    device.wait_said("installed: Installed to")
    assert device.history() == ["installed"]


async def _all(client: Client, vendor: Vendor) -> None:
    async for _ in client.install(str(vendor.bundle("3.0.0"))):
        raise AssertionError("two installs at once")


# name: (kinds, number and file of the call that is held, states, may the target be in doubt by then?)
PHASES = {
    "first read": (READ, 1, ".raucb", "verify", False),
    "reading the signature": (READ, 3, ".raucb", "verify", False),
    "saving the journal": (RENAME, 1, "journal.json", "install", False),
    "marking bad": (WRITE, 1, "grubenv", "install", True),
    "slot status": (RENAME, 1, "central.raucs", "install", True),
    "first write": (WRITE, 1, "rootfs.1.img", "install", True),
    "last write": (WRITE, 4, "rootfs.1.img", "install", True),
    "flush": (SYNC, 1, "rootfs.1.img", "install", True),
    "read back": (READ, 1, "rootfs.1.img", "install", True),
    "slot status ok": (RENAME, 2, "central.raucs", "install", True),
}


async def cancelled(saboteur: Saboteur, client: Client) -> str:
    """Cancel while held; the state by then."""
    state = (await client.status()).state
    asking = asyncio.create_task(client.cancel())
    await asyncio.sleep(0.05)  # on its way to the service, which answers when it is over
    saboteur.release()
    await asking
    return state


@pytest.mark.parametrize("phase", PHASES)
def test_cancel(devices: MakeDevice, vendor: Vendor, saboteur: Saboteur, phase: str) -> None:
    kinds, at, file, state, touched = PHASES[phase]
    device = devices(env=saboteur.env, agent_conf=NO_FOLDER)
    if phase == "marking bad":
        device.write_env({**device.read_env(), "B_OK": "1"})
    before = device.untouched()

    error, found = held(
        device, saboteur, vendor, (kinds, at, file), lambda client: cancelled(saboteur, client)
    )
    assert (error, found) == ("Installation cancelled", state)
    device.wait_rest("cancelled")
    assert (device.status().state, device.history()) == ("idle", ["cancelled"])
    assert device.read_env()["B_OK"] == "0"
    if not touched:
        assert device.untouched() == before
    elif phase not in ("marking bad", "slot status"):
        complete = device.content("B") == vendor.system("2.0.0")
        assert device.slot("rootfs.1")["status"] in (("ok", "failed") if complete else ("failed",))
    assert device.install(vendor.bundle("3.0.0")) == ""
    assert (device.content("B"), device.primary()) == (vendor.system("3.0.0"), "B")


def test_cancel_comes_too_late(devices: MakeDevice, vendor: Vendor, saboteur: Saboteur) -> None:
    """The primary is the commit: what is being switched is installed, and nobody is told another thing."""
    device = devices(env=saboteur.env, agent_conf=NO_FOLDER)
    held_at = (WRITE, 1, "grubenv")  # B is bad already, so that the first write is the switch
    error, _ = held(device, saboteur, vendor, held_at, lambda client: cancelled(saboteur, client))
    assert (error, device.primary(), device.status().state) == ("", "B", "reboot-pending")
    assert device.reboot() == ["B"]
    device.wait_said("confirmed:")
    assert device.history() == ["installed", "confirmed"]


def test_request_while_the_last_one_is_written_down(
    devices: MakeDevice, vendor: Vendor, saboteur: Saboteur
) -> None:
    """The image is there, the history is not: who asks now gets his own answer, not that of the first."""
    device = devices(env=saboteur.env, agent_conf=NO_FOLDER)
    foreign = vendor.bundle("3.0.0", compatible="Another Device")

    async def ask(client: Client) -> str:
        asking = asyncio.create_task(install(client, foreign))
        await asyncio.sleep(0.05)  # on its way to the service
        saboteur.release()
        return await asking

    first, second = held(device, saboteur, vendor, (RENAME, 1, "history.json"), ask)
    assert first == ""
    assert second == BUSY
    assert (device.status().state, device.history()) == ("reboot-pending", ["installed"])


def test_idle_is_idle(devices: MakeDevice, vendor: Vendor) -> None:
    """Who was told that the install is over may mark a slot at once, as scripts around RAUC do."""
    device = devices(agent_conf=NO_FOLDER)

    async def run(client: Client) -> tuple[str, str]:
        assert await install(client, vendor.bundle()) == ""
        await operation(client, "idle")
        return await client.mark("active", "rootfs.0")

    assert device.call(run) == ("rootfs.0", "marked slot(s) rootfs.0 as active")
    assert device.primary() == "A"


def test_cancel_before_it_began(devices: MakeDevice, vendor: Vendor) -> None:
    """Both calls are in the service's queue before it has done anything for the first."""
    device = devices(agent_conf=NO_FOLDER)

    async def run(client: Client) -> str:
        running = asyncio.create_task(install(client, vendor.bundle()))
        async with Client(device.address) as other:
            await operation(other, "installing")
            await other.cancel()
        return await running

    for _ in range(3):
        assert device.call(run) == "Installation cancelled"
    assert device.history() == ["cancelled"] * 3


def test_nothing_to_cancel_or_confirm(devices: MakeDevice) -> None:
    device = devices()
    assert "No installation is running" in device.call(lambda client: refused(client.cancel()))
    assert "nothing to confirm" in device.call(lambda client: refused(client.confirm()))
    assert "no other group to go back to" in device.call(lambda client: refused(client.rollback()))
    assert device.read_env()["A_OK"] == "1"


def test_a_request_comes_before_what_only_looks(
    devices: MakeDevice, vendor: Vendor, saboteur: Saboteur
) -> None:
    """The folder's bundle is just being verified; a person's is not made to wait, nor refused."""
    device = devices(env=saboteur.env)
    saboteur.hold(READ, 6, "system.raucb")  # the scan of the folder reads twice for each of its two looks
    shutil.copy(vendor.bundle("3.0.0"), device.root / "drop/system.raucb")
    until("the folder's bundle", lambda: saboteur.acted)
    assert device.status().state == "discover"

    async def ask(client: Client) -> str:
        running = asyncio.create_task(install(client, vendor.bundle("2.0.0")))
        async with Client(device.address) as other:
            await operation(other, "installing")
        saboteur.release()
        return await running

    assert device.call(ask) == ""
    device.wait_said("installed: Installed to")
    assert device.outcomes()[0]["version"] == "2.0.0"
    # What is in the folder is newer, and has its turn after the reboot.
    device.reboot()
    device.wait_said("confirmed: Version 2.0.0")
    device.wait_said("installed: Installed to rootfs.0.")
    assert device.outcomes()[0]["version"] == "3.0.0"


def test_another_bundle_while_the_reboot_is_pending(devices: MakeDevice, vendor: Vendor) -> None:
    device = devices()
    assert device.install(vendor.bundle("2.0.0")) == ""
    assert device.install(vendor.bundle("1.5.0")) == ""  # on purpose, so downwards too
    assert device.status().transaction["version"] == "1.5.0"
    # One that fails early leaves the pending one as it is.
    foreign = vendor.bundle("4.0.0", compatible="Another Device")
    assert "Compatible mismatch" in device.install(foreign)
    status = device.status()
    assert (status.state, status.transaction["version"]) == ("reboot-pending", "1.5.0")
    # The folder has to wait for the reboot.
    shutil.copy(vendor.bundle("3.0.0"), device.root / "drop/system.raucb")
    assert device.reboot() == ["B"]
    device.wait_said("confirmed: Version 1.5.0")
    device.wait_said("installed: Installed to rootfs.0.")


def test_rollback_before_the_reboot(devices: MakeDevice, vendor: Vendor) -> None:
    device = devices()
    assert device.install(vendor.bundle()) == ""
    device.wait_state("reboot-pending")
    device.wait_rest("installed")
    assert device.call(lambda client: client.rollback()) == "rootfs.0"
    device.wait_state("idle")
    assert device.primary() == "A"
    assert device.history() == ["installed", "rollback"]
    assert device.reboot() == ["A"]
    shutil.copy(vendor.bundle(), device.root / "drop")
    device.wait_said("is not installed: Quarantined: rolled back by a person")


def test_rollback_while_confirming(devices: MakeDevice, vendor: Vendor) -> None:
    device = devices()
    assert device.install(vendor.bundle()) == ""
    device.wait_said("installed: Installed to")
    slow(device)
    assert device.reboot() == ["B"]
    device.wait_state("confirming")
    assert "not confirmed yet" in device.install(vendor.bundle("3.0.0"))
    assert device.call(lambda client: client.rollback()) == "rootfs.0"
    assert device.reboot(kill=True) == ["A"]  # who was answered may pull the plug
    device.wait_said("fallback:")
    assert "2.0.0" in [entry["version"] for entry in device.saved("quarantine.json")]


def test_rollback_in_idle(devices: MakeDevice, vendor: Vendor) -> None:
    """Days after it was confirmed."""
    device = devices()
    assert device.install(vendor.bundle()) == ""
    device.reboot()
    device.wait_said("confirmed:")
    device.call(lambda client: client.mark("good", "rootfs.0"))
    assert device.call(lambda client: client.rollback()) == "rootfs.0"
    assert device.reboot(kill=True) == ["A"]
    device.wait_state("idle")
    shutil.copy(vendor.bundle(), device.root / "drop")
    device.wait_said("is not installed: Quarantined: rolled back by a person")


@pytest.mark.parametrize("client", ["updated", "rauc"])
def test_confirm_by_hand(devices: MakeDevice, vendor: Vendor, client: str) -> None:
    """`updated confirm`, and `rauc status mark-good` in a script that the vendor has already."""
    device = devices()
    assert device.install(vendor.bundle()) == ""
    device.wait_said("installed: Installed to")
    slow(device)
    assert device.reboot() == ["B"]
    device.wait_state("confirming")
    if client == "updated":
        assert updated(device.address, "confirm").returncode == 0
    else:
        assert rauc(device.address, "status", "mark-good").returncode == 0
    device.wait_said("confirmed: Version 2.0.0")
    assert (device.read_env()["B_TRY"], device.status().state) == ("0", "idle")


def slow(device: Device) -> None:
    """From the next start on, confirming takes longer than a test."""
    conf = device.root / "etc/updated.toml"
    conf.write_text(conf.read_text().replace("stable-for = 0.05", "stable-for = 200"))


def test_install_arguments(devices: MakeDevice, vendor: Vendor) -> None:
    device = devices()
    foreign = vendor.bundle("2.0.0", compatible="Another Device")
    before = device.untouched()
    assert "Compatible mismatch" in device.install(foreign)
    wrong = InstallArgs(ignore_compatible=True, require_manifest_hash="0" * 64)
    assert "Refusing to install bundle with unexpected hash" in device.install(foreign, wrong)
    assert device.untouched() == before
    info = device.call(lambda client: client.inspect(str(foreign)))
    right = InstallArgs(
        ignore_compatible=True,
        require_manifest_hash=info["manifest-hash"],
        transaction_id="11111111-2222-3333-4444-555555555555",
    )
    assert device.install(foreign, right) == ""
    device.wait_said("installed: Installed to")
    assert device.slot("rootfs.1")["installed.transaction"] == right.transaction_id
    last = device.outcomes()[0]
    assert (last["code"], last["transaction"]) == ("installed", right.transaction_id)
    plain = vendor.bundle("2.0.0", bundle_format="plain")
    assert "Refusing to install plain bundle when using require-manifest-hash" in device.install(plain, right)


STOPPED = (
    "The service was stopped; the next install goes on where this one ended",
    "The update service ended during the install",
)


@pytest.mark.parametrize("at", [1, 6, 12, 20])
def test_sigterm(devices: MakeDevice, vendor: Vendor, saboteur: Saboteur, at: int) -> None:
    """The service ends in good order and soon; the next one goes on from there."""
    device = devices(env=saboteur.env, agent_conf=NO_FOLDER)
    saboteur.send(signal.SIGTERM, READ | Saboteur.DURABLE, at)
    error = device.install(vendor.bundle())
    assert error in STOPPED
    assert device.service is not None
    assert device.service.wait(10) == 0
    assert "bug" not in device.said()
    saboteur.release()
    device.start()
    assert (device.status().state, device.history()) == ("idle", ["cancelled"])
    assert device.install(vendor.bundle()) == ""


def test_sigterm_while_a_request_waits(devices: MakeDevice, vendor: Vendor) -> None:
    """Accepted, but not begun: it must not be installed by a service that is about to end."""
    device = devices(agent_conf=NO_FOLDER)

    async def run(client: Client) -> str:
        running = asyncio.create_task(install(client, vendor.bundle()))
        async with Client(device.address) as other:
            await operation(other, "installing")
            assert device.service is not None
            device.service.send_signal(signal.SIGTERM)
        return await running

    assert device.call(run) in STOPPED
    assert device.service is not None
    assert device.service.wait(10) == 0
    assert device.primary() == "A"
