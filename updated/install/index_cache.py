"""Hash indexes of what is on the slots, where RAUC keeps them and finds ours.

`<data directory>/slot.<class>.<n>/hash-<sha256 of the image>/block-hash-index`, folders 0700, file 0644.
While a slot is written, what is known of its old content is in `hash-unknown`: RAUC looks there as long as
the slot's status has no digest (RAUC src/slot.c, src/install.c).  The index of an image is the same wherever
it is, so any slot's will do; it is named as RAUC names it only when the slot holds that image.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from updated.durable import sync_folder
from updated.install.seeds import Index, open_index, scratch_file

log = logging.getLogger(__name__)

NAME: Final = "block-hash-index"
COMING: Final = "block-hash-index.new"  # complete and of that image, which is not on the slot yet
UNKNOWN: Final = "hash-unknown"
COPY: Final = 1 << 15  # digests copied at once

_SHA256 = re.compile(r"[0-9a-f]{64}")


class IndexCache:
    """The indexes of one slot, and of its neighbours.  Blocks; what changes something raises OSError."""

    def __init__(self, data: Path, slot: str) -> None:
        """`slot` is the name of the target."""
        self._data = data
        self._slot = data / f"slot.{slot}"

    def of_image(self, sha256: str | None, chunks: int) -> Index | None:
        """The index of the image with that digest and as many chunks, wherever it is."""
        return self._first(sha256, chunks, NAME, COMING)

    def of_content(self, sha256: str | None) -> Index | None:
        """The index of a slot that holds the image with that digest."""
        return self._first(sha256, None, NAME)

    def of_old_content(self) -> Index | None:
        """The index of what was on the target before an install that did not end well."""
        return _open(self._slot / UNKNOWN / NAME, None)

    def scratch(self) -> int:
        """A handle of an empty file that goes when it is closed."""
        self._slot.mkdir(mode=0o700, parents=True, exist_ok=True)
        return scratch_file(self._slot)

    def expect(self, sha256: str, index: Index) -> None:
        """Remember the index of an image that is about to be installed; other such ones go."""
        for path in self._slot.glob(f"hash-*/{COMING}"):
            path.unlink()
        self._store(sha256, index)

    def begin(self, old: str | None) -> None:
        """The target is about to be written; it held the image `old`, None if nobody knows."""
        if old is None or not _SHA256.fullmatch(old):
            return  # what was unknown before stays so
        unknown = self._slot / UNKNOWN
        shutil.rmtree(unknown, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            (self._slot / f"hash-{old}").rename(unknown)

    def keep(self, sha256: str, index: Index) -> None:
        """The target holds the image with that digest now, and `index` is of it."""
        folder = self._slot / f"hash-{sha256}"
        if not _is_there(folder / NAME, index.chunks):
            if not _is_there(folder / COMING, index.chunks):
                self._store(sha256, index)
            (folder / COMING).rename(folder / NAME)
        for other in self._slot.glob("hash-*"):
            if other != folder:
                shutil.rmtree(other, ignore_errors=True)
        for changed in (folder, self._slot, self._data):
            sync_folder(changed)

    def forget(self, sha256: str) -> None:
        """The index of that image may be wrong: the bundle's is to be taken next time."""
        for path in self._paths(sha256, NAME, COMING):
            path.unlink()

    def _first(self, sha256: str | None, chunks: int | None, *names: str) -> Index | None:
        paths = self._paths(sha256 or "", *names)
        return next((found for path in paths if (found := _open(path, chunks)) is not None), None)

    def _paths(self, sha256: str, *names: str) -> Iterator[Path]:
        if _SHA256.fullmatch(sha256):  # a status file can hold anything
            for name in names:
                yield from sorted(self._data.glob(f"slot.*/hash-{sha256}/{name}"))

    def _store(self, sha256: str, index: Index) -> None:
        folder = self._slot / f"hash-{sha256}"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = folder / f"{COMING}.part"
        try:
            with part.open("wb") as file:
                for first in range(0, index.chunks, COPY):
                    file.write(index.read(first, COPY))
                file.flush()
                os.fchmod(file.fileno(), 0o644)
                os.fsync(file.fileno())
            part.rename(folder / COMING)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def _is_there(path: Path, chunks: int) -> bool:
    index = _open(path, chunks)
    if index is not None:
        os.close(index.handle)
    return index is not None


def _open(path: Path, chunks: int | None) -> Index | None:
    """The index in a file; None if there is none, or not one of so many chunks."""
    try:
        index = open_index(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        log.warning("Ignoring a hash index: %s", error)
        return None
    if chunks is not None and index.chunks != chunks:
        log.warning("Ignoring %s: it has %d digests, expected %d", path, index.chunks, chunks)
        os.close(index.handle)
        return None
    return index
