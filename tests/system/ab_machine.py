"""A machine that really boots from an A/B disk, again and again, by itself.

    with Machine(disk, folder) as machine:              # booted: commands can be run
        machine.run("mv /data/bundles/system-2.raucb /data/drop")
        machine.wait_for("grep rauc.slot=B /proc/cmdline")   # goes with it through all its reboots
        machine.power_cut()
        machine.power_on()
        saved = machine.save()                          # switched off, with its memory kept
        machine.resume(saved)                           # as it was, in a second; as often as you like

A reset by anybody (systemd, a panic, the hardware watchdog) ends QEMU, and it is started afresh as soon as
one of the waiting methods is called: under emulation a warm reset takes longer than a cold start.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from tests.system.ab_image import HERE, Disk
from tests.system.guest import COMMAND_TIMEOUT, Agent, Guest, GuestError, GuestGone

WAIT = 300.0  # seconds: for an install, a reboot and a confirmation, on a machine with much else to do
LOOK = 10.0  # seconds that one look in the guest takes at most
HTTP = "http://10.0.2.100"  # where the guest finds the host's server
IDLE = "waiting for an update"  # what the service says then
GRUBENV = "/efi/grub/grubenv"

Ending = Literal["", "reset", "watchdog", "power cut", "saved"]


@dataclass(slots=True)
class Boot:
    """One start of the machine."""

    number: int  # from 1
    log: Path
    ended: Ending = ""  # "": it runs

    @property
    def console(self) -> str:
        """What the loader and the kernel said."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    @property
    def slot(self) -> str:
        """Which the loader has chosen; "" if it has not come so far."""
        found = re.search(r"(?:GRUB|U-BOOT) slot=(\w)", self.console)
        return found[1] if found else ""


class Machine(Guest):
    """A `Guest` that boots by its own loader, with a network to the host and a hardware watchdog.

    Use it as a context manager.  `boots`: all its starts, the last one is the present one.
    """

    def __init__(
        self,
        disk: Disk,
        folder: Path,
        *,
        http_port: int | None = None,
        memory: int = 512,
        saved: Path | None = None,
    ) -> None:
        """`folder`: for the disk's changes and the logs; `http_port`: of a server on this machine's loopback,
        which is `HTTP` in the guest; `saved`: by `save`, of a machine with the same disk, memory and network.
        """
        super().__init__(disk, folder, memory=memory)
        self.loader = disk.loader
        self.boots: list[Boot] = []
        self._http_port, self._saved = http_port, saved
        self._connected = False

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._saved is None:
            super().__enter__()
            return self
        try:
            self.resume(self._saved)
        except BaseException:
            self.power_cut()
            raise
        return self

    # Power

    def power_on(self, *, wait: bool = True) -> None:
        """Start; `wait`: until commands can be run, through all reboots on the way."""
        self._start()
        if wait:
            self.wait_ready()

    def power_cut(self) -> None:
        """Page cache, and disk writes that the guest did not flush, are gone."""
        if self._process is not None and self.boots:
            self.boots[-1].ended = "power cut"
        self._connected = False
        super().power_cut()

    def wait_ready(self, timeout: float = WAIT) -> None:
        """Wait until commands can be run, through all reboots on the way."""
        self._follow(time.monotonic() + timeout)

    def wait_reboot(self, timeout: float = WAIT) -> Boot:
        """Wait until it resets for whatever reason and has booted again; returns the boot that ended."""
        boot, deadline = self.boots[-1], time.monotonic() + timeout
        if not self.qmp.wait(self._has_shut_down, timeout):
            raise GuestError(f"no reboot within {timeout:g} s\n{self.report()}")
        self._follow(deadline)
        return boot

    def reboot(self, timeout: float = WAIT) -> None:
        """As a person does; returns when commands can be run again."""
        self.begin("systemctl --no-block reboot")
        self.wait_reboot(timeout)

    def save(self) -> Path:
        """Keep the running machine with its memory, and switch it off.

        Plug out all sticks before.  What is in `folder` afterwards is needed as long as what was saved.
        """
        self.run("sync; echo 3 >/proc/sys/vm/drop_caches")
        answer = self.qmp.command("human-monitor-command", timeout=120, command_line="savevm booted")
        if answer:
            raise GuestError(f"savevm: {answer}")
        self.qmp.command("quit")
        self._ended("saved")
        saved = self.folder / f"saved-{len(self.boots)}.qcow2"
        shutil.copyfile(self._overlay, saved)
        return saved

    def resume(self, saved: Path) -> None:
        """Go on from what `save` kept, with its disk and memory; what runs is switched off."""
        self.power_cut()
        subprocess.run(["cp", "--sparse=always", str(saved), str(self._overlay)], check=True)
        self._start("-loadvm", "booted")
        self._connect(30)
        self.run(f"date --set=@{time.time():.2f}")  # its clock stood still

    # In the guest

    def wait_for(self, command: str, timeout: float = WAIT) -> None:
        """Wait until a shell command succeeds in the guest, through all reboots on the way."""
        script = f"until {{ {command}\n}} >/dev/null 2>&1; do sleep 0.5; done"
        look = f"timeout {LOOK:g} sh -c {shlex.quote(script)}"
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            self._follow(deadline)
            try:
                code, _ = self.execute(look, LOOK + COMMAND_TIMEOUT)
            except GuestGone:
                self._disconnect()
                continue
            if code == 0:
                return
        raise GuestError(f"waited {timeout:g} s for {command!r} in vain\n{self.report()}")

    def begin(self, command: str) -> None:
        """Start a shell command in the guest; nobody waits for it."""
        self._agent.command("guest-exec", path="/bin/sh", arg=["-c", command])

    def wait_for_idle(self, slot: str = "", timeout: float = WAIT) -> None:
        """Wait until it has booted from `slot` ("": any), has marked that good and waits for an update."""
        good = {
            "grub": f'grep --text "^${{slot}}_TRY=0" {GRUBENV}',
            "uboot": "fw_printenv BOOT_${slot}_LEFT | grep =3",
        }
        self.wait_for(
            f"slot=$(grep -o 'rauc.slot={slot}.*' /proc/cmdline | cut -c 11)"
            f' && test "$slot" && {good[self.loader]}'
            f" && systemctl show -P StatusText updated | grep {shlex.quote(IDLE)}",
            timeout,
        )

    @property
    def slot(self) -> str:
        """The booted one."""
        return self.run("cat /proc/cmdline").partition("rauc.slot=")[2].split()[0]

    @property
    def version(self) -> str:
        """Of the booted system."""
        return self.run("cat /etc/version").strip()

    def is_good(self, slot: str) -> bool:
        """Whether the loader has `slot` first, with all its attempts."""
        found = self.environment()
        if self.loader == "grub":
            return found["ORDER"][:1] == slot and (found[f"{slot}_OK"], found[f"{slot}_TRY"]) == ("1", "0")
        return found["BOOT_ORDER"][:1] == slot and found[f"BOOT_{slot}_LEFT"] == "3"

    def environment(self) -> dict[str, str]:
        """The loader's variables."""
        command = "fw_printenv" if self.loader == "uboot" else f"grep --text = {GRUBENV}"
        return dict(line.split("=", 1) for line in self.run(command).splitlines())

    def journal(self) -> str:
        """The service's lines of all boots that the data partition has kept."""
        return self.run("journalctl --no-pager --output=short-monotonic --unit=updated")

    def history(self) -> list[str]:
        """Codes, the newest first."""
        return [line.split()[1] for line in self.run("updated history").splitlines() if line[:2] == "20"]

    # The log

    @property
    def reboots(self) -> int:
        """How often it was reset, by whomever."""
        return sum(boot.ended in ("reset", "watchdog") for boot in self.boots)

    def report(self) -> str:
        """The ends of the last serial consoles, and the service's journal if it can be had."""
        text = "".join(
            f"--- console of boot {boot.number} {boot.ended}\n{boot.console[-3000:]}\n"
            for boot in self.boots[-3:]
        )
        if not self._connected:
            return text
        try:
            return f"{text}--- journal\n{self.journal()[-6000:]}"
        except GuestError as error:
            return f"{text}--- no journal: {error}"

    # Inside

    def _start(self, *options: str) -> None:
        self.boots.append(Boot(len(self.boots) + 1, self._next_console(len(self.boots) + 1)))
        super()._start(*options)

    def _next_console(self, number: int) -> Path:
        return self.folder / f"console-{number}.log"

    def _console(self) -> Path:
        return self.boots[-1].log

    def _follow(self, deadline: float) -> None:
        """Start again what has reset; return when commands can be run."""
        while not self._connected or self._has_shut_down():
            left = deadline - time.monotonic()
            if left <= 0 or not self.qmp.wait(lambda: self._has_shut_down() or self._agent_is_there(), left):
                raise GuestError(f"the guest does not come up\n{self.report()}")
            if self._has_shut_down():
                self._start_again()
                continue
            try:
                self._connect(min(left, 30))
            except GuestGone:
                self._disconnect()
                self.qmp.wait(self._has_shut_down, 1)

    def _start_again(self) -> None:
        events = [event["event"] for event in self.qmp.events]
        reason = next(e["data"]["reason"] for e in self.qmp.events if e["event"] == "SHUTDOWN")
        if reason != "guest-reset":
            raise GuestError(f"it has switched itself off: {reason}\n{self.report()}")
        self._ended("watchdog" if "WATCHDOG" in events else "reset")
        self._start()

    def _ended(self, how: Ending) -> None:
        """QEMU ends by itself."""
        assert self._process is not None
        self._process.wait(60)
        self.power_cut()
        self.boots[-1].ended = how

    def _has_shut_down(self) -> bool:
        return any(event["event"] == "SHUTDOWN" for event in self.qmp.events)

    def _agent_is_there(self) -> bool:
        changes = [e["data"]["open"] for e in self.qmp.events if e["event"] == "VSERPORT_CHANGE"]
        return bool(changes) and bool(changes[-1])

    def _connect(self, timeout: float) -> None:
        self._agent = Agent(self._sockets / "agent")
        self._agent.sync(timeout)
        self._connected = True

    def _disconnect(self) -> None:
        self._connected = False
        if hasattr(self, "_agent"):
            self._agent.close()

    def _command_line(self) -> list[str]:
        network = "user,id=net0,restrict=on"
        if self._http_port:
            relay = f"{sys.executable} -ISE {HERE / 'relay.py'} {self._http_port}"
            network += f",guestfwd=tcp:{HTTP.removeprefix('http://')}:80-cmd:{relay}"
        line = [*super()._command_line(), "-action", "reboot=shutdown,watchdog=reset"]
        line += ["-device", "i6300esb", "-netdev", network]
        return [*line, "-device", "virtio-net-pci,netdev=net0,romfile="]
