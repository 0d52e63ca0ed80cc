"""Who wants to know what: one place that holds what everybody may see, and tells those who listen."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from updated.api.port import Snapshot, Transaction
from updated.core.gate import Hold
from updated.core.health import Judgement
from updated.core.model import Listener, Outcome, Transfer

log = logging.getLogger(__name__)

SMOOTHING: Final = 0.3  # weight of the newest second in the shown rate
_RESTING: Final = Snapshot("idle", "", "idle", "", (0, "", 0), None, None, None)


class Announcer:
    """Keeps the `Snapshot` true, and calls every listener in RAUC's order.  Belongs to the event loop."""

    def __init__(self) -> None:
        self.snapshot = _RESTING
        self.moved_at = time.monotonic()  # when anything last got on
        self._listeners: list[Listener] = []
        self._meter: _Meter | None = None

    def subscribe(self, listener: Listener) -> None:
        self._listeners.append(listener)

    def unsubscribe(self, listener: Listener) -> None:
        self._listeners.remove(listener)

    def operation(self, operation: str) -> None:
        self.moved()
        self.snapshot = replace(self.snapshot, operation=operation)
        self._tell(lambda listener: listener.operation(operation))

    def step(self, percentage: int, message: str, depth: int) -> None:
        self.moved()
        self.snapshot = replace(self.snapshot, progress=(percentage, message, depth))
        self._tell(lambda listener: listener.step(percentage, message, depth))

    def last_error(self, text: str) -> None:
        self.snapshot = replace(self.snapshot, last_error=text)
        self._tell(lambda listener: listener.last_error(text))

    def completed(self, result: int) -> None:
        self._tell(lambda listener: listener.completed(result))

    def state(self, state: str, detail: str) -> None:
        self.moved()
        if (self.snapshot.state, self.snapshot.detail) == (state, detail):
            return
        self.snapshot = replace(self.snapshot, state=state, detail=detail)
        self._tell(lambda listener: listener.state(state, detail))

    def transaction(self, transaction: Transaction | None) -> None:
        self.snapshot = replace(self.snapshot, transaction=transaction)

    def outcome(self, outcome: Outcome) -> None:
        self.snapshot = replace(self.snapshot, last=outcome)

    def health(self, judgement: Judgement) -> None:
        self.snapshot = replace(self.snapshot, health=judgement)
        state, detail = self.snapshot.state, self.snapshot.detail
        self._tell(lambda listener: listener.state(state, detail))

    def waits(self, hold: Hold | None, *, paused: bool) -> None:
        """Told with the next change of the state's detail."""
        self.snapshot = replace(self.snapshot, hold=hold, paused=paused)

    def bytes_moved(self, done: int, total: int, *, fetched: int = 0, bundle: int = 0) -> None:
        """`done` of `total` image bytes are written, `fetched` of `bundle` bytes were read for it."""
        self.moved()
        if self._meter is None:
            self._meter = _Meter(done)
        transfer = replace(self._meter.measure(done, total), fetched=fetched, bundle=bundle)
        self.snapshot = replace(self.snapshot, transfer=transfer)
        self._tell(lambda listener: listener.transfer(transfer))

    def bytes_over(self) -> None:
        """No bytes move any more."""
        self._meter = None
        self.snapshot = replace(self.snapshot, transfer=None)

    def _tell(self, call: Callable[[Listener], None]) -> None:
        """Everybody is told, whatever one of them does with it."""
        for listener in tuple(self._listeners):
            try:
                call(listener)
            except Exception:
                log.exception("a bug in `updated`: a listener failed")

    def moved(self) -> None:
        """Something got on."""
        self.moved_at = time.monotonic()


class _Meter:
    """Bytes per second, smoothed, and the seconds left."""

    def __init__(self, done: int) -> None:
        self._time, self._done = time.monotonic(), done
        self._rate = 0.0

    def measure(self, done: int, total: int) -> Transfer:
        now = time.monotonic()
        elapsed = now - self._time
        if done < self._done:  # what was written before is checked, then the writing goes on from there
            self._time, self._done = now, done
        elif elapsed > 0.1:
            rate = (done - self._done) / elapsed
            weight = min(1.0, SMOOTHING * elapsed) if self._rate else 1.0
            self._rate += weight * (rate - self._rate)
            self._time, self._done = now, done
        eta = (total - done) / self._rate if self._rate > 0 else -1.0
        return Transfer(done, total, self._rate, eta)
