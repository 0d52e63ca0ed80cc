"""`[log.<name>]` and `[artifacts.<repo>]` of system.conf (RAUC reference, sections of these names)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from updated.bundle.keyfile import Consumer, Group, suggest
from updated.config.sections import resolve
from updated.config.slot_sections import parse_size
from updated.errors import ConfigError

LogFormat = Literal["readable", "short", "json", "json-pretty"]
LOG_FORMATS: tuple[LogFormat, ...] = ("readable", "short", "json", "json-pretty")
LOG_EVENTS = ("all", "boot", "mark", "install", "service", "writeslot")
REPO_TYPES = ("files", "trees", "composefs")
MAX_FILES = 1000


@dataclass(frozen=True, slots=True)
class EventLog:
    """`[log.<name>]`: a file that events are written to."""

    name: str
    filename: Path
    format: LogFormat = "readable"
    events: tuple[str, ...] = ("all",)
    max_size: int = 0  # bytes; 0: no rotation
    max_files: int = 10


@dataclass(frozen=True, slots=True)
class ArtifactRepo:
    """`[artifacts.<repo>]`: a folder of files or trees that bundles update one by one."""

    name: str
    path: Path
    type: str
    description: str = ""


def parse_event_logs(groups: Iterable[Group], data_directory: Path | None) -> tuple[EventLog, ...]:
    """Raises KeyFileError or ConfigError."""
    return tuple(_parse_event_log(group, data_directory) for group in groups)


def _parse_event_log(group: Group, data_directory: Path | None) -> EventLog:
    name = group.name.removeprefix("log.")
    if group.name == "log" or not name:
        raise ConfigError(f"Invalid group '[{group.name}]'", hint="Expected [log.<name>].")
    section = Consumer(group)
    filename = resolve(Path(), section.string("filename"))
    if not filename.is_absolute():
        if data_directory is None:
            raise ConfigError("Relative filename requires data-directory to be set")
        filename = data_directory / filename
    max_size = section.optional_string("max-size")
    log = EventLog(
        name=name,
        filename=filename,
        format=_log_format(section.optional_string("format") or "readable"),
        events=_events(section.optional_list("events")),
        max_size=0 if max_size is None else parse_size(max_size, "max-size"),
        max_files=_max_files(section.optional_integer("max-files")),
    )
    section.finish()
    return log


def _log_format(text: str) -> LogFormat:
    for known in LOG_FORMATS:
        if text == known:
            return known
    raise ConfigError(f"Unknown log format '{text}'", hint=f"RAUC knows {', '.join(LOG_FORMATS)}.")


def _events(events: tuple[str, ...] | None) -> tuple[str, ...]:
    if events is None:
        return ("all",)
    if len(events) > 1 and "all" in events:
        raise ConfigError("Event type 'all' cannot be combined")
    for event in events:
        if event not in LOG_EVENTS:
            raise ConfigError(
                f"Unsupported event log type '{event}'", hint=f"RAUC knows {', '.join(LOG_EVENTS)}."
            )
    return events


def _max_files(count: int | None) -> int:
    if count is None:
        return 10  # RAUC's default
    if count < 1:
        raise ConfigError("Value for 'max-files' must be >= 1")
    if count > MAX_FILES:
        raise ConfigError(f"Value of {count} for 'max-files' looks implausible", hint=f"At most {MAX_FILES}.")
    return count


def parse_artifact_repos(groups: Iterable[Group], folder: Path) -> tuple[ArtifactRepo, ...]:
    """Raises KeyFileError or ConfigError."""
    return tuple(_parse_artifact_repo(group, folder) for group in groups)


def _parse_artifact_repo(group: Group, folder: Path) -> ArtifactRepo:
    parts = group.name.split(".")
    if len(parts) != 2 or not parts[1]:
        raise ConfigError(f"Invalid artifacts repo format: {group.name}", hint="Expected [artifacts.<name>].")
    section = Consumer(group)
    repo = ArtifactRepo(
        name=parts[1],
        path=resolve(folder, section.string("path")),
        type=section.string("type"),
        description=section.optional_string("description") or "",
    )
    if repo.type not in REPO_TYPES:
        raise ConfigError(
            f"Unsupported artifacts repo type '{repo.type}' for repo {repo.name} selected in system config",
            hint=suggest(repo.type, REPO_TYPES) or f"RAUC knows {', '.join(REPO_TYPES)}.",
        )
    if section.optional_string("parent-class") is not None:
        raise ConfigError("Parent slot classes are not yet supported for artifact repos")
    section.finish()
    return repo
