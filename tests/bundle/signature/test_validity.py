"""A certificate whose time has not come or is over may be good by another clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from updated.authoring.signing import sign
from updated.bundle.signature import parse_signed_data
from updated.bundle.trust import Keyring, KeyringPolicy
from updated.errors import SignatureError, ValidityError

NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def signed() -> tuple[bytes, bytes]:
    from keys import make_signer

    signer = make_signer("Clock")
    cms = sign(content=b"x", certificate_pem=signer.certificate, key_pem=signer.key, signing_time=NOW)
    return cms, signer.certificate


@pytest.mark.parametrize("off_by", [timedelta(days=-3), timedelta(days=4000)])
def test_wrong_clock(signed: tuple[bytes, bytes], off_by: timedelta) -> None:
    cms, certificate = signed
    keyring = Keyring.load([certificate], KeyringPolicy())
    with pytest.raises(ValidityError) as caught:
        parse_signed_data(cms).verify(keyring, NOW + off_by)
    assert caught.value.passing


def test_a_stranger_is_a_stranger_by_any_clock(signed: tuple[bytes, bytes]) -> None:
    from keys import make_signer

    keyring = Keyring.load([make_signer("Other").certificate], KeyringPolicy())
    with pytest.raises(SignatureError) as caught:
        parse_signed_data(signed[0]).verify(keyring, NOW)
    assert not caught.value.passing
