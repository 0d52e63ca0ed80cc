"""The single sections of system.conf beside `[system]`, as frozen dataclasses with RAUC's defaults.

Source: RAUC reference, "System Configuration File", and src/config_file.c for what it accepts.  Reading a
section never says "not supported": who uses a feature refuses it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from updated.bundle.keyfile import Consumer, KeyNotFoundError, suggest
from updated.errors import ConfigError

SEND_HEADERS = frozenset(
    {"boot-id", "machine-id", "system-version", "serial", "variant", "transaction-id", "uptime"}
)
CANDIDATE_CRITERIA = ("higher-semver", "different-version")
INSTALL_CRITERIA = ("always", *CANDIDATE_CRITERIA)
REBOOT_CRITERIA = ("updated-slots", "updated-artifacts", "failed-update")
MIN_POLLING_INTERVAL = 60  # seconds; RAUC's


@dataclass(frozen=True, slots=True)
class Keyring:
    """`[keyring]`: whom this device trusts."""

    path: Path | None = None  # PEM file with certificates and CRLs
    directory: Path | None = None  # OpenSSL hashed directory
    check_crl: bool = False
    allow_partial_chain: bool = False
    allow_single_signature: bool = False
    use_bundle_signing_time: bool = False
    check_purpose: str | None = None  # an OpenSSL purpose; `codesign` is `codesign-rauc`, as in RAUC
    allowed_signer_cns: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Casync:
    """`[casync]`."""

    storepath: str | None = None  # path or URL
    tmppath: str | None = None
    install_args: str | None = None
    use_desync: bool = False


@dataclass(frozen=True, slots=True)
class Streaming:
    """`[streaming]`."""

    sandbox_user: str = "nobody"
    tls_cert: str | None = None  # path or PKCS#11 URL
    tls_key: str | None = None  # path or PKCS#11 URL
    tls_ca: str | None = None
    send_headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Polling:
    """`[polling]` (preview in RAUC 1.16)."""

    url: str | None = None  # of a bundle; None: no polling
    interval: int = 86400  # seconds
    max_interval: int = 4 * 86400  # seconds; RAUC's default is four times the interval
    inhibit_files: tuple[str, ...] = ()
    candidate_criteria: tuple[str, ...] = ("higher-semver",)
    install_criteria: tuple[str, ...] = ()
    reboot_criteria: tuple[str, ...] = ()
    reboot_cmd: str = "reboot"


@dataclass(frozen=True, slots=True)
class Encryption:
    """`[encryption]`: paths or PKCS#11 URLs."""

    key: str | None = None
    cert: str | None = None


@dataclass(frozen=True, slots=True)
class Autoinstall:
    """`[autoinstall]`."""

    path: Path | None = None


@dataclass(frozen=True, slots=True)
class Handlers:
    """`[handlers]`."""

    system_info: Path | None = None
    pre_install: Path | None = None
    post_install: Path | None = None
    bootloader_custom_backend: Path | None = None


def resolve(folder: Path, value: str) -> Path:
    """A path of system.conf, relative to the folder of the file.  Raises ConfigError."""
    if "\0" in value:
        raise ConfigError(f"Invalid path {value!r}")
    return folder / value


def resolve_url(folder: Path, value: str) -> str:
    """Like `resolve`, but a PKCS#11 URL stays what it is."""
    return value if value.startswith("pkcs11:") else str(resolve(folder, value))


def strict_string(section: Consumer, key: str) -> str | None:
    """None if `key` is absent; where RAUC refuses an empty value.  Raises KeyFileError."""
    try:
        return section.string(key)
    except KeyNotFoundError:
        return None


def _path(section: Consumer, folder: Path, key: str) -> Path | None:
    value = section.optional_string(key)
    return None if value is None else resolve(folder, value)


def _url(section: Consumer, folder: Path, key: str) -> str | None:
    value = section.optional_string(key)
    return None if value is None else resolve_url(folder, value)


def parse_keyring(section: Consumer, folder: Path) -> Keyring:
    purpose = strict_string(section, "check-purpose")
    return Keyring(
        path=_path(section, folder, "path"),
        directory=_path(section, folder, "directory"),
        check_crl=section.optional_boolean("check-crl") or False,
        allow_partial_chain=section.optional_boolean("allow-partial-chain") or False,
        allow_single_signature=section.optional_boolean("allow-single-signature") or False,
        use_bundle_signing_time=section.optional_boolean("use-bundle-signing-time") or False,
        check_purpose="codesign-rauc" if purpose == "codesign" else purpose,
        allowed_signer_cns=section.optional_list("allowed-signer-cns"),
    )


def parse_casync(section: Consumer, _folder: Path) -> Casync:
    return Casync(
        storepath=section.optional_string("storepath"),
        tmppath=section.optional_string("tmppath"),
        install_args=section.optional_string("install-args"),
        use_desync=section.optional_boolean("use-desync") or False,
    )


def parse_streaming(section: Consumer, _folder: Path) -> Streaming:
    headers = section.optional_list("send-headers") or ()
    for header in headers:
        if header not in SEND_HEADERS:
            raise ConfigError(
                f"Automatic HTTP header '{header}' not supported",
                hint=f"RAUC knows {', '.join(sorted(SEND_HEADERS))}.",
            )
    return Streaming(
        sandbox_user=section.optional_string("sandbox-user") or "nobody",
        tls_cert=section.optional_string("tls-cert"),
        tls_key=section.optional_string("tls-key"),
        tls_ca=section.optional_string("tls-ca"),
        send_headers=headers,
    )


def parse_polling(section: Consumer, _folder: Path) -> Polling:
    """RAUC's checks in RAUC's order (src/config_file.c, parse_polling_section)."""
    if not (section.group.line or section.group.entries):
        return Polling()
    inhibit_files = section.optional_list("inhibit-files") or ()
    candidate = _criteria(section, "candidate-criteria", CANDIDATE_CRITERIA)
    install = _criteria(section, "install-criteria", INSTALL_CRITERIA)
    reboot = _criteria(section, "reboot-criteria", REBOOT_CRITERIA)
    url = _polling_url(section)
    interval = _seconds(section, "interval-sec", 86400)
    if interval < MIN_POLLING_INTERVAL:
        raise ConfigError(f"Polling interval ({interval} s) must not be smaller than one minute")
    longest = _seconds(section, "max-interval-sec", 4 * interval)
    if longest <= interval:
        raise ConfigError(
            f"Maximum polling interval ({longest} s) must be larger than "
            f"the normal polling interval ({interval} s)"
        )
    return Polling(
        url=url,
        interval=interval,
        max_interval=longest,
        inhibit_files=inhibit_files,
        candidate_criteria=("higher-semver",) if candidate is None else candidate,
        install_criteria=install or (),
        reboot_criteria=reboot or (),
        reboot_cmd=strict_string(section, "reboot-cmd") or "reboot",
    )


def _polling_url(section: Consumer) -> str:
    url = section.optional_string("url")
    if not url:
        raise ConfigError("Polling URL must be set if [polling] section exists")
    if not url.startswith("http"):
        raise ConfigError(f"Polling URL ({url}) must be a HTTP(S) URL")
    return url


def _criteria(section: Consumer, key: str, known: Sequence[str]) -> tuple[str, ...] | None:
    found = section.optional_list(key)
    for criterion in found or ():
        if criterion not in known:
            raise ConfigError(
                f"Unsupported value '{criterion}' for key \"{key}\" in [polling]",
                hint=suggest(criterion, known) or f"RAUC knows {', '.join(known)}.",
            )
    return found


def _seconds(section: Consumer, key: str, default: int) -> int:
    value = section.optional_integer(key)
    return default if value is None else value


def parse_encryption(section: Consumer, folder: Path) -> Encryption:
    return Encryption(key=_url(section, folder, "key"), cert=_url(section, folder, "cert"))


def parse_autoinstall(section: Consumer, folder: Path) -> Autoinstall:
    return Autoinstall(path=_path(section, folder, "path"))


def parse_handlers(section: Consumer, folder: Path, bootloader: str | None) -> Handlers:
    """`bootloader-custom-backend` is known, and needed, only with `bootloader=custom`."""
    backend = _path(section, folder, "bootloader-custom-backend") if bootloader == "custom" else None
    if bootloader == "custom" and backend is None:
        raise ConfigError(
            "No custom bootloader backend defined", hint="Set bootloader-custom-backend in [handlers]."
        )
    return Handlers(
        system_info=_path(section, folder, "system-info"),
        pre_install=_path(section, folder, "pre-install"),
        post_install=_path(section, folder, "post-install"),
        bootloader_custom_backend=backend,
    )
