"""Starts that fail: when another reboot is no help.

A service that cannot run is started again, and in the end systemd reboots the device (StartLimitAction=), so
that the bootloader counts and a bad system is left.  That must not go on for ever: not where no system can
start, for example because of a mistake in a configuration file that all groups share, and not where a system
that was found good fails later.  So the boots in which it failed are counted, in the unit's own state
directory: a broken configuration cannot say where the data directory is.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from updated.document import Document
from updated.errors import DeviceError
from updated.host import proc

log = logging.getLogger(__name__)

MAX_BOOTS: Final = 10
"""Boots in a row.  Both groups' attempts are over after 2 x 3; what is more leaves room for a power cut or a
passing fault among them."""

LIMIT: Final = 5
"""Starts within WINDOW seconds, and then systemd reboots: StartLimitBurst= and StartLimitIntervalSec=."""

WINDOW: Final = 45 * 60.0

FAILED: Final = "failed-starts.json"  # in $STATE_DIRECTORY: the boot ids, the last at the end
CONFIRMED: Final = "confirmed"  # in $RUNTIME_DIRECTORY: the boot id, if this boot was ever confirmed
OPEN: Final = "starts"  # in $RUNTIME_DIRECTORY: when those began that have not ended well, seconds of uptime

_MAX_ID = 64  # characters; a UUID has 36
_MAX_OPEN = 4096  # bytes; LIMIT numbers


class Starts:
    """Of a unit with StateDirectory= and RuntimeDirectory= (systemd.exec(5)); else nothing is counted.

    All of it blocks; nothing raises but `begin`.
    """

    def __init__(self, boot_id: Path = proc.BOOT_ID, environ: Mapping[str, str] = os.environ) -> None:
        """`boot_id`: the file that names the boot."""
        self._boot_id = boot_id
        self._state = _first(environ, "STATE_DIRECTORY")
        self._runtime = _first(environ, "RUNTIME_DIRECTORY")

    def begin(self) -> None:
        """One more start.

        Raises DeviceError if it is the last that systemd allows, and `failed` speaks against a reboot.
        """
        now = time.monotonic()
        before = [start for start in self._open() if 0 <= now - start < WINDOW]
        if len(before) >= LIMIT - 1 and self.failed():
            raise DeviceError(
                f"The service was ended {len(before)} times within {WINDOW / 60:.0f} minutes",
                hint="`journalctl --unit=updated` shows why.",
            )
        self._note("\n".join(str(start) for start in [*before, now][-LIMIT:]))

    def end(self) -> None:
        """The service ends in good order: what was before does not count any more."""
        self._note("")

    def failed(self) -> str:
        """One more start has failed.

        Returns why the service should stay up and say so; "": it should end, and systemd counts.
        """
        boots: list[str] = []
        try:
            now = self._now()
            if (
                now and _read(self._runtime, CONFIRMED, _MAX_ID) == now
            ):  # since then somebody has changed something
                return "this system was confirmed before, so a reboot is no help"
            if self._state is None:
                return ""
            document = _document(self._state)
            boots = [*(boot for boot in dict.fromkeys(document.value) if boot != now), now][-MAX_BOOTS:]
            document.save(boots)
        except DeviceError as error:
            log.warning("failed starts are not counted: %s", error)
        return f"it has failed in {MAX_BOOTS} boots in a row" if len(boots) == MAX_BOOTS else ""

    def clear(self) -> None:
        """The running system is confirmed.  Writes to the medium only if there was something to forget."""
        try:
            if self._state is not None:
                _document(self._state).save([])
            if self._runtime is not None:
                (self._runtime / CONFIRMED).write_text(self._now())
        except (DeviceError, OSError) as error:
            log.warning("failed starts are not forgotten: %s", error)

    def _open(self) -> list[float]:
        try:
            return [float(line) for line in _read(self._runtime, OPEN, _MAX_OPEN).splitlines()]
        except ValueError:
            return []

    def _note(self, text: str) -> None:
        if self._runtime is None:
            return
        try:
            (self._runtime / OPEN).write_text(text)
        except OSError as error:
            log.warning("starts are not counted: %s", error)

    def _now(self) -> str:
        """Raises DeviceError."""
        return proc.boot_id(self._boot_id)[:_MAX_ID]


def _document(folder: Path) -> Document[list[str]]:
    return Document(folder / FAILED, list[str], [], log.warning)


def _first(environ: Mapping[str, str], name: str) -> Path | None:
    """systemd separates several by colons."""
    folder = environ.get(name, "").partition(":")[0]
    return Path(folder) if folder else None


def _read(folder: Path | None, name: str, most: int) -> str:
    """At most `most` bytes; "" if there is nothing to read."""
    if folder is None:
        return ""
    try:
        with (folder / name).open("rb") as file:
            return file.read(most).decode(errors="replace")
    except OSError:
        return ""
