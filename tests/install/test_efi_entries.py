"""Where the loader of a forgotten boot entry is: `efi-loader` of the slot, or `[efi]` of updated.toml."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from updated.config.agent_tables import Efi
from updated.config.agent_toml import parse_agent_config
from updated.config.system_conf import load_system_config
from updated.errors import ConfigError, DeviceError
from updated.install.device import Device, open_device

CONF = r"""[system]
compatible=Test
bootloader=efi
data-directory=/nowhere
[keyring]
path=/nowhere/ca.pem
[slot.esp.0]
device=/nowhere/ESP-A
bootname=system0
efi-loader=\\EFI\\BOOT\\BOOTX64.EFI
efi-cmdline=@1
[slot.esp.1]
device=/nowhere/ESP-B
bootname=system1
efi-loader=\\EFI\\BOOT\\BOOTX64.EFI
[slot.esp.2]
device=/nowhere/ESP-C
bootname=system2
"""
TABLE = r"""
[efi.entries.system1]
partition = "/nowhere/shared"
loader = '\EFI\system1\linux.efi'
arguments = "quiet"
"""


def opened(folder: Path, efi: Efi) -> Device:
    (folder / "system.conf").write_text(CONF)
    (folder / "cmdline").write_text("rauc.slot=system0")
    config = load_system_config(folder / "system.conf", [])
    return asyncio.run(open_device(config, efi=efi, cmdline=folder / "cmdline"))


def table(text: str) -> Efi:
    return parse_agent_config(text.encode()).efi


def test_the_table_goes_before_the_slot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EFIVARFS_PATH", f"{tmp_path}/")  # no entries at all
    bootloader = opened(tmp_path, table(TABLE)).bootloader
    for bootname, partition in (("system0", "/nowhere/ESP-A"), ("system1", "/nowhere/shared")):
        with pytest.raises(DeviceError, match=f"^efi backend: Can't resolve device {partition} for EFI boot"):
            asyncio.run(bootloader.set_primary(bootname))
    with pytest.raises(DeviceError, match="Did not find efi entry for bootname 'system2'!") as caught:
        asyncio.run(bootloader.set_primary("system2"))
    assert "[efi.entries.system2]" in caught.value.hint


def test_an_entry_for_no_slot_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"efi.entries.system7 of updated.toml is no slot's boot") as caught:
        opened(tmp_path, table(TABLE.replace("system1]", "system7]")))
    assert caught.value.hint == "Configured: system0, system1, system2."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            TABLE.replace("/nowhere", "nowhere"),
            "efi.entries.system1.partition is 'nowhere/shared', expected an abs",
        ),
        (TABLE.replace("'\\", "'"), r"loader is 'EFI\\system1\\linux.efi', expected a path with backslashes"),
        (TABLE.replace("arguments", "cmdline"), "unknown field `cmdline`"),
        ("[efi.entries.system1]\npartition='/dev/sda1'\n", "missing required field `loader`"),
        ("[efi]\nentry = {}\n", "unknown key 'efi.entry'"),
    ],
)
def test_mistakes_in_the_table_are_named(text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        table(text)
    assert expected in str(caught.value)
