"""barebox with its bootchooser: bootstate.<bootname>.priority and .remaining_attempts, by barebox-state.

A state of which no copy is valid is answered from the device tree's defaults with a warning only, and the
next write saves those.  Here such a warning is an error: barebox makes a new state at its next start.

Source of the rules: RAUC's integration guide, "Barebox", and src/bootloaders/barebox.c; barebox's
documentation, "Barebox Bootchooser"; dt-utils, src/barebox-state.c.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence

from updated import command
from updated.errors import DeviceError

DEFAULT_ATTEMPTS = 3  # RAUC's default for boot-attempts and boot-attempts-primary
PRIMARY = 20  # priority of the one that starts next, as RAUC sets it
OTHER = 10  # priority of each other that may start
LOCK = "bootstate.attempts_locked"  # 1: barebox no longer counts remaining_attempts down

_NUMBER = re.compile(r"\d{1,10}")
_DEFAULTS_USED = "continuing with defaults"

log = logging.getLogger(__name__)


class Barebox:
    """A `Bootloader`.  A slot is good with a priority and attempts left; the highest priority starts."""

    def __init__(
        self,
        bootnames: Sequence[str],
        *,
        attempts: int = DEFAULT_ATTEMPTS,
        attempts_primary: int = DEFAULT_ATTEMPTS,
        statename: str | None = None,
        dtbpath: str | None = None,
        lock_counter: bool = False,
    ) -> None:
        """`attempts`: starts left after "good"; `statename`: which of several states; `dtbpath`: device tree
        that describes it, if not the running one; `lock_counter`: attempts are no longer counted once the
        primary is good, and counted again for the next one (prevent-late-fallback=lock-counter).
        """
        self._bootnames = tuple(bootnames)
        self._attempts = attempts
        self._attempts_primary = attempts_primary
        self._options = (*(("-n", statename) if statename else ()), *(("-i", dtbpath) if dtbpath else ()))
        self._lock_counter = lock_counter

    async def get_primary(self) -> str | None:
        """The one with attempts left and the highest priority, None if there is none.  Raises DeviceError."""
        return self._primary(await self._get(self._variables()))

    async def set_primary(self, bootname: str) -> None:
        found = await self._get(self._variables())
        wanted = {
            _priority(name): OTHER for name in self._bootnames if name != bootname and found[_priority(name)]
        }
        wanted |= {_priority(bootname): PRIMARY, _attempts(bootname): self._attempts_primary}
        await self._set(found, wanted | await self._lock(found, locked=False))

    async def get_state(self, bootname: str) -> bool:
        """Good: a priority, and attempts left.  Raises DeviceError."""
        return _good(await self._get([_priority(bootname), _attempts(bootname)]), bootname)

    async def set_state(self, bootname: str, good: bool) -> None:
        """Good: fresh attempts; bad: none, and no priority.

        What is marked good without a priority gets that of the others.  RAUC leaves it at 0, so that its
        `mark-good` succeeds and the slot stays bad.
        """
        found = await self._get(self._variables())
        if not good:
            await self._set(found, {_priority(bootname): 0, _attempts(bootname): 0})
            return
        wanted = {
            _priority(bootname): found[_priority(bootname)] or OTHER,
            _attempts(bootname): self._attempts,
        }
        # While another one is to start next its attempts must count.
        if self._primary(found | wanted) == bootname:
            wanted |= await self._lock(found, locked=True)
        await self._set(found, wanted)

    async def get_current(self) -> str | None:
        """barebox tells it on the kernel command line (`bootchooser.active=`)."""
        return None

    def _variables(self) -> list[str]:
        return [variable(name) for name in self._bootnames for variable in (_priority, _attempts)]

    def _primary(self, values: Mapping[str, int]) -> str | None:
        startable = [name for name in self._bootnames if _good(values, name)]
        return max(startable, key=lambda name: values[_priority(name)], default=None)

    async def _lock(self, found: dict[str, int], *, locked: bool) -> dict[str, int]:
        """What to write to (un)lock the counters; the present value goes to `found`.

        A state from before there was such a variable is said, and no reason to fail: nothing could be
        confirmed or updated any more.
        """
        if not self._lock_counter:
            return {}
        try:
            found |= await self._get([LOCK])
        except DeviceError as error:
            log.warning("attempts cannot be locked: %s", error)
            return {}
        return {LOCK: int(locked)}

    async def _get(self, names: Sequence[str]) -> dict[str, int]:
        """Values by name.  Raises DeviceError, also if no copy of the state is valid."""
        arguments = [argument for name in names for argument in ("-g", name)]
        lines = (await self._run(*arguments)).splitlines()
        if len(lines) != len(names) or not all(_NUMBER.fullmatch(line) for line in lines):
            raise DeviceError(
                f"Failed to parse value: expected {len(names)} numbers, got {' '.join(lines)[:100]!r}"
            )
        return dict(zip(names, map(int, lines), strict=True))

    async def _set(self, found: Mapping[str, int], wanted: Mapping[str, int]) -> None:
        """Write what differs, in one go, and look whether it is there."""
        changes = {name: value for name, value in wanted.items() if found[name] != value}
        if not changes:
            return
        await self._run(*(word for name, value in changes.items() for word in ("-s", f"{name}={value}")))
        for name, value in (await self._get(list(changes))).items():
            if value != changes[name]:
                raise DeviceError(
                    f"barebox's state did not keep {name}: expected {changes[name]}, got {value}",
                    hint="Is the device that holds the state writable?",
                )

    async def _run(self, *arguments: str) -> str:
        result = await command.run(["barebox-state", *self._options, *arguments])
        lines = result.stderr.strip().splitlines()
        if any(_DEFAULTS_USED in line for line in lines):
            raise DeviceError(
                f"barebox's state is not valid: {lines[0]}",
                hint="Nothing was written. barebox makes a new one when it starts; look whether the device"
                " tree names the right device.",
            )
        if result.code:
            reason = f" ({lines[-1]})" if lines else ""
            raise DeviceError(
                f"barebox-state failed with exit code: {result.code}{reason}", hint=_hint(lines)
            )
        return result.stdout


def _priority(bootname: str) -> str:
    return f"bootstate.{bootname}.priority"


def _attempts(bootname: str) -> str:
    return f"bootstate.{bootname}.remaining_attempts"


def _good(values: Mapping[str, int], bootname: str) -> bool:
    return values[_priority(bootname)] > 0 and values[_attempts(bootname)] > 0


def _hint(lines: Sequence[str]) -> str:
    if any(line.startswith("no such variable") for line in lines):
        return "Each bootname needs its variables in barebox's state; `barebox-state -d` shows them."
    return ""
