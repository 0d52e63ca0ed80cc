"""Nothing here blocks the event loop: each backend does its work in threads and child processes."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from blockbuster import BlockingError, blockbuster_ctx

from updated.boot.base import make_bootloader
from updated.core.model import Bootloader


def grub(folder: Path) -> Bootloader:
    path = folder / "grubenv"
    subprocess.run(["grub-editenv", path, "create"], check=True)
    subprocess.run(["grub-editenv", path, "set", "ORDER=A B", "A_OK=1", "A_TRY=0"], check=True)
    return make_bootloader("grub", ["A", "B"], grubenv=path)


def uboot(folder: Path) -> Bootloader:
    (folder / "env").write_bytes(bytes(0x4000))
    (folder / "defaults").write_text("BOOT_ORDER=A B\nBOOT_A_LEFT=3\n")
    config = folder / "fw_env.config"
    config.write_text(f"{folder}/env 0x0 0x4000\n")
    options = ["-c", str(config), "-f", str(folder / "defaults")]
    subprocess.run(["fw_setenv", *options, "x", "1"], check=True, capture_output=True)
    return make_bootloader("uboot", ["A", "B"], fw_env_config=str(config))


@pytest.mark.parametrize("make", [grub, uboot])
def test_the_loop_never_blocks(make: Callable[[Path], Bootloader], tmp_path: Path) -> None:
    bootloader = make(tmp_path)

    async def scenario() -> None:
        await bootloader.set_state("B", good=False)
        await bootloader.set_primary("B")
        assert await bootloader.get_primary() == "B"
        assert await bootloader.get_state("B")
        with pytest.raises(BlockingError):
            (tmp_path / "guard").write_text("the guard is awake")

    with blockbuster_ctx():
        asyncio.run(scenario())
