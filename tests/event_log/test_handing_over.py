"""From a log record into the files: in order, in a thread, and never in the way."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from updated.config.log_sections import EventLog
from updated.core import events
from updated.event_log.logs import EventLogs
from updated.host.journal import tell
from updated.service.journal import MAX_WAITING, Events


class Rig:
    """Logging as the service sets it up, with a logger of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.events = Events()
        self.log = logging.Logger("updated.test", logging.INFO)
        self.log.addHandler(self.events)

    def logs(self, name: str) -> EventLogs:
        return EventLogs([EventLog(name, self.folder / name, format="short")], self.log.warning)

    def lines(self, name: str) -> list[str]:
        return [line.partition(": ")[2] for line in (self.folder / name).read_text().splitlines()]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    found = Rig(tmp_path)
    yield found
    found.events.close()


def test_events_are_written_in_order_and_all_else_is_not(rig: Rig) -> None:
    rig.events.use(rig.logs("a"))
    for number in range(50):
        tell(rig.log, events.degraded(str(number)))
        rig.log.info("something else")
    rig.log.info("another text", extra={"event": events.service_stopping()})
    rig.events.close()
    assert rig.lines("a") == [*(f"Degraded: {number}" for number in range(50)), "Service stopping"]


def test_a_reload_in_between(rig: Rig) -> None:
    """Each event goes where the configuration of its time says."""
    rig.events.use(rig.logs("old"))
    tell(rig.log, events.service_started(again=False))
    rig.events.use(rig.logs("new"))
    tell(rig.log, events.service_stopping())
    rig.events.close()
    assert (rig.lines("old"), rig.lines("new")) == (["Service started"], ["Service stopping"])


def test_without_logs_there_is_no_thread(rig: Rig) -> None:
    tell(rig.log, events.service_stopping())
    rig.events.use(EventLogs([], pytest.fail))
    tell(rig.log, events.service_stopping())
    assert "event-log" not in {thread.name for thread in threading.enumerate()}


class Stuck(EventLogs):
    """A disk that does not answer."""

    def __init__(self) -> None:
        super().__init__([EventLog("a", Path("/a"))], pytest.fail)
        self.goes_on = threading.Event()
        self.written = 0

    def write(self, event: events.Event, time: str) -> None:
        self.goes_on.wait()
        self.written += 1


def test_a_disk_that_hangs_holds_nobody_up(rig: Rig) -> None:
    """What is too much is lost, and said once."""
    said: list[str] = []
    root, catch = logging.getLogger("updated.service.journal"), logging.Handler()
    catch.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    root.addHandler(catch)
    stuck = Stuck()
    rig.events.use(stuck)
    for _ in range(MAX_WAITING + 10):
        tell(rig.log, events.service_stopping())
    stuck.goes_on.set()
    rig.events.close()
    root.removeHandler(catch)
    assert said == ["the event logs are too slow: events are missing in them"]
    assert stuck.written in (MAX_WAITING, MAX_WAITING + 1)  # one was in the writer's hand, perhaps


def test_it_may_be_closed_twice(rig: Rig) -> None:
    rig.events.use(rig.logs("a"))
    tell(rig.log, events.service_stopping())
    rig.events.close()
    rig.events.close()
    tell(rig.log, events.service_stopping())
    assert rig.lines("a") == ["Service stopping"]
