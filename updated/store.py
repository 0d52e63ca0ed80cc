"""What the agent itself remembers over a power cut: journal, quarantine, attempts, version floor, history.

Each is a `Document` of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Concatenate, Final, Literal, ParamSpec, TypeVar

from updated.core.health import Judgement
from updated.core.model import Outcome, Quarantined
from updated.core.states import HookKind, Idle, Install, RebootPending, Saved, Update
from updated.core.version import parse as parse_version
from updated.document import Document, Warn
from updated.errors import UpdatedError

MAX_HISTORY: Final = 200  # lines; a device that updates weekly keeps four years
MAX_QUARANTINE: Final = 200  # bundles; the oldest is forgotten first
MAX_LINES: Final = 20  # of a journal, and boots, of one bundle
MAX_JUDGEMENTS: Final = 20  # boots
MAX_TEXT: Final = 1000  # characters of one text kept


P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Journal:
    state: Literal["idle", "install", "reboot-pending"] = "idle"
    update: Update | None = None
    attempt: int = 0
    boot_id: str = ""
    asked: bool = False


@dataclass(frozen=True, slots=True)
class PendingHook:
    """A program of the device's own that has to run, or is running."""

    kind: HookKind
    update: Update
    attempts: int = 0  # how often it was begun


@dataclass(frozen=True, slots=True)
class _Floor:
    version: str = ""


@dataclass(frozen=True, slots=True)
class _Left:
    boot_id: str = ""


def _alone(change: Callable[Concatenate[Store, P], T]) -> Callable[Concatenate[Store, P], T]:
    """One change after the other: what another thread adds meanwhile is not lost, and the last is on disk."""

    @wraps(change)
    def changed(store: Store, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with store.changing:
            return change(store, *args, **kwargs)

    return changed


class Store:
    """The agent's memory in `directory`.  Reads come from memory; writes block, call them from a thread."""

    def __init__(self, directory: Path, warn: Warn) -> None:
        """Load everything.  An unusable directory is a warning here and a DeviceError at each write."""
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            warn(f"Data directory {directory} cannot be made: {error.strerror}")
        self.directory = directory
        self.changing = threading.RLock()
        _sweep(directory, warn)
        self._journal = Document(directory / "journal.json", _Journal, _Journal(), warn)
        self._quarantine = Document(directory / "quarantine.json", list[Quarantined], [], warn)
        self._attempts = Document(directory / "attempts.json", dict[str, int], {}, warn)
        self._reached = Document(directory / "reached.json", dict[str, int], {}, warn)
        self._floor = Document(directory / "floor.json", _Floor, _Floor(), warn)
        self._left = Document(directory / "left.json", _Left, _Left(), warn)
        self._health = Document(directory / "health.json", list[Judgement], [], warn)
        self._unreachable = Document(directory / "unreachable.json", list[str], [], warn)
        self._hooks = Document(directory / "hooks.json", list[PendingHook], [], warn)
        self._history = Document(directory / "history.json", list[Outcome], [], warn)

    # Journal

    def saved_state(self) -> Saved:
        journal = self._journal.value
        if journal.update is None:
            return Idle()
        match journal.state:
            case "install":
                return Install(journal.update, journal.attempt)
            case "reboot-pending":
                return RebootPending(journal.update, journal.boot_id, journal.asked)
            case "idle":
                return Idle()

    @_alone
    def save_state(self, state: Saved) -> None:
        """Raises DeviceError."""
        match state:
            case Install(update, attempt):
                journal = _Journal("install", update, attempt)
            case RebootPending(update, boot_id, asked):
                journal = _Journal("reboot-pending", update, boot_id=boot_id, asked=asked)
            case Idle():
                journal = _Journal()
        self._journal.save(journal)

    # Quarantine and attempts

    def quarantine(self) -> Mapping[str, Quarantined]:
        """Manifest hash -> why."""
        return {entry.manifest_hash: entry for entry in self._quarantine.value}

    @_alone
    def reject(self, entry: Quarantined) -> None:
        """Keep the first reason: what comes after it is its consequence.  Raises DeviceError."""
        if entry.manifest_hash in self.quarantine():
            return
        entry = replace(entry, reason=entry.reason[:MAX_TEXT], version=entry.version[:MAX_TEXT])
        self._quarantine.save([*self._quarantine.value, entry][-MAX_QUARANTINE:])
        self.forget_attempts(entry.manifest_hash)

    @_alone
    def lift(self, manifest_hash: str) -> None:
        """A person allows this bundle again.  Raises DeviceError."""
        self._quarantine.save([e for e in self._quarantine.value if e.manifest_hash != manifest_hash])

    @_alone
    def annotate(self, manifest_hash: str, failed_boots: Sequence[str], journal: Sequence[str]) -> None:
        """Add what was found out about its end.  Raises DeviceError."""
        texts = tuple(line[:MAX_TEXT] for line in journal[-MAX_LINES:])
        boots = tuple(failed_boots[-MAX_LINES:])
        self._quarantine.save(
            [
                replace(entry, failed_boots=boots, journal=texts)
                if entry.manifest_hash == manifest_hash
                else entry
                for entry in self._quarantine.value
            ]
        )

    @_alone
    def count_attempt(self, manifest_hash: str, reached: int = 0) -> int:
        """Count one more install of this bundle; returns how many that makes.

        `reached`: bytes of it that the slots hold already.  More than at the last count, and it begins anew:
        a device that is switched off every day gets there in the end.  Raises DeviceError.
        """
        count = self._attempts.value.get(manifest_hash, 0) + 1
        if reached > self._reached.value.get(manifest_hash, 0):
            count = 1
        # Only the bundle at hand is interesting; more would grow for ever.
        self._attempts.save({manifest_hash: count})
        self._reached.save({manifest_hash: reached} if reached else {})
        return count

    @_alone
    def forget_attempts(self, manifest_hash: str) -> None:
        """Raises DeviceError."""
        for document in (self._attempts, self._reached):
            document.save({k: n for k, n in document.value.items() if k != manifest_hash})

    # Rollback

    def left_boot(self) -> str:
        """Id of the boot in which the running group was given up; "" for none."""
        return self._left.value.boot_id

    @_alone
    def leave_boot(self, boot_id: str) -> None:
        """The running group is given up: nothing may mark it good before the reboot.  Raises DeviceError."""
        self._left.save(_Left(boot_id))

    # Health

    def judgements(self) -> Sequence[Judgement]:
        """One for each boot, the newest first."""
        return self._health.value[::-1]

    @_alone
    def judged(self, judgement: Judgement) -> None:
        """Keep it in place of what was said of the same boot before.  Raises DeviceError."""
        others = [one for one in self._health.value if one.boot_id != judgement.boot_id]
        self._health.save([*others, judgement][-MAX_JUDGEMENTS:])

    def unreachable(self) -> frozenset[str]:
        """Names of the checks that failed in the system which installed what runs."""
        return frozenset(self._unreachable.value)

    @_alone
    def save_unreachable(self, names: Sequence[str]) -> None:
        """Raises DeviceError."""
        if sorted(names) != self._unreachable.value:
            self._unreachable.save(sorted(names))

    # Hooks

    def pending_hooks(self) -> Sequence[PendingHook]:
        """What a power cut has interrupted, the oldest first."""
        return self._hooks.value

    @_alone
    def save_hooks(self, hooks: Sequence[PendingHook]) -> None:
        """Raises DeviceError."""
        self._hooks.save(list(hooks))

    # Version floor

    def floor(self) -> str:
        """The highest version that was confirmed; "" for none."""
        return self._floor.value.version

    @_alone
    def raise_floor(self, version: str) -> None:
        """Raise the floor to `version` if that is higher.  Raises DeviceError."""
        if version == self.floor() or _higher(version, self.floor()):
            self._floor.save(_Floor(version))

    @_alone
    def reset_floor(self) -> None:
        """Any version may be installed; the next that is confirmed is the floor.  Raises DeviceError."""
        self._floor.save(_Floor())

    # History

    def history(self, limit: int = MAX_HISTORY) -> Sequence[Outcome]:
        """The newest first."""
        return self._history.value[::-1][: max(limit, 0)]

    @_alone
    def record(self, line: Outcome) -> None:
        """Add a line; the same end of the same transaction only once.  Raises DeviceError."""
        line = replace(
            line,
            transaction=line.transaction[:MAX_TEXT],
            location=line.location[:MAX_TEXT],
            version=line.version[:MAX_TEXT],
            text=line.text[:MAX_TEXT],
        )
        known = [(e.transaction, e.code) for e in self._history.value[-5:] if e.code != "hook"]
        if (line.transaction, line.code) in known:
            return
        self._history.save(_bounded([*self._history.value, line]))


def _bounded(history: list[Outcome]) -> list[Outcome]:
    """A source that fails each hour does not push out what was really installed."""
    while len(history) > MAX_HISTORY:
        in_vain = [n for n, line in enumerate(history) if line.code in ("failed", "refused", "cancelled")]
        del history[in_vain[0] if len(in_vain) > MAX_HISTORY // 2 else 0]
    return history


def _sweep(directory: Path, warn: Warn) -> None:
    """Remove what `write_durably` left when the power was cut."""
    try:
        for leftover in directory.glob(".*.json.*.tmp"):
            leftover.unlink()
    except OSError as error:
        warn(f"Data directory {directory} cannot be tidied: {error.strerror}")


def _higher(version: str, floor: str) -> bool:
    try:
        new = parse_version(version)
    except UpdatedError:
        return False  # what cannot be compared is no floor
    try:
        return new > parse_version(floor)
    except UpdatedError:
        return True  # none yet
