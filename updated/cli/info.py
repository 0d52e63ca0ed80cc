"""`info`: what is in a bundle, and who signed it.  Needs no service and reads no payload that it need not:
of a `verity` bundle on a server only the end.

Imports are paid when used: this is the command of build hosts and of people who wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from updated.bundle import tail
from updated.bundle.manifest import Manifest
from updated.bundle.plan import Range, run
from updated.cli import render
from updated.cli.bundle_path import access, bundle
from updated.cli.formats import chosen_format, colors_wanted
from updated.cli.parser import Arguments
from updated.cli.render_info import FORMATS, info
from updated.core.link import is_url
from updated.errors import ConfigError, NotSupportedError
from updated.readers.file import open_file

if TYPE_CHECKING:
    from updated.bundle.trust import Keyring
    from updated.config.sections import Keyring as KeyringSection
    from updated.config.sections import Streaming
    from updated.config.system_conf import SystemConfig
    from updated.core.link import LinkSettings
    from updated.core.model import Access, Reader

ALL_FORMATS = frozenset({"plain", "verity", "crypt"})


def show(arguments: Arguments) -> int:
    """`info <BUNDLE>`."""
    output_format = chosen_format(arguments, FORMATS)
    if arguments.flag("dump-cert"):
        hint = "The certificate chain is at the end of the readable output."
        raise NotSupportedError("--dump-cert: not supported yet", hint=hint)
    location = bundle(arguments)
    manifest, chain = asyncio.run(_read(location, arguments))
    text = info(manifest, output_format) + "\n"
    if arguments.flag("dump-recipients"):
        text += "No recipient data to dump (bundle is not encrypted)\n\n"
    if output_format == "readable":
        text += chain + "\n"
    print(text if output_format != "readable" or colors_wanted() else render.plain(text), end="")
    return 0


async def _read(location: str, arguments: Arguments) -> tuple[Manifest, str]:
    """The manifest, and what to say about its signer."""
    rules = _rules(arguments)
    async with _opened(location, rules.streaming, access(arguments)) as reader:
        if arguments.flag("no-verify"):
            return await _read_unverified(reader, rules), "Signature unverified"
        keyring = rules.keyring()
        from updated.bundle.chain import describe_chain
        from updated.install.opened import open_bundle

        opened = await open_bundle(
            reader,
            keyring=keyring,
            formats=rules.formats,
            max_signature_size=rules.max_signature_size,
            now=datetime.now(UTC),
        )
        return opened.manifest, describe_chain(opened.chain) + "\n"


@asynccontextmanager
async def _opened(location: str, streaming: Streaming | None, given: Access) -> AsyncGenerator[Reader, None]:
    """A file, or a server as system.conf and, before it, the command line want it reached."""
    async with AsyncExitStack() as stack:
        reader: Reader
        if is_url(location):
            from updated.readers.http import HttpClient

            client = HttpClient(_link(streaming, given))
            stack.push_async_callback(client.close)
            reader = await client.open(location)
        else:
            reader = await open_file(location)
        stack.push_async_callback(reader.close)
        yield reader


def _link(streaming: Streaming | None, given: Access) -> LinkSettings:
    from updated.core.link import LinkSettings, header

    return LinkSettings(
        tls_ca=given.tls_ca or (streaming and streaming.tls_ca) or "",
        tls_cert=given.tls_cert or (streaming and streaming.tls_cert) or "",
        tls_key=given.tls_key or (streaming and streaming.tls_key) or "",
        tls_no_verify=given.tls_no_verify,
        headers=tuple(header(line) for line in given.headers),
    )


async def _read_unverified(reader: Reader, rules: _Rules) -> Manifest:
    """Whatever the bundle says.  Raises BundleError, SourceError, NotSupportedError."""
    from updated.bundle import manifest_parse
    from updated.bundle.cms import read_content_type, type_name
    from updated.bundle.signature import parse_signed_data
    from updated.install.opened import MANIFEST, MAX_MANIFEST
    from updated.install.payload import Payload

    end = await run(tail.read_tail(reader.size, rules.max_signature_size), reader.read)
    if type_name(read_content_type(end.cms)) == "pkcs7-envelopedData":
        raise NotSupportedError("Encrypted bundle detected: it cannot be decrypted yet")
    content = parse_signed_data(end.cms).content
    if content is not None:
        return manifest_parse.parse(content, inline=True)
    tail.check_plain_geometry(end.payload_size)
    payload = Payload(reader, _Unverified(end.payload_size))
    return manifest_parse.parse(await payload.read_file(MANIFEST, MAX_MANIFEST), inline=False)


@dataclass(frozen=True, slots=True)
class _Unverified:
    """A Verifier that believes everything, for `--no-verify`, where nothing is installed."""

    data_size: int
    granule: int = 4096

    def digests(self, offset: int, length: int) -> Range | None:
        return None

    def check(self, offset: int, data: bytes | memoryview, digests: bytes) -> None:
        pass


@dataclass(frozen=True, slots=True)
class _Rules:
    """What system.conf and the command line say about bundles."""

    keyring: Callable[[], Keyring]  # reads the files
    formats: Collection[str] = ALL_FORMATS
    max_signature_size: int = tail.DEFAULT_MAX_SIGNATURE_SIZE  # bytes
    streaming: Streaming | None = None


def _rules(arguments: Arguments) -> _Rules:
    """Raises ConfigError for a system.conf that is wrong; none at all is fine, as on a build host."""
    config = _config(arguments)
    section = config.keyring if config else None

    def keyring() -> Keyring:
        return _load_keyring(arguments, section)

    if config is None:
        return _Rules(keyring)
    system = config.system
    return _Rules(keyring, system.bundle_formats, system.max_bundle_signature_size, config.streaming)


def _config(arguments: Arguments) -> SystemConfig | None:
    from updated.config.system_conf import SEARCH_PATHS, load_system_config

    path = arguments.text("conf")
    if path is None and not any(place.exists() for place in SEARCH_PATHS):
        return None
    return load_system_config(None if path is None else Path(path), arguments.texts("confopt"))


def _load_keyring(arguments: Arguments, section: KeyringSection | None) -> Keyring:
    from updated.config.sections import Keyring as KeyringSection
    from updated.install.keyring import load_keyring

    section = section or KeyringSection()
    given = arguments.text("keyring")
    if given is not None:
        section = replace(section, path=Path(given), directory=None)
    if section.path is None and section.directory is None:
        hint = "Name one with --keyring, or in [keyring] of system.conf; --no-verify does without."
        raise ConfigError("No keyring file or directory provided", hint=hint)
    return load_keyring(section, check_time=not arguments.flag("no-check-time"))
