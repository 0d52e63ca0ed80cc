"""What RAUC has no word for: /etc/updated/updated.toml.  With no file every default below holds.

Times are seconds, sizes are bytes, as plain numbers.  A key nobody knows is an error.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal

import msgspec

from updated.bundle.keyfile import suggest
from updated.config.system_conf import SystemConfig
from updated.errors import ConfigError

DEFAULT_PATH = Path("/etc/updated/updated.toml")
DEFAULT_DATA_DIRECTORY = Path("/var/lib/updated")
MAX_FILE_SIZE = 1024 * 1024  # bytes; as for system.conf


class Table(msgspec.Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True):
    """A table of the file: keys with dashes, immutable, strict."""


class Folder(Table, frozen=True):
    """`[folder]`: bundles that are put into a folder are installed."""

    path: str | None = None  # unset: off; nothing should be installed that nobody asked for
    after: Literal["keep", "delete", "move"] = "keep"
    """What becomes of a file after its attempt has ended.  keep: the folder may be read-only or shared."""
    move_to: str | None = None  # folder, for after = "move"; same file system, so that the move is a rename


class Policy(Table, frozen=True):
    """`[policy]`: what may be installed."""

    version_floor: Literal["none", "confirmed"] = "none"
    """none: RAUC's behaviour.  confirmed: nothing older than the highest confirmed version."""


class Confirm(Table, frozen=True):
    """`[confirm]`: when a new system is good."""

    stable_for: float = 10.0
    """Seconds without a failing check before the system is good: a service that crashes at start does it
    within seconds, and systemd's default restart burst is over after 10 s."""
    deadline: float = 300.0
    """Seconds after the start of the agent until an unconfirmed system is given up: longer than the slowest
    start seen in the field (under 3 minutes until marked good), short enough for a person to wait."""


class Reboot(Table, frozen=True):
    """`[reboot]`: how the new system gets started."""

    when: Literal["manual", "immediately"] = "manual"  # manual: RAUC's behaviour
    command: tuple[str, ...] = ("systemctl", "reboot")  # shuts services down in order


class Install(Table, frozen=True):
    """`[install]`: limits of one install."""

    stall_timeout: float = 120.0
    """Seconds without one byte moved until the install is given up: an SD card may pause for tens of seconds
    while it erases, and the kernel's own disk timeouts are 30 s and are repeated."""
    workers: int = 0
    """Threads that decompress; 0: one for each core, at most 4, because more do not outrun a flash device."""


class AgentConfig(Table, frozen=True):
    """The whole file."""

    data_directory: str | None = None  # unset: system.conf's data-directory, else /var/lib/updated
    folder: Folder = Folder()
    policy: Policy = Policy()
    confirm: Confirm = Confirm()
    reboot: Reboot = Reboot()
    install: Install = Install()


RANGES: dict[str, tuple[float, float, str]] = {
    "confirm.stable-for": (0, 86400, "s"),
    "confirm.deadline": (1, 86400, "s"),
    "install.stall-timeout": (1, 86400, "s"),
    "install.workers": (0, 64, "threads"),
}
"""Key -> smallest and largest value, and the unit."""


def load_agent_config(path: Path | None = None, *, default: Path = DEFAULT_PATH) -> AgentConfig:
    """Read `path`, or `default` if that exists; with neither all defaults hold.

    Raises ConfigError naming file, key and, for an unknown key, the nearest known key.
    """
    if path is None and not default.exists():
        return AgentConfig()
    file = path or default
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_FILE_SIZE + 1)
        return parse_agent_config(data)
    except OSError as error:
        raise ConfigError(f"Failed to load {file}: {error.strerror}") from error
    except ConfigError as error:
        raise ConfigError(f"Failed to load {file}: {error}", hint=error.hint) from error


def parse_agent_config(data: bytes) -> AgentConfig:
    """Decode the bytes of the file.  Raises ConfigError whose text does not name the file."""
    if len(data) > MAX_FILE_SIZE:
        raise ConfigError(f"more than {MAX_FILE_SIZE} bytes")
    try:
        document = tomllib.loads(data.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"not TOML: {error}") from error
    _check_keys(document, AgentConfig, "")
    try:
        config = msgspec.convert(document, AgentConfig)
    except msgspec.ValidationError as error:
        raise ConfigError(_readable(str(error))) from error
    _check_ranges(config)
    _check_paths(config)
    return config


def data_directory(agent: AgentConfig, system: SystemConfig) -> Path:
    """Where the agent keeps what must survive a reboot: a folder that updates do not overwrite."""
    if agent.data_directory is not None:
        return Path(agent.data_directory)
    return system.system.data_directory or DEFAULT_DATA_DIRECTORY


def _check_keys(document: dict[str, Any], table: type[Table], prefix: str) -> None:
    fields = {field.encode_name: field.type for field in msgspec.structs.fields(table)}
    for key, value in document.items():
        if key not in fields:
            raise ConfigError(f"unknown key '{prefix}{key}'", hint=_hint(key, fields, prefix))
        kind = fields[key]
        if isinstance(kind, type) and issubclass(kind, Table) and isinstance(value, dict):
            _check_keys(value, kind, f"{prefix}{key}.")


def _hint(key: str, fields: dict[str, Any], prefix: str) -> str:
    return suggest(key, fields) or f"Known here: {', '.join(prefix + name for name in fields)}."


def _readable(message: str) -> str:
    """msgspec's "Expected `int`, got `str` - at `$.install.workers`" with the key first."""
    reason, found, place = message.rpartition(" - at `$.")
    return f"{place.rstrip('`')}: {reason}" if found else message


def _check_ranges(config: AgentConfig) -> None:
    for key, (low, high, unit) in RANGES.items():
        table, _, name = key.partition(".")
        value = getattr(getattr(config, table), name.replace("-", "_"))
        if not low <= value <= high:
            raise ConfigError(f"{key} is {value:g}, expected {low:g} to {high:g} {unit}")
    if config.confirm.stable_for >= config.confirm.deadline:
        raise ConfigError(
            f"confirm.stable-for is {config.confirm.stable_for:g} s, "
            f"expected less than confirm.deadline ({config.confirm.deadline:g} s)"
        )
    if not config.reboot.command or not config.reboot.command[0]:
        raise ConfigError("reboot.command is empty, expected a program and its arguments")


def _check_paths(config: AgentConfig) -> None:
    folder = config.folder
    paths = {
        "data-directory": config.data_directory,
        "folder.path": folder.path,
        "folder.move-to": folder.move_to,
    }
    for key, path in paths.items():
        if path is not None and (not path.startswith("/") or "\0" in path):
            raise ConfigError(f"{key} is {path!r}, expected an absolute path")
    if (folder.after == "move") != (folder.move_to is not None):
        raise ConfigError('folder.move-to and folder.after = "move" need each other')
    if folder.move_to is not None and folder.path is not None and Path(folder.move_to) == Path(folder.path):
        raise ConfigError("folder.move-to is folder.path itself, expected another folder")
