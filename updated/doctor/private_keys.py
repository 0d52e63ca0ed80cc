"""Private keys that lie on the device.

Who has the key of a certificate in the keyring can sign bundles for the whole fleet: it belongs on no device.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from updated.doctor.finding import Finding, error, note, ok, unknown, warning
from updated.doctor.subject import AS_ROOT, Subject
from updated.errors import UpdatedError

MAX_FILES: Final = 1000  # of one folder
MAX_BYTES: Final = 256 * 1024  # of one file: a keyring with a key at its end
MARK: Final = b"PRIVATE KEY-----"


@dataclass(frozen=True, slots=True)
class _Key:
    path: Path
    text: bytes
    mode: int


def check(subject: Subject) -> Iterator[Finding]:
    configured = _configured(subject)
    clean = True
    seen: set[Path] = set()
    for folder in _folders(subject):
        try:
            files = sorted(islice(folder.iterdir(), MAX_FILES + 1))
        except FileNotFoundError:
            continue
        except OSError as problem:
            yield unknown("keys.private", str(folder), problem.strerror or str(problem), hint=AS_ROOT)
            clean = False
            continue
        if len(files) > MAX_FILES:
            yield note("keys.private", str(folder), f"only {MAX_FILES} of its files were looked at")
            clean = False
        for path in files[:MAX_FILES]:
            if path.resolve() in seen:
                continue
            seen.add(path.resolve())
            for finding in _file(subject, path, configured):
                clean = False
                yield finding
    if clean:
        yield ok("keys.private", "", "none where the configuration lies, but those it names")


def _configured(subject: Subject) -> set[Path]:
    """Keys that this device has to have: of its own, to talk to servers and to read encrypted bundles."""
    named = [subject.agent.http.key]
    if subject.system is not None:
        named += [subject.system.streaming.tls_key, subject.system.encryption.key]
    return {Path(name).resolve() for name in named if name}


def _folders(subject: Subject) -> list[Path]:
    """Where certificates and configuration lie; not what is below."""
    agent, system = subject.agent, subject.system
    files: list[Path | str | None] = [agent.http.ca, agent.http.cert, agent.http.key]
    folders: list[Path] = [Path("/etc/updated")]
    if system is not None:
        files += [system.path, system.keyring.path, system.streaming.tls_ca, system.streaming.tls_cert]
        files += [system.streaming.tls_key, system.encryption.key, system.encryption.cert]
        if system.keyring.directory is not None:
            folders.append(system.keyring.directory)
    folders += [Path(file).absolute().parent for file in files if file is not None]
    return list(dict.fromkeys(folder.resolve() for folder in folders))


def _file(subject: Subject, path: Path, configured: set[Path]) -> Iterator[Finding]:
    try:
        key = _read(path)
    except PermissionError:
        yield unknown("keys.private", str(path), "cannot be read", hint=AS_ROOT)
        return
    except OSError:
        return
    if key is None:
        return
    if _signs_bundles(subject, key):
        yield error(
            "keys.private",
            str(path),
            "the private key of a certificate in the keyring: whoever reads it can sign for all devices",
            hint="Take it off every device, and think of it as stolen.",
        )
    elif path.resolve() not in configured:
        hint = "If it signs bundles, take it off every device."
        yield warning("keys.private", str(path), "a private key that no setting names", hint=hint)
    elif key.mode & (stat.S_IRGRP | stat.S_IROTH):
        text = "this device's private key can be read by others than its owner"
        hint = f"`chmod 600 {path}`"
        yield warning(
            "keys.private", str(path), text, expected="0600", got=f"{key.mode & 0o7777:04o}", hint=hint
        )


def _read(path: Path) -> _Key | None:
    """None: no private key in it.  Raises OSError."""
    if not stat.S_ISREG(path.stat().st_mode):
        return None
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(handle, "rb") as file:
        text = file.read(MAX_BYTES)
        return _Key(path, text, os.fstat(handle).st_mode) if MARK in text else None


def _signs_bundles(subject: Subject, key: _Key) -> bool:
    """A locked key cannot be compared."""
    if subject.system is None:
        return False
    from updated.bundle.inventory import members, public_key_of
    from updated.install.keyring import load_keyring

    public = public_key_of(key.text)
    try:
        return public is not None and any(
            public == member.spki for member in members(load_keyring(subject.system.keyring))
        )
    except (UpdatedError, OSError):
        return False
