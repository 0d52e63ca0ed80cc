"""What the journal kept of earlier boots (journalctl(1)).

It is there only where the journal is persistent, both systems write to the same one, and it was flushed
before the power went: at once after a critical message, all else within SyncIntervalSec= (journald.conf(5)).
So all of this is for the record, and nothing is decided by it.  Nothing here raises, or takes longer than a
few seconds.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Final

from updated import command
from updated.core.gate import words
from updated.errors import DeviceError

log = logging.getLogger(__name__)

TIMEOUT: Final = 5.0  # seconds for one look; a journal of gigabytes on an SD card takes about one
MAX_BOOTS: Final = 32  # between two that are known; more is no update that failed
MAX_LINE: Final = 200  # characters

_BOOT_ID: Final = re.compile(r"\b[0-9a-f]{32}\b")


async def boots_between(
    after: str, before: str, *, folder: Path | None = None, timeout: float = TIMEOUT
) -> tuple[str, ...]:
    """Boot ids of the boots between two, oldest first, at most the last MAX_BOOTS; 32 hex digits each.

    Ids may be given with dashes, as in /proc.  Empty if `after` is not in the journal: nothing is guessed.
    If only `before` is missing, it is the boot that has not been written down yet.  `folder`: of the
    journal, instead of the system's.
    """
    # Older versions answer with a table all the same; nothing else in either looks like a boot id.
    text = await _journalctl(folder, timeout, "--list-boots", "--output=json")
    boots = list(dict.fromkeys(_BOOT_ID.findall(text)))
    first, last = _plain(after), _plain(before)
    if first not in boots:
        return ()
    later = boots[boots.index(first) + 1 :]
    if last in later:
        later = later[: later.index(last)]
    elif last in boots:  # not after the first: a clock that was set has mixed them up
        return ()
    return tuple(later[-MAX_BOOTS:])


async def last_lines(
    boot_id: str, lines: int = 20, *, folder: Path | None = None, timeout: float = TIMEOUT
) -> tuple[str, ...]:
    """The last errors of a boot, or where it had none its last lines: seconds since its start, who, what.

    Printable, at most MAX_LINE characters each.  Empty if the journal has nothing of that boot.
    """
    boot = _plain(boot_id)
    if not boot or lines < 1:
        return ()
    which = (f"--boot={boot}", f"--lines={lines}", "--output=short-monotonic", "--no-hostname")
    for priority in (("--priority=err",), ()):
        text = await _journalctl(folder, timeout, *which, *priority)
        found = [line for raw in text.splitlines() if (line := words(raw, MAX_LINE))]
        if found:
            return tuple(found[-lines:])  # one message may have several
    return ()


def _plain(boot_id: str) -> str:
    """As journalctl writes it; "" if it is none."""
    plain = boot_id.strip().lower().replace("-", "")
    return plain if _BOOT_ID.fullmatch(plain) else ""


async def _journalctl(folder: Path | None, timeout: float, *options: str) -> str:
    where = [] if folder is None else [f"--directory={folder}"]
    argv = ["journalctl", "--quiet", "--no-pager", *where, *options]
    try:
        result = await command.run(argv, timeout=timeout)
    except DeviceError as error:
        log.debug("the journal was not read: %s", error)
        return ""
    return result.stdout  # also of one that complains of a torn file
