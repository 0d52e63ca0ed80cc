"""How far an install is: RAUC's lines, or a bar where somebody watches."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Protocol

from updated.api.client import Status
from updated.cli.render import lines, printable
from updated.cli.render_agent import moving


class Display(Protocol):
    """Used as a context manager around the install."""

    def __enter__(self) -> Display: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def step(self, percentage: int, message: str) -> None:
        """RAUC's progress."""

    def moving(self, status: Status) -> None:
        """What our own service tells: bytes, times, a pause."""

    def failed(self, error: str) -> None:
        """The service's LastError."""


class Lines:
    """RAUC's output, for pipes, logs and terminals without `rich`."""

    def __init__(self) -> None:
        self._started = False

    def __enter__(self) -> Display:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sys.stdout.flush()

    def step(self, percentage: int, message: str) -> None:
        if not self._started:
            self._started = True
            print("installing")
        print(f"{percentage:3d}% {printable(message)}", flush=True)

    def moving(self, status: Status) -> None:
        """Not a part of RAUC's output."""

    def failed(self, error: str) -> None:
        print(f"LastError: {lines(error)}", flush=True)


class Bar(Lines):
    """One line that is drawn again and again.  Raises ImportError without `rich`."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        columns = (
            TextColumn("{task.percentage:>3.0f}%"),
            BarColumn(),
            TextColumn("{task.description}", markup=False),
            TextColumn("{task.fields[moving]}", markup=False),
        )
        # Drawn when there is news, so that no thread is needed.
        self._progress = Progress(*columns, console=Console(highlight=False), auto_refresh=False)
        self._task = self._progress.add_task("", total=100, moving="")

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def step(self, percentage: int, message: str) -> None:
        self._progress.update(self._task, completed=percentage, description=printable(message), refresh=True)

    def moving(self, status: Status) -> None:
        self._progress.update(self._task, moving=moving(status), refresh=True)

    def failed(self, error: str) -> None:
        self._progress.console.print(f"LastError: {lines(error)}", markup=False)


def display() -> Display:
    """A bar on a terminal if `rich` is there, else lines."""
    if not sys.stdout.isatty():
        return Lines()
    try:
        return Bar()
    except ImportError:
        return Lines()
