"""A board whose data outlives its reboots, with what GRUB's script does between them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

from tests.system.board import GRUBENV, Board, environment_block
from tests.system.container import Container

KEPT = ("/var/lib/updated", "/var/log/journal", str(Path(GRUBENV).parent))


class Computer:
    """The system itself is fresh in each boot: what is to be in it is written before the service starts."""

    def __init__(self, tree: Path, folder: Path, keyring: bytes, devices: tuple[str, str]) -> None:
        self._tree, self._folder, self._keyring, self._devices = tree, folder, keyring, devices
        self._machine_id = uuid.uuid4().hex
        self._boots = 0
        for path in KEPT:
            self._kept(path).mkdir(mode=0o700, parents=True)

    @contextlib.contextmanager
    def boot(self) -> Iterator[Board]:
        """Into what the boot selector chooses; `uptime` begins anew for the service, too."""
        self._boots += 1
        name = f"updated-{os.getpid()}-{self._folder.name}-{self._boots}"
        options = [f"--bind={self._kept(path)}:{path}" for path in KEPT]
        log = self._folder / f"console-{self._boots}.log"
        with Container(
            self._tree, name, log=log, options=[f"--uuid={self._machine_id}", *options]
        ) as container:
            board = Board(container, self._keyring, self._devices)
            boot_id = container.run("cat /proc/sys/kernel/random/boot_id").strip()
            board.boot_from(_select(board), boot_id)
            yield board

    def journal(self) -> str:
        """Of all boots, as the disk has it."""
        where = f"--directory={self._kept('/var/log/journal')}"
        command = ["journalctl", "--quiet", "--no-pager", "--output=cat", where]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def _kept(self, path: str) -> Path:
        return self._folder / "disk" / path.lstrip("/")


def _select(board: Board) -> str:
    """RAUC's example for GRUB: the first that is good and was not tried yet; one try each."""
    variables = board.grubenv()
    for group in variables["ORDER"].split():
        if variables[f"{group}_OK"] == "1" and variables[f"{group}_TRY"] == "0":
            variables[f"{group}_TRY"] = "1"
            board.write(GRUBENV, environment_block(**variables))
            return group
    raise AssertionError(f"nothing to boot: {variables}")
