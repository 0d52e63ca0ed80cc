"""How fast bytes may come, how slow they may, and how often a request is made again."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

BURST = 0.25  # seconds of the allowed rate that may come at once
FLOOR = 1024  # bytes that must come within the stall timeout; fewer are no progress


class RateLimit:
    """A bucket that fills with `rate` bytes per second and holds `BURST` seconds of them; 0: no limit."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._level = rate * BURST
        self._seen = 0.0

    @property
    def chunk(self) -> int:
        """Bytes to take at once at most; 0: any number."""
        return max(1, int(self._rate * BURST / 2)) if self._rate else 0

    async def take(self, count: int) -> None:
        """Wait until `count` more bytes are within the rate.  They may be taken by many tasks at once."""
        if not self._rate:
            return
        now = asyncio.get_running_loop().time()
        self._level = min(self._rate * BURST, self._level + (now - self._seen) * self._rate) - count
        self._seen = now
        if self._level < 0:
            await asyncio.sleep(-self._level / self._rate)


class Patience:
    """Seconds that are left to wait for bytes.

    Only waiting counts: who does not read because a slot is slow loses nothing.  `FLOOR` bytes win all
    of the time back, so a server that sends a byte now and then is stalled.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._left = seconds
        self._bytes = 0

    @property
    def left(self) -> float:
        return max(self._left, 0.0)

    def waited(self, seconds: float, got: int) -> None:
        """`got` bytes came after `seconds`."""
        self._left -= seconds
        self._bytes += got
        if self._bytes >= FLOOR:
            self._left, self._bytes = self._seconds, 0


@dataclass(frozen=True, slots=True)
class Retries:
    """How a broken connection is made again."""

    tries: int = 5  # without progress, until it is given up
    first: float = 0.5  # seconds until the first; each further wait is twice as long
    longest: float = 8.0  # seconds
    longest_asked: float = 60.0  # seconds; what a server's Retry-After may ask for


class Tries:
    """Counts tries without progress: `FLOOR` bytes are progress."""

    def __init__(self, retries: Retries) -> None:
        self._retries = retries
        self._bytes = 0
        self.failed = 0
        self.resolved = False  # the original URL was asked again

    def progress(self, count: int) -> None:
        self._bytes += count
        if self._bytes >= FLOOR:
            self._bytes, self.failed, self.resolved = 0, 0, False

    def again(self, retry_after: float | None) -> float | None:
        """Seconds until the next try; None: there is none."""
        self.failed += 1
        if self.failed >= self._retries.tries:
            return None
        if retry_after is not None:
            return min(retry_after, self._retries.longest_asked)
        wait = min(self._retries.first * 2.0 ** (self.failed - 1), self._retries.longest)
        return float(wait * random.uniform(0.5, 1.0))  # jitter: a fleet must not come back all at once
