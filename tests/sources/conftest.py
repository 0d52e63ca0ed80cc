"""USB sticks without USB: loop devices that a real udevd, in namespaces of its own, takes for sticks.

The udevd hears the kernel's events of all block devices, and minds those whose backing file is in the test's
own folder.  Code under test enters the namespaces in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import subprocess
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

CLONE_FS = 0x200
SIGNATURE = b"\x30\x82" + bytes(98)
BUNDLE = bytes(4096) + SIGNATURE + len(SIGNATURE).to_bytes(8, "big")

RULES = (
    'SUBSYSTEM=="block", KERNEL=="loop*", ATTRS{{loop/backing_file}}=="{folder}/*",'
    ' ENV{{ID_BUS}}="usb", ENV{{ID_SERIAL}}="stick", IMPORT{{builtin}}="blkid"\n'
)
# The namespaces' own /run, and no rules but ours.
SETUP = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
for folder in /usr/lib/udev /etc/udev; do [ ! -d $folder ] || mount -t tmpfs tmpfs $folder; done
mkdir -p /run/udev/rules.d
printf '%s' "$RULES" > /run/udev/rules.d/50-test.rules
"""


def run(*argv: str | Path) -> str:
    return subprocess.run([str(word) for word in argv], check=True, capture_output=True, text=True).stdout


@dataclass
class World:
    """Mount and network namespaces, kept by a process."""

    process: int

    def run(self, scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """`asyncio.run` of a scenario inside; what it raises is raised."""
        errors: list[BaseException] = []

        def enter() -> None:
            try:
                libc = ctypes.CDLL(None, use_errno=True)
                assert libc.unshare(CLONE_FS) == 0
                for kind in ("net", "mnt"):
                    handle = os.open(f"/proc/{self.process}/ns/{kind}", os.O_RDONLY)
                    assert libc.setns(handle, 0) == 0, os.strerror(ctypes.get_errno())
                    os.close(handle)
                asyncio.run(scenario(), debug=False)
            except BaseException as error:  # noqa: BLE001 - raised below
                errors.append(error)

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]


@contextlib.contextmanager
def world(command: str, folder: Path) -> Iterator[World]:
    environment = {**os.environ, "RULES": RULES.format(folder=folder)}
    script = ["unshare", "--mount", "--net", "sh", "-c", SETUP + command]
    with subprocess.Popen(script, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            yield World(process.pid)
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()


def appeared(path: Path) -> None:
    end = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < end, f"{path} does not come"
        time.sleep(0.01)


@pytest.fixture(scope="session")
def sticks_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sticks")


@pytest.fixture(scope="session")
def udev(sticks_folder: Path) -> Iterator[World]:
    """With a udevd that takes loop devices over files in `sticks_folder` for USB sticks."""
    with world("exec /lib/systemd/systemd-udevd", sticks_folder) as it:
        appeared(Path(f"/proc/{it.process}/root/run/udev/control"))
        yield it


@pytest.fixture
def no_udev(sticks_folder: Path) -> Iterator[World]:
    with world("touch /run/ready; exec sleep 1000", sticks_folder) as it:
        appeared(Path(f"/proc/{it.process}/root/run/ready"))
        yield it


@dataclass
class Sticks:
    """Images of sticks, and the loop devices they are plugged into."""

    folder: Path
    devices: dict[Path, str] = field(default_factory=dict)

    def make(
        self, name: str, content: Path | None = None, *, size: str = "8M", options: tuple[str, ...] = ()
    ) -> Path:
        """An image with an ext4 over all of it that holds `content`."""
        image = self.folder / name
        image.unlink(missing_ok=True)
        run("truncate", "-s", size, image)
        run("mkfs.ext4", "-q", *options, *(("-d", content) if content else ()), image)
        return image

    def plug(self, image: Path, *options: str) -> str:
        """The device's kernel name."""
        device = run("losetup", "--find", "--show", *options, image).strip()
        self.devices[image] = device
        return device.removeprefix("/dev/")

    def unplug(self, image: Path) -> None:
        run("losetup", "--detach", self.devices.pop(image))

    def pull(self, image: Path) -> None:
        """While it is mounted: the kernel only says that it is out."""
        name = self.devices[image].removeprefix("/dev/")
        Path(f"/sys/block/{name}/uevent").write_text("remove")

    def content(self, image: Path, name: str) -> str:
        """Of a file on a stick that is not mounted."""
        return run("debugfs", "-R", f"cat /{name}", image)


@pytest.fixture
def sticks(sticks_folder: Path, tmp_path: Path) -> Iterator[Sticks]:
    folder = sticks_folder / tmp_path.name
    folder.mkdir()
    it = Sticks(folder)
    try:
        yield it
    finally:
        for device in it.devices.values():
            subprocess.run(["losetup", "--detach", device], check=False)


@pytest.fixture
def content(tmp_path: Path) -> Path:
    """A folder with one bundle, to make sticks of."""
    folder = tmp_path / "content"
    folder.mkdir()
    (folder / "update.raucb").write_bytes(BUNDLE)
    return folder
