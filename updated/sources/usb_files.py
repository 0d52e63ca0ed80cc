"""What lies on a mounted stick, and the one file that is left there.  All of it blocks.

Folders are opened one by one without following links: nothing on the stick leads out of it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from updated.sources.folder import MAX_FILES, SUFFIX, examine

MAX_NAMES: Final = 10_000  # of one folder that are looked at: a damaged one may have no end
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def bundles(root: Path, folder: str = "") -> list[tuple[str, os.stat_result]]:
    """Bundles in the stick's root, then in its `folder`, by name: at most MAX_FILES.

    Also those that are not complete: nobody writes to the stick any more, and whoever did shall know.
    Names are paths below `root`.  Raises OSError if the stick cannot be read at all.
    """
    with _open_folder(root) as handle:
        found = _bundles(handle)
        if folder:
            with contextlib.suppress(OSError), _inside(handle, folder) as inner:
                found += [(f"{folder}/{name}", info) for name, info in _bundles(inner)]
    return found[:MAX_FILES]


def write_text(root: Path, name: str, text: str) -> None:
    """Put `text` into the file `name` in `root`: the old file or all of the new one.  Raises OSError."""
    with _open_folder(root) as folder:
        temporary = f".{name}.new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=folder)
        with os.fdopen(os.open(temporary, _NEW, 0o644, dir_fd=folder), "wb") as file:
            file.write(text.encode(errors="replace"))
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)


def _bundles(folder: int) -> list[tuple[str, os.stat_result]]:
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in islice(entries, MAX_NAMES) if entry.name.endswith(SUFFIX))
    found = ((name, examine(Path(name), dir_fd=folder, complete=False)) for name in names)
    return list(islice(((name, info) for name, info in found if info), MAX_FILES))


@contextlib.contextmanager
def _open_folder(path: Path | str, *, dir_fd: int | None = None) -> Iterator[int]:
    handle = os.open(path, _FOLDER, dir_fd=dir_fd)
    try:
        yield handle
    finally:
        os.close(handle)


@contextlib.contextmanager
def _inside(root: int, folder: str) -> Iterator[int]:
    with contextlib.ExitStack() as stack:
        handle = root
        for part in folder.split("/"):
            handle = stack.enter_context(_open_folder(part, dir_fd=handle))
        yield handle
