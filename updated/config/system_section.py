"""`[system]` of system.conf (RAUC reference, "System Configuration File")."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from updated.bundle.keyfile import Consumer, KeyFileError, suggest
from updated.bundle.manifest import BundleFormat
from updated.config.sections import resolve, strict_string
from updated.core.version import VersionError
from updated.core.version import parse as parse_version
from updated.errors import ConfigError

Bootloader = Literal["barebox", "grub", "uboot", "efi", "custom", "noop", "tryboot"]
PreventLateFallback = Literal["no", "mark-bad", "lock-counter"]

BUNDLE_FORMATS: tuple[BundleFormat, ...] = get_args(BundleFormat)
BOOTLOADERS: tuple[Bootloader, ...] = get_args(Bootloader)
BOOTLOADER_KEYS = {
    "barebox-statename": "barebox",
    "barebox-dtbpath": "barebox",
    "grubenv": "grub",
    "efi-use-bootnext": "efi",
}
GRUBENV = Path("/boot/grub/grubenv")  # RAUC's default
DEFAULT_ATTEMPTS = 3  # RAUC's default; the bootloader's own reset value should be the same
MAX_DOWNLOAD_SIZE = 8 * 1024 * 1024  # bytes
MAX_SIGNATURE_SIZE = 64 * 1024  # bytes


@dataclass(frozen=True, slots=True)
class System:
    """`[system]`, with RAUC's defaults in place of what is absent."""

    compatible: str
    bootloader: Bootloader
    min_bundle_version: str | None = None  # a semantic version
    bundle_formats: frozenset[BundleFormat] = frozenset(BUNDLE_FORMATS)
    mountprefix: Path = Path("/mnt/rauc")
    data_directory: Path | None = None
    statusfile: Path | None = None  # None: per-slot status
    activate_installed: bool = True
    prevent_late_fallback: PreventLateFallback = "no"
    perform_pre_check: bool = False
    variant_name: str | None = None
    variant_file: str | None = None
    variant_dtb: bool = False
    boot_attempts: int = DEFAULT_ATTEMPTS  # set when a slot is marked good
    boot_attempts_primary: int = DEFAULT_ATTEMPTS  # set when a slot becomes primary
    max_bundle_download_size: int = MAX_DOWNLOAD_SIZE  # bytes
    max_bundle_signature_size: int = MAX_SIGNATURE_SIZE  # bytes
    grubenv: Path = GRUBENV
    barebox_statename: str | None = None
    barebox_dtbpath: str | None = None
    efi_use_bootnext: bool = True


def parse_system(section: Consumer, folder: Path) -> System:
    """Read all keys of `[system]`.  Raises KeyFileError or ConfigError with RAUC's texts."""
    compatible = strict_string(section, "compatible")
    if compatible is None:
        raise ConfigError("System compatible string is not set", hint="Set compatible= in [system].")
    bootloader = _bootloader(section.optional_string("bootloader"))
    data_directory = _data_directory(section, folder)
    system = System(
        compatible=compatible,
        bootloader=bootloader,
        min_bundle_version=_min_version(strict_string(section, "min-bundle-version")),
        bundle_formats=_bundle_formats(section),
        mountprefix=resolve(Path("/"), section.optional_string("mountprefix") or "/mnt/rauc/"),
        data_directory=data_directory,
        statusfile=_statusfile(section, folder, data_directory),
        activate_installed=_boolean(section, "activate-installed", default=True),
        prevent_late_fallback=_prevent_late_fallback(section),
        perform_pre_check=_boolean(section, "perform-pre-check"),
        variant_name=strict_string(section, "variant-name"),
        variant_file=strict_string(section, "variant-file"),
        variant_dtb=_boolean(section, "variant-dtb"),
        boot_attempts=_attempts(section, "boot-attempts", bootloader),
        boot_attempts_primary=_attempts(section, "boot-attempts-primary", bootloader),
        max_bundle_download_size=_limit(section, "max-bundle-download-size", MAX_DOWNLOAD_SIZE),
        max_bundle_signature_size=_limit(section, "max-bundle-signature-size", MAX_SIGNATURE_SIZE),
        grubenv=_grubenv(section, folder, bootloader),
        barebox_statename=_only(section, "barebox-statename", bootloader),
        barebox_dtbpath=_only(section, "barebox-dtbpath", bootloader),
        efi_use_bootnext=bootloader != "efi" or _boolean(section, "efi-use-bootnext", default=True),
    )
    if sum((system.variant_dtb, system.variant_file is not None, system.variant_name is not None)) > 1:
        raise ConfigError("Only one of the keys 'variant-file', variant-dtb','variant-name' is allowed")
    for entry in section.left:
        if entry.key in BOOTLOADER_KEYS:
            raise KeyFileError(
                f"Invalid key '{entry.key}' in group '[system]'",
                line=entry.line,
                hint=f"'{entry.key}' is for bootloader={BOOTLOADER_KEYS[entry.key]} only.",
            )
    return system


def parse_bundle_formats(text: str) -> frozenset[BundleFormat]:
    """`verity crypt` is a fixed list, `-plain` changes the default (all).  Raises ConfigError."""
    fixed: set[BundleFormat] = set()
    changed: set[BundleFormat] = set(BUNDLE_FORMATS)
    tokens = [token for token in text.split(" ") if token]
    for token in tokens:
        name = token[1:] if token[0] in "+-" else token
        found = next((known for known in BUNDLE_FORMATS if known == name), None)
        if found is None:
            raise ConfigError(f"Invalid bundle format '{name}'", hint=suggest(name, BUNDLE_FORMATS))
        if token[0] == "-":
            changed.discard(found)
        elif token[0] == "+":
            changed.add(found)
        else:
            fixed.add(found)
    if fixed and any(token[0] in "+-" for token in tokens):
        raise ConfigError(
            f"Invalid bundle format configuration '{text}', "
            "cannot combine fixed value with modification (+/-)"
        )
    if not fixed and not changed:
        raise ConfigError(f"Invalid bundle format configuration '{text}', no remaining formats")
    return frozenset(fixed or changed)


def _bundle_formats(section: Consumer) -> frozenset[BundleFormat]:
    text = strict_string(section, "bundle-formats")
    return frozenset(BUNDLE_FORMATS) if text is None else parse_bundle_formats(text)


def _bootloader(name: str | None) -> Bootloader:
    if name is None:
        raise ConfigError(
            "No bootloader selected in system config", hint=f"RAUC knows {', '.join(BOOTLOADERS)}."
        )
    if name == "u-boot":  # the spelling of RAUC's oldest reference
        return "uboot"
    for known in BOOTLOADERS:
        if name == known:
            return known
    raise ConfigError(
        f"Unsupported bootloader '{name}' selected in system config",
        hint=suggest(name, BOOTLOADERS) or f"RAUC knows {', '.join(BOOTLOADERS)}.",
    )


def _min_version(text: str | None) -> str | None:
    if text is None:
        return None
    try:
        valid = parse_version(text) >= parse_version("0")
    except VersionError:
        valid = False
    if not valid:
        raise ConfigError(
            f"Min version format invalid, expected: Major[.Minor[.Patch]][-pre_release], got: {text}"
        )
    return text


def _data_directory(section: Consumer, folder: Path) -> Path | None:
    value = strict_string(section, "data-directory")
    return None if value is None else resolve(folder, value)


def _statusfile(section: Consumer, folder: Path, data_directory: Path | None) -> Path | None:
    """The four combinations of RAUC's reference, "data-directory"."""
    value = strict_string(section, "statusfile")
    if value == "per-slot":
        if data_directory is not None:
            raise ConfigError("Using data-directory= with statusfile=per-slot is not supported.")
        return None
    if value is not None:
        return resolve(folder, value)
    return None if data_directory is None else data_directory / "central.raucs"


def _prevent_late_fallback(section: Consumer) -> PreventLateFallback:
    entry = section.group.find("prevent-late-fallback")
    if entry is not None and entry.raw == b"lock-counter":
        section.ignore("prevent-late-fallback")
        return "lock-counter"
    return "mark-bad" if section.optional_boolean("prevent-late-fallback") else "no"


def _attempts(section: Consumer, key: str, bootloader: Bootloader) -> int:
    value = section.optional_integer(key) or 0
    if value < 0:
        raise ConfigError(f'Value for "{key}" must not be negative')
    if value > 0 and bootloader not in ("uboot", "barebox"):
        raise ConfigError(
            f"Configuring boot attempts is valid for uboot or barebox only (not for {bootloader})"
        )
    return value or DEFAULT_ATTEMPTS


def _limit(section: Consumer, key: str, default: int) -> int:
    value = section.optional_uint64(key)
    if value == 0:
        raise ConfigError(f'Invalid value (0) for key "{key}" in system config')
    return default if value is None else value


def _grubenv(section: Consumer, folder: Path, bootloader: Bootloader) -> Path:
    value = _only(section, "grubenv", bootloader)
    return GRUBENV if value is None else resolve(folder, value)


def _only(section: Consumer, key: str, bootloader: Bootloader) -> str | None:
    """A key that exists for one bootloader only."""
    return section.optional_string(key) if BOOTLOADER_KEYS[key] == bootloader else None


def _boolean(section: Consumer, key: str, *, default: bool = False) -> bool:
    value = section.optional_boolean(key)
    return default if value is None else value
