"""A board in a container: two slots on loop devices, GRUB's variables, our unit as it is installed.

What the container lacks is said to the service by its own options: which slot has booted.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.system.container import Container

UNIT = "updated.service"
HANG_FLAG = "/etc/test/hang"
SLOT_SIZE = 160 << 20  # bytes; files with holes
RELOADED = "configuration reloaded"
GRUBENV = "/boot/grub/grubenv"
WAIT = 20.0  # seconds; each wait takes about one

SYSTEM_CONF = """\
[system]
compatible=Test
bootloader=grub
grubenv=/boot/grub/grubenv
{system}
[keyring]
path=/etc/rauc/keyring.pem

[slot.rootfs.0]
device={devices[0]}
type=ext4
bootname=A

[slot.rootfs.1]
device={devices[1]}
type=ext4
bootname=B
{slot}
"""
AGENT_CONF = """\
{folder}
[confirm]
stable-for = {stable_for}
{agent}
"""
FOLDER = '[folder]\npath = "/srv/drop"'
DROP_IN = """\
[Service]
ExecStart=
ExecStart=/usr/bin/updated service --cmdline=/etc/test/cmdline --boot-id=/etc/test/boot-id
"""
# Python imports it before the product.  SIGUSR2 blocks the main thread, and so the event loop, for ever; the
# other threads go on, and faulthandler can say where it hangs.
HANG = f"""\
import os, signal, time

def hang(*_):
    while True:
        time.sleep(3600)

signal.signal(signal.SIGUSR2, hang)
if os.path.exists("{HANG_FLAG}"):
    hang()
"""


class Board:
    """Fresh from the factory: runs from group A.  A boot environment that is there already is kept."""

    def __init__(self, container: Container, keyring: bytes, devices: tuple[str, str]) -> None:
        self.container = container
        self.run = container.run
        self.devices = devices
        self.write("/etc/rauc/keyring.pem", keyring)
        if not container.path(GRUBENV).exists():
            self.write(GRUBENV, environment_block(ORDER="A B", A_OK="1", A_TRY="0", B_OK="1", B_TRY="0"))
        self.write("/etc/systemd/system/updated.service.d/test.conf", DROP_IN)
        self.configure()
        self.boot_from("A", "1")

    # Before it runs

    def configure(
        self,
        *,
        system: str = "",
        slot: str = "",
        folder: str | None = "",
        agent: str = "",
        stable_for: float = 0.1,
    ) -> None:
        """Lines to add to `[system]`, to the second slot's section, to `[folder]`, and to updated.toml, where
        `[confirm]` goes on.

        `folder=None`: without a drop folder.  `stable_for`: seconds.
        """
        conf = SYSTEM_CONF.format(system=system, slot=slot, devices=self.devices)
        self.write("/etc/rauc/system.conf", conf)
        table = "" if folder is None else f"{FOLDER}\n{folder}"
        self.write(
            "/etc/updated/updated.toml", AGENT_CONF.format(folder=table, agent=agent, stable_for=stable_for)
        )

    def override(self, lines: str) -> None:
        """Set what takes too long for a test in `[Service]`."""
        self.write("/etc/systemd/system/updated.service.d/override.conf", f"[Service]\n{lines}\n")
        self.run("systemctl daemon-reload")

    def replace(self, lines: str) -> None:
        """What stands for the service itself in its unit: stronger than `override`, any section."""
        self.write("/etc/systemd/system/updated.service.d/z.conf", lines)
        self.run("systemctl daemon-reload")

    def boot_from(self, bootname: str, boot_id: str) -> None:
        """What the service takes for the kernel's words at its next start."""
        self.write("/etc/test/cmdline", f"quiet rauc.slot={bootname}\n")
        self.write("/etc/test/boot-id", boot_id)

    def write(self, path: str, content: str | bytes) -> None:
        file = self.container.path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())

    def put(self, source: Path, path: str) -> None:
        """Copy a file in as a careful person does: it appears when it is complete."""
        part = f"{path}.part"
        self.write(part, source.read_bytes())
        self.container.path(part).rename(self.container.path(path))

    def make_hangable(self) -> None:
        """From its next start, the service hangs at SIGUSR2; at once, if there is a file HANG_FLAG."""
        (folder,) = self.container.path("/etc").glob("python3.*")
        self.write(f"/etc/{folder.name}/sitecustomize.py", HANG)

    # The service

    def start(self) -> None:
        """Returns when it is ready."""
        self.run(f"systemctl enable --now {UNIT}")

    def show(self, name: str) -> str:
        """A property of the unit."""
        return self.run(f"systemctl show --property={name} --value {UNIT}").strip()

    def reload(self) -> None:
        """Returns when the new configuration holds."""
        count = self.journal().count(RELOADED)
        self.run(f"systemctl reload {UNIT}")
        self.wait("the reload", lambda: self.journal().count(RELOADED) > count)

    def pid(self) -> int:
        """The service's process, with the host's number."""
        return self.container.pids(UNIT)[0]

    def journal(self) -> str:
        return self.run(f"journalctl --no-pager --output=cat --unit={UNIT}")

    def wait(
        self, what: str, true: Callable[[], bool], *, pause: float = 0.05, timeout: float = WAIT
    ) -> None:
        deadline = time.monotonic() + timeout
        while not true():
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {timeout:g} s for {what} in vain\n{self.journal()}")
            time.sleep(pause)

    def wait_for_journal(self, text: str, timeout: float = WAIT) -> None:
        self.wait(repr(text), lambda: text in self.journal(), timeout=timeout)

    def wait_for_idle(self) -> None:
        """The running system is confirmed: what is offered from now on is looked at."""
        self.wait("idle", lambda: "waiting for an update" in self.show("StatusText"))

    def wait_for_health(self, state: str, **texts: str) -> None:
        """Of the running boot.  `texts`: what checks have seen; "_" in a name is for what is no letter."""

        def seen() -> bool:
            now = self.health()
            said = {
                re.sub(r"\W", "_", check["name"]): check.get("text", "") for check in now.get("checks", ())
            }
            return now.get("state") == state and all(
                text in said.get(name, "") for name, text in texts.items()
            )

        self.wait(f"{state} {texts}", seen, pause=0.3)

    # What it did

    def health(self) -> dict[str, Any]:
        """`updated health` of the running boot; empty while the service does not answer."""
        shown = self.run("updated health --output-format=json", check=False)
        if not shown.startswith("["):
            return {}
        found: list[dict[str, Any]] = json.loads(shown)
        return found[0] if found else {}

    def grubenv(self) -> dict[str, str]:
        lines = self.container.path(GRUBENV).read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def history(self) -> list[dict[str, str]]:
        """How the last updates ended, the newest first."""
        found: list[dict[str, str]] = json.loads(self.run("updated history --output-format=json"))
        return found

    def holds(self, image: Path) -> bool:
        """Whether the second slot begins with `image`, byte for byte."""
        content = image.read_bytes()
        with Path(self.devices[1]).open("rb") as device:
            return device.read(len(content)) == content

    def wait_for_writing(self, position: int = 0) -> None:
        """The second slot is marked bad, and what is at `position` (a multiple of 4096 bytes) is written."""
        with Path(self.devices[1]).open("rb", buffering=0) as device:
            handle = device.fileno()
            self.wait(f"byte {position}", lambda: any(os.pread(handle, 4096, position)), pause=0.001)
        assert self.grubenv()["B_OK"] == "0"


def environment_block(**variables: str) -> str:
    text = "# GRUB Environment Block\n" + "".join(f"{name}={value}\n" for name, value in variables.items())
    return text.ljust(1024, "#")


def attach(file: Path) -> str:
    """A loop device over a new file of SLOT_SIZE."""
    with file.open("wb") as opened:
        opened.truncate(SLOT_SIZE)
    command = ["losetup", "--find", "--show", str(file)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def detach(device: str) -> None:
    subprocess.run(["losetup", "--detach", device], check=True)
