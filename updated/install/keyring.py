"""The keyring of system.conf, read from its files."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from updated.config import sections
from updated.errors import ConfigError

if TYPE_CHECKING:
    from updated.bundle.trust import Keyring

log = logging.getLogger(__name__)

MAX_FILE = 16 * 1024 * 1024  # bytes; a CA bundle of a whole browser has 0.3 MB
_HASHED = re.compile(r"[0-9a-f]{8}\.r?\d+")  # the names OpenSSL looks for in a directory


def load_keyring(settings: sections.Keyring, *, check_time: bool = True) -> Keyring:
    """Read `path=` and the hashed files of `directory=`.  Blocks.  Raises ConfigError with RAUC's texts."""
    from updated.bundle.trust import Keyring, KeyringPolicy

    if settings.path is None and settings.directory is None:
        raise ConfigError(
            "No keyring file or directory provided", hint="Set path= in [keyring] of system.conf."
        )
    try:
        pems = [_read(path) for path in _files(settings)]
    except OSError as error:
        where = f"CA file '{settings.path or '(null)'}' and/or directory '{settings.directory or '(null)'}'"
        raise ConfigError(f"failed to load {where}: {error.strerror}") from error
    policy = KeyringPolicy(
        check_crl=settings.check_crl,
        allow_partial_chain=settings.allow_partial_chain,
        use_bundle_signing_time=settings.use_bundle_signing_time,
        check_purpose=settings.check_purpose,
        allowed_signer_cns=settings.allowed_signer_cns or (),
        check_time=check_time,
    )
    keyring = Keyring.load(pems, policy)
    if keyring.ignores_crls:
        log.warning("Detected CRL but CRL checking is disabled!")
    return keyring


def _files(settings: sections.Keyring) -> Iterator[Path]:
    if settings.path is not None:
        yield settings.path
    if settings.directory is not None:
        yield from sorted(path for path in settings.directory.iterdir() if _HASHED.fullmatch(path.name))


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise ConfigError(f"keyring: {path} has more than {MAX_FILE} bytes")
    return data
