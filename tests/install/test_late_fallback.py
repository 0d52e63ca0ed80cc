"""prevent-late-fallback: what may start once the running system is good, in a real GRUB environment."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from updated.config.system_conf import load_system_config
from updated.errors import ConfigError, DeviceError
from updated.install.device import Device, open_device

CONF = """[system]
compatible=Test
bootloader={bootloader}
data-directory=/nowhere
{settings}
[keyring]
path=/nowhere/ca.pem
"""
SLOT = "[slot.{name}]\ndevice={folder}/{name}\nbootname={bootname}\n"
SLOTS = (("rootfs.0", "A"), ("rootfs.1", "B"), ("rootfs.2", "C"), ("rescue.0", "R"))
GOOD = "A_OK=1 A_TRY=0 B_OK=1 B_TRY=0 C_OK=1 C_TRY=0 R_OK=1 R_TRY=0"

Open = Callable[..., Device]


@pytest.fixture
def grubenv(tmp_path: Path) -> Path:
    subprocess.run(["grub-editenv", tmp_path / "grubenv", "create"], check=True)
    put(tmp_path / "grubenv", "ORDER=A B C R", *GOOD.split())
    return tmp_path / "grubenv"


def put(grubenv: Path, *variables: str) -> None:
    subprocess.run(["grub-editenv", grubenv, "set", *variables], check=True)


def states(grubenv: Path) -> str:
    done = subprocess.run(["grub-editenv", grubenv, "list"], check=True, capture_output=True, text=True)
    return " ".join(line for line in done.stdout.splitlines() if not line.startswith("ORDER"))


@pytest.fixture
def device(tmp_path: Path, grubenv: Path) -> Open:
    def call(setting: str = "true", *, cmdline: str = "rauc.slot=A", bootloader: str = "grub") -> Device:
        (tmp_path / "cmdline").write_text(cmdline)
        settings = f"prevent-late-fallback={setting}\n" if setting else ""
        if bootloader == "grub":
            settings += f"grubenv={grubenv}\n"
        conf = CONF.format(bootloader=bootloader, settings=settings)
        slots = (SLOT.format(name=name, folder=tmp_path, bootname=bootname) for name, bootname in SLOTS)
        (tmp_path / "system.conf").write_text(conf + "".join(slots))
        config = load_system_config(tmp_path / "system.conf", [])
        return asyncio.run(open_device(config, cmdline=tmp_path / "cmdline"))

    return call


def test_the_other_slots_of_the_class_are_marked_bad(device: Open, grubenv: Path) -> None:
    asyncio.run(device().prevent_late_fallback())
    assert states(grubenv) == "A_OK=1 A_TRY=0 B_OK=0 B_TRY=0 C_OK=0 C_TRY=0 R_OK=1 R_TRY=0"


def test_what_is_bad_already_is_not_written(device: Open, grubenv: Path) -> None:
    put(grubenv, "B_TRY=1", "C_OK=0")
    before = grubenv.stat().st_mtime_ns
    asyncio.run(device().prevent_late_fallback())
    assert (grubenv.stat().st_mtime_ns, "B_OK=1 B_TRY=1" in states(grubenv)) == (before, True)


@pytest.mark.parametrize(
    ("setting", "cmdline"), [("", "rauc.slot=A"), ("false", "rauc.slot=A"), ("true", "rauc.external")]
)
def test_without_the_setting_or_a_running_slot_nothing_happens(
    device: Open, grubenv: Path, setting: str, cmdline: str
) -> None:
    asyncio.run(device(setting, cmdline=cmdline).prevent_late_fallback())
    assert states(grubenv) == GOOD


@pytest.mark.parametrize("variables", [["ORDER=B A C R"], ["A_TRY=1"], ["A_OK=0"]])
def test_not_while_another_is_to_start_next(device: Open, grubenv: Path, variables: list[str]) -> None:
    put(grubenv, *variables)
    before = states(grubenv)
    asyncio.run(device().prevent_late_fallback())
    assert states(grubenv) == before


def test_a_damaged_environment_is_a_device_error(device: Open, grubenv: Path) -> None:
    opened = device()
    grubenv.write_bytes(b"")
    with pytest.raises(DeviceError, match="it is empty"):
        asyncio.run(opened.prevent_late_fallback())


def test_mark_good_of_what_runs_does_it_too(device: Open, grubenv: Path) -> None:
    opened = device()
    assert asyncio.run(opened.mark("good", "rootfs.0")) == ("rootfs.0", "marked slot(s) rootfs.0 as good")
    assert states(grubenv) == GOOD
    put(grubenv, "A_TRY=1")
    assert asyncio.run(opened.mark("good", "booted")) == ("rootfs.0", "marked slot(s) rootfs.0 as good")
    assert states(grubenv) == "A_OK=1 A_TRY=0 B_OK=0 B_TRY=0 C_OK=0 C_TRY=0 R_OK=1 R_TRY=0"


def test_lock_counter_is_refused_where_nothing_can_be_locked(device: Open) -> None:
    with pytest.raises(ConfigError, match="'lock-counter', but not supported by selected bootloader: grub"):
        device("lock-counter")
    asyncio.run(device("lock-counter", bootloader="barebox").prevent_late_fallback())
