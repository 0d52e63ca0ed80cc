"""A device of files: slots, GRUB's environment made by grub-editenv, a keyring made by openssl."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import pytest

from updated.config.agent_toml import load_agent_config
from updated.config.system_conf import load_system_config
from updated.doctor.finding import Finding
from updated.doctor.run import LIMIT, Request, examine
from updated.doctor.subject import Places, Subject, data_of
from updated.host.clock import now
from updated.host.trusted_time import TrustedTime

SLOT_SIZE = 1 << 20
CONF = """\
[system]
compatible=Test Box
bootloader={bootloader}
data-directory={folder}/data
{system}
[keyring]
path={folder}/etc/keyring.pem
{keyring}
[slot.rootfs.0]
device={folder}/rootfs-0
bootname=A

[slot.rootfs.1]
device={folder}/rootfs-1
bootname=B
{slots}
"""


def run(*words: str | Path, cwd: Path | None = None) -> str:
    argv = [str(word) for word in words]
    return subprocess.run(argv, cwd=cwd, check=True, capture_output=True, text=True, timeout=30).stdout


@dataclass(frozen=True, slots=True)
class Scene:
    """Where the device lies, and what is asked of it."""

    folder: Path
    places: Places

    @property
    def conf(self) -> Path:
        return self.folder / "etc" / "system.conf"

    @property
    def toml(self) -> Path:
        return self.folder / "etc" / "updated.toml"

    def write(
        self, *, bootloader: str = "grub", system: str = "", keyring: str = "", slots: str = ""
    ) -> None:
        if bootloader == "grub":
            system = f"grubenv={self.folder}/grubenv\n{system}"
        text = CONF.format(
            folder=self.folder, bootloader=bootloader, system=system, keyring=keyring, slots=slots
        )
        self.conf.write_text(text)

    def grub(self, **variables: str) -> None:
        words = [f"{name}={value}" for name, value in variables.items()]
        run("grub-editenv", self.folder / "grubenv", "set", *words)

    @property
    def request(self) -> Request:
        return Request(conf=self.conf, agent_conf=self.toml, places=self.places)

    def examine(self, *, limit: float = LIMIT) -> list[Finding]:
        return examine(replace(self.request, limit=limit))

    def subject(self, *, at: datetime | None = None) -> Subject:
        """Without a device: for checks that do not need one."""
        system, agent = load_system_config(self.conf), load_agent_config(self.toml)
        moment, data = at or now(), data_of(agent, system)
        time = TrustedTime(data, print, root=self.folder, wall=lambda: moment)
        return Subject(self.places, moment, os.geteuid() == 0, agent, data, time, system)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[bytes, bytes]]:
    """Certificate and key of a self-signed CA, valid for some days from now."""
    folder = tmp_path_factory.mktemp("certificates")
    made: dict[tuple[object, ...], tuple[bytes, bytes]] = {}

    def make(name: str = "Root", *, days: int = 3650, words: tuple[str, ...] = ()) -> tuple[bytes, bytes]:
        key = (name, days, words)
        if key not in made:
            subject = ("-subj", f"/O=Test/CN={name}", "-days", str(days))
            new = words if "-newkey" in words else ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
            extra = () if "-newkey" in words else words
            argv = ("openssl", "req", "-x509", "-nodes", *new, *extra, *subject)
            run(*argv, "-keyout", "key.pem", "-out", "cert.pem", cwd=folder)
            made[key] = ((folder / "cert.pem").read_bytes(), (folder / "key.pem").read_bytes())
        return made[key]

    return make


@pytest.fixture
def scene(tmp_path: Path, certificate: Callable[..., tuple[bytes, bytes]]) -> Scene:
    """A device that is well, but for what a virtual one cannot have."""
    for name in ("etc", "data", "sys"):
        (tmp_path / name).mkdir()
    for name in ("rootfs-0", "rootfs-1"):
        (tmp_path / name).write_bytes(bytes(SLOT_SIZE))
    (tmp_path / "cmdline").write_text("quiet rauc.slot=A\n")
    (tmp_path / "usr" / "lib").mkdir(parents=True)
    release = tmp_path / "usr" / "lib" / "os-release"
    release.touch()
    os.utime(release, (1_700_000_000, 1_700_000_000))
    (tmp_path / "etc" / "keyring.pem").write_bytes(certificate()[0])
    (tmp_path / "etc" / "updated.toml").write_text("")
    run("grub-editenv", tmp_path / "grubenv", "create")
    places = Places(
        cmdline=tmp_path / "cmdline",
        root=tmp_path,
        fw_env_config=tmp_path / "fw_env.config",
        systemd=tmp_path / "no-systemd",
        bus=tmp_path / "no-bus",
        watchdog=tmp_path / "no-watchdog",
    )
    scene = Scene(tmp_path, places)
    scene.write()
    scene.grub(ORDER="A B", A_OK="1", A_TRY="0", B_OK="1", B_TRY="0")
    return scene


@pytest.fixture
def find() -> Callable[..., Finding]:
    """The one finding of a check."""

    def one(findings: list[Finding], check: str, about: str = "") -> Finding:
        found = [each for each in findings if each.check == check and about in each.about]
        assert len(found) == 1, findings
        return found[0]

    return one


@pytest.fixture
def cleanup() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def mount(cleanup: contextlib.ExitStack) -> Callable[..., Path]:
    """Mount something at a folder; the arguments are mount's."""

    def call(folder: Path, *arguments: str | Path) -> Path:
        folder.mkdir(exist_ok=True, parents=True)
        run("mount", *arguments, folder)
        cleanup.callback(run, "umount", folder)
        return folder

    return call


@pytest.fixture
def attach(cleanup: contextlib.ExitStack) -> Callable[..., str]:
    """A loop device on a file; further arguments go to losetup."""

    def call(file: Path, *arguments: str) -> str:
        device = run("losetup", "--find", "--show", *arguments, file).strip()
        cleanup.callback(run, "losetup", "--detach", device)
        return device

    return call
