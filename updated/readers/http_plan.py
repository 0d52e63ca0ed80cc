"""Ranges that will be read, taken from their iterator piece by piece, and the bytes between them.  Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

MAX_GAP = 64 * 1024  # bytes that are fetched for nothing rather than asking again: less than a round trip's
MAX_RUN = 256 << 20  # bytes of one request; between two of them is a round trip of nothing
MAX_PIECES = 4096  # of one request: what is known of them takes some 200 bytes each


@dataclass(eq=False, slots=True)
class Piece:
    offset: int
    length: int

    @property
    def end(self) -> int:
        return self.offset + self.length


class Plan:
    """The pieces that are to come, in order.  No more of the iterator is taken than is needed."""

    def __init__(self, ranges: Iterable[tuple[int, int]], needed: Callable[[int, int], bool]) -> None:
        self._ranges = iter(ranges)
        self._needed = needed
        self._pieces: deque[Piece] = deque()
        self._index: dict[tuple[int, int], Piece] = {}

    @property
    def next(self) -> Piece | None:
        return self._pieces[0] if self.fill(1) else None

    def find(self, offset: int, length: int) -> Piece | None:
        return self._index.get((offset, length))

    def fill(self, count: int) -> bool:
        """Take ranges until `count` pieces are known.  False: there are not as many."""
        while len(self._pieces) < count:
            found = next(self._ranges, None)
            if found is None:
                return False
            if self._needed(*found):
                piece = Piece(*found)
                self._pieces.append(piece)
                self._index[found] = piece
        return True

    def pop(self) -> Piece:
        piece = self._pieces.popleft()
        key = (piece.offset, piece.length)
        if self._index.get(key) is piece:
            del self._index[key]
        return piece

    def run_end(self) -> int:
        """Where the request ends that brings the next piece and all that follow closely.

        Pieces may overlap (blocks are read whole), but none begins before its predecessor.
        """
        first = previous = self._pieces[0]
        end = first.end
        for count in range(2, MAX_PIECES):
            if end - first.offset >= MAX_RUN or not self.fill(count):
                break
            piece = self._pieces[count - 1]
            if not previous.offset <= piece.offset <= end + MAX_GAP:
                break
            previous, end = piece, max(end, piece.end)
        return end


class Span:
    """Consecutive bytes in the chunks they came in; they are copied once, into what is taken."""

    def __init__(self) -> None:
        self._chunks: deque[bytes | memoryview] = deque()
        self.start = self.end = 0

    @property
    def size(self) -> int:
        return self.end - self.start

    def restart(self, offset: int) -> None:
        """Forget everything; the next chunk begins at `offset`."""
        self._chunks.clear()
        self.start = self.end = offset

    def append(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self.end += len(chunk)

    def forget(self, offset: int) -> None:
        """Nothing before `offset` is needed any more."""
        while self._chunks and self.start + len(self._chunks[0]) <= offset:
            self.start += len(self._chunks.popleft())
        if self._chunks and self.start < offset:
            self._chunks[0] = memoryview(self._chunks[0])[offset - self.start :]
            self.start = offset

    def first(self, length: int) -> bytes:
        """The first `length` bytes; they stay."""
        parts: list[bytes | memoryview] = []
        for chunk in self._chunks:
            if len(chunk) >= length:
                parts.append(memoryview(chunk)[:length])
                break
            parts.append(chunk)
            length -= len(chunk)
        return b"".join(parts)
