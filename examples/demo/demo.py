"""The main job on a virtual device: a signed bundle becomes the running system; bad ones do not.

Run it with `make demo`.  It needs no root; everything is in a temporary folder that is removed at the end.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from keys import make_signer
from server import serving
from virtual_device import AGENT_CONF, VirtualDevice, make_content

KIOSK = Path(__file__).parent.parent / "kiosk/kiosk.py"
WAIT = 30.0  # seconds; each step takes about one

CHECKS = """\
deadline = 4

[[confirm.checks]]
type = "command"
name = "application"
command = ["{root}/bin/application", "--self-test"]
period = 0.2

[reboot]
command = ["systemctl", "reboot"]
"""


def say(text: str) -> None:
    print(f"\n\033[1m== {text}\033[0m" if sys.stdout.isatty() else f"\n== {text}", flush=True)


def updated(*arguments: str, code: int = 0) -> None:
    """Run our command line as a person would, and show what is typed; it must end with `code`."""
    print(f"$ updated {' '.join(arguments)}", flush=True)
    done = subprocess.run([sys.executable, "-m", "updated", *arguments], check=False)
    if done.returncode != code:
        raise SystemExit(f"expected exit code {code}, got {done.returncode}")


@contextlib.contextmanager
def private_bus() -> Iterator[None]:
    """A message bus of our own, so that nothing on this machine is touched."""
    command = ["dbus-daemon", "--session", "--print-address=1", "--nofork", "--nopidfile"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as daemon:
        assert daemon.stdout is not None
        os.environ["DBUS_SESSION_BUS_ADDRESS"] = daemon.stdout.readline().strip()
        os.environ["DBUS_STARTER_BUS_TYPE"] = "session"
        try:
            yield
        finally:
            daemon.terminate()


def wait_for(what: str, true: Callable[[], bool], seconds: float = WAIT) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise SystemExit(f"the demo waited {seconds:g} s for {what} in vain")
        time.sleep(0.05)


class Demo:
    """The story, with a device, a maker's keys and a log that is shown as it grows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        signer = make_signer("Demo Vendor")
        (folder / "cert.pem").write_bytes(signer.certificate)
        (folder / "key.pem").write_bytes(signer.key)
        conf = AGENT_CONF + CHECKS
        self.device = VirtualDevice(folder / "device", keyring=signer.certificate, agent_conf=conf)
        self._shown = 0

    def start(self) -> None:
        tried = self.device.power_on()
        print(f"firmware: tried {', '.join(tried)}; running from group {self.device.booted}")
        self.device.unpack("application")
        self.device.start_service()
        wait_for("the service", lambda: "on the bus" in self.device.log())

    def reboot(self) -> None:
        say("Reboot")
        self.device.stop_service()
        self._shown = len(self.device.log())
        self.start()

    def make_bundle(self, version: str, *, healthy: bool = True, fault: str = "") -> Path:
        content, bundle = self.folder / f"content-{version}", self.folder / f"system-{version}.raucb"
        make_content(content, version, healthy=healthy, fault=fault)
        keys = [f"--cert={self.folder}/cert.pem", f"--key={self.folder}/key.pem"]
        updated("bundle", *keys, str(content), str(bundle))
        return bundle

    def drop(self, bundle: Path) -> None:
        """Copy a bundle into the drop folder, and show what a kiosk shows until it is installed."""
        print(f"$ cp {bundle.name} {self.device.root}/drop/", flush=True)
        with subprocess.Popen([sys.executable, str(KIOSK)]) as kiosk:
            shutil.copy(bundle, self.device.root / "drop")
            self.wait_for_log("installed: Installed to")
            kiosk.terminate()

    def wait_for_log(self, text: str) -> None:
        wait_for(repr(text), lambda: text in self.device.log()[self._shown :])
        for line in self.device.log()[self._shown :].splitlines():
            print(f"  service: {line.partition('>')[2]}")
        self._shown = len(self.device.log())

    def run(self) -> None:
        say("A device from the factory: version 1.0.0 in group A, nothing in group B")
        self.start()
        self.wait_for_log("marked rootfs.0 as good")
        updated("status")

        say("A vendor makes a signed bundle with version 2.0.0")
        bundle = self.make_bundle("2.0.0")
        updated("info", f"--keyring={self.folder}/cert.pem", str(bundle))

        say("The bundle is put into the drop folder")
        self.drop(bundle)
        self.reboot()
        self.wait_for_log("confirmed:")
        updated("status")

        say("The same with version 3.0.0, which never comes up: the bootloader gives it up after three tries")
        self.drop(self.make_bundle("3.0.0", healthy=False))
        self.reboot()
        self.wait_for_log("marked rootfs.1 as good")
        updated("history", "--limit=2")

        say("Version 4.0.0 comes up, but a health check fails: the device goes back by itself")
        self.drop(self.make_bundle("4.0.0", fault="the card reader does not answer"))
        self.reboot()
        self.wait_for_log("is quarantined")
        updated("health", code=1)
        wait_for("the service to ask for the reboot", self.device.asked_to_reboot)
        self.reboot()
        self.wait_for_log("marked rootfs.1 as good")
        updated("health")
        updated("quarantine")

        say("Version 5.0.0 comes from a server, streamed into the slot; nothing of it is stored")
        bundle = self.make_bundle("5.0.0")
        with serving(bundle.parent) as url:
            updated("install", f"{url}/{bundle.name}")
        self.reboot()
        self.wait_for_log("confirmed:")
        updated("history")
        self.device.stop_service()
        say("Version 5.0.0 runs, 3.0.0 and 4.0.0 are quarantined, and nobody had to climb a ladder.")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="updated-demo-") as folder, private_bus():
        demo = Demo(Path(folder))
        try:
            demo.run()
        finally:
            if demo.device.service is not None:
                demo.device.stop_service(kill=True)


if __name__ == "__main__":
    main()
