"""A device in a virtual machine: our unit as it is installed, and sticks that are plugged in.

Nobody does anything in it but what a systemd and a udev do.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from tests.system.guest import Guest

WAIT = 120.0  # seconds; under emulation an install takes some 10
SYSTEM_CONF = """\
[system]
compatible=Test
bootloader=grub
grubenv=/boot/grubenv
data-directory=/var/lib/updated

[keyring]
path=/etc/rauc/keyring.pem

[slot.rootfs.0]
device=/dev/vdb
bootname=A

[slot.rootfs.1]
device=/dev/vdc
bootname=B
"""
HOOKS = """\
on-start = ["/bin/sh", "-c", "echo started $UPDATED_BUNDLE >>/run/hooks"]
on-success = ["/bin/sh", "-c", "echo success $UPDATED_VERSION >>/run/hooks"]
on-failure = ["/bin/sh", "-c", "echo failure $UPDATED_RESULT >>/run/hooks"]
"""
AGENT_CONF = """\
[confirm]
stable-for = 0.1

[usb]
enable = {enable}
{usb}
"""
GRUBENV = "# GRUB Environment Block\nORDER=A B\nA_OK=1\nA_TRY=0\nB_OK=0\nB_TRY=0\n".ljust(1024, "#")
FORGET = """\
systemctl stop updated
rm -rf /var/lib/updated/* /etc/systemd/system/updated.service.d /run/hooks
journalctl --lines=0 --show-cursor | sed -n 's/^-- cursor: //p' >/run/cursor
systemctl daemon-reload
systemctl reset-failed
"""


class Device:
    """Fresh from the factory: runs from group A, nothing is plugged in, the service is not started."""

    def __init__(self, guest: Guest, keyring: bytes, target: Path) -> None:
        """`target`: the image of group B."""
        self.guest = guest
        self.run = guest.run
        self._target = target
        for name in guest.sticks:
            guest.pull(name)
        guest.run(FORGET)
        guest.write("/etc/rauc/system.conf", SYSTEM_CONF.encode())
        guest.write("/etc/rauc/keyring.pem", keyring)
        guest.write("/boot/grubenv", GRUBENV.encode())
        self.configure()

    def configure(self, usb: str = "", *, hooks: str = HOOKS, enable: bool = True) -> None:
        """What is in `[usb]`."""
        text = AGENT_CONF.format(usb=f"{usb}\n{hooks}", enable=str(enable).lower())
        self.guest.write("/etc/updated/updated.toml", text.encode())

    def override(self, lines: str) -> None:
        """A drop-in with these lines in `[Service]`."""
        text = f"[Service]\n{lines}\n"
        self.guest.write("/etc/systemd/system/updated.service.d/override.conf", text.encode())
        self.run("systemctl daemon-reload")

    def start(self) -> None:
        self.run("systemctl start updated")

    def reload(self) -> None:
        self.run("systemctl reload updated")
        self.wait_for_journal("configuration reloaded")

    # What it did

    def journal(self) -> str:
        """The service's lines since the device is fresh, and systemd's about it."""
        command = "journalctl --no-pager --output=cat --unit=updated"
        return self.run(f'{command} --after-cursor="$(cat /run/cursor)"')

    def wait(self, what: str, true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT
        while not true():
            assert time.monotonic() < deadline, f"waited {WAIT:g} s for {what} in vain:\n{self.journal()}"
            time.sleep(0.2)

    def wait_for_journal(self, text: str, count: int = 1) -> None:
        """`text` is there `count` times."""
        self.wait(repr(text), lambda: self.journal().count(text) >= count)

    def wait_for_installed(self, count: int = 1) -> None:
        self.wait_for_journal("installed: Installed to rootfs.1", count)

    def wait_for_file(self, path: str, text: str) -> None:
        self.wait(f"{text!r} in {path}", lambda: text in self.run(f"cat {path}", check=False))

    def history(self) -> list[str]:
        """Codes, the newest first."""
        return [line.split()[1] for line in self.run("updated history").splitlines() if line[:2] == "20"]

    def mounts(self) -> str:
        """What the service sees."""
        return self.run("cat /proc/$(systemctl show -P MainPID updated)/mounts")

    def wait_for_unmounted(self) -> None:
        self.wait("unmounting", lambda: "/run/updated/usb" not in self.mounts())

    def is_good(self, bootname: str) -> bool:
        """As GRUB sees it."""
        return f"{bootname}_OK=1" in self.run("grep --text OK /boot/grubenv")

    def holds(self, image: Path) -> bool:
        """Whether group B begins with `image`, byte for byte."""
        with image.open("rb") as wanted, self._target.open("rb") as found:
            while piece := wanted.read(1 << 20):
                if found.read(len(piece)) != piece:
                    return False
        return True
