"""One small JSON file that holds one value of a known type, and survives a power cut.

A torn or foreign file never stops the service: it is set aside as `<file>.broken`, said so, and the service
goes on with nothing remembered.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

import msgspec

from updated.durable import write_durably
from updated.errors import DeviceError

MAX_FILE: Final = 8 * 1024 * 1024  # bytes; more than any of ours can have

Warn = Callable[[str], None]
T = TypeVar("T")


class Document(Generic[T]):
    """Reads come from memory; making it and `save` block, call them from a thread."""

    def __init__(self, path: Path, kind: type[T], empty: T, warn: Warn) -> None:
        self._path = path
        self.value = self._on_disk = self._load(kind, empty, warn)

    def save(self, value: T) -> None:
        """Remember `value`, on disk too unless it is there already.

        Raises DeviceError; it is remembered in memory all the same, and the next `save` writes.
        """
        self.value = value
        if value == self._on_disk:
            return
        try:
            data = msgspec.json.format(msgspec.json.encode(value), indent=1)
            try:
                write_durably(self._path, data)
            except FileNotFoundError:  # somebody has removed the folder
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                write_durably(self._path, data)
        except OSError as error:
            raise DeviceError(
                f"Failed to save {self._path}: {error.strerror}",
                hint="Free space on the data directory's filesystem, or make it writable.",
            ) from error
        except ValueError as error:  # a text that is no UTF-8
            raise DeviceError(f"Failed to save {self._path}: {error}") from error
        self._on_disk = value

    def _load(self, kind: type[T], empty: T, warn: Warn) -> T:
        try:
            return msgspec.json.decode(_read(self._path), type=kind)
        except FileNotFoundError:
            return empty
        except (OSError, ValueError, RecursionError) as error:
            warn(f"{self._path} cannot be read ({error}); it is set aside and forgotten")
            self._set_aside(warn)
            return empty

    def _set_aside(self, warn: Warn) -> None:
        try:
            self._path.replace(self._path.with_name(f"{self._path.name}.broken"))
        except OSError as error:
            warn(f"{self._path} cannot be set aside: {error}")


def _read(path: Path) -> bytes:
    """At most MAX_FILE bytes of a regular file.  Raises OSError, ValueError."""
    with open(path, "rb", opener=_open_at_once) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("not a regular file")
        data = file.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise ValueError(f"larger than {MAX_FILE} bytes")
    return data


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO must not hang the service
