"""Where what is logged goes: everything to the journal or stderr, and events to RAUC's event logs, too.

Whoever has an event logs it: `log.info(..., extra={"event": event})`, or `tell(log, event)`.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from updated.core import events
from updated.core.events import Event
from updated.core.model import TIMESTAMP
from updated.document import Document
from updated.errors import DeviceError
from updated.event_log.logs import EventLogs
from updated.host.journal import event_of, stderr_handler, tell
from updated.install.device import Device

log = logging.getLogger(__name__)

MAX_WAITING: Final = 1000  # events; an update has a dozen, so that a disk this slow is broken
PATIENCE: Final = 5.0  # seconds that the end of the service waits for a slow disk


def log_to_stderr(*, debug: bool) -> Events:
    """Set up logging for this process; the end of it should close what this returns."""
    found = Events()
    level = logging.DEBUG if debug else logging.INFO
    logging.basicConfig(level=level, handlers=[stderr_handler(), found], force=True)
    return found


class Events(logging.Handler):
    """Hands the events among all that is logged to the event logs, in order, in a thread of its own."""

    def __init__(self) -> None:
        super().__init__()
        self._logs: EventLogs | None = None
        self._waiting: queue.Queue[tuple[EventLogs, Event, str] | None] = queue.Queue(MAX_WAITING)
        self._writer: threading.Thread | None = None
        self._lost = False

    def use(self, logs: EventLogs) -> None:
        """What comes from now on goes there."""
        self._logs = logs

    def emit(self, record: logging.LogRecord) -> None:
        event = event_of(record)
        if event is None or not self._logs:
            return
        if self._writer is None:  # not before it has something to do
            self._writer = threading.Thread(target=self._write, name="event-log", daemon=True)
            self._writer.start()
        time = datetime.fromtimestamp(record.created, UTC).strftime(TIMESTAMP)
        try:
            self._waiting.put_nowait((self._logs, event, time))
        except queue.Full:
            self._lose()

    def close(self) -> None:
        """Write what is left, and no more.  Blocks for PATIENCE at most."""
        writer, self._writer, self._logs = self._writer, None, None
        if writer is not None:
            try:
                self._waiting.put(None, timeout=PATIENCE)
            except queue.Full:
                return
            writer.join(PATIENCE)
        super().close()

    def _write(self) -> None:
        while (item := self._waiting.get()) is not None:
            logs, event, time = item
            logs.write(event, time)

    def _lose(self) -> None:
        if not self._lost:
            self._lost = True
            log.warning("the event logs are too slow: events are missing in them")


@dataclass(frozen=True, slots=True)
class _Boot:
    id: str = ""


async def tell_start(device: Device, runtime_directory: Path) -> None:
    """Log that the service has started, and once in each boot what has booted.

    `runtime_directory` lives until the next boot, and so does what is noted there.
    """
    again = not await asyncio.to_thread(_first_start, runtime_directory / "boot.json", device.boot_id)
    if not again:
        _tell_boot(device)
    tell(log, events.service_started(again=again))


def _first_start(file: Path, boot_id: str) -> bool:
    document = Document(file, _Boot, _Boot(), log.warning)
    if boot_id and document.value.id == boot_id:
        return False
    try:
        document.save(_Boot(boot_id))
    except DeviceError as error:
        log.warning("%s", error.with_hint())
    return True


def _tell_boot(device: Device) -> None:
    try:
        slot = device.booted
    except DeviceError:  # said when it was found out
        return
    if slot is None:
        tell(log, events.booted_external(device.boot_id))
        return
    bundle_hash = device.booted_bundle().bundle_hash or ""
    tell(log, events.booted(slot.name, slot.bootname or "", boot_id=device.boot_id, bundle_hash=bundle_hash))
