"""`bundle`: make a signed bundle of a folder, on a build host."""

from __future__ import annotations

import asyncio
import os
import shlex
from datetime import UTC, datetime
from pathlib import Path

from updated.cli.main import complain
from updated.cli.parser import Arguments, UsageError
from updated.errors import ConfigError, DeviceError, NotSupportedError, UpdatedError

_POSITIONAL = 2  # folder, bundle


def create(arguments: Arguments) -> int:
    """`bundle --cert=C --key=K <INPUTDIR> <BUNDLENAME>`."""
    folder, output = _paths(arguments)
    squashfs_args = _squashfs_args(arguments)
    try:
        _make(arguments, folder, output, squashfs_args)
    except (NotSupportedError, DeviceError):
        raise  # their texts say it already
    except UpdatedError as error:
        if arguments.flag("debug"):
            raise
        return complain(error, prefix="Failed to create bundle: ")
    return 0


def _make(arguments: Arguments, folder: Path, output: Path, squashfs_args: list[str]) -> None:
    from updated.authoring import bundle
    from updated.authoring.content import read_manifest

    certificate, key = pem(arguments, "cert"), pem(arguments, "key")
    intermediates = [pem_file(name, "intermediate") for name in arguments.texts("intermediate")]
    passphrase = os.environ.get("RAUC_KEY_PASSPHRASE")
    print(f"Creating '{read_manifest(folder)[0].format}' format bundle", flush=True)
    bundle.create(
        folder,
        output,
        certificate=certificate,
        key=key,
        passphrase=None if passphrase is None else os.fsencode(passphrase),
        intermediates=intermediates,
        mksquashfs_args=squashfs_args,
    )
    keyring = arguments.text("signing-keyring") or arguments.text("keyring")
    if keyring is not None:
        _verify(output, Path(keyring))


def _verify(output: Path, keyring: Path) -> None:
    """A bundle that the devices would refuse does not stay."""
    from updated.cli.info import ALL_FORMATS
    from updated.config.sections import Keyring
    from updated.install.keyring import load_keyring
    from updated.install.opened import open_bundle
    from updated.readers.file import open_file

    async def verify() -> None:
        reader = await open_file(str(output))
        try:
            trusted = load_keyring(Keyring(path=keyring))
            await open_bundle(reader, keyring=trusted, formats=ALL_FORMATS, now=datetime.now(UTC))
        finally:
            await reader.close()

    try:
        asyncio.run(verify())
    except BaseException:
        output.unlink()
        raise


def _paths(arguments: Arguments) -> tuple[Path, Path]:
    """The folder and the bundle.  Raises UsageError with RAUC's texts."""
    words = arguments.positional
    problem = ""
    if not words:
        problem = "An input directory name must be provided"
    elif len(words) < _POSITIONAL:
        problem = "An output bundle name must be provided"
    elif len(words) > _POSITIONAL:
        problem = f"Excess argument: {words[_POSITIONAL]}"
    elif not (arguments.flag("cert") and arguments.flag("key")):
        problem = "Cert and key files must be provided"
    elif not Path(words[0]).is_dir():
        problem = "Input path must point to a directory!"
    elif Path(words[0]).resolve() in Path(words[1]).resolve().parents:
        problem = "Bundle path must be located outside input directory!"
    if problem:
        raise UsageError(problem, command=arguments.command)
    return Path(words[0]), Path(words[1])


def _squashfs_args(arguments: Arguments) -> list[str]:
    text = arguments.text("mksquashfs-args") or ""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UsageError(f"Failed to parse mksquashfs args: {error}", command=arguments.command) from error


def pem(arguments: Arguments, option: str) -> bytes:
    """The file that `--<option>` names; it must have been given.  Raises ConfigError, NotSupportedError."""
    name = arguments.text(option)
    assert name is not None
    return pem_file(name, option)


def pem_file(name: str, what: str) -> bytes:
    """Like `pem`, for an option that may be repeated."""
    if name.startswith("pkcs11:"):
        hint = "Name a PEM file, or sign with RAUC's own `rauc`."
        raise NotSupportedError(f"--{what}: PKCS#11 URLs are not supported yet", hint=hint)
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise ConfigError(
            f"failed to sign bundle: failed to load {what} file '{name}'", hint=f"{error.strerror}."
        ) from error
