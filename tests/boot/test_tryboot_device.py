"""A device with `bootloader=tryboot`, from its two configuration files."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.fakes.pi import Pi
from updated.boot.tryboot import REBOOT_ARGUMENT
from updated.config.agent_toml import parse_agent_config
from updated.config.system_conf import SystemConfig, parse_system_config
from updated.errors import ConfigError
from updated.install.device import Device, open_device

SYSTEM = """
[system]
compatible=pi
bootloader={bootloader}
statusfile=central.raucs

[slot.boot.0]
device=boot-a
type=vfat
bootname=A

[slot.rootfs.0]
device=root-a
parent=boot.0

[slot.boot.1]
device=boot-b
type=vfat
bootname=B

[slot.rootfs.1]
device=root-b
parent=boot.1
"""


def system(folder: Path, bootloader: str = "tryboot") -> SystemConfig:
    return parse_system_config(SYSTEM.format(bootloader=bootloader).encode(), folder / "system.conf")


async def opened(folder: Path, config: SystemConfig, table: str) -> Device:
    return await open_device(
        config,
        tryboot=parse_agent_config(table.encode()).tryboot,
        chosen=folder / "chosen",
        cmdline=folder / "cmdline",
        boot_id=folder / "boot-id",
    )


@pytest.fixture
def pi(tmp_path: Path) -> Pi:
    pi = Pi(tmp_path / "bootsel", tmp_path / "chosen")
    pi.boot.mkdir()
    (pi.boot / "autoboot.txt").write_text("[all]\ntryboot_a_b=1\nboot_partition=2\n")
    (tmp_path / "cmdline").write_text("console=tty1 root=/dev/nowhere\n")
    (tmp_path / "boot-id").write_text("one\n")
    pi.start()
    return pi


def test_a_device_on_trial(pi: Pi, tmp_path: Path) -> None:
    table = f'[tryboot]\nfolder = "{pi.boot}"\npartitions = {{ A = 2, B = 3 }}\n'

    async def scenario() -> None:
        device = await opened(tmp_path, system(tmp_path), table)
        assert device.reboot_argument == REBOOT_ARGUMENT == "0 tryboot"
        assert device.booted_group == "boot.0"
        await device.activate(device.slots[2], by="test")
        facts = await device.facts()
        assert (facts.booted, facts.primary, facts.by_argument) == ("boot.0", "boot.1", True)
        pi.start(tryboot=True)
        device = await opened(tmp_path, system(tmp_path), table)
        assert device.booted_group == "boot.1"
        await device.mark_group("boot.1", good=True)
        assert pi.partition() == 3

    asyncio.run(scenario())


def test_without_the_table_it_is_refused(pi: Pi, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"needs \[tryboot\]"):
        asyncio.run(opened(tmp_path, system(tmp_path), ""))
    device = asyncio.run(opened(tmp_path, system(tmp_path, "noop"), ""))
    assert device.reboot_argument == ""
