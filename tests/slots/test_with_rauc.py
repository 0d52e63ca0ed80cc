"""The real `rauc` service reads what we wrote, and we read what it wrote: slot status, GRUB's variables."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from updated.boot.grub import Grub
from updated.boot.uboot import UBoot
from updated.core.model import Slot, SlotStatus
from updated.slots import status
from updated.slots.status_store import CentralStore, PerSlotStore

STATUS = SlotStatus(
    bundle_compatible="Test Dev",
    bundle_version="2",
    bundle_description="some text; with odd \\ things",
    bundle_build="42",
    bundle_hash="b5f908b9",
    status="ok",
    sha256="e2" * 32,
    size=524288,
    installed_timestamp="2026-11-20T09:34:32Z",
    installed_count=2,
    activated_timestamp="2026-11-20T09:34:33Z",
    activated_count=3,
)

# Waits until the service answers, runs "$@", and ends the service.
SESSION = """
export DBUS_STARTER_BUS_TYPE=session
rauc --conf=system.conf --override-boot-slot=A service >service.log 2>&1 &
tries=0
until rauc --conf=system.conf status >/dev/null 2>&1; do
    tries=$((tries + 1)); [ $tries -lt 100 ] || exit 99
    sleep 0.02
done
eval "$1"
kill $!
"""


class Device:
    """A device with two slots that are files, as the real `rauc` sees it."""

    def __init__(self, folder: Path, *, settings: str, slot_type: str = "raw", bootloader: str = "") -> None:
        self.folder = folder
        self.grubenv = folder / "grubenv"
        key = ["openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", "-subj", "/CN=test"]
        subprocess.run(
            [*key, "-keyout", "key.pem", "-out", "ca.pem"], cwd=folder, check=True, capture_output=True
        )
        set_variables(self.grubenv, "ORDER=A B", "A_OK=1", "A_TRY=0", "B_OK=1", "B_TRY=0")
        grub = f"bootloader=grub\ngrubenv={self.grubenv}"
        sections = "".join(
            f"[slot.rootfs.{n}]\ndevice={folder}/{n}.img\ntype={slot_type}\nbootname={'AB'[n]}\n"
            for n in (0, 1)
        )
        (folder / "system.conf").write_text(
            f"[system]\ncompatible=Test Dev\n{bootloader or grub}\n"
            f"mountprefix={folder}/mnt\n{settings}\n[keyring]\npath=ca.pem\n{sections}"
        )
        for n in (0, 1):
            with (folder / f"{n}.img").open("wb") as file:
                file.truncate(8 << 20)

    def session(self, commands: str) -> str:
        """What shell commands print, with the real service on a private bus; `$rauc` is its command line."""
        script = f'rauc="rauc --conf=system.conf"\n{SESSION}'
        done = subprocess.run(
            ["dbus-run-session", "--", "sh", "-c", script, "sh", commands],
            cwd=self.folder,
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.stdout

    def status(self) -> dict[str, Any]:
        """`rauc status` as a dictionary by slot name."""
        text = self.session("$rauc status --detailed --output-format=json")
        found = json.loads(text)
        return {name: slot for entry in found["slots"] for name, slot in entry.items()}


def set_variables(grubenv: Path, *variables: str) -> None:
    subprocess.run(["grub-editenv", grubenv, "create"], check=True)
    subprocess.run(["grub-editenv", grubenv, "set", *variables], check=True)


def variables(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def check_what_rauc_read(slot: dict[str, Any]) -> None:
    assert slot["slot_status"] == {
        "bundle": {
            "compatible": STATUS.bundle_compatible,
            "version": STATUS.bundle_version,
            "description": STATUS.bundle_description,
            "build": STATUS.bundle_build,
        },
        "checksum": {"sha256": STATUS.sha256, "size": STATUS.size},
        "installed": {"timestamp": STATUS.installed_timestamp, "count": 2},
        "activated": {"timestamp": STATUS.activated_timestamp, "count": 3},
        "status": "ok",
    }


def check_what_rauc_wrote(found: SlotStatus) -> None:
    """After `mark-active`: as we would have written it, but for the time, and what rauc 1.8 does not know."""
    assert found.activated_timestamp is not None
    stamp = datetime.strptime(found.activated_timestamp, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert abs((datetime.now(UTC) - stamp).total_seconds()) < 60
    known = replace(STATUS, bundle_hash=None)
    assert found == status.activated(known, now=stamp)


def test_the_central_status_file_goes_both_ways(tmp_path: Path) -> None:
    device = Device(tmp_path, settings=f"statusfile={tmp_path}/central.raucs")
    store = CentralStore(tmp_path / "central.raucs")
    asyncio.run(store.save("rootfs.1", STATUS))
    asyncio.run(store.save_boot_id("00000000-1111-2222-3333-444444444444"))
    check_what_rauc_read(device.status()["rootfs.1"])
    device.session("$rauc status mark-active rootfs.1")
    check_what_rauc_wrote(asyncio.run(store.load())["rootfs.1"])


@pytest.mark.root
def test_the_status_file_in_a_slot_goes_both_ways(tmp_path: Path) -> None:
    device = Device(tmp_path, settings="statusfile=per-slot", slot_type="ext4")
    slots = [
        Slot(name=f"rootfs.{n}", slot_class="rootfs", index=n, device=f"{tmp_path}/{n}.img", type="ext4")
        for n in (0, 1)
    ]
    for slot in slots:
        subprocess.run(["mkfs.ext4", "-q", slot.device], check=True)
    store = PerSlotStore(slots)
    asyncio.run(store.save("rootfs.1", STATUS))
    check_what_rauc_read(device.status()["rootfs.1"])
    device.session("$rauc status mark-active rootfs.1")
    check_what_rauc_wrote(asyncio.run(store.load())["rootfs.1"])


def test_grub_marks_are_the_same_as_raucs(tmp_path: Path) -> None:
    """The same marks by both, from the same start; after each the variables and the primary are compared."""
    device = Device(tmp_path, settings=f"statusfile={tmp_path}/central.raucs")
    start = ("ORDER=A B", "A_OK=1", "A_TRY=1", "B_OK=1", "B_TRY=0", "theirs=1")
    ours = tmp_path / "ours"
    set_variables(device.grubenv, *start)
    set_variables(ours, *start)
    grub = Grub(ours, ["A", "B"])
    marks: list[tuple[str, Callable[[], Coroutine[Any, Any, None]]]] = [
        ("mark-good booted", lambda: grub.set_state("A", good=True)),
        ("mark-bad other", lambda: grub.set_state("B", good=False)),
        ("mark-active other", lambda: grub.set_primary("B")),
        ("mark-bad booted", lambda: grub.set_state("A", good=False)),
        ("mark-good other", lambda: grub.set_state("B", good=True)),
        ("mark-active booted", lambda: grub.set_primary("A")),
    ]
    list_all = (
        f"grub-editenv {device.grubenv} list; $rauc status --output-format=shell | grep BOOT_PRIMARY; echo"
    )
    text = device.session("".join(f"$rauc status {mark} >/dev/null; {list_all}; " for mark, _ in marks))
    for (mark, do), block in zip(marks, text.strip().split("\n\n"), strict=True):
        asyncio.run(do())
        listed = subprocess.run(
            ["grub-editenv", ours, "list"], check=True, capture_output=True, text=True
        ).stdout
        theirs = variables(block)
        primary = theirs.pop("RAUC_BOOT_PRIMARY").strip("'")
        assert variables(listed) == theirs, mark
        assert {"A": "rootfs.0", "B": "rootfs.1"}[str(asyncio.run(grub.get_primary()))] == primary, mark


def uboot_environment(folder: Path, name: str) -> Path:
    """A configuration for fw_setenv with a fresh environment in a file."""
    (folder / name).write_bytes(bytes(0x4000))
    config = folder / f"{name}.config"
    config.write_text(f"{folder / name} 0x0 0x4000\n")
    (folder / "defaults").write_text("BOOT_ORDER=A B\nBOOT_A_LEFT=1\nBOOT_B_LEFT=3\n")
    options = ["-c", str(config), "-f", str(folder / "defaults")]
    subprocess.run(["fw_setenv", *options, "theirs", "1"], check=True, capture_output=True)
    return config


def test_uboot_marks_are_the_same_as_raucs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with GRUB.  `mark-good` of a slot that is in no order is left out: there we differ on purpose."""
    device = Device(tmp_path, settings=f"statusfile={tmp_path}/central.raucs", bootloader="bootloader=uboot")
    theirs = uboot_environment(tmp_path, "theirs")
    ours = uboot_environment(tmp_path, "ours")
    tools = tmp_path / "bin"  # rauc calls the tools without a configuration
    tools.mkdir()
    for tool in ("fw_printenv", "fw_setenv"):
        (tools / tool).write_text(f'#!/bin/sh\nexec /usr/bin/{tool} -c {theirs} "$@"\n')
        (tools / tool).chmod(0o755)
    uboot = UBoot(["A", "B"], attempts=3, config=str(ours))
    marks: list[tuple[str, Callable[[], Coroutine[Any, Any, None]]]] = [
        ("mark-good booted", lambda: uboot.set_state("A", good=True)),
        ("mark-bad other", lambda: uboot.set_state("B", good=False)),
        ("mark-active other", lambda: uboot.set_primary("B")),
        ("mark-good other", lambda: uboot.set_state("B", good=True)),
        ("mark-bad booted", lambda: uboot.set_state("A", good=False)),
        ("mark-active booted", lambda: uboot.set_primary("A")),
    ]
    list_all = "fw_printenv; $rauc status --output-format=shell | grep BOOT_PRIMARY; echo"
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
        text = device.session("".join(f"$rauc status {mark} >/dev/null; {list_all}; " for mark, _ in marks))
    for (mark, do), block in zip(marks, text.strip().split("\n\n"), strict=True):
        asyncio.run(do())
        listed = subprocess.run(
            ["fw_printenv", "-c", ours], check=True, capture_output=True, text=True
        ).stdout
        found = variables(block)
        primary = found.pop("RAUC_BOOT_PRIMARY").strip("'")
        assert variables(listed) == found, mark
        assert {"A": "rootfs.0", "B": "rootfs.1"}[str(asyncio.run(uboot.get_primary()))] == primary, mark
