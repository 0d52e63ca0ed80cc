"""A device on files, and the service's runner on it, in this process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from updated.authoring import bundle as authoring
from updated.config.agent_toml import AgentConfig, parse_agent_config
from updated.config.system_conf import SystemConfig, load_system_config
from updated.core.model import Offer, Transfer
from updated.core.source import Source
from updated.health.watchdog import Watchdog
from updated.host.conditions import HostConditions
from updated.host.timing import Clocks
from updated.install.device import Device, open_device
from updated.service.agent import ServiceAgent
from updated.service.announce import Announcer
from updated.service.gate import Gatekeeper
from updated.service.offers import Offers
from updated.service.runner import Runner
from updated.service.setting import make_setting
from updated.service.sources import make_sources
from updated.store import Store

IMAGE = 256 * 1024  # bytes
SYSTEM_CONF = """\
[system]
compatible=Test
bootloader=grub
grubenv={root}/grubenv
data-directory={root}/data

[keyring]
path={root}/keyring.pem

[slot.rootfs.0]
device={root}/a.img
bootname=A

[slot.rootfs.1]
device={root}/b.img
bootname=B
"""
AGENT_CONF = """\
[folder]
path = "{root}/drop"
{folder}

[confirm]
stable-for = 0.02
"""


@dataclass
class Ear:
    """A Listener that writes down what it hears, in order."""

    heard: list[tuple[object, ...]] = field(default_factory=list)
    quiet: bool = False  # forget steps and bytes

    def operation(self, operation: str) -> None:
        self.heard.append(("operation", operation))

    def step(self, percentage: int, message: str, depth: int) -> None:
        if not self.quiet:
            self.heard.append(("step", percentage, message, depth))

    def last_error(self, text: str) -> None:
        self.heard.append(("last_error", text))

    def completed(self, result: int) -> None:
        self.heard.append(("completed", result))

    def state(self, state: str, detail: str) -> None:
        self.heard.append(("state", state, detail))

    def transfer(self, transfer: Transfer) -> None:
        if not self.quiet:
            self.heard.append(("transfer", transfer.done, transfer.total))

    def results(self) -> list[object]:
        return [call[1] for call in self.heard if call[0] == "completed"]


@dataclass
class Running:
    """The parts of a service that runs."""

    device: Device
    sources: Sequence[Source]
    store: Store
    announcer: Announcer
    offers: Offers
    runner: Runner
    agent: ServiceAgent
    watchdog: Watchdog
    ear: Ear
    warnings: list[str]
    task: asyncio.Task[None]

    async def until(self, true: Callable[[], object], what: str = "it") -> None:
        async with asyncio.timeout(10):
            while not true():
                assert not self.task.done(), "the runner died"
                await asyncio.sleep(0.002)

    async def install(self, location: Path | str, source: str = "request") -> None:
        """Ask as a person does, and wait for the end."""
        self.runner.request(Offer(source, str(location)))
        async with asyncio.timeout(20):
            await self.runner.rest()

    @property
    def last(self) -> str:
        newest = self.store.history(1)
        return newest[0].code if newest else ""


class Site:
    """A device on files in `root`."""

    def __init__(self, root: Path, keys: Path) -> None:
        self.root = root
        self.keys = keys
        self.boots = 0
        (root / "keyring.pem").write_bytes((keys / "cert.pem").read_bytes())
        for name in ("a.img", "b.img"):
            (root / name).write_bytes(bytes(2 * IMAGE))
        (root / "drop").mkdir()
        self.write_env({"ORDER": "A B", "A_OK": "1", "A_TRY": "0", "B_OK": "0", "B_TRY": "0"})
        (root / "system.conf").write_text(SYSTEM_CONF.format(root=root))
        self.boot("A")

    def write_env(self, env: dict[str, str]) -> None:
        lines = "".join(f"{key}={value}\n" for key, value in env.items())
        (self.root / "grubenv").write_text(f"# GRUB Environment Block\n{lines}".ljust(1024, "#"))

    def env(self) -> dict[str, str]:
        lines = (self.root / "grubenv").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def boot(self, bootname: str) -> None:
        """What the firmware leaves behind: a new boot of this group."""
        self.boots += 1
        (self.root / "cmdline").write_text(f"rauc.slot={bootname}\n")
        (self.root / "boot-id").write_text(f"boot-{self.boots}\n")

    def bundle(self, version: str = "2.0.0", *, compatible: str = "Test") -> Path:
        content, output = self.root / f"content-{version}", self.root / f"{version}.raucb"
        content.mkdir()
        (content / "rootfs.img").write_bytes(random.Random(version).randbytes(IMAGE))
        (content / "manifest.raucm").write_text(
            f"[update]\ncompatible={compatible}\nversion={version}\n[bundle]\nformat=verity\n"
            "[image.rootfs]\nfilename=rootfs.img\n"
        )
        cert, key = ((self.keys / name).read_bytes() for name in ("cert.pem", "key.pem"))
        authoring.create(content, output, certificate=cert, key=key)
        return output

    @contextlib.contextmanager
    def no_data_directory(self) -> Iterator[None]:
        """Nothing can be saved meanwhile."""
        data, aside = self.root / "data", self.root / "data-aside"
        data.rename(aside)
        while not data.is_file():  # a service that runs may make it anew in between
            shutil.rmtree(data, ignore_errors=True)
            with contextlib.suppress(FileExistsError):
                data.touch(exist_ok=False)
        try:
            yield
        finally:
            data.unlink()
            aside.rename(data)

    def config(self, folder: str = "", more: str = "") -> AgentConfig:
        text = AGENT_CONF.format(root=self.root, folder=folder) + more
        return parse_agent_config(text.encode())

    def system(self) -> SystemConfig:
        return load_system_config(self.root / "system.conf", [])

    async def device(self) -> Device:
        return await open_device(
            await asyncio.to_thread(self.system),
            cmdline=self.root / "cmdline",
            boot_id=self.root / "boot-id",
            mount_folder=self.root,
        )

    def gate(self, config: AgentConfig) -> Gatekeeper:
        return Gatekeeper(
            policy=config.policy,
            consent=config.consent,
            system_inhibit_files=(),
            data=self.root / "data",
            conditions=HostConditions(self.root / "data", bus="unix:path=/nowhere"),
            clocks=Clocks("boot"),
            warn=print,
        )

    @contextlib.asynccontextmanager
    async def running(
        self, config: AgentConfig | None = None, *, resumed: bool = True
    ) -> AsyncIterator[Running]:
        """The runner, from its start to an orderly end."""
        config = config or self.config()
        device = await self.device()
        warnings: list[str] = []
        store = await asyncio.to_thread(Store, self.root / "data", warnings.append)
        announcer, ear = Announcer(), Ear()
        announcer.subscribe(ear)
        watchdog = Watchdog(None, lambda: None)
        offers = Offers([])
        setting = await make_setting(
            device, config, await asyncio.to_thread(self.gate, config), self.root / "data"
        )
        runner = Runner(
            setting=setting,
            store=store,
            offers=offers,
            announcer=announcer,
            watchdog=watchdog,
            runtime_directory=self.root,
        )
        sources = await make_sources(setting, self.root, may_poll=runner.shown.may_poll, warn=warnings.append)
        offers.replace(sources)
        task = asyncio.create_task(runner.run())
        agent = ServiceAgent(runner, announcer, store)
        running = Running(
            device, sources, store, announcer, offers, runner, agent, watchdog, ear, warnings, task
        )
        try:
            if resumed:
                async with asyncio.timeout(10):
                    await runner.resumed.wait()
            yield running
            assert not task.done(), "the runner died"
            await runner.stop()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.fixture(autouse=True)
def no_real_reboot(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A verdict may end in a reboot, which must not be that of the machine that tests."""
    folder = tmp_path_factory.mktemp("no-systemd")
    (folder / "systemctl").symlink_to("/bin/true")
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={folder}/no-bus")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with cert.pem and key.pem."""
    folder = tmp_path_factory.mktemp("keys")
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "36500")
    files = ("-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem"))
    command = ["openssl", "req", "-x509", *curve, "-subj", "/CN=signer", *files]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return folder


@pytest.fixture
def site(tmp_path: Path, keys: Path) -> Site:
    return Site(tmp_path, keys)
