"""The time of a device without a clock: when its system was built, and what it has seen signed."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from keys import Signer

from tests.service import certificates
from tests.service.certificates import Authority
from updated.authoring.signing import sign
from updated.bundle.chain import SignerChain
from updated.bundle.signature import parse_signed_data
from updated.bundle.trust import Keyring, KeyringPolicy
from updated.core.events import Id
from updated.core.trusted_time import Build
from updated.errors import SignatureError, ValidityError
from updated.host.journal import event_of
from updated.host.trusted_time import FILE, TrustedTime, build_time

NOW = certificates.NOW.replace(microsecond=0)
NEVER_SET = datetime(1970, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
OLD = -1000 * DAY  # when the system was built, from now


def touch(root: Path, name: str, moment: datetime) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (moment.timestamp(),) * 2)
    return path


@dataclass
class Device:
    folder: Path
    wall: datetime = NEVER_SET
    uptime: float = 60.0
    warnings: list[str] = field(default_factory=list)
    data: Path = field(init=False)
    root: Path = field(init=False)

    def __post_init__(self) -> None:
        self.data, self.root = self.folder / "data", self.folder / "root"
        self.data.mkdir()
        self.root.mkdir()

    def start(self) -> TrustedTime:
        return TrustedTime(
            self.data,
            self.warnings.append,
            root=self.root,
            wall=lambda: self.wall,
            uptime=lambda: self.uptime,
        )

    def see(self, time: TrustedTime, chain: SignerChain, issued: datetime | None = None) -> None:
        asyncio.run(time.saw(chain, issued))

    @property
    def written(self) -> str:
        """What the file says; "": there is none."""
        file = self.data / FILE
        return str(json.loads(file.read_text())["latest"]) if file.exists() else ""


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority("Root")


@pytest.fixture(scope="module")
def signer(authority: Authority) -> Signer:
    return authority.issue("Vendor", days=(-500, 300))


def keyring_of(*authorities: Authority, use_bundle_signing_time: bool = False) -> Keyring:
    return Keyring.load(
        [one.certificate for one in authorities],
        KeyringPolicy(use_bundle_signing_time=use_bundle_signing_time),
    )


def signed(signer: Signer, at: datetime) -> bytes:
    return sign(content=b"x", certificate_pem=signer.certificate, key_pem=signer.key, signing_time=at)


@pytest.fixture
def chain(authority: Authority, signer: Signer) -> Callable[[datetime], SignerChain]:
    """That of a signature which claims to be made then."""

    def verified(at: datetime) -> SignerChain:
        return parse_signed_data(signed(signer, at)).verify(keyring_of(authority), NOW)

    return verified


Chains = Callable[[datetime], SignerChain]


# When the system was built


def test_systemds_epoch_comes_first(tmp_path: Path) -> None:
    touch(tmp_path, "usr/lib/os-release", NOW - 2 * DAY)
    assert build_time(tmp_path) == Build(NOW - 2 * DAY, starts_clock=False)
    touch(tmp_path, "usr/lib/clock-epoch", NOW - 5 * DAY)
    assert build_time(tmp_path) == Build(NOW - 5 * DAY, starts_clock=True)


def test_nobody_says_when_it_was_built(tmp_path: Path) -> None:
    assert build_time(tmp_path) is None
    assert build_time(tmp_path / "none") is None


def test_this_system_was_built() -> None:
    found = build_time()
    assert found is not None
    assert found.moment < NOW


# What it says


def test_the_clock_where_it_is_right(device: Device, caplog: pytest.LogCaptureFixture) -> None:
    touch(device.root, "usr/lib/os-release", NOW + OLD)
    device.wall = NOW
    assert device.start().now() == NOW
    assert caplog.messages == []


def test_a_wrong_clock_is_told_once(device: Device, caplog: pytest.LogCaptureFixture) -> None:
    touch(device.root, "usr/lib/os-release", NOW + OLD)
    time = device.start()
    for _ in range(3):
        assert time.now() == NOW + OLD
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    event = event_of(record)
    assert event is not None
    assert event.id == Id.CLOCK_NOT_BELIEVED
    used = f"{NOW + OLD:%Y-%m-%dT%H:%M:%SZ}"
    assert event.fields == (("UPDATED_CLOCK", "1970-01-01T00:00:00Z"), ("UPDATED_TIME", used))
    assert caplog.messages[0].startswith(
        "The system clock says 1970-01-01T00:00:00Z, but this system was built at "
    )
    device.wall = NOW
    assert time.now() == NOW
    device.wall = NEVER_SET  # again
    time.now()
    assert len(caplog.messages) == 2


def test_what_was_signed_is_remembered(device: Device, chain: Chains) -> None:
    touch(device.root, "usr/lib/os-release", NOW + OLD)
    device.see(device.start(), chain(NOW - 3 * DAY))
    assert device.start().now() == NOW - 3 * DAY
    device.see(device.start(), chain(NOW - 9 * DAY))  # an older bundle changes nothing
    assert device.start().now() == NOW - 3 * DAY
    device.wall = NOW
    assert device.start().now() == NOW
    assert device.warnings == []


def test_what_an_index_says_of_itself(device: Device, chain: Chains) -> None:
    time = device.start()
    device.see(time, chain(NOW - 3 * DAY), (NOW - DAY).astimezone(timezone(timedelta(hours=-5))))
    assert time.now() == NOW - DAY
    device.see(time, chain(NOW - 3 * DAY), NOW + 5000 * DAY)  # the signer is not valid so long
    device.see(time, chain(NOW - 3 * DAY), NOW - 5000 * DAY)
    assert time.now() == NOW - DAY
    assert device.written == f"{NOW - DAY:%Y-%m-%dT%H:%M:%SZ}"


def test_a_signer_with_a_wrong_clock(device: Device, chain: Chains) -> None:
    """He cannot lead a device further than to the end of his certificate."""
    time = device.start()
    device.see(time, chain(NOW + 301 * DAY))
    device.see(time, chain(NOW - 501 * DAY))
    assert time.now() == NEVER_SET
    device.see(time, chain(NOW + 299 * DAY))
    assert time.now() == NOW + 299 * DAY
    assert device.written


def test_a_signature_without_a_time(device: Device, chain: Chains) -> None:
    time = device.start()
    device.see(time, SignerChain(chain(NOW).certificates, None))
    assert time.now() == NEVER_SET
    assert device.written == ""


def test_flash_is_not_worn(device: Device, chain: Chains) -> None:
    time = device.start()
    hour = timedelta(hours=1)
    device.see(time, chain(NOW - DAY))
    first = device.written
    device.see(time, chain(NOW - DAY + hour))
    assert device.written == first
    assert time.now() == NOW - DAY + hour  # all the same
    device.see(time, chain(NOW - DAY + hour + timedelta(seconds=1)))
    assert device.written > first


def test_many_at_once(device: Device, chain: Chains) -> None:
    chains = [chain(NOW - days * DAY) for days in (5, 1, 4, 2, 3)]

    async def scene(time: TrustedTime) -> None:
        await asyncio.gather(*(time.saw(one) for one in chains))

    asyncio.run(scene(device.start()))
    assert device.start().now() == NOW - DAY


def test_a_disk_that_takes_nothing(device: Device, chain: Chains, caplog: pytest.LogCaptureFixture) -> None:
    time = device.start()
    device.data.rmdir()
    device.data.touch()
    device.see(time, chain(NOW - DAY))
    assert time.now() == NOW - DAY
    assert any("Failed to save" in message for message in caplog.messages)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"latest": 5}', '{"latest": "soon"}', '{"latest": "9999-99-99T00:00:00Z"}']
)
def test_a_damaged_file(device: Device, chain: Chains, text: str) -> None:
    (device.data / FILE).write_text(text)
    time = device.start()
    assert time.now() == NEVER_SET
    device.see(time, chain(NOW - DAY))
    assert device.start().now() == NOW - DAY


# What that means for certificates


def verify(time: TrustedTime, keyring: Keyring, cms: bytes) -> SignerChain:
    """As the service does it."""
    prepared = time.keyring(keyring)
    return parse_signed_data(cms).verify(prepared, time.now())


def test_a_signer_that_is_newer_than_the_system(device: Device, authority: Authority) -> None:
    """A stick for a device that was never online: it must be later than its clock and its system say."""
    touch(device.root, "usr/lib/os-release", NOW + OLD)
    new = authority.issue("New", days=(-10, 300))
    time = device.start()
    found = verify(time, keyring_of(authority), signed(new, NOW))
    assert found.signer_cn == "New"
    device.see(time, found)
    assert device.start().now() == NOW


def test_a_clock_that_began_at_the_build_time(device: Device, authority: Authority) -> None:
    touch(device.root, "usr/lib/clock-epoch", NOW - 100 * DAY)
    new = authority.issue("New", days=(-10, 300))
    device.wall = NOW - 100 * DAY + timedelta(seconds=55)
    assert verify(device.start(), keyring_of(authority), signed(new, NOW)).signer_cn == "New"
    device.wall += DAY  # somebody has set it
    with pytest.raises(ValidityError, match="not yet valid"):
        verify(device.start(), keyring_of(authority), signed(new, NOW))


def test_a_clock_that_is_right_is_believed(device: Device, authority: Authority) -> None:
    touch(device.root, "usr/lib/os-release", NOW + OLD)
    device.wall = NOW
    with pytest.raises(ValidityError, match="not yet valid"):
        verify(device.start(), keyring_of(authority), signed(authority.issue("New", days=(10, 30)), NOW))


@pytest.mark.parametrize("signing_time", [-20 * DAY, DAY])
def test_who_is_over_stays_over(
    device: Device, authority: Authority, chain: Chains, signing_time: timedelta
) -> None:
    """An old clock gives an old key no second life."""
    over = authority.issue("Over", days=(-30, -10))
    time = device.start()
    device.see(time, chain(NOW - DAY))
    with pytest.raises(ValidityError, match="expired"):
        verify(time, keyring_of(authority), signed(over, NOW + signing_time))


def test_a_root_and_a_signer_that_never_held_together(device: Device, authority: Authority) -> None:
    """Time moves on for the one that is not yet valid, past the end of the other."""
    root = Authority("Later", days=(10, 100))
    touch(device.root, "usr/lib/os-release", NOW + OLD)
    with pytest.raises(ValidityError, match="expired"):
        verify(device.start(), keyring_of(root), signed(root.issue("Short", days=(-30, 5)), NOW))
    found = verify(device.start(), keyring_of(root), signed(root.issue("Last", days=(20, 90)), NOW))
    assert found.signer_cn == "Last"


def test_strangers_gain_nothing(device: Device, authority: Authority) -> None:
    touch(device.root, "usr/lib/os-release", NOW + OLD)
    stranger = Authority("Root")  # the same name
    with pytest.raises(SignatureError) as caught:
        verify(device.start(), keyring_of(authority), signed(stranger.issue("New", days=(-9, 9)), NOW))
    assert not caught.value.passing


def test_the_signing_time_where_that_is_to_count(device: Device, authority: Authority) -> None:
    """`use-bundle-signing-time` is as it was: no clock has a say."""
    keyring = keyring_of(authority, use_bundle_signing_time=True)
    signer = authority.issue("New", days=(-10, 300))
    assert verify(device.start(), keyring, signed(signer, NOW)).signer_cn == "New"
    with pytest.raises(ValidityError, match="not yet valid"):
        verify(device.start(), keyring, signed(signer, NOW - 11 * DAY))


def test_a_build_time_beyond_the_keyring(
    device: Device, authority: Authority, signer: Signer, caplog: pytest.LogCaptureFixture
) -> None:
    """A mistake of who built the image must not end all updates."""
    touch(device.root, "usr/lib/clock-epoch", NOW + 4000 * DAY)
    device.wall = NOW
    assert verify(device.start(), keyring_of(authority), signed(signer, NOW)).signer_cn == "Vendor"
    assert caplog.messages == []


def test_the_end_of_a_keyring() -> None:
    ends = [Authority("Short", days=(-3000, 10)), Authority("Long"), Authority("Shorter", days=(-5, 5))]
    found = keyring_of(*ends).not_after
    assert found is not None
    assert abs(found - (NOW + 3000 * DAY)) < timedelta(seconds=2)
