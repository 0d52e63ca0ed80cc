"""A channel index on a server (`[ota]`), and its detached signature beside it, `<index>.p7s`.

The keyring that verifies bundles verifies the index, by the same rules, `check-purpose` among them.  An index
is only a hint where to look: whatever it says, the bundle's own signature decides.  What a signed one adds:
nobody on the way can hold an update back by showing an old index for ever, or offer what its maker withdrew.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import urlsplit

from updated.core.link import Answer, Fetch, retry_after, without_secrets
from updated.core.model import Expected
from updated.core.polling import NO_BUNDLE, FeedError, FeedMemory, Finding, Seen
from updated.core.source import Item
from updated.errors import SignatureError, SourceError
from updated.sources.index import (
    MAX_INDEX,
    DeviceFacts,
    Entry,
    Index,
    bundle_url,
    choose,
    read_index,
)

if TYPE_CHECKING:
    from updated.bundle.chain import SignerChain
    from updated.bundle.trust import Keyring

MAX_SIGNATURE: Final = 256 * 1024  # bytes; one with a few certificates has 5 KB, in PEM a third more
MAX_VALIDATOR: Final = 256  # characters of an ETag that is worth sending back

_PEM: Final = re.compile(rb"-----BEGIN (CMS|PKCS7)-----(.*?)-----END \1-----", re.DOTALL)
_NOT_THERE: Final = (404, 410)


@dataclass(frozen=True, slots=True)
class _Known:
    """The index as it was last fetched and checked."""

    index: Index
    base: str  # the URL it came from
    body: bytes
    validators: Mapping[str, str]  # headers that ask for news only
    seen: Seen


async def _nobody(_chain: SignerChain, _issued: datetime | None) -> None:
    """Nobody wants to know."""


class ChannelFeed:
    """Looks at one index: one request for an unchanged one, two for a new one and its signature."""

    def __init__(
        self,
        url: str,
        channel: str,
        *,
        signature: Literal["required", "optional"],
        fetch: Fetch,
        keyring: Callable[[], Awaitable[Keyring]],
        device: Callable[[], DeviceFacts],
        now: Callable[[], datetime],
        on_signed: Callable[[SignerChain, datetime | None], Awaitable[None]] = _nobody,
    ) -> None:
        """`now` has a time zone.  `on_signed` is told who signed an index, and its `issued`."""
        self._url = url
        self._channel = channel
        self._required = signature == "required"
        self._fetch = fetch
        self._keyring = keyring
        self._device = device
        self._now = now
        self._on_signed = on_signed
        self._known: _Known | None = None

    @property
    def url(self) -> str:
        return self._url

    async def look(self, memory: FeedMemory) -> Finding:
        """Raises FeedError, SourceError, SignatureError, ConfigError (the keyring)."""
        known = self._known
        answer = await self._fetch(self._url, limit=MAX_INDEX, headers=known.validators if known else {})
        if answer.status == 204:
            self._known = None
            return Finding(None, NO_BUNDLE, effective_url=answer.url)
        if known is not None and answer.status == 304:
            return await self._judge(known, unchanged=True)
        if answer.status != 200:
            raise self._refused(answer, _INDEX_HINTS)
        if known is not None and known.body == answer.body:
            self._known = replace(known, base=answer.url, validators=_validators(answer))
            return await self._judge(self._known, unchanged=True)
        self._known = None  # what comes now may be bad
        self._known = await self._check(answer, known.seen if known else memory.seen)
        return await self._judge(self._known, unchanged=False)

    async def _check(self, answer: Answer, seen: Seen) -> _Known:
        """A new index: its signature first, then what it says."""
        signature = await self._signature(seen)
        chain: SignerChain | None = None
        if signature is not None:
            keyring = await self._keyring()
            chain = await asyncio.to_thread(_verify, self._url, answer.body, signature, keyring, self._now())
        index = await asyncio.to_thread(read_index, answer.body)
        if chain is not None:
            seen = _advanced(index, seen)
            await self._on_signed(chain, index.issued)
        return _Known(index, answer.url, answer.body, _validators(answer), seen)

    async def _signature(self, seen: Seen) -> bytes | None:
        """None: there is none, and there need not be one.  Raises FeedError, SignatureError."""
        url = signature_url(self._url)
        answer = await self._fetch(url, limit=MAX_SIGNATURE, headers={})
        if answer.status == 200:
            return answer.body
        if answer.status not in _NOT_THERE:
            raise self._refused(answer, _SIGNATURE_HINTS)
        if self._required:
            hint = "`updated channel` signs an index; `signature` in [ota] of updated.toml asks for it."
            raise SignatureError(f"the index is not signed: {without_secrets(url)} is not there", hint=hint)
        if seen.signed:
            hint = "Somebody on the way may have taken it away; its maker must sign each index from now on."
            raise SignatureError(
                f"the index is not signed any more: {without_secrets(url)} is not there, but was before",
                hint=hint,
            )
        return None

    async def _judge(self, known: _Known, *, unchanged: bool) -> Finding:
        """What the index means now: time passes, and another version may run."""
        device, now = self._device(), self._now()
        choice = await asyncio.to_thread(choose, known.index, self._channel, device, now)
        found = Finding(
            None,
            choice.summary,
            effective_url=known.base,
            etag=known.validators.get("If-None-Match", ""),
            unchanged=unchanged,
            alarms=self._alarms(known.index),
            reasons=choice.reasons,
            seen=known.seen,
        )
        return found if choice.entry is None else _offered(found, choice.entry, known)

    def _alarms(self, index: Index) -> tuple[str, ...]:
        """A device that cannot reach the real server goes on; somebody should know."""
        if index.expires is None or self._now() < index.expires:
            return ()
        when, url = index.expires.isoformat(), without_secrets(self._url)
        return (f"The index is stale since {when}: not renewed, or somebody shows an old one ({url})",)

    def _refused(self, answer: Answer, hints: Mapping[int, str]) -> FeedError:
        return FeedError(
            f"{without_secrets(answer.url)} answered with status {answer.status}, expected 200",
            status=answer.status,
            retry_after=retry_after(answer.headers.get("retry-after", ""), self._now()),
            hint=hints.get(answer.status, ""),
        )


_WHO: Final = "[http] of updated.toml says how this device shows who it is."
_INDEX_HINTS: Final = {
    401: _WHO,
    403: _WHO,
    404: "Is `index` in [ota] of updated.toml right?",
}
_SIGNATURE_HINTS: Final = {
    401: _WHO,
    403: "Where an index has no signature the server must answer 404.",
}


def signature_url(url: str) -> str:
    """`.p7s` is added to the path, before a query."""
    parts = urlsplit(url)
    return parts._replace(path=f"{parts.path}.p7s", fragment="").geturl()


def _offered(found: Finding, entry: Entry, known: _Known) -> Finding:
    sha256, size = (entry.bundle_sha256 or "").lower(), entry.bundle_size or 0
    item = Item(
        bundle_url(entry.bundle_url, known.base),
        (entry.version, sha256 or found.etag, size),
        Expected(entry.version, size, sha256),
    )
    return replace(found, item=item, available=True, size=size)


def _verify(url: str, body: bytes, signature: bytes, keyring: Keyring, now: datetime) -> SignerChain:
    """Raises SignatureError, of the kind that the fault is."""
    from updated.bundle.signature import parse_signed_data

    try:
        message = parse_signed_data(_der(signature))
        chain = message.verify(keyring, now)
        message.check_digest(hashlib.new(message.digest_algorithm, body).digest())
    except SignatureError as error:
        hint = error.hint if error.passing else "Index and signature must be published together, unchanged."
        raise type(error)(
            f"the signature of {without_secrets(url)} is no good: {error}", hint=hint
        ) from error
    return chain


def _der(signature: bytes) -> bytes:
    """Of DER or PEM.  Raises SignatureError."""
    found = _PEM.search(signature) if signature.lstrip()[:5] == b"-----" else None
    if found is None:
        return signature
    try:
        return base64.b64decode(b"".join(found[2].split()), validate=True)
    except binascii.Error as error:
        raise SignatureError(f"unreadable PEM: {error}") from error


def _advanced(index: Index, seen: Seen) -> Seen:
    """What a signed index proves.  Raises SourceError if it is older than one that was here before."""
    issued = None if index.issued is None else index.issued.timestamp()
    _check_not_before("counter", index.counter, seen.counter)
    _check_not_before("issued", issued, seen.issued)
    return Seen(True, index.counter, issued)


def _check_not_before(key: str, got: float | None, seen: float | None) -> None:
    if seen is None or (got is not None and got >= seen):
        return
    raise SourceError(
        f"the index is older than one that was here before: "
        f"{key} is {_shown(got)}, expected at least {_shown(seen)}",
        hint="A mirror may lag behind, or somebody shows an old index.",
    )


def _shown(number: float | None) -> str:
    """A counter, or the time in seconds since 1970 that `issued` is."""
    if number is None:
        return "not there"
    if isinstance(number, int):
        return str(number)
    try:
        return datetime.fromtimestamp(number, UTC).isoformat()
    except (OverflowError, ValueError, OSError):  # a damaged memory
        return f"{number:.0f}"


def _validators(answer: Answer) -> Mapping[str, str]:
    """The headers that ask the server for news only; what it sends is sent back, so it must be harmless."""
    for theirs, ours in (("etag", "If-None-Match"), ("last-modified", "If-Modified-Since")):
        value = answer.headers.get(theirs, "")
        if value and len(value) <= MAX_VALIDATOR and value.isascii() and value.isprintable():
            return {ours: value}
    return {}
