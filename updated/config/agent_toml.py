"""What RAUC has no word for: /etc/updated/updated.toml.  With no file every default of the tables holds.

A key nobody knows is an error.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from updated.bundle.keyfile import suggest
from updated.config.agent_tables import AgentConfig as AgentConfig
from updated.config.agent_tables import Efi, Table, Tryboot, Window
from updated.config.check_tables import check_checks, check_keys
from updated.config.system_conf import SystemConfig
from updated.core.link import header, origin
from updated.errors import ConfigError, UpdatedError

DEFAULT_PATH = Path("/etc/updated/updated.toml")
DEFAULT_DATA_DIRECTORY = Path("/var/lib/updated")
MAX_FILE_SIZE = 1024 * 1024  # bytes; as for system.conf

_START = re.compile(r"([01]\d|2[0-3]):[0-5]\d")
_URL = re.compile(r"https?://[^\s/]+\S*", re.ASCII)


RANGES: dict[str, tuple[float, float, str]] = {
    "confirm.stable-for": (0, 86400, "s"),
    "confirm.deadline": (1, 86400, "s"),
    "reboot.delay": (0, 86400, "s"),
    "reboot.escalate-after": (10, 86400, "s"),
    "hooks.timeout": (1, 86400, "s"),
    "install.stall-timeout": (1, 86400, "s"),
    "install.workers": (0, 64, "threads"),
    "install.min-saved": (0, 1, "(a part of the whole)"),
    "install.spool-reserve": (0, 2**50, "bytes"),
    "usb.hook-timeout": (0.1, 3600, "s"),
    "http.rate-limit": (0, 2**40, "bytes per second"),
    "http.stall-timeout": (1, 86400, "s"),
    "http.connect-timeout": (1, 3600, "s"),
    "ota.interval": (1, 366 * 86400, "s"),
    "ota.max-interval": (1, 366 * 86400, "s"),
    "policy.max-hold": (1, 366 * 86400, "s"),
    "policy.min-battery": (0, 100, "percent"),
    "policy.min-free": (0, 2**50, "bytes"),
    "consent.expires": (1, 366 * 86400, "s"),
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
    if isinstance(confirm := document.get("confirm"), dict):
        check_keys(confirm.get("checks"))
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
    _check_pairs(config)
    check_checks(config.confirm.checks, config.confirm.deadline, config.confirm.stable_for)
    _check_programs(config)
    for key, windows in (
        ("policy.install-windows", config.policy.install_windows),
        ("policy.reboot-windows", config.policy.reboot_windows),
    ):
        for window in windows:
            _check_window(key, window)
    if config.policy.time_zone is not None:
        _check_time_zone(config.policy.time_zone)


def _check_pairs(config: AgentConfig) -> None:
    if config.confirm.stable_for >= config.confirm.deadline:
        raise ConfigError(
            f"confirm.stable-for is {config.confirm.stable_for:g} s, "
            f"expected less than confirm.deadline ({config.confirm.deadline:g} s)"
        )
    if config.ota.max_interval < config.ota.interval:
        raise ConfigError(
            f"ota.max-interval is {config.ota.max_interval:g} s, "
            f"expected at least ota.interval ({config.ota.interval:g} s)"
        )
    if (config.http.user is None) != (config.http.password_file is None):
        raise ConfigError("http.user and http.password-file need each other")
    if config.http.user is not None and config.http.bearer_token_file is not None:
        raise ConfigError("http.user and http.bearer-token-file exclude each other")


def _check_window(key: str, window: Window) -> None:
    if not _START.fullmatch(window.start):
        raise ConfigError(f'{key}: start is {window.start!r}, expected "HH:MM", from 00:00 to 23:59')
    if not 60 <= window.length <= 7 * 86400:
        raise ConfigError(f"{key}: length is {window.length:g}, expected 60 to {7 * 86400} s")
    if not window.days:
        raise ConfigError(f"{key}: days is empty, expected one or more of mon, tue, wed, thu, fri, sat, sun")


def _check_time_zone(name: str) -> None:
    try:
        ZoneInfo(name)
    except (OSError, ValueError) as error:  # ZoneInfoNotFoundError is a KeyError
        raise ConfigError(f"policy.time-zone is {name!r}, which cannot be read: {error}") from error
    except KeyError as error:
        raise ConfigError(
            f"policy.time-zone is {name!r}, expected one as Europe/Berlin",
            hint="See `timedatectl list-timezones`; the time zones are Debian's package tzdata.",
        ) from error


def _check_paths(config: AgentConfig) -> None:
    folder, http = config.folder, config.http
    paths = {
        "data-directory": config.data_directory,
        "folder.path": folder.path,
        "folder.move-to": folder.move_to,
        "http.ca": http.ca,
        "http.cert": http.cert,
        "http.key": http.key,
        "http.bearer-token-file": http.bearer_token_file,
        "http.password-file": http.password_file,
        "http.netrc": http.netrc,
        "tryboot.device": config.tryboot.device,
        "tryboot.folder": config.tryboot.folder,
        **{f"efi.entries.{name}.partition": entry.partition for name, entry in config.efi.entries.items()},
        **{f"policy.inhibit-files[{n}]": path for n, path in enumerate(config.policy.inhibit_files)},
    }
    for key, path in paths.items():
        if path is not None and (not path.startswith("/") or "\0" in path):
            raise ConfigError(f"{key} is {path!r}, expected an absolute path")
    if (folder.after == "move") != (folder.move_to is not None):
        raise ConfigError('folder.move-to and folder.after = "move" need each other')
    if folder.move_to is not None and folder.path is not None and Path(folder.move_to) == Path(folder.path):
        raise ConfigError("folder.move-to is folder.path itself, expected another folder")
    _check_usb(config)
    _check_tryboot(config.tryboot)
    _check_efi(config.efi)
    for key, url in (("ota.index", config.ota.index), ("http.proxy", http.proxy or None)):
        if url is not None and not (_URL.fullmatch(url) and origin(url)[1]):
            raise ConfigError(f"{key} is {url!r}, expected an URL with http:// or https://")
    for name, value in http.headers.items():
        if not _is_header(name, value):
            raise ConfigError(f"http.headers: {name!r} is no header, expected a name and one line of text")


def _check_efi(efi: Efi) -> None:
    for name, entry in efi.entries.items():
        if not entry.loader.startswith("\\"):
            raise ConfigError(
                f"efi.entries.{name}.loader is {entry.loader!r}, expected a path with backslashes",
                hint=r"For example '\EFI\BOOT\BOOTX64.EFI', in single quotes.",
            )


def _is_header(name: str, value: str) -> bool:
    try:
        return header(f"{name}: {value}")[0] == name
    except UpdatedError:
        return False


def _check_usb(config: AgentConfig) -> None:
    usb = config.usb
    if not usb.file_systems:
        raise ConfigError("usb.file-systems is empty, expected one or more of vfat, exfat, ext4, ntfs3")
    if usb.folder is not None and (
        not usb.folder or usb.folder.startswith("/") or "\0" in usb.folder or ".." in Path(usb.folder).parts
    ):
        raise ConfigError(f"usb.folder is {usb.folder!r}, expected a path inside the stick")
    for key, name in (("usb.result-file", usb.result_file), ("usb.led", usb.led)):
        if name is not None and (name in ("", ".", "..") or "/" in name or "\0" in name):
            raise ConfigError(f"{key} is {name!r}, expected a name without a path")


def _check_tryboot(tryboot: Tryboot) -> None:
    if tryboot == Tryboot():
        return
    for one, other in (("device", "folder"), ("partitions", "roots")):
        if bool(getattr(tryboot, one)) == bool(getattr(tryboot, other)):
            raise ConfigError(f"tryboot.{one} and tryboot.{other}: expected one of them")
    numbers = list(tryboot.partitions.values())
    if not all(1 <= number <= 31 for number in numbers) or len(set(numbers)) < len(numbers):
        raise ConfigError(f"tryboot.partitions are {numbers}, expected numbers from 1 to 31, each once")
    for name, root in tryboot.roots.items():
        if not root or not root.isprintable() or any(c.isspace() for c in root):
            raise ConfigError(f"tryboot.roots.{name} is {root!r}, expected a value of root=, as PARTUUID=...")
        if not name.replace("-", "").replace("_", "").isalnum():
            raise ConfigError(
                f"tryboot.roots: {name!r} is no part of a folder's name, expected letters, digits, - and _"
            )


def _check_programs(config: AgentConfig) -> None:
    programs = {
        "usb.on-start": config.usb.on_start,
        "usb.on-success": config.usb.on_success,
        "usb.on-failure": config.usb.on_failure,
        "hooks.on-installed": config.hooks.on_installed,
        "hooks.on-confirmed": config.hooks.on_confirmed,
        "hooks.on-fallback": config.hooks.on_fallback,
        "reboot.command": config.reboot.command,
    }
    for key, words in programs.items():
        if words and not words[0]:
            raise ConfigError(f"{key} begins with an empty text, expected a program and its arguments")
        if any("\0" in word for word in words):
            raise ConfigError(f"{key} has a word with a NUL byte, expected text")
