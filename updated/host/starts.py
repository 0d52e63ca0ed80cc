"""Starts that fail: when another reboot is no help.

A service that cannot start ends, and in the end systemd reboots the device (StartLimitAction=), so that the
bootloader counts and a bad system is left.  That must not go on for ever where no system can start, for
example because of a mistake in a configuration file that all groups share.  So the boots in which it failed
are counted, in the unit's own state directory: where the data directory is, a broken configuration cannot say.
"""

from __future__ import annotations

import logging
import os
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

FAILED: Final = "failed-starts.json"  # in $STATE_DIRECTORY: the boot ids, the last at the end
CONFIRMED: Final = "confirmed"  # in $RUNTIME_DIRECTORY, so until the reboot


class Starts:
    """Of a unit with StateDirectory= and RuntimeDirectory= (systemd.exec(5)); without them nothing is counted.

    All of it blocks, and never raises.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._state = _first(environ, "STATE_DIRECTORY")
        self._runtime = _first(environ, "RUNTIME_DIRECTORY")

    def failed(self, boot_id: Path = proc.BOOT_ID) -> str:
        """One more start has failed, in the boot that the file `boot_id` names.

        Returns why the service should stay up and say so; "": it should end, and systemd counts.
        """
        if self._confirmed():  # since then somebody has changed something
            return "this system was confirmed before, so a reboot is no help"
        if self._state is None:
            return ""
        boots: list[str] = []
        try:
            now = proc.boot_id(boot_id)
            document = _document(self._state)
            boots = [*(boot for boot in dict.fromkeys(document.value) if boot != now), now]
            document.save(boots[-MAX_BOOTS:])
        except DeviceError as error:
            log.warning("failed starts are not counted: %s", error)
        return f"no start has succeeded in {len(boots)} boots" if len(boots) >= MAX_BOOTS else ""

    def clear(self) -> None:
        """The running system is confirmed.  Writes to the medium only if there was something to forget."""
        try:
            if self._state is not None:
                _document(self._state).save([])
            if self._runtime is not None:
                (self._runtime / CONFIRMED).touch()
        except (DeviceError, OSError) as error:
            log.warning("failed starts are not forgotten: %s", error)

    def _confirmed(self) -> bool:
        try:
            return self._runtime is not None and (self._runtime / CONFIRMED).exists()
        except OSError:
            return False


def _document(folder: Path) -> Document[list[str]]:
    return Document(folder / FAILED, list[str], [], log.warning)


def _first(environ: Mapping[str, str], name: str) -> Path | None:
    """systemd separates several by colons."""
    folder = environ.get(name, "").partition(":")[0]
    return Path(folder) if folder else None
