"""A Raspberry Pi's firmware: which system it starts, from the files that it finds, and what it says of that.

Written from its documentation, not from the product: filters add up until `[all]`, of two settings that apply
the later counts, and of autoboot.txt it reads 512 bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path


class Stuck(Exception):
    """It waits for ever: what it should start is not there."""


@dataclass
class Pi:
    boot: Path  # the first FAT partition
    chosen: Path  # its node of the device tree
    capabilities: int | None = 0x7F
    built: int | None = 1741564800  # 2025-03-10
    tells_tryboot: bool = True
    tells_partition: bool = True

    def partition(self, *, tryboot: bool = False) -> int:
        """Number of the partition that is started."""
        settings = self._settings("autoboot.txt", tryboot=tryboot, limit=512)
        if tryboot and settings.get("tryboot_a_b") != "1":
            raise Stuck("no tryboot.txt in the partition")
        return int(settings["boot_partition"])

    def prefix(self, *, tryboot: bool = False) -> str:
        """The prefix of what is started; its command line has to fit."""
        name = "tryboot.txt" if tryboot else "config.txt"
        if not (self.boot / name).exists():
            raise Stuck(f"no {name}")
        settings = self._settings(name, tryboot=tryboot, limit=1 << 20)
        system = settings["os_prefix"]
        line = (self.boot / settings["cmdline"].lstrip("/")).read_text().split("\n")[0].split()
        slot = system.removeprefix("slot-").removesuffix("/")
        if f"rauc.slot={slot}" not in line or f"root=PARTUUID={slot.lower()}" not in line:
            raise Stuck(f"{system} with the command line {line}")
        return system

    def start(self, *, tryboot: bool = False, by_prefix: bool = False) -> None:
        """Start, and tell the device tree."""
        prefix = self.prefix(tryboot=tryboot) if by_prefix else ""
        self.tell(partition=1 if by_prefix else self.partition(tryboot=tryboot), tryboot=tryboot)
        (self.chosen / "os_prefix").write_bytes(prefix.encode() + b"\0")

    def tell(self, *, partition: int, tryboot: bool) -> None:
        node = self.chosen / "bootloader"
        node.mkdir(parents=True, exist_ok=True)
        properties = {
            "tryboot": int(tryboot) if self.tells_tryboot else None,
            "partition": partition if self.tells_partition else 0,
            "capabilities": self.capabilities,
            "build-timestamp": self.built,
        }
        for name, value in properties.items():
            (node / name).unlink(missing_ok=True)
            if value is not None:
                (node / name).write_bytes(value.to_bytes(4, "big"))

    def _settings(self, name: str, *, tryboot: bool, limit: int) -> dict[str, str]:
        settings: dict[str, str] = {}
        filters: list[str] = []
        for line in (self.boot / name).read_bytes()[:limit].decode().splitlines():
            section = re.fullmatch(r"\[(.*)\]", line.strip())
            if section:
                filters = [] if section[1] == "all" else [*filters, section[1]]
            elif (
                "=" in line
                and not line.startswith("#")
                and set(filters) <= ({"tryboot"} if tryboot else set())
            ):
                key, _, value = line.partition("=")
                settings[key] = value.strip()
        return settings
