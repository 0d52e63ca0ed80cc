"""A device, a vendor and a saboteur: what the tests of the whole service are made of."""

from __future__ import annotations

import asyncio
import hashlib
import mmap
import os
import random
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
from keys import Signer
from virtual_device import SYSTEM_CONF, VirtualDevice, make_image

from updated.api.client import Client, Polled, Status
from updated.core.model import InstallArgs
from updated.errors import UpdatedError

WAIT = 20.0  # seconds for what takes some tenths; the machine may be busy
IMAGE_SIZE = 4 << 20  # bytes; four writes of the pipeline
COMPATIBLE = "Virtual Device"
MANIFEST = """\
[update]
compatible={compatible}
version={version}

[bundle]
format={format}

{images}
"""
CUSTOM_CONF = SYSTEM_CONF.replace("bootloader=grub\ngrubenv={root}/boot/grubenv", "bootloader=custom")
CUSTOM_CONF += "\n[handlers]\nbootloader-custom-backend={root}/boot/backend\n"


def until(what: str, true: Callable[[], object], context: Callable[[], str] = str) -> None:
    """Wait for something that a process brings about."""
    deadline = time.monotonic() + WAIT
    while not true():
        assert time.monotonic() < deadline, f"waited {WAIT:g} s for {what} in vain{context()}"
        time.sleep(0.005)


async def eventually(what: str, true: Callable[[], object]) -> None:
    """The same inside of an event loop."""
    deadline = time.monotonic() + WAIT
    while not true():
        assert time.monotonic() < deadline, f"waited {WAIT:g} s for {what} in vain"
        await asyncio.sleep(0.002)


async def operation(client: Client, wanted: str) -> None:
    """Wait for RAUC's property."""
    while (await client.system()).operation != wanted:
        pass


class Vendor:
    """Makes bundles, each only once."""

    def __init__(self, folder: Path, signer: Signer) -> None:
        self.folder = folder
        self.signer = signer
        self.certificate, self.key = folder / "cert.pem", folder / "key.pem"
        self.certificate.write_bytes(signer.certificate)
        self.key.write_bytes(signer.key)
        self._made: dict[tuple[object, ...], Path] = {}

    def system(self, version: str, *, healthy: bool = True) -> bytes:
        """An ext4 image."""
        path = self.folder / f"system-{version}-{healthy}.ext4"
        if not path.exists():
            make_image(path, version, healthy=healthy, size=IMAGE_SIZE)
        return path.read_bytes()

    def noise(self, size: int = IMAGE_SIZE, seed: int = 1) -> bytes:
        """An image that does not compress, and is not an ext4."""
        return random.Random(seed).randbytes(size)

    def bundle(
        self,
        version: str = "2.0.0",
        *,
        images: Mapping[str, bytes] | None = None,
        extra: str = "",
        maker: str = "updated",
        bundle_format: str = "verity",
        compatible: str = COMPATIBLE,
        squashfs: str = "-comp gzip -Xcompression-level 1",
        signer: Signer | None = None,
        options: Sequence[str] = (),
    ) -> Path:
        """A bundle; `images` is file name -> content, its stem the slot class; `extra` is more manifest."""
        files = {"rootfs.ext4": self.system(version)} if images is None else dict(images)
        digest = hashlib.sha256(
            msgspec.json.encode([[n, hashlib.sha256(d).hexdigest()] for n, d in files.items()])
        )
        key = (version, digest.digest(), extra, maker, bundle_format, compatible, squashfs, signer, *options)
        if key not in self._made:
            named = "".join(f"[image.{name.split('.')[0]}]\nfilename={name}\n\n" for name in files)
            manifest = MANIFEST.format(
                compatible=compatible, version=version, format=bundle_format, images=extra or named
            )
            self._made[key] = self.make(files, manifest, maker=maker, squashfs=squashfs, signer=signer)
        return self._made[key]

    def make(
        self,
        files: Mapping[str, bytes],
        manifest: str,
        *,
        maker: str = "updated",
        squashfs: str = "",
        signer: Signer | None = None,
    ) -> Path:
        """A bundle of `files` with `manifest`, made by the real `rauc` or by `updated`."""
        folder = self.folder / f"content-{len(list(self.folder.iterdir()))}"
        folder.mkdir()
        for name, data in files.items():
            (folder / name).write_bytes(data)
            (folder / name).chmod(0o755)
        (folder / "manifest.raucm").write_text(manifest)
        certificate, key = self.certificate, self.key
        if signer is not None:
            certificate, key = folder.with_suffix(".cert"), folder.with_suffix(".key")
            certificate.write_bytes(signer.certificate)
            key.write_bytes(signer.key)
        bundle = folder.with_suffix(".raucb")
        program = [sys.executable, "-m", "updated"] if maker == "updated" else [maker]
        argv = [*program, "bundle", f"--cert={certificate}", f"--key={key}"]
        argv += [f"--mksquashfs-args={squashfs}"] if squashfs else []
        done = subprocess.run([*argv, folder, bundle], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return bundle


class Saboteur:
    """Tells interpose.c what to do at which system call of the service.

    `file` is a part of the path it is about; for a rename, of the new name.
    """

    READ, WRITE, SYNC, RENAME = 1, 2, 4, 8
    DURABLE = WRITE | SYNC | RENAME
    _NOTHING, _SIGNAL, _FAIL, _FAIL_FROM_NOW_ON, _HOLD, _FORGET = range(6)
    _PAGE = struct.Struct("IiIiII256s")

    def __init__(self, page: Path, library: Path) -> None:
        page.write_bytes(bytes(4096))
        with page.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 4096)
        self.env = {"INTERPOSE_PAGE": str(page), "LD_PRELOAD": str(library)}

    def release(self) -> None:
        """Do nothing any more; who is held goes on."""
        self._PAGE.pack_into(self._map, 0, 0, 0, self._NOTHING, 0, self.seen, 0, b"")

    def count(self, kinds: int, file: str = "") -> None:
        """Only count, see `seen`."""
        self._set(kinds, 0, self._NOTHING, 0, file)

    def send(self, number: signal.Signals, kinds: int, at: int, file: str = "") -> None:
        """Before the call number `at` (the first is 1) of `kinds`, a signal to the service."""
        self._set(kinds, at, self._SIGNAL, number, file)

    def fail(self, error: int, kinds: int, at: int, file: str = "", *, always: bool = False) -> None:
        """The call number `at` fails with errno `error`; always: and all that follow."""
        self._set(kinds, at, self._FAIL_FROM_NOW_ON if always else self._FAIL, error, file)

    def forget(self, kinds: int, at: int, file: str = "") -> None:
        """The call number `at` succeeds, and does nothing."""
        self._set(kinds, at, self._FORGET, 0, file)

    def hold(self, kinds: int, at: int, file: str = "") -> None:
        """The call number `at` waits for `release`."""
        self._set(kinds, at, self._HOLD, 0, file)

    @property
    def seen(self) -> int:
        """Calls of the kinds since it was told."""
        return int(self._PAGE.unpack_from(self._map)[4])

    @property
    def acted(self) -> bool:
        return bool(self._PAGE.unpack_from(self._map)[5])

    def _set(self, kinds: int, countdown: int, action: int, argument: int, file: str) -> None:
        self.release()
        self._PAGE.pack_into(self._map, 0, kinds, countdown, action, argument, 0, 0, file.encode())


class Device(VirtualDevice):
    """The demo's device, watched by a test."""

    env: Mapping[str, str] = {}  # more environment for the service
    address = ""  # of the bus
    _shown = 0  # length of the log when this start began

    def start(self) -> None:
        self._shown = len(self.log())
        self.start_service(env=self.env)
        until("the service", lambda: "on the bus" in self.said() or self.dead)
        assert not self.dead, self.log()

    @property
    def dead(self) -> bool:
        return self.service is None or self.service.poll() is not None

    def said(self) -> str:
        """The log since the last start."""
        return self.log()[self._shown :]

    def wait_said(self, text: str, times: int = 1) -> None:
        until(repr(text), lambda: self.said().count(text) >= times or self.dead, lambda: f"\n{self.log()}")
        assert self.said().count(text) >= times, self.log()

    def reboot(self, *, kill: bool = False) -> list[str]:
        """Off and on; returns the groups that the firmware tried."""
        if self.service is not None:
            self.stop_service(kill=kill)
        tried = self.power_on()
        self.start()
        return tried

    # As a client

    def call(self, work: Callable[[Client], Any]) -> Any:
        """`work` of a client, to its end."""

        async def run() -> Any:
            async with Client(self.address) as client:
                return await work(client)

        return asyncio.run(run())

    def install(self, bundle: Path | str, args: InstallArgs = InstallArgs()) -> str:  # noqa: B008  frozen
        """By request, of a path or URL; returns why it failed, "" if it did not."""
        return str(self.call(lambda client: install(client, bundle, args)))

    @contextmanager
    def installing(
        self,
        bundle: Path | str,
        args: InstallArgs = InstallArgs(),  # noqa: B008  frozen
    ) -> Iterator[Future[str]]:
        """The same meanwhile; waits for its end, but not if the test has failed."""
        with ThreadPoolExecutor(1) as pool:
            try:
                yield pool.submit(self.install, bundle, args)
            except BaseException:
                self.stop_service(kill=True)
                raise

    def status(self) -> Status:
        found: Status = self.call(lambda client: client.status())
        return found

    def history(self) -> list[str]:
        """The codes, the oldest first."""
        return [line["code"] for line in self.outcomes()][::-1]

    def outcomes(self) -> Sequence[Mapping[str, str]]:
        """The newest first."""
        found: Sequence[Mapping[str, str]] = self.call(lambda client: client.history(100))
        return found

    def slot(self, name: str) -> Mapping[str, str | int]:
        """A slot as GetSlotStatus shows it."""
        slots = self.call(lambda client: client.slots())
        return next(slot.values for slot in slots if slot.name == name)

    def polled(self) -> Polled:
        """RAUC's Poller."""
        found: Polled = self.call(lambda client: client.polled())
        return found

    def why(self) -> str:
        """`updated why`, a line for each sentence."""
        return "\n".join(self.call(lambda client: client.why()))

    def wait_state(self, state: str) -> Status:
        """The status when the machine is (or was for a moment) in `state`."""
        found: list[Status] = []

        def there() -> bool:
            found.append(self.status())
            return found[-1].state == state

        until(f"state {state}", there)
        return found[-1]

    def wait_fetched(self, count: int) -> Status:
        """The status when the running install has fetched so many bytes."""
        found: list[Status] = []

        def there() -> bool:
            found.append(self.status())
            return bool(found[-1].progress.get("fetched", 0) >= count)

        until(f"{count} bytes", there, lambda: f"\n{self.log()}")
        return found[-1]

    def wait_rest(self, code: str) -> None:
        """Until the history's last line is `code`, and nothing goes on any more."""
        until(f"{code} in the history", lambda: [line["code"] for line in self.outcomes()][:1] == [code])

    def reload(self, agent_conf: str) -> None:
        """Another updated.toml, and SIGHUP."""
        (self.root / "etc/updated.toml").write_text(agent_conf.format(root=self.root, stable_for=0.05))
        before = self.said().count("configuration reloaded")
        assert self.service is not None
        self.service.send_signal(signal.SIGHUP)
        self.wait_said("configuration reloaded", before + 1)

    # As a person with a screwdriver

    def grow(self, bootname: str, size: int) -> None:
        """A larger slot."""
        os.truncate(self.slot_of(bootname), size)

    def written(self) -> int:
        """Bytes that the service has written so far, to whatever it was (proc(5), wchar)."""
        assert self.service is not None
        lines = Path(f"/proc/{self.service.pid}/io").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("wchar"))

    def data_files(self) -> Mapping[str, int]:
        """Name and size of what is in the data directory."""
        folder = self.root / "data"
        found = {}
        for file in folder.rglob("*"):
            with suppress(FileNotFoundError):  # it was renamed meanwhile
                if not file.is_dir():
                    found[str(file.relative_to(folder))] = file.stat().st_size
        return found

    def content(self, bootname: str, size: int = IMAGE_SIZE) -> bytes:
        """The first `size` bytes of a group's slot."""
        with self.slot_of(bootname).open("rb") as slot:
            return slot.read(size)

    def untouched(self) -> bytes:
        """A digest of all slots and the boot environment: equal means that nothing was written."""
        files = [*sorted((self.root / "slots").iterdir()), self.root / "boot/grubenv"]
        return hashlib.sha256(b"".join(file.read_bytes() for file in files)).digest()

    def primary(self) -> str:
        """Bootname that the firmware would start next."""
        env = self.read_env()
        return next(name for name in env["ORDER"].split() if env[f"{name}_OK"] == "1")

    def saved(self, name: str) -> Any:
        """A file of the data directory."""
        return msgspec.json.decode((self.root / "data" / name).read_bytes())


async def install(
    client: Client,
    bundle: Path | str,
    args: InstallArgs = InstallArgs(),  # noqa: B008  frozen
) -> str:
    """Why it failed, "" if it did not."""
    try:
        async for _ in client.install(str(bundle), args):
            pass
    except UpdatedError as error:
        return str(error)
    return ""


def rauc(address: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """The real command line as a client."""
    env = {**os.environ, "DBUS_STARTER_BUS_TYPE": "session", "DBUS_SESSION_BUS_ADDRESS": address}
    return _run(["rauc", *map(str, words)], env)


def updated(address: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Our command line as a client."""
    env = {
        **os.environ,
        "NO_COLOR": "1",
        "DBUS_STARTER_BUS_TYPE": "session",
        "DBUS_SESSION_BUS_ADDRESS": address,
    }
    return _run([sys.executable, "-m", "updated", *map(str, words)], env)


def _run(argv: Sequence[str], env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)
