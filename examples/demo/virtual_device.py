"""A device without hardware: two file-backed slot groups, a boot selector that counts attempts, and reboots.

Everything lives in one folder and needs no root.  The service that runs on it is the real one; what is
simulated is the firmware (GRUB's script with RAUC's variables) and the power button.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path

SLOT_SIZE = 16 * 1024 * 1024  # bytes
MAX_TRIES = 3  # starts of a group without being marked good, before the selector gives it up
HEADER = "# GRUB Environment Block\n"

SYSTEM_CONF = """\
[system]
compatible=Virtual Device
bootloader=grub
grubenv={root}/boot/grubenv
data-directory={root}/data

[keyring]
path={root}/etc/keyring.pem

[slot.rootfs.0]
device={root}/slots/rootfs.0.img
type=ext4
bootname=A

[slot.rootfs.1]
device={root}/slots/rootfs.1.img
type=ext4
bootname=B
"""

AGENT_CONF = """\
[folder]
path = "{root}/drop"

[confirm]
stable-for = {stable_for}
"""


SELF_TEST = """\
#!/bin/sh
echo "{says}"
exit {code}
"""


def run_tool(*command: str) -> str:
    """Run one of e2fsprogs' tools, which lie in /sbin, outside of a user's PATH; returns its output."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    tool = shutil.which(command[0], path=path) or command[0]
    return subprocess.run([tool, *command[1:]], check=True, capture_output=True, text=True).stdout


def make_image(
    path: Path, version: str, *, healthy: bool = True, fault: str = "", size: int = SLOT_SIZE // 2
) -> None:
    """An ext4 image with a system of `version` in it; an unhealthy one never comes up.

    `fault`: it comes up, but this is what its application complains of.
    """
    with tempfile.TemporaryDirectory() as tree:
        etc, programs = Path(tree, "etc"), Path(tree, "bin")
        etc.mkdir()
        programs.mkdir()
        application = SELF_TEST.format(says=fault or "all is well", code=1 if fault else 0)
        (programs / "application").write_text(application)
        (etc / "os-release").write_text(f"NAME=Virtual\nVERSION_ID={version}\n")
        (etc / "filler").write_bytes(os.urandom(size // 4))
        if not healthy:
            (etc / "never-starts").touch()
        run_tool("mkfs.ext4", "-q", "-F", "-d", tree, str(path), f"{size // 1024}k")


def make_content(
    folder: Path, version: str, *, healthy: bool = True, fault: str = "", bundle_format: str = "verity"
) -> None:
    """What `updated bundle` takes: an image and a manifest."""
    folder.mkdir(parents=True)
    make_image(folder / "rootfs.ext4", version, healthy=healthy, fault=fault)
    (folder / "manifest.raucm").write_text(
        f"[update]\ncompatible=Virtual Device\nversion={version}\n\n"
        f"[bundle]\nformat={bundle_format}\n\n[image.rootfs]\nfilename=rootfs.ext4\n"
    )


class VirtualDevice:
    """One device in the folder `root`."""

    def __init__(
        self,
        root: Path,
        keyring: bytes,
        *,
        stable_for: float = 1.0,
        system_conf: str = SYSTEM_CONF,
        agent_conf: str = AGENT_CONF,
        bootnames: str = "AB",
    ) -> None:
        """Fresh from the factory: version 1.0.0 in group A, nothing in the others.

        `system_conf` and `agent_conf` know `{root}`; group `bootnames[n]` is the file slots/rootfs.<n>.img.
        """
        self.root = root
        self.bootnames = bootnames
        self.service: subprocess.Popen[bytes] | None = None
        self.booted = ""
        for name in ("bin", "etc", "slots", "boot", "data", "drop", "run"):
            (root / name).mkdir(parents=True)
        # Whatever happens in here must not restart the machine that this runs on.
        (root / "bin/systemctl").write_text(f'#!/bin/sh\necho "systemctl $*" >>"{root}/run/asked-systemd"\n')
        (root / "bin/systemctl").chmod(0o755)
        (root / "service.log").touch()
        (root / "etc/system.conf").write_text(system_conf.format(root=root))
        (root / "etc/updated.toml").write_text(agent_conf.format(root=root, stable_for=stable_for))
        (root / "etc/keyring.pem").write_bytes(keyring)
        first, others = bootnames[0], bootnames[1:]
        make_image(self.slot_of(first), "1.0.0", size=SLOT_SIZE)
        env = {"ORDER": " ".join(bootnames), f"{first}_OK": "1", f"{first}_TRY": "0"}
        for name in others:
            self.slot_of(name).write_bytes(bytes(SLOT_SIZE))
            env |= {f"{name}_OK": "0", f"{name}_TRY": "0"}
        self.write_env(env)

    # The firmware

    def read_env(self) -> dict[str, str]:
        lines = (self.root / "boot/grubenv").read_text().removeprefix(HEADER).splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def write_env(self, env: Mapping[str, str]) -> None:
        text = HEADER + "".join(f"{key}={value}\n" for key, value in env.items())
        (self.root / "boot/grubenv").write_text(text.ljust(1024, "#"))

    def select(self) -> str:
        """The firmware's choice: the first of ORDER that is good and has tries left; counts the try."""
        env = self.read_env()
        for name in env["ORDER"].split():
            if env[f"{name}_OK"] == "1" and int(env[f"{name}_TRY"]) < MAX_TRIES:
                env[f"{name}_TRY"] = str(int(env[f"{name}_TRY"]) + 1)
                self.write_env(env)
                return name
        raise RuntimeError("no group can be started")

    def power_on(self) -> list[str]:
        """Start until a group comes up; returns the groups that were tried, the last one runs."""
        tried = []
        while True:
            self.booted = self.select()
            tried.append(self.booted)
            if self.comes_up(self.booted):
                (self.root / "run/cmdline").write_text(f"quiet rauc.slot={self.booted}\n")
                (self.root / "run/boot-id").write_text(f"{uuid.uuid4()}\n")
                (self.root / "run/asked-systemd").unlink(missing_ok=True)
                return tried

    def slot_of(self, bootname: str) -> Path:
        return self.root / "slots" / f"rootfs.{self.bootnames.index(bootname)}.img"

    def comes_up(self, bootname: str) -> bool:
        """Is there a system in the group, and does it start?"""
        found = run_tool("debugfs", "-R", "ls /etc", str(self.slot_of(bootname)))
        return "os-release" in found and "never-starts" not in found

    # The running system

    def unpack(self, program: str) -> None:
        """Copy `program` of the running system to our folder bin; without root nothing can be mounted."""
        copy = self.root / "bin" / program
        copy.unlink(missing_ok=True)
        run_tool("debugfs", "-R", f"dump /bin/{program} {copy}", str(self.slot_of(self.booted)))
        copy.chmod(0o755)

    def asked_to_reboot(self) -> bool:
        """The service wants the power button pressed."""
        asked = self.root / "run/asked-systemd"
        return asked.exists() and "systemctl reboot" in asked.read_text()

    def options(self) -> list[str]:
        """Options of `updated service` that make it live here instead of in /etc, /run and /proc."""
        return [
            f"--conf={self.root}/etc/system.conf",
            f"--agent-conf={self.root}/etc/updated.toml",
            f"--runtime-directory={self.root}/run",
            f"--cmdline={self.root}/run/cmdline",
            f"--boot-id={self.root}/run/boot-id",
        ]

    def start_service(self, *, env: Mapping[str, str] | None = None) -> None:
        with (self.root / "service.log").open("ab") as log:
            self.service = subprocess.Popen(
                [sys.executable, "-m", "updated", "service", *self.options()],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=self._environment(env or {}),
            )

    def _environment(self, more: Mapping[str, str]) -> Mapping[str, str]:
        nowhere = f"unix:path={self.root}/run/no-bus"
        env = {**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": nowhere, **more}
        return {**env, "PATH": f"{self.root}/bin:{env['PATH']}"}

    def stop_service(self, *, kill: bool = False) -> int:
        """Orderly (SIGTERM), or as a power cut does it (SIGKILL); returns the exit code."""
        assert self.service is not None
        self.service.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        code = self.service.wait(30)
        self.service = None
        return code

    def log(self) -> str:
        return (self.root / "service.log").read_text(errors="replace")
