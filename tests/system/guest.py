"""A virtual machine: a real kernel with a real udev, USB sticks to plug and to pull, power to cut.

QEMU without hardware acceleration, so it works anywhere; it boots in some 20 seconds.  Commands run in it
through QEMU's guest agent, hardware is moved through QEMU's monitor (QMP).
"""

from __future__ import annotations

import base64
import json
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

BOOT_TIMEOUT = 180.0  # seconds; 20 on an idle machine
COMMAND_TIMEOUT = 60.0  # seconds


class GuestError(Exception):
    """The guest or QEMU did not do what was asked."""


class GuestGone(GuestError):
    """It does not answer: it reboots, hangs, or has been switched off."""


class Bootable(Protocol):
    """What a machine starts from."""

    @property
    def disk(self) -> Path:
        """Raw; never written to."""

    def line(self) -> Sequence[str]:
        """QEMU's options: the kind of machine, and what it starts."""


class Qmp:
    """A QMP connection: commands with their answers, and the events since the start."""

    def __init__(self, path: Path) -> None:
        self._socket = _connect(path)
        self._file = self._socket.makefile("rb")
        self._answers: list[dict[str, Any]] = []
        self._condition = threading.Condition()
        self._closed = False
        self.events: list[dict[str, Any]] = []
        self._file.readline()  # greeting
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.command("qmp_capabilities")

    def command(self, name: str, /, timeout: float = 30, **arguments: Any) -> Any:
        """Send one command (underscores in argument names become dashes); returns its result."""
        request = {"execute": name, "arguments": {k.replace("_", "-"): v for k, v in arguments.items()}}
        self._socket.sendall(json.dumps(request).encode() + b"\n")
        with self._condition:
            self._condition.wait_for(lambda: self._answers or self._closed, timeout)
            if not self._answers:
                raise GuestGone(f"no answer to {name}")
            answer = self._answers.pop(0)
        if "error" in answer:
            raise GuestError(f"{name}: {answer['error']}")
        return answer["return"]

    def wait_event(
        self, name: str, matches: Callable[[dict[str, Any]], bool], *, since: int = 0, timeout: float = 60
    ) -> None:
        """Wait for an event after the first `since` ones."""

        def found() -> bool:
            return any(e["event"] == name and matches(e.get("data", {})) for e in self.events[since:])

        self.wait(found, timeout)
        if not found():
            raise GuestError(f"no event {name} within {timeout} s")

    def wait(self, true: Callable[[], bool], timeout: float) -> bool:
        """Wait until it is true, as events make it, or QEMU is gone; returns whether one of them is so."""
        with self._condition:
            return self._condition.wait_for(lambda: true() or self._closed, timeout)

    def close(self) -> None:
        """Once QEMU is gone."""
        self._reader.join(30)
        self._file.close()
        self._socket.close()

    def _read(self) -> None:
        try:
            for line in self._file:
                message = json.loads(line)
                with self._condition:
                    (self.events if "event" in message else self._answers).append(message)
                    self._condition.notify_all()
        except (OSError, ValueError):
            pass  # QEMU is gone
        with self._condition:
            self._closed = True
            self._condition.notify_all()


def _connect(path: Path) -> socket.socket:
    """QEMU's sockets are there a moment before it listens."""
    deadline = time.monotonic() + 10
    while True:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(path))
        except ConnectionRefusedError:
            connection.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return connection


class Agent:
    """The guest agent: runs commands in the guest."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._file = self._socket.makefile("rb")

    def sync(self, timeout: float) -> None:
        """Wait until it answers, and drop what is left of earlier conversations."""
        number = time.monotonic_ns() & 0x7FFFFFFF
        request = {"execute": "guest-sync-delimited", "arguments": {"id": number}}
        self._send(b"\xff" + json.dumps(request).encode() + b"\n", timeout)
        while True:
            try:
                answer = json.loads(self._line().rpartition(b"\xff")[2])
            except ValueError:
                continue  # the end of what somebody else was told
            if isinstance(answer, dict) and answer.get("return") == number:
                return

    def command(self, name: str, /, **arguments: Any) -> Any:
        request = {"execute": name, "arguments": {k.replace("_", "-"): v for k, v in arguments.items()}}
        self._send(json.dumps(request).encode() + b"\n", COMMAND_TIMEOUT)
        answer = json.loads(self._line())
        if "error" in answer:
            raise GuestError(f"{name}: {answer['error']}")
        return answer["return"]

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def _send(self, request: bytes, timeout: float) -> None:
        """`timeout`: seconds, for each line of the answer, too."""
        self._socket.settimeout(timeout)
        try:
            self._socket.sendall(request)
        except OSError as error:
            raise GuestGone(f"the agent is gone: {error}") from error

    def _line(self) -> bytes:
        try:
            line = self._file.readline()
        except OSError as error:  # a timeout is one
            raise GuestGone(f"the agent does not answer: {error}") from error
        if not line.endswith(b"\n"):
            raise GuestGone("the agent is gone")
        return line


class _Stick(NamedTuple):
    """What is plugged in."""

    medium: Path
    writable: bool
    port: int  # 0: any
    rate: int  # bytes per second; 0: no limit
    bad_sector: int | None  # of 512 bytes

    def node(self, limit: str) -> dict[str, Any]:
        """QEMU's description of the medium; `limit` is the throttle group, if there is one."""
        node: dict[str, Any] = {"driver": "file", "filename": str(self.medium)}
        if self.bad_sector is not None:
            error = {"event": "none", "iotype": "read", "sector": self.bad_sector}
            node = {"driver": "blkdebug", "image": node, "inject-error": [error]}
        if self.rate:
            return {"driver": "throttle", "throttle-group": limit, "file": node}
        return {"driver": "raw", "file": node}


class Guest:
    """One virtual device.  Use it as a context manager; power is cut at the end."""

    def __init__(
        self,
        image: Bootable,
        folder: Path,
        *,
        disks: Sequence[Path] = (),
        memory: int = 768,
    ) -> None:
        """`disks`: raw images that become /dev/vdb and so on, and are written to; `memory` in MiB.

        The root disk is a copy-on-write layer in `folder`, so that it keeps what the guest has flushed.
        """
        self.folder = folder
        self._image, self._disks, self._memory = image, disks, memory
        self._overlay = folder / "root.qcow2"
        self._process: subprocess.Popen[bytes] | None = None
        self._sockets = Path()
        self._sticks: dict[str, _Stick] = {}

    def __enter__(self) -> Guest:
        layer = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(self._image.disk), "-F", "raw"]
        subprocess.run([*layer, str(self._overlay)], check=True)
        try:
            self.power_on()
        except BaseException:
            self.power_cut()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.power_cut()

    def power_on(self) -> None:
        """Start, and wait until commands can be run."""
        self._start()
        self.qmp.wait_event("VSERPORT_CHANGE", lambda data: bool(data.get("open")), timeout=BOOT_TIMEOUT)
        self._agent = Agent(self._sockets / "agent")
        self._agent.sync(BOOT_TIMEOUT)

    def _start(self, *options: str) -> None:
        """Returns when QEMU runs; what was plugged in is so again."""
        self._sockets = Path(tempfile.mkdtemp(prefix="guest-"))  # a socket's path has at most 108 bytes
        with (self.folder / "qemu.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._command_line(), *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._wait((self._sockets / "qmp").exists, 10)
        self.qmp = Qmp(self._sockets / "qmp")
        for name, stick in self._sticks.items():
            self._plug(name, stick)

    def power_cut(self) -> None:
        """Page cache, and disk writes that the guest did not flush, are gone."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(30)
        self._process = None
        for connection in ("qmp", "_agent"):
            if hasattr(self, connection):
                getattr(self, connection).close()
        shutil.rmtree(self._sockets, ignore_errors=True)

    def run(self, command: str, *, check: bool = True, timeout: float = COMMAND_TIMEOUT) -> str:
        """Run a shell command in the guest as root; returns what it prints, errors included."""
        code, output = self.execute(command, timeout)
        if check and code:
            raise GuestError(f"{command!r} ended with {code}:\n{output}")
        return output

    def execute(self, command: str, timeout: float = COMMAND_TIMEOUT) -> tuple[int, str]:
        """Run a shell command in the guest as root; returns its exit code and what it prints."""
        started = self._agent.command(
            "guest-exec", path="/bin/sh", arg=["-c", f"exec 2>&1; {command}"], capture_output=True
        )
        deadline, pause = time.monotonic() + timeout, 0.02
        while not (status := self._agent.command("guest-exec-status", pid=started["pid"]))["exited"]:
            if time.monotonic() > deadline:
                raise GuestError(f"{command!r} still runs after {timeout} s")
            time.sleep(pause)
            pause = min(pause * 1.5, 0.3)
        output = base64.b64decode(status.get("out-data", "")).decode(errors="replace")
        return status.get("exitcode", -1), output

    def wait_for(self, command: str, timeout: float = 60) -> None:
        """Wait until a shell command succeeds in the guest."""
        script = f"until {{ {command}\n}} >/dev/null 2>&1; do sleep 0.2; done"
        self.run(f"timeout {timeout:g} sh -c {shlex.quote(script)}", timeout=timeout + 30)

    def write(self, path: str, data: bytes) -> None:
        """Write a small file in the guest; its folder is made."""
        self.run(f"mkdir -p $(dirname {shlex.quote(path)})")
        handle = self._agent.command("guest-file-open", path=path, mode="w")
        self._agent.command("guest-file-write", handle=handle, buf_b64=base64.b64encode(data).decode())
        self._agent.command("guest-file-close", handle=handle)

    def plug(
        self,
        medium: Path,
        name: str = "stick",
        *,
        writable: bool = False,
        port: int = 0,
        rate: int = 0,
        bad_sector: int | None = None,
    ) -> None:
        """Plug in a USB stick with this raw image as its medium.

        Its write protection is on unless `writable`.  `port`: of the hub, 1 to 4; 0: the first that is free.
        `rate`: bytes per second that it can be read with; 0: as fast as it goes.  `bad_sector`: one of 512
        bytes that cannot be read.
        """
        stick = _Stick(medium, writable, port, rate, bad_sector)
        self._plug(name, stick)
        self._sticks[name] = stick

    def pull(self, name: str = "stick") -> None:
        """Pull the stick, whether or not the guest still uses it."""
        since = len(self.qmp.events)
        self.qmp.command("device_del", id=f"usb-{name}")
        self.qmp.wait_event("DEVICE_DELETED", lambda data: data.get("device") == f"usb-{name}", since=since)
        self.qmp.command("blockdev-del", node_name=name)
        if self._sticks.pop(name).rate:
            self.qmp.command("object-del", id=f"limit-{name}")

    @property
    def sticks(self) -> Sequence[str]:
        """Names of those that are plugged in."""
        return tuple(self._sticks)

    def read_of(self, name: str = "stick") -> int:
        """Bytes that were read of a stick since it was plugged in."""
        media = self.qmp.command("query-blockstats")
        return next(int(one["stats"]["rd_bytes"]) for one in media if one.get("node-name") == name)

    def _plug(self, name: str, stick: _Stick) -> None:
        limit = f"limit-{name}"
        if stick.rate:
            limits = {"bps-read": stick.rate}
            self.qmp.command("object-add", qom_type="throttle-group", id=limit, limits=limits)
        self.qmp.command("blockdev-add", node_name=name, read_only=not stick.writable, **stick.node(limit))
        device: dict[str, Any] = {
            "driver": "usb-storage",
            "bus": "xhci.0",
            "drive": name,
            "serial": name,
            "removable": True,
        }
        if stick.port:
            device["port"] = str(stick.port)
        self.qmp.command("device_add", id=f"usb-{name}", **device)

    def _command_line(self) -> list[str]:
        line = [
            "qemu-system-x86_64",
            *self._image.line(),
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "kvm64",
        ]
        line += ["-smp", "2", "-m", str(self._memory), "-nodefaults", "-no-user-config", "-display", "none"]
        line += ["-serial", f"file:{self._console()}", "-device", "virtio-serial-pci"]
        line += ["-qmp", f"unix:{self._sockets}/qmp,server=on,wait=off"]
        line += ["-chardev", f"socket,id=agent,path={self._sockets}/agent,server=on,wait=off"]
        line += ["-device", "virtserialport,id=agent,chardev=agent,name=org.qemu.guest_agent.0"]
        line += ["-device", "virtio-rng-pci", "-device", "qemu-xhci,id=xhci"]
        formats: Mapping[Path, str] = {
            self._overlay: "qcow2",
            **dict.fromkeys(self._disks, "raw"),
        }
        for number, (path, kind) in enumerate(formats.items()):
            line += ["-drive", f"if=none,id=disk{number},file={path},format={kind}"]
            line += ["-device", f"virtio-blk-pci,drive=disk{number}"]
        return line

    def _console(self) -> Path:
        """Where the serial console of this start is written to."""
        return self.folder / "console.log"

    def _wait(self, true: Callable[[], bool], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not true():
            assert self._process is not None
            if self._process.poll() is not None or time.monotonic() > deadline:
                log = (self.folder / "qemu.log").read_text(errors="replace")
                raise GuestError(f"QEMU did not start: {log[-2000:]}")
            time.sleep(0.02)
