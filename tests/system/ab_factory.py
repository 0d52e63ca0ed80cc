"""What the tests on A/B machines share in a run: each system, bundle and booted machine is made once."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

from tests.system.ab_bundle import GOOD, make_bundle
from tests.system.ab_image import Disk, Files, Loader, System, make_base, make_disk, make_system
from tests.system.ab_machine import Machine
from tests.system.ab_uefi import FILES, add_loaders


class Idle(NamedTuple):
    """A machine that has booted A, confirmed it, and waits for an update.

    with Machine(idle.disk, tmp_path, saved=idle.saved) as machine:  # there in a second
    """

    disk: Disk
    saved: Path


class Factory:
    """Makes everything below `folder`, when it is first asked for."""

    def __init__(self, folder: Path, signer: tuple[Path, Path]) -> None:
        """`signer`: certificate, which is the devices' keyring, too, and key."""
        self._folder, self._signer = folder, signer
        self._systems: dict[Loader, System] = {}
        self._bundles: dict[tuple[Loader, str], tuple[Path, Files]] = {}
        self._idle: dict[Loader, Idle] = {}
        self._base: Path | None = None

    def system(self, loader: Loader) -> System:
        """Version 1."""
        if loader not in self._systems:
            self._base = self._base or make_base(self._folder)
            keyring = self._signer[0].read_bytes()
            own = FILES if loader == "uefi" else None
            self._systems[loader] = make_system(self._base, self._folder, loader, keyring, own)
        return self._systems[loader]

    def bundle(self, loader: Loader, version: str, variation: Files = GOOD) -> Path:
        """`system-<version>.raucb`; a version has one variation in a run."""
        key = (loader, version)
        if key not in self._bundles:
            path = make_bundle(self.system(loader), self._folder / loader, self._signer, version, variation)
            self._bundles[key] = (path, variation)
        path, made = self._bundles[key]
        assert made == variation, f"version {version} is another variation already"
        return path

    def disk(self, loader: Loader, name: str, *bundles: Path) -> Disk:
        """A disk of its own, in a folder `name`, with bundles in /data/bundles."""
        folder = self._folder / name
        folder.mkdir()
        disk = make_disk(self.system(loader), folder, bundles)
        if loader == "uefi":
            add_loaders(disk, self.system(loader), folder)
        return disk

    def idle(self, loader: Loader, *bundles: Path) -> Idle:
        """The bundles of the first call lie in /data/bundles; takes one boot at the first call."""
        if loader not in self._idle:
            disk = self.disk(loader, f"idle-{loader}", *bundles)
            with Machine(disk, self._folder / f"idle-{loader}") as machine:
                machine.wait_for_idle()
                saved = machine.save()
            self._idle[loader] = Idle(disk, saved)
        return self._idle[loader]

    def clean(self) -> None:
        shutil.rmtree(self._folder)
