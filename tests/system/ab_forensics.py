"""What a power cut has left on a disk, seen from outside and before anything boots from it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tests.system.ab_image import ESP, MIB, ROOTFS, SLOT
from tests.system.ab_machine import Machine

FAT = 2 * MIB  # where the loader's partition begins
SLOTS = {"A": FAT + ESP, "B": FAT + ESP + SLOT}
VARIABLES = {"grub": "::/grub/grubenv", "uboot": "::/uboot.env"}


class Left(NamedTuple):
    """By a cut."""

    order: str  # in which the loader tries the slots
    startable: Mapping[str, str]  # slots that the loader may start -> SHA-256 of their images


def left_by(machine: Machine, folder: Path) -> Left:
    """Of a machine that is switched off; `folder`: for a copy of its disk, which is gone afterwards."""
    raw = folder / "left.raw"
    subprocess.run(
        ["qemu-img", "convert", "-O", "raw", str(machine.folder / "root.qcow2"), str(raw)], check=True
    )
    try:
        variables = _variables(machine.loader, raw)
        names = [name for name in SLOTS if _may_start(machine.loader, variables, name)]
        order = variables["ORDER" if machine.loader == "grub" else "BOOT_ORDER"]
        return Left(order, {name: _digest(raw, SLOTS[name]) for name in names})
    finally:
        raw.unlink()


def image_digest(bundle: Path, keyring: Path) -> str:
    """SHA-256 of the root file system in a bundle."""
    command = [sys.executable, "-m", "updated", "info", f"--keyring={keyring}", "--output-format=json"]
    text = subprocess.run([*command, str(bundle)], check=True, capture_output=True, text=True).stdout
    return str(json.loads(text)["images"][0]["rootfs"]["checksum"])


def digest(image: Path) -> str:
    """SHA-256 of what a slot holds from the factory."""
    return _digest(image, 0)


def _variables(loader: str, raw: Path) -> Mapping[str, str]:
    copied = subprocess.run(
        ["mtype", "-i", f"{raw}@@{FAT}", VARIABLES[loader]], check=True, capture_output=True
    ).stdout
    if loader == "grub":
        assert copied.startswith(b"# GRUB Environment Block\n"), copied[:80]
        assert len(copied) == 1024
        lines = copied.decode().rstrip("#").splitlines()[1:]
    else:
        assert zlib.crc32(copied[4:]).to_bytes(4, "little") == copied[:4], "U-Boot's environment is torn"
        lines = copied[4:].partition(b"\0\0")[0].decode().split("\0")  # what follows is of no meaning
    return dict(line.split("=", 1) for line in lines)


def _may_start(loader: str, variables: Mapping[str, str], slot: str) -> bool:
    """Sooner or later."""
    if loader == "grub":
        return variables[f"{slot}_OK"] == "1"
    return slot in variables["BOOT_ORDER"] and variables[f"BOOT_{slot}_LEFT"] != "0"


def _digest(path: Path, offset: int) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(offset)
        for _ in range(ROOTFS // MIB):
            found.update(file.read(MIB))
    return found.hexdigest()
