"""What README.md tells, on a virtual device: `try_it.py [nginx|python]`.

The commands are those of the page; only the port is a free one.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from demo import private_bus, say, wait_for
from keys import make_signer
from virtual_device import VirtualDevice, make_content

HERE = Path(__file__).parent
PORT = "8080"  # on the page
LOOK = 60.0  # seconds; a device looks 30 seconds after it was told to
CONFIRM = "\n[confirm]\nstable-for = {stable_for}\n"


class Page:
    """The page's commands, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        (folder / "www").mkdir()
        (folder / "bin").mkdir()
        self._program("updated", '-m updated "$@"')
        self._program("python3", '"$@"')
        self._environment = {**os.environ, "PATH": f"{folder}/bin:{os.environ['PATH']}:/usr/sbin"}
        (folder / "nginx.conf").write_text(self.file("nginx.conf"))

    def file(self, name: str) -> str:
        return (HERE / name).read_text().replace(PORT, str(self.port))

    def commands(self, kind: str) -> list[str]:
        found = re.findall(rf"^```sh {kind}\n(.*?)^```$", self.file("README.md"), re.DOTALL | re.MULTILINE)
        return [line for block in found for line in block.splitlines()]

    def run(self, kind: str) -> None:
        for command in self.commands(kind):
            print(f"$ {command}", flush=True)
            subprocess.run(["sh", "-c", command], cwd=self.folder, env=self._environment, check=True)

    @contextlib.contextmanager
    def served(self, kind: str) -> Iterator[None]:
        (command,) = self.commands(kind)
        print(f"$ {command} &", flush=True)
        log = (self.folder / "server.log").open("wb")
        with (
            log,
            subprocess.Popen(
                ["sh", "-c", f"exec {command}"],
                cwd=self.folder,
                env=self._environment,
                stdout=log,
                stderr=log,
            ) as server,
        ):
            try:
                wait_for("the server", self._answers)
                yield
            finally:
                server.terminate()

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def _program(self, name: str, arguments: str) -> None:
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/sh\nexec {sys.executable} {arguments}\n")
        path.chmod(0o755)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def story(folder: Path, server: str) -> None:
    page = Page(folder)
    folder.chmod(0o755)  # a server that is started by root reads it as somebody else
    signer = make_signer("Example Vendor")
    (folder / "cert.pem").write_bytes(signer.certificate)
    (folder / "key.pem").write_bytes(signer.key)
    device = VirtualDevice(
        folder / "device", signer.certificate, agent_conf=page.file("updated.toml") + CONFIRM
    )

    say("On the build host")
    make_content(folder / "content-2.0.0", "2.0.0")
    page.run("build")
    if shutil.which("openssl"):
        page.run("by-hand")

    say("On the server")
    with page.served(server):
        say("On the device, with version 1.0.0 in group A")
        device.power_on()
        try:
            device.start_service()
            wait_for("a confirmed system", lambda: "marked rootfs.0 as good" in device.log())
            page.run("device")
            wait_for("the update", lambda: "installed: " in device.log(), LOOK)
            page.run("later")
            say("Reboot")
            device.stop_service()
            device.power_on()
            device.start_service()
            wait_for("a confirmed system", lambda: "confirmed: " in device.log())
        finally:
            if device.service is not None:
                device.stop_service(kill=True)
            for line in device.log().splitlines():
                print(f"  service: {line.partition('>')[2]}")
    say(f"Group {device.booted} runs; it came from {server}.")


def main() -> None:
    server = (sys.argv[1:] or ["nginx"])[0]
    with tempfile.TemporaryDirectory(prefix="updated-ota-") as folder, private_bus():
        story(Path(folder), server)


if __name__ == "__main__":
    main()
