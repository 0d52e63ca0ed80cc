"""The same on a machine with GRUB and on one with U-Boot, side by side: each of them waits a lot."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tests.system.ab_image import Loader
from tests.system.ab_machine import Machine

LOADERS: tuple[Loader, ...] = ("grub", "uboot")


def with_both(run: Callable[[Loader], None]) -> None:
    """Run it for each loader in a thread of its own; raises what they raised, when both are over."""
    with ThreadPoolExecutor(len(LOADERS)) as pool:
        ends = [pool.submit(run, loader) for loader in LOADERS]
    errors = [error for end in ends if (error := end.exception()) is not None]
    if len(errors) > 1:
        raise ExceptionGroup("both", [error for error in errors if isinstance(error, Exception)])
    for error in errors:
        raise error


class Story:
    """What a machine went through: told on standard output, and with the error if it ends badly.

    with Story("grub", machine) as tell:
        tell("switched on")
    """

    def __init__(self, name: str, machine: Machine) -> None:
        self._name, self._machine = name, machine
        self._began = time.monotonic()

    def __enter__(self) -> Story:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is not None:
            error.add_note(f"{self._name}:\n{self._machine.report()}")

    def __call__(self, text: str) -> None:
        sys.stdout.write(f"{self._name:<5} {time.monotonic() - self._began:6.1f} s  {text}\n")
        sys.stdout.flush()
