"""Who wants to know what: one place that holds what everybody may see, and tells those who listen."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Final

from updated.api.port import Snapshot, Transaction
from updated.core.model import Listener, Outcome, Transfer

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
        self._moved()
        self.snapshot = replace(self.snapshot, operation=operation)
        for listener in self._listeners:
            listener.operation(operation)

    def step(self, percentage: int, message: str, depth: int) -> None:
        self._moved()
        self.snapshot = replace(self.snapshot, progress=(percentage, message, depth))
        for listener in self._listeners:
            listener.step(percentage, message, depth)

    def last_error(self, text: str) -> None:
        self.snapshot = replace(self.snapshot, last_error=text)
        for listener in self._listeners:
            listener.last_error(text)

    def completed(self, result: int) -> None:
        for listener in self._listeners:
            listener.completed(result)

    def state(self, state: str, detail: str) -> None:
        self._moved()
        if (self.snapshot.state, self.snapshot.detail) == (state, detail):
            return
        self.snapshot = replace(self.snapshot, state=state, detail=detail)
        for listener in self._listeners:
            listener.state(state, detail)

    def transaction(self, transaction: Transaction | None) -> None:
        self.snapshot = replace(self.snapshot, transaction=transaction)

    def outcome(self, outcome: Outcome) -> None:
        self.snapshot = replace(self.snapshot, last=outcome)

    def bytes_moved(self, done: int, total: int) -> None:
        """`done` of `total` image bytes are written."""
        self._moved()
        if self._meter is None:
            self._meter = _Meter(done)
        transfer = self._meter.measure(done, total)
        self.snapshot = replace(self.snapshot, transfer=transfer)
        for listener in self._listeners:
            listener.transfer(transfer)

    def bytes_over(self) -> None:
        """No bytes move any more."""
        self._meter = None
        self.snapshot = replace(self.snapshot, transfer=None)

    def _moved(self) -> None:
        self.moved_at = time.monotonic()


class _Meter:
    """Bytes per second, smoothed, and the seconds left."""

    def __init__(self, done: int) -> None:
        self._time, self._done = time.monotonic(), done
        self._rate = 0.0

    def measure(self, done: int, total: int) -> Transfer:
        now = time.monotonic()
        elapsed = now - self._time
        if elapsed > 0.1:
            rate = (done - self._done) / elapsed
            weight = min(1.0, SMOOTHING * elapsed) if self._rate else 1.0
            self._rate += weight * (rate - self._rate)
            self._time, self._done = now, done
        eta = (total - done) / self._rate if self._rate > 0 else -1.0
        return Transfer(done, total, self._rate, eta)
