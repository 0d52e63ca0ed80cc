"""RAUC's system.conf, read as strictly as RAUC reads it: what is unknown is an error.

Source: RAUC reference, "System Configuration File"; search order from src/context.c.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from updated.bundle.keyfile import Consumer, Entry, Group, KeyFile, KeyFileError, parse, suggest
from updated.config.log_sections import ArtifactRepo, EventLog, parse_artifact_repos, parse_event_logs
from updated.config.sections import (
    Autoinstall,
    Casync,
    Encryption,
    Handlers,
    Keyring,
    Polling,
    Streaming,
    parse_autoinstall,
    parse_casync,
    parse_encryption,
    parse_handlers,
    parse_keyring,
    parse_polling,
    parse_streaming,
)
from updated.config.slot_sections import parse_slots
from updated.config.system_section import System, parse_system
from updated.core.model import Slot
from updated.errors import ConfigError

T = TypeVar("T")

SEARCH_PATHS = (
    Path("/etc/rauc/system.conf"),
    Path("/run/rauc/system.conf"),
    Path("/usr/lib/rauc/system.conf"),
)
MAX_FILE_SIZE = 1024 * 1024  # bytes; real ones have some kilobytes
SECTIONS = (
    "system",
    "keyring",
    "casync",
    "streaming",
    "polling",
    "encryption",
    "autoinstall",
    "handlers",
)
FAMILIES = ("slot", "artifacts", "log")


@dataclass(frozen=True, slots=True)
class SystemConfig:
    """What system.conf says, checked; defaults are RAUC's."""

    path: Path  # the file that was read
    system: System
    slots: tuple[Slot, ...]  # in file order
    keyring: Keyring
    casync: Casync
    streaming: Streaming
    polling: Polling
    encryption: Encryption
    autoinstall: Autoinstall
    handlers: Handlers
    artifacts: tuple[ArtifactRepo, ...]
    logs: tuple[EventLog, ...]


def load_system_config(
    path: Path | None, overrides: Sequence[str] = (), *, search: Sequence[Path] = SEARCH_PATHS
) -> SystemConfig:
    """Read `path`, or the first file of `search` that exists.

    `overrides` are `section:key=value` (RAUC's `-C`); they replace a key or add it.
    Raises ConfigError: its text is RAUC's and names the file, its hint the nearest known key or the line.
    """
    file = path or next((found for found in search if found.exists()), search[-1])
    try:
        return parse_system_config(_read(file), file, overrides)
    except OSError as error:
        searched = "" if path else f"Looked for {', '.join(str(place) for place in search)}."
        reason = f"Failed to open file “{file}”: {error.strerror}"
        raise ConfigError(f"Failed to load system config ({file}): {reason}", hint=searched) from error
    except (KeyFileError, ConfigError) as error:
        raise ConfigError(f"Failed to load system config ({file}): {error}", hint=error.hint) from error


def parse_system_config(data: bytes, path: Path, overrides: Sequence[str] = ()) -> SystemConfig:
    """Like `load_system_config`, for bytes that are already here; `path` is what relative paths start from.

    Raises KeyFileError or ConfigError, whose texts do not name the file.
    """
    if not data:
        raise ConfigError("Input file is empty")
    file = parse(data)
    for override in overrides:
        file = _override(file, override)
    folder = path.absolute().parent
    system = _section(file, "system", parse_system, folder)
    config = SystemConfig(
        path=path,
        system=system,
        keyring=_section(file, "keyring", parse_keyring, folder),
        casync=_section(file, "casync", parse_casync, folder),
        streaming=_section(file, "streaming", parse_streaming, folder),
        polling=_section(file, "polling", parse_polling, folder),
        encryption=_section(file, "encryption", parse_encryption, folder),
        autoinstall=_section(file, "autoinstall", parse_autoinstall, folder),
        handlers=_section(
            file, "handlers", lambda section, base: parse_handlers(section, base, system.bootloader), folder
        ),
        logs=parse_event_logs(_family(file, "log"), system.data_directory),
        slots=parse_slots(_family(file, "slot"), folder),
        artifacts=parse_artifact_repos(_family(file, "artifacts"), folder),
    )
    _check_groups(file)
    _check_repos(config)
    return config


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(MAX_FILE_SIZE + 1)
    if len(data) > MAX_FILE_SIZE:
        raise ConfigError(f"Input file has more than {MAX_FILE_SIZE} bytes")
    return data


def _section(file: KeyFile, name: str, read: Callable[[Consumer, Path], T], folder: Path) -> T:
    section = Consumer(file.group(name) or Group(name, (), 0))
    value = read(section, folder)
    section.finish()
    return value


def _family(file: KeyFile, family: str) -> Iterator[Group]:
    """All groups `[<family>.…]`; a `[slot]` alone is one as well, so that its name is refused."""
    return (group for group in file.groups if group.name.partition(".")[0] == family)


def _check_groups(file: KeyFile) -> None:
    for group in file.groups:
        if group.name not in SECTIONS and group.name.partition(".")[0] not in FAMILIES:
            raise KeyFileError(
                f"Invalid group '[{group.name}]'", line=group.line, hint=suggest(group.name, SECTIONS)
            )


def _check_repos(config: SystemConfig) -> None:
    classes = {slot.slot_class for slot in config.slots}
    for repo in config.artifacts:
        if repo.name in classes:
            raise ConfigError(f"Existing slot class '{repo.name}' cannot be used as artifact repo name!")


def _override(file: KeyFile, override: str) -> KeyFile:
    place, equals, value = override.partition("=")
    name, _, key = place.partition(":")
    if not (name and key and equals):
        raise ConfigError(f"Invalid override '{override}'", hint="Expected section:key=value.")
    entry = Entry(key, value.encode(errors="surrogateescape"), 0)
    group = file.group(name)
    if group is None:
        return replace(file, groups=(*file.groups, Group(name, (entry,), 0)))
    counting = group.find(key)
    kept = tuple(old for old in group.entries if old is not counting)
    changed = replace(group, entries=(*kept, entry))
    return replace(file, groups=tuple(changed if old is group else old for old in file.groups))
