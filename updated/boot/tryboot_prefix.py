"""Tryboot with both systems in one boot partition, each below a prefix, as in Home Assistant OS on a Pi 5.

    config.txt             os_prefix=slot-A/   cmdline=/cmdline.txt           the committed system
    tryboot.txt            os_prefix=slot-B/   cmdline=/cmdline-tryboot.txt   a trial that is prepared
    slot-A/ slot-B/        kernel, device tree, overlays; `.good` in that of a system that was found good

Names and contents are those of Home Assistant OS's rpi-tryboot.sh, so that a system with the script can be
updated to one without, and back.  The firmware needs tryboot.txt for a start with the flag and would wait
for ever without it; so it is complete and on the medium before anybody may reboot.

A commit is a row of steps, and config.txt fits its command line after each of them, so that a power cut may
come in between; the next "good" goes on:

1. config.txt gets the new prefix, and names cmdline-tryboot.txt;
2. cmdline.txt, which nobody reads now, gets the new text;
3. config.txt names cmdline.txt again;
4. the files of the trial are removed.

The shell script does it with `>`, which empties config.txt first.  Here each is a `fat.replace`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from updated.boot import fat, tryboot_text
from updated.boot.fat import Place
from updated.boot.tryboot_firmware import BY_FILE, Firmware
from updated.errors import DeviceError

CONFIG: Final = "config.txt"
TRIAL: Final = "tryboot.txt"
CMDLINE: Final = "cmdline.txt"
TRIAL_CMDLINE: Final = "cmdline-tryboot.txt"
GOOD: Final = ".good"
MAX_SIZE: Final = 64 * 1024  # bytes; real ones have one or two thousand


class TrybootPrefixes:
    """A `Bootloader` for two systems; the prefix of one is `slot-<bootname>/`."""

    def __init__(self, place: Place, roots: Mapping[str, str], firmware: Firmware) -> None:
        """`roots`: bootname -> value of `root=` on its kernel command line."""
        self._place = place
        self._roots = dict(roots)
        self._firmware = firmware

    async def get_primary(self) -> str | None:
        """The one on trial while a trial is prepared, else the committed one.  Raises DeviceError."""
        files = await asyncio.to_thread(self._look)
        return files.trial or files.committed

    async def set_primary(self, bootname: str) -> None:
        """Prepare a trial; for the committed one, give up the trial that is prepared.

        Raises DeviceError, also if this firmware cannot start a trial.
        """
        await asyncio.to_thread(self._set_primary, bootname)

    async def get_state(self, bootname: str) -> bool:
        """Good: committed, on trial, or found good once.  Raises DeviceError."""
        files = await asyncio.to_thread(self._look)
        return bootname in (files.committed, files.trial) or bootname in files.good

    async def set_state(self, bootname: str, good: bool) -> None:
        """Good: commit what runs, or note that the other may be started.  Bad: never start it.

        Raises DeviceError, also if no system would be left, or this firmware cannot start a trial: an install
        begins with "bad", so it ends here, before anything is written.
        """
        await asyncio.to_thread(self._set_good if good else self._set_bad, bootname)

    async def get_current(self) -> str | None:
        """What the firmware says it has started."""
        return await asyncio.to_thread(self._current)

    def _set_primary(self, name: str) -> None:
        files = self._look()
        if name == files.committed:
            if files.trial is not None:
                with self._place.opened(writable=True) as folder:
                    fat.remove(folder / TRIAL)
            return
        self._firmware.check(BY_FILE)
        with self._place.opened(writable=True) as folder:
            config = _finished(folder)
            if not (folder / _prefix(name)).is_dir():
                raise DeviceError(
                    f"There is no folder {_prefix(name)} beside {CONFIG} to start {name} from",
                    hint="The bundle has to bring it: kernel, device tree and overlays.",
                )
            cmdline = _cmdline_for(fat.read(folder / CMDLINE, MAX_SIZE), name, self._roots[name])
            _keep(folder / TRIAL_CMDLINE, cmdline)
            _keep(folder / TRIAL, config.selecting(name, TRIAL_CMDLINE).render())

    def _set_good(self, name: str) -> None:
        files = self._look()
        commits = name != files.committed and self._runs(files, name)
        if not commits and name in files.good and not (name == files.committed and files.unfinished):
            return
        with self._place.opened(writable=True) as folder:
            if commits:
                self._switch(folder, name)
            elif name == files.committed and files.unfinished:
                _finish(folder)
            if (folder / _prefix(name)).is_dir():
                fat.touch(folder / _prefix(name) / GOOD)

    def _set_bad(self, name: str) -> None:
        files = self._look()
        other = next(one for one in self._roots if one != name)
        if name != files.committed:
            self._firmware.check(BY_FILE)
        elif other != files.trial and other not in files.good:
            raise DeviceError(
                f"{name} is the only system that the firmware would start",
                hint=f"Mark {other} good first, if it is.",
            )
        if name not in (files.committed, files.trial) and name not in files.good:
            return
        with self._place.opened(writable=True) as folder:
            fat.remove(folder / _prefix(name) / GOOD)
            if name == files.trial:
                fat.remove(folder / TRIAL)
            if name == files.committed:
                self._switch(folder, other)

    def _switch(self, folder: Path, name: str) -> None:
        """Make `name` the committed one."""
        config = _finished(folder)
        text = _cmdline_for(fat.read(folder / CMDLINE, MAX_SIZE), name, self._roots[name])
        _keep(folder / TRIAL_CMDLINE, text)
        fat.replace(folder / CONFIG, config.selecting(name, TRIAL_CMDLINE).render())
        _finish(folder)

    def _runs(self, files: _Files, name: str) -> bool:
        if self._firmware.os_prefix() is not None:
            return self._current() == name
        return self._firmware.on_trial() and files.trial == name

    def _current(self) -> str | None:
        prefix = self._firmware.os_prefix()
        return next((name for name in self._roots if _prefix(name) == prefix), None)

    def _look(self) -> _Files:
        with self._place.opened(writable=False) as folder:
            config = _Config.read(folder / CONFIG)
            committed = self._name(config)
            trial = self._trial(folder)
            good = frozenset(name for name in self._roots if (folder / _prefix(name) / GOOD).exists())
        unfinished = config.cmdline == TRIAL_CMDLINE or (trial is not None and trial == committed)
        return _Files(committed, trial if trial != committed else None, good, unfinished)

    def _trial(self, folder: Path) -> str | None:
        """A tryboot.txt that cannot be read is none: the next trial writes it anew."""
        if not (folder / TRIAL).exists():
            return None
        try:
            return self._name(_Config.read(folder / TRIAL))
        except DeviceError:
            return None

    def _name(self, config: _Config) -> str | None:
        return next((name for name in self._roots if _prefix(name) == config.prefix), None)


@dataclass(frozen=True, slots=True)
class _Files:
    """What the boot partition says."""

    committed: str | None  # bootname, and so the next two; None: another system
    trial: str | None
    good: frozenset[str]
    unfinished: bool  # a commit was cut short


@dataclass(frozen=True, slots=True)
class _Config:
    """A parsed config.txt or tryboot.txt."""

    lines: tuple[str, ...]
    prefix: str
    cmdline: str  # name of a file beside it

    @classmethod
    def read(cls, path: Path) -> _Config:
        return cls.parse(fat.read(path, MAX_SIZE), path.name)

    @classmethod
    def parse(cls, data: bytes, name: str) -> _Config:
        lines = tryboot_text.split(data, name)
        prefix = tryboot_text.single(lines, "os_prefix", name)
        cmdline = tryboot_text.single(lines, "cmdline", name)
        if prefix is None or cmdline is None or cmdline.value.lstrip("/") not in (CMDLINE, TRIAL_CMDLINE):
            raise DeviceError(
                f"{name} is not understood: expected os_prefix=slot-.../ and cmdline=/{CMDLINE}",
                hint="Nothing was changed. docs/tryboot.md shows how it has to look.",
            )
        return cls(lines, prefix.value, cmdline.value.lstrip("/"))

    def selecting(self, bootname: str, cmdline: str) -> _Config:
        """The same lines for another system."""
        lines = self._with("os_prefix", _prefix(bootname))
        return _Config(lines, _prefix(bootname), self.cmdline).with_cmdline(cmdline)

    def with_cmdline(self, cmdline: str) -> _Config:
        return _Config(self._with("cmdline", f"/{cmdline}"), self.prefix, cmdline)

    def _with(self, key: str, value: str) -> tuple[str, ...]:
        setting = tryboot_text.single(self.lines, key, CONFIG)
        assert setting is not None  # `parse` has seen it
        return tryboot_text.with_value(self.lines, setting, key, value)

    def render(self) -> bytes:
        return tryboot_text.join(self.lines)


def _finished(folder: Path) -> _Config:
    """config.txt, after a commit that was cut short has come to its end."""
    config = _Config.read(folder / CONFIG)
    if config.cmdline == CMDLINE:
        return config
    _finish(folder)
    return _Config.read(folder / CONFIG)


def _finish(folder: Path) -> None:
    """Steps 2 to 4 of a commit, or what is left of them."""
    config = _Config.read(folder / CONFIG)
    if config.cmdline == TRIAL_CMDLINE:
        fat.replace(folder / CMDLINE, fat.read(folder / TRIAL_CMDLINE, MAX_SIZE))
        fat.replace(folder / CONFIG, config.with_cmdline(CMDLINE).render())
    fat.remove(folder / TRIAL)
    fat.remove(folder / TRIAL_CMDLINE)


def _keep(path: Path, data: bytes) -> None:
    """`fat.replace`, if that changes anything."""
    if not path.exists() or fat.read(path, MAX_SIZE) != data:
        fat.replace(path, data)


def _prefix(bootname: str) -> str:
    return f"slot-{bootname}/"


def _cmdline_for(text: bytes, bootname: str, root: str) -> bytes:
    """A kernel command line with other values of `root=` and `rauc.slot=`; all else stays."""
    line = tryboot_text.split(text, CMDLINE)[0].rstrip()
    if not line:
        raise DeviceError(f"{CMDLINE} is empty", hint="Nothing was changed.")
    line = _with_parameter(_with_parameter(line, "root", root), "rauc.slot", bootname)
    return line.encode(errors="surrogateescape") + b"\n"


def _with_parameter(line: str, key: str, value: str) -> str:
    pattern = re.compile(rf"(?<!\S){re.escape(key)}=\S*")
    parameter = f"{key}={value}"
    return pattern.sub(lambda _: parameter, line) if pattern.search(line) else f"{line} {parameter}"
