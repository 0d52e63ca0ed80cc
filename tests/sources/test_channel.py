"""A channel index on a real server, signed by the real openssl."""

# ruff: noqa: ASYNC110 - a condition that nobody signals

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.fakes.index_server import IndexServer, fetch
from tests.fakes.ota import FakeClock
from updated.bundle.chain import SignerChain
from updated.bundle.trust import Keyring, KeyringPolicy
from updated.core.link import Fetch, LinkSettings
from updated.core.model import Expected
from updated.core.polling import FeedError, FeedMemory, Finding, Seen
from updated.core.schedule import Timing
from updated.core.source import Item
from updated.document import Document
from updated.errors import BundleError, SignatureError, SourceError, UpdatedError, ValidityError
from updated.readers.http import HttpClient
from updated.sources.channel import MAX_SIGNATURE, ChannelFeed, signature_url
from updated.sources.index import MAX_INDEX, DeviceFacts
from updated.sources.ota import Identity, OtaSource
from updated.sources.ota_memory import OtaMemory

INDEX, P7S = "/v1/manifest.json", "/v1/manifest.json.p7s"
ENTRY = {
    "version": "1.1",
    "compatible": "board",
    "bundle_url": "1.1/board.raucb",
    "bundle_sha256": "ab" * 32,
    "bundle_size": 1234,
}


def openssl(*words: str | Path, stdin: bytes = b"") -> bytes:
    argv = ["openssl", *map(str, words)]
    return subprocess.run(argv, input=stdin, capture_output=True, check=True, timeout=30).stdout


class Signer:
    """A self-signed certificate and its key."""

    def __init__(self, folder: Path, name: str, *extensions: str) -> None:
        self.certificate, self._key = folder / f"{name}.pem", folder / f"{name}.key"
        words = [word for extension in extensions for word in ("-addext", extension)]
        openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-keyout", self._key, "-out", self.certificate, "-subj", f"/CN={name}", "-days", "30"),
            *words,
        )

    def sign(self, body: bytes, *options: str, form: str = "DER") -> bytes:
        words = ("-binary", "-outform", form, "-nosmimecap", "-md", "sha256", *options)
        return openssl("cms", "-sign", *words, "-signer", self.certificate, "-inkey", self._key, stdin=body)

    def keyring(self, **policy: Any) -> Keyring:
        return Keyring.load([self.certificate.read_bytes()], KeyringPolicy(**policy))


@pytest.fixture(scope="session")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return Signer(tmp_path_factory.mktemp("vendor"), "vendor")


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return Signer(tmp_path_factory.mktemp("stranger"), "stranger")


@dataclass
class Bench:
    vendor: Signer
    server: IndexServer = field(default_factory=IndexServer)
    signature: Literal["required", "optional"] = "optional"
    device: DeviceFacts = field(default_factory=lambda: DeviceFacts("board", "1.0", "machine", "x86_64"))
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    seen: Seen = field(default_factory=Seen)
    policy: dict[str, Any] = field(default_factory=dict)
    keyrings: int = 0
    fetch: Fetch = fetch
    query: str = ""
    proved: list[tuple[datetime, datetime | None]] = field(default_factory=list)

    def put(self, entry: object = ENTRY, **more: object) -> bytes:
        body = json.dumps({"channels": {"stable": entry, "beta": {**ENTRY, "version": "2"}}, **more})
        self.server.documents[INDEX] = body.encode()
        self.server.documents.pop(P7S, None)
        return body.encode()

    def put_signed(self, entry: object = ENTRY, **more: object) -> bytes:
        body = self.put(entry, **more)
        self.server.documents[P7S] = self.vendor.sign(body)
        return body

    def feed(self, channel: str = "stable") -> ChannelFeed:
        return ChannelFeed(
            f"{self.server.url}{INDEX}{self.query}",
            channel,
            signature=self.signature,
            fetch=self.fetch,
            keyring=self._keyring,
            device=lambda: self.device,
            now=lambda: self.now,
            on_signed=self._signed,
        )

    async def _signed(self, chain: SignerChain, issued: datetime | None) -> None:
        assert chain.signing_time is not None
        self.proved.append((chain.signing_time, issued))

    async def _keyring(self) -> Keyring:
        self.keyrings += 1
        return self.vendor.keyring(**self.policy)

    async def look(self, feed: ChannelFeed) -> Finding:
        """As the source does it: what was proved is kept."""
        found = await feed.look(FeedMemory(self.seen))
        self.seen = found.seen or self.seen
        return found

    async def refusal(self, feed: ChannelFeed) -> UpdatedError:
        with pytest.raises(UpdatedError) as caught:
            await self.look(feed)
        return caught.value

    def requests(self) -> list[str]:
        """Since the last time."""
        found, self.server.requests[:] = list(self.server.requests), []
        return found


@pytest.fixture
def bench(vendor: Signer) -> Bench:
    return Bench(vendor)


def run(bench: Bench, scenario: Coroutine[Any, Any, None]) -> None:
    async def with_server() -> None:
        async with bench.server.running():
            await scenario

    asyncio.run(with_server())


def test_a_new_version(bench: Bench) -> None:
    async def scenario() -> None:
        bench.put()
        found = await bench.look(bench.feed())
        url = f"{bench.server.url}/v1/1.1/board.raucb"
        assert found.item == Item(url, ("1.1", "ab" * 32, 1234), Expected("1.1", 1234, "ab" * 32))
        assert found.summary == "update candidate found: higher semantic version"
        assert (found.available, found.unchanged, found.size) == (True, False, 1234)
        assert found.effective_url == f"{bench.server.url}{INDEX}"
        assert found.seen == Seen(), "nothing is proved"

    run(bench, scenario())


@pytest.mark.parametrize("validator", ["ETag", "Last-Modified", ""])
@pytest.mark.parametrize("signed", [True, False])
def test_an_unchanged_index_costs_one_request(bench: Bench, validator: str, signed: bool) -> None:
    async def scenario() -> None:
        bench.server.validator = validator
        (bench.put_signed if signed else bench.put)()
        feed = bench.feed()
        first = await bench.look(feed)
        assert bench.requests() == [INDEX, P7S]
        for _ in range(3):
            found = await bench.look(feed)
            assert (found.item, found.unchanged) == (first.item, True)
            assert bench.requests() == [INDEX]
        assert bench.keyrings == int(signed)

    run(bench, scenario())


def test_an_unchanged_index_means_something_else_later(bench: Bench) -> None:
    """The rollout begins; then the device runs what is offered."""

    async def scenario() -> None:
        start = bench.now + timedelta(hours=1)
        bench.put({**ENTRY, "rollout": {"start": start.isoformat()}})
        feed = bench.feed()
        found = await bench.look(feed)
        assert (found.item, found.summary) == (None, "no update candidate available")
        assert "rollout starts" in found.reasons[0]
        bench.now += timedelta(hours=2)
        found = await bench.look(feed)
        assert found.unchanged
        assert found.available
        bench.device = DeviceFacts("board", "1.1", "machine", "x86_64")
        found = await bench.look(feed)
        assert (found.item, found.reasons) == (None, ())

    run(bench, scenario())


def test_a_changed_index(bench: Bench) -> None:
    async def scenario() -> None:
        bench.put_signed()
        feed = bench.feed()
        await bench.look(feed)
        bench.put_signed({**ENTRY, "version": "1.2"})
        found = await bench.look(feed)
        assert found.item is not None
        assert found.item.expected.version == "1.2"
        assert bench.requests() == [INDEX, P7S] * 2
        assert bench.keyrings == 2

    run(bench, scenario())


def test_channels(bench: Bench) -> None:
    async def scenario() -> None:
        bench.put()
        found = await bench.look(bench.feed("beta"))
        assert found.item is not None
        assert found.item.expected.version == "2"
        error = await bench.refusal(bench.feed("nightly"))
        assert str(error) == "the index has no channel 'nightly', it has 'stable', 'beta'"

    run(bench, scenario())


def test_without_a_hash_the_index_tells_bundles_apart(bench: Bench) -> None:
    async def scenario() -> None:
        plain = {key: ENTRY[key] for key in ("version", "compatible", "bundle_url")}
        bench.put(plain)
        first = await bench.look(bench.feed())
        bench.put(plain, latest="1.1")
        second = await bench.look(bench.feed())
        assert first.item is not None
        assert second.item is not None
        assert first.item.identity != second.item.identity
        assert first.item.expected == Expected("1.1")

    run(bench, scenario())


def test_nothing_for_this_device(bench: Bench) -> None:
    async def scenario() -> None:
        bench.put()
        feed = bench.feed()
        await bench.look(feed)
        bench.server.answers[INDEX] = (204, {})
        found = await bench.look(feed)
        assert (found.item, found.summary) == (None, "no update bundle available")
        bench.server.answers[INDEX] = (304, {})
        error = await bench.refusal(feed)
        assert "answered with status 304, expected 200" in str(error), "nobody asked for changes only"

    run(bench, scenario())


@pytest.mark.parametrize(
    ("status", "headers", "retry_after"),
    [
        (503, {"Retry-After": "120"}, 120.0),
        (429, {"Retry-After": "soon"}, None),
        (404, {}, None),
        (206, {}, None),
        (500, {}, None),
    ],
)
def test_errors_of_the_server(
    bench: Bench, status: int, headers: dict[str, str], retry_after: float | None
) -> None:
    async def scenario() -> None:
        bench.query = "?token=secret"
        bench.server.answers[INDEX] = (status, headers)
        error = await bench.refusal(bench.feed())
        assert isinstance(error, FeedError)
        assert (error.status, error.retry_after) == (status, retry_after)
        assert str(error) == f"{bench.server.url}{INDEX} answered with status {status}, expected 200"

    run(bench, scenario())


def test_after_an_error_all_is_looked_at_anew(bench: Bench) -> None:
    async def scenario() -> None:
        bench.put()
        feed = bench.feed()
        await bench.look(feed)
        bench.server.documents[INDEX] = b"<html>"
        assert "login page" in (await bench.refusal(feed)).hint
        bench.put()
        bench.requests()
        assert (await bench.look(feed)).available
        assert bench.requests() == [INDEX, P7S]

    run(bench, scenario())


def test_an_index_for_others_is_asked_for_once(bench: Bench) -> None:
    """A wrong configuration costs one small request each time."""

    async def scenario() -> None:
        bench.put_signed({**ENTRY, "compatible": "other"}, counter=5)
        feed = bench.feed()
        for _ in range(2):
            assert "is for 'other', expected 'board'" in str(await bench.refusal(feed))
        assert bench.requests() == [INDEX, P7S, INDEX]
        bench.put_signed(counter=4)
        assert "older" in str(await bench.refusal(feed)), "it was proved all the same"

    run(bench, scenario())


def test_too_large(bench: Bench) -> None:
    async def scenario() -> None:
        bench.server.documents[INDEX] = b" " * (MAX_INDEX + 1)
        assert isinstance(await bench.refusal(bench.feed()), SourceError)
        bench.put()
        bench.server.documents[P7S] = bytes(MAX_SIGNATURE + 1)
        assert isinstance(await bench.refusal(bench.feed()), SourceError)

    run(bench, scenario())


# Signatures -------------------------------------------------------------------


def test_der_and_pem(bench: Bench) -> None:
    async def scenario() -> None:
        body = bench.put_signed()
        assert (await bench.look(bench.feed())).seen == Seen(True)
        bench.server.documents[P7S] = bench.vendor.sign(body, form="PEM")
        assert (await bench.look(bench.feed())).seen == Seen(True)
        bench.server.documents[P7S] = bench.vendor.sign(body, "-nodetach")
        assert (await bench.look(bench.feed())).seen == Seen(True), "embedded, but of the same bytes"

    run(bench, scenario())


def test_where_the_signature_is() -> None:
    assert signature_url("https://x/a/manifest.json?id=1#top") == "https://x/a/manifest.json.p7s?id=1"


@pytest.mark.parametrize("required", [True, False])
def test_a_bad_signature(bench: Bench, stranger: Signer, required: bool) -> None:
    """One that is there must be good, whatever the policy is."""

    async def scenario() -> None:
        bench.signature = "required" if required else "optional"
        body = bench.put()
        good = bench.vendor.sign(body)
        for bad in (
            b"",
            b"no CMS",
            good[:-1],
            good + b"x",
            bench.vendor.sign(body + b" "),
            bench.vendor.sign(body + b" ", "-nodetach"),
            stranger.sign(body),
            b"-----BEGIN CMS-----\nAAAA*\n-----END CMS-----\n",
            b"-----BEGIN CMS-----\n",
        ):
            bench.server.documents[P7S] = bad
            error = await bench.refusal(bench.feed())
            assert isinstance(error, SignatureError), bad
            assert str(error).startswith(f"the signature of {bench.server.url}{INDEX} is no good: ")
            assert not error.passing
        assert bench.seen == Seen()

    run(bench, scenario())


def test_changed_on_its_way(bench: Bench) -> None:
    async def scenario() -> None:
        body = bench.put_signed()
        bench.server.documents[INDEX] = body.replace(b"1.1/board", b"1.1/bored")
        error = await bench.refusal(bench.feed())
        assert "published together" in error.hint

    run(bench, scenario())


def test_a_certificate_that_is_over(bench: Bench) -> None:
    """The clock may be wrong, so it may pass."""

    async def scenario() -> None:
        bench.put_signed()
        bench.now += timedelta(days=100)
        error = await bench.refusal(bench.feed())
        assert isinstance(error, ValidityError)
        assert "clock" in error.hint

    run(bench, scenario())


def test_who_signs_says_what_time_it_is(bench: Bench) -> None:
    """Only what is signed, whole, and not an old one shown again."""

    async def scenario() -> None:
        feed = bench.feed()
        bench.put(issued="2026-01-01T00:00:00Z")
        await bench.look(feed)
        assert bench.proved == []
        bench.put_signed(issued="2026-01-03T00:00:00Z")
        await bench.look(feed)
        [(signed, issued)] = bench.proved
        assert issued == datetime(2026, 1, 3, tzinfo=UTC)
        assert abs(bench.now - signed) < timedelta(hours=1)
        bench.put_signed(issued="2026-01-02T00:00:00Z")
        await bench.refusal(feed)
        body = bench.put_signed(issued="2026-01-04T00:00:00Z")
        bench.server.documents[INDEX] = body.replace(b"01-04", b"09-04")
        await bench.refusal(bench.feed())
        assert len(bench.proved) == 1

    run(bench, scenario())


def test_the_purpose_counts_as_for_bundles(bench: Bench, tmp_path: Path) -> None:
    async def scenario() -> None:
        bench.put_signed()
        bench.policy = {"check_purpose": "codesign-rauc"}
        assert "no good" in str(await bench.refusal(bench.feed()))
        usages = ("keyUsage=critical,digitalSignature", "extendedKeyUsage=codeSigning")
        bench.vendor = Signer(tmp_path, "code-signer", *usages)
        bench.put_signed()
        assert (await bench.look(bench.feed())).available

    run(bench, scenario())


def test_an_unsigned_index(bench: Bench) -> None:
    async def scenario() -> None:
        bench.put(counter=9, issued="2030-01-01T00:00:00Z")
        assert (await bench.look(bench.feed())).seen == Seen(), "that is no proof of anything"
        bench.put(counter=3)
        assert (await bench.look(bench.feed())).available
        bench.signature = "required"
        error = await bench.refusal(bench.feed())
        assert str(error) == f"the index is not signed: {bench.server.url}{P7S} is not there"

    run(bench, scenario())


def test_a_signature_that_was_taken_away(bench: Bench) -> None:
    async def scenario() -> None:
        bench.put_signed()
        await bench.look(bench.feed())
        bench.put({**ENTRY, "version": "6.6"})
        error = await bench.refusal(bench.feed())
        assert isinstance(error, SignatureError)
        assert "is not signed any more" in str(error)

    run(bench, scenario())


@pytest.mark.parametrize("status", [403, 500, 204])
def test_a_signature_that_cannot_be_had(bench: Bench, status: int) -> None:
    """Not the same as none."""

    async def scenario() -> None:
        bench.put()
        bench.server.answers[P7S] = (status, {})
        error = await bench.refusal(bench.feed())
        assert isinstance(error, FeedError)
        assert error.status == status
        assert ("404" in error.hint) == (status == 403)

    run(bench, scenario())


def test_no_way_back(bench: Bench) -> None:
    """Replays of indexes that were signed once."""

    async def scenario() -> None:
        bench.put_signed(counter=5, issued="2026-06-01T12:00:00Z")
        await bench.look(bench.feed())
        assert bench.seen == Seen(True, 5, datetime(2026, 6, 1, 12, tzinfo=UTC).timestamp())
        since = "2026-06-01T12:00:00+00:00"
        olds: list[tuple[dict[str, Any], str]] = [
            ({"counter": 4, "issued": "2026-06-01T12:00:00Z"}, "counter is 4, expected at least 5"),
            (
                {"counter": 5, "issued": "2026-06-01T11:59:59Z"},
                f"issued is 2026-06-01T11:59:59+00:00, expected at least {since}",
            ),
            ({"counter": 6}, f"issued is not there, expected at least {since}"),
            ({"issued": "2026-06-02T12:00:00Z"}, "counter is not there, expected at least 5"),
            ({}, "counter is not there, expected at least 5"),
        ]
        for old, words in olds:
            bench.put_signed(**old)
            error = await bench.refusal(bench.feed())
            assert isinstance(error, SourceError)
            assert str(error) == f"the index is older than one that was here before: {words}"
        bench.put_signed(counter=5, issued="2026-06-01T14:00:00+02:00")
        assert (await bench.look(bench.feed())).available, "the same again"
        bench.put_signed(counter=6, issued="2026-06-02T12:00:00Z")
        await bench.look(bench.feed())
        assert bench.seen.counter == 6

    run(bench, scenario())


@pytest.mark.parametrize("signed", [True, False])
def test_a_stale_index_is_an_alarm_not_a_stop(bench: Bench, signed: bool) -> None:
    async def scenario() -> None:
        expires = bench.now + timedelta(days=1)
        (bench.put_signed if signed else bench.put)(expires=expires.isoformat())
        feed = bench.feed()
        assert (await bench.look(feed)).alarms == ()
        bench.now += timedelta(days=2)
        found = await bench.look(feed)
        assert found.available
        assert len(found.alarms) == 1
        assert found.alarms[0].startswith("The index is stale since ")

    run(bench, scenario())


@pytest.mark.parametrize("end", ["9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59"])
def test_the_ends_of_time(bench: Bench, end: str) -> None:
    async def scenario() -> None:
        bench.put_signed({**ENTRY, "rollout": {"start": end}}, issued=end, expires=end)
        await bench.look(bench.feed())
        await bench.look(bench.feed())

    run(bench, scenario())


def test_validators_are_sent_back_only_if_harmless(bench: Bench) -> None:
    async def scenario() -> None:
        bench.put()
        for etag in ('"' + "x" * 300 + '"', '"\u00e9"'):
            bench.server.answers.clear()
            feed = bench.feed()
            body = bench.server.documents[INDEX]

            async def odd(url: str, *, limit: int, headers: Any, etag: str = etag, body: bytes = body) -> Any:
                assert headers == {}
                answer = await fetch(url, limit=limit, headers=headers)
                return type(answer)(answer.status, {"etag": etag}, answer.body, answer.url)

            bench.fetch = odd
            feed = bench.feed()
            await bench.look(feed)
            assert (await bench.look(feed)).unchanged

    run(bench, scenario())


# All together -----------------------------------------------------------------


@contextlib.asynccontextmanager
async def client() -> AsyncIterator[HttpClient]:
    made = HttpClient(LinkSettings())
    try:
        yield made
    finally:
        await made.close()


def test_from_the_server_to_the_offer(bench: Bench, tmp_path: Path) -> None:
    """The real client, a real server, a file on a real disk; only time is made."""

    async def scenario() -> None:
        bench.put_signed(counter=7)
        async with client() as http:
            bench.fetch = http.get
            feed, clock, found = bench.feed(), FakeClock(), asyncio.Event()
            document = Document(tmp_path / "ota.json", OtaMemory, OtaMemory(), pytest.fail)
            identity = Identity("machine", "boot")
            timing = Timing(3600, 7200)
            source = OtaSource(feed, timing, document, identity, clock, allowed=lambda: "")
            task = asyncio.create_task(source.watch(found.set))
            async with asyncio.timeout(10):
                while not clock.waited_for:
                    await asyncio.sleep(0.001)
                clock.pass_by(3600)
                await found.wait()
            items = await source.scan(lambda item: False)
            assert [item.expected.version for item in items] == ["1.1"]
            assert source.status().etag.startswith('"')
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        again = Document(tmp_path / "ota.json", OtaMemory, OtaMemory(), pytest.fail)
        assert again.value.urls[feed.url].seen == Seen(True, 7, None)

    run(bench, scenario())


def test_no_server_at_all(bench: Bench) -> None:
    async def scenario() -> None:
        async with client() as http:
            bench.fetch = http.get
            feed = bench.feed()
            bench.server.url = "http://127.0.0.1:9"  # discard, where nobody listens
            error = await bench.refusal(bench.feed())
            assert isinstance(error, SourceError)
            assert not isinstance(error, BundleError)
            assert feed.url != bench.feed().url

    run(bench, scenario())
