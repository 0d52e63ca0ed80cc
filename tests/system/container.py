"""Boot a tree under systemd-nspawn: a real systemd as PID 1 in half a second.  Needs root.

The tree stays as it is (what is written goes into an overlay in memory).  It works without a systemd on the
host, and on a host with cgroup v1, too.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
BOOT_TIMEOUT = 60.0  # seconds; it takes half of one
COMMAND_TIMEOUT = 60.0  # seconds
NAMESPACES = ("-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w")  # all of the container's, and its root
REBOOTED = 133  # exit code of systemd-nspawn --keep-unit when the system in it has rebooted
LIMBO = 5.0  # seconds for the kernel to take away the cgroups of what was killed


class ContainerError(Exception):
    """The container or a command in it failed."""


class Container:
    """One running system.  Use it as a context manager; it is killed at the end."""

    def __init__(self, tree: Path, name: str, *, log: Path, options: Sequence[str] = ()) -> None:
        """`name`: unique on this machine; `options`: more of systemd-nspawn's."""
        self._tree, self._name, self._log, self._options = tree, name, log, options
        self._leader = 0
        self._nspawn: subprocess.Popen[bytes] | None = None
        # nspawn cannot ask a systemd of the host for a unit, so it would take the root of the hierarchy.
        roots = [CGROUP / kind for kind in ("unified", "systemd") if (CGROUP / kind).is_dir()] or [CGROUP]
        self._cgroups = [root / name for root in roots]

    def __enter__(self) -> Container:
        try:
            self._start()
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._kill()

    def run(self, command: str, *, check: bool = True, user: str = "root") -> str:
        """Run a shell command in the container; returns what it prints, errors included.

        Raises ContainerError if it fails and `check` is set.
        """
        enter = ["nsenter", f"--target={self._leader}", *NAMESPACES]
        if user != "root":
            enter += ["runuser", "-u", user, "--"]
        result = subprocess.run(
            [*enter, "/bin/sh", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_TIMEOUT,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
            check=False,
        )
        if check and result.returncode:
            raise ContainerError(f"{command!r} ended with {result.returncode}:\n{result.stdout}")
        return result.stdout

    @property
    def leader(self) -> int:
        """Its PID 1, with the host's number: `nsenter --net=/proc/<leader>/ns/net`."""
        return self._leader

    def path(self, inside: str) -> Path:
        """Where the host sees a path of the container."""
        return Path(f"/proc/{self._leader}/root") / inside.lstrip("/")

    def pids(self, unit: str) -> list[int]:
        """Processes of a service, with the host's numbers, oldest first."""
        folder = self._cgroups[0] / "payload/system.slice" / unit
        try:
            return sorted(int(line) for line in (folder / "cgroup.procs").read_text().split())
        except FileNotFoundError:
            return []

    def wait_for_reboot(self, timeout: float) -> bool:
        """Whether the system ends by a reboot of its own within `timeout` seconds."""
        assert self._nspawn is not None
        return self._nspawn.wait(timeout) == REBOOTED

    def _start(self) -> None:
        for cgroup in self._cgroups:
            cgroup.mkdir()
        loops = sorted(Path("/dev").glob("loop*"))
        command = [
            *("systemd-nspawn", "--quiet", f"--directory={self._tree}", f"--machine={self._name}"),
            *("--boot", "--register=no", "--keep-unit", "--volatile=overlay", "--console=read-only"),
            *("--link-journal=no", "--resolv-conf=off", "--private-network"),
            "--system-call-filter=bpf",  # without it systemd cannot enforce DeviceAllow=
            *(f"--bind={loop}" for loop in loops),
            *self._options,
        ]
        enter = "".join(f"echo $$ >{cgroup}/cgroup.procs; " for cgroup in self._cgroups)
        with self._log.open("wb") as log:
            self._nspawn = subprocess.Popen(
                ["sh", "-c", f'{enter}exec "$@"', "sh", *command],
                env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + BOOT_TIMEOUT
        while not self._booted():
            if self._nspawn.poll() is not None or time.monotonic() > deadline:
                raise ContainerError(f"did not boot: {self._log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.02)

    def _booted(self) -> bool:
        init = self._cgroups[0] / "payload/init.scope/cgroup.procs"
        try:
            self._leader = int(init.read_text().split()[0])
        except (OSError, IndexError):
            return False
        return self.run("systemctl is-system-running", check=False).strip() in ("running", "degraded")

    def _kill(self) -> None:
        """End everything in the container at once, and remove its cgroups."""
        if self._nspawn is not None:
            if self._leader and self._nspawn.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._leader, signal.SIGKILL)  # takes the whole PID namespace along
            self._nspawn.kill()
            self._nspawn.wait()
        deadline = time.monotonic() + LIMBO
        for cgroup in self._cgroups:
            while cgroup.exists() and time.monotonic() < deadline:
                for folder, _, _ in os.walk(cgroup, topdown=False):
                    with contextlib.suppress(OSError):
                        os.rmdir(folder)  # noqa: PTH106 - a cgroup, whose files cannot be removed
                time.sleep(0.01)
