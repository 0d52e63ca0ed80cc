"""`channel`: put a bundle into a channel index and sign it, on a build host."""

from __future__ import annotations

import asyncio
import hashlib
import math
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from updated.cli.bundle import pem, pem_file
from updated.cli.parser import Arguments, UsageError
from updated.errors import ConfigError, SourceError

if TYPE_CHECKING:
    from updated.authoring.channel import Release
    from updated.bundle.manifest import Manifest
    from updated.bundle.trust import Keyring

_POSITIONAL = 2  # index, bundle
_CHUNK = 1024 * 1024  # bytes


def add(arguments: Arguments) -> int:
    """`channel --cert=C --key=K <INDEX> <BUNDLE>`."""
    from updated.authoring import channel

    index, bundle = _paths(arguments)
    percent = _number(arguments, "percent", 0, 100)
    days = _number(arguments, "expires", 0, 36500)
    name, now = arguments.text("channel") or "stable", datetime.now(UTC).replace(microsecond=0)
    certificate, key = pem(arguments, "cert"), pem(arguments, "key")
    intermediates = [pem_file(each, "intermediate") for each in arguments.texts("intermediate")]
    passphrase = os.environ.get("RAUC_KEY_PASSPHRASE")
    manifest = asyncio.run(_verified(bundle, _keyring(arguments, certificate, intermediates)))
    release = _release(arguments, bundle, manifest)
    body = channel.add(
        channel.read_old(index),
        release,
        channel=name,
        now=now,
        percent=percent,
        expires=None if days is None else now + timedelta(days=days),
    )
    signature = channel.write(
        index,
        body,
        certificate=certificate,
        key=key,
        passphrase=None if passphrase is None else os.fsencode(passphrase),
        intermediates=intermediates,
        now=now,
    )
    part = "" if percent is None else f" for {percent:g} % of the devices"
    print(f"Version {release.version} is in channel {name!r}{part}; publish {index} and {signature}")
    return 0


def _paths(arguments: Arguments) -> tuple[Path, Path]:
    words = arguments.positional
    problem = ""
    if not words:
        problem = "An index file name must be provided"
    elif len(words) < _POSITIONAL:
        problem = "A bundle path must be provided"
    elif len(words) > _POSITIONAL:
        problem = f"Excess argument: {words[_POSITIONAL]}"
    elif not (arguments.flag("cert") and arguments.flag("key")):
        problem = "Cert and key files must be provided"
    if problem:
        raise UsageError(problem, command=arguments.command)
    return Path(words[0]), Path(words[1])


def _number(arguments: Arguments, option: str, low: float, high: float) -> float | None:
    text = arguments.text(option)
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        problem = f"--{option} is {text!r}, expected a number from {low:g} to {high:g}"
        raise UsageError(problem, command=arguments.command)
    return value


def _keyring(arguments: Arguments, certificate: bytes, intermediates: list[bytes]) -> Keyring:
    """`--keyring`, else whoever signs the index must have signed the bundle."""
    from updated.bundle.trust import Keyring, KeyringPolicy
    from updated.config.sections import Keyring as Section
    from updated.install.keyring import load_keyring

    given = arguments.text("keyring")
    if given is not None:
        return load_keyring(Section(path=Path(given)))
    return Keyring.load([certificate, *intermediates], KeyringPolicy(allow_partial_chain=True))


async def _verified(bundle: Path, keyring: Keyring) -> Manifest:
    """Nothing is published that devices would refuse.  Raises BundleError, SourceError."""
    from updated.cli.info import ALL_FORMATS
    from updated.install.opened import open_bundle
    from updated.readers.file import open_file

    reader = await open_file(str(bundle))
    try:
        now = datetime.now(UTC)
        return (await open_bundle(reader, keyring=keyring, formats=ALL_FORMATS, now=now)).manifest
    finally:
        await reader.close()


def _release(arguments: Arguments, bundle: Path, manifest: Manifest) -> Release:
    from updated.authoring.channel import Release

    if manifest.version is None:
        hint = "Set version= in [update] of its manifest."
        raise ConfigError(f"{bundle} has no version: no device could tell that it is newer", hint=hint)
    size, sha256 = _measure(bundle)
    return Release(
        version=manifest.version,
        compatible=manifest.compatible,
        url=_url(arguments.text("url-prefix") or "", bundle.name),
        sha256=sha256,
        size=size,
        release_notes=arguments.text("release-notes") or "",
    )


def _url(prefix: str, name: str) -> str:
    """Without a prefix: beside the index."""
    slash = "" if not prefix or prefix.endswith("/") else "/"
    return f"{prefix}{slash}{quote(name)}"


def _measure(bundle: Path) -> tuple[int, str]:
    """Size in bytes, and SHA-256.  Blocks."""
    size, digest = 0, hashlib.sha256()
    try:
        with bundle.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
    except OSError as error:
        raise SourceError(f"Failed to read {bundle}: {error.strerror}") from error
    return size, digest.hexdigest()
