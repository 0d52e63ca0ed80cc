"""Whom this device trusts, and for how long: certificates, CRLs and what they are good for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from updated.doctor.finding import Finding, error, ok, warning
from updated.doctor.subject import Subject
from updated.errors import UpdatedError

if TYPE_CHECKING:
    from updated.bundle.inventory import Member, RevocationList
    from updated.bundle.trust import Keyring

AHEAD: Final = timedelta(days=180)  # time to bring a new keyring to devices that are seldom online
CRL_PART: Final = 3  # a list that lives for weeks is late when a third of its life is left
RENEW: Final = "While it is valid, install a system that has the new certificate in its keyring."
CLOCK: Final = "Is the clock right? Otherwise this keyring has to be replaced by hand."


def check(subject: Subject) -> Iterator[Finding]:
    if subject.system is None:
        return
    from updated.bundle.inventory import members, revocation_lists
    from updated.install.keyring import load_keyring

    settings = subject.system.keyring
    place = str(settings.path or settings.directory or "[keyring]")
    try:
        keyring = load_keyring(settings)
        found, lists = members(keyring), revocation_lists(keyring)
    except (UpdatedError, OSError, ValueError) as problem:
        yield subject.failed("keyring.file", place, problem)
        return
    behind = subject.time.keyring(keyring).policy.clock_behind
    now = subject.time.now()
    yield ok("keyring.file", place, f"{_count(len(found), 'certificate')}, {_count(len(lists), 'CRL')}")
    yield from _expiry(found, now, behind=behind, by_signing_time=settings.use_bundle_signing_time)
    yield from _fitness(found, settings.check_purpose)
    yield from _revocation(keyring, found, lists, now)


def _expiry(
    found: Sequence[Member], now: datetime, *, behind: bool, by_signing_time: bool
) -> Iterator[Finding]:
    """One that has expired is an error unless another one is there that has not."""
    others = any(each.not_before <= now < each.not_after and each.anchor for each in found)
    for member in found:
        when = f"{member.not_after:%Y-%m-%d}"
        left = member.not_after - now
        if now < member.not_before:
            make = warning if others or behind else error
            text = f"is not valid before {member.not_before:%Y-%m-%d}"
            yield make(
                "keyring.expiry", member.name, text, got=f"now {now:%Y-%m-%d}", hint="Is the clock right?"
            )
        elif left <= timedelta(0):
            make = warning if others or by_signing_time else error
            text = f"expired on {when}: no bundle that needs it can be installed"
            yield make(
                "keyring.expiry", member.name, text, expected="valid", got=f"now {now:%Y-%m-%d}", hint=CLOCK
            )
        elif left < AHEAD:
            yield warning(
                "keyring.expiry",
                member.name,
                f"expires on {when}",
                expected=f"{AHEAD.days} days left",
                got=str(left.days),
                hint=RENEW,
            )
        else:
            yield ok("keyring.expiry", member.name, f"valid until {when}")


def _fitness(found: Sequence[Member], purpose: str | None) -> Iterator[Finding]:
    fit = [each for each in found if not each.fault]
    for member in found:
        if member.fault:
            make = warning if fit else error
            hint = "See check-purpose in [keyring] of system.conf."
            yield make("keyring.purpose", member.name, f"useless here: {member.fault}", hint=hint)
    if fit:
        yield ok("keyring.purpose", "", f"good for {purpose or 'smimesign (the default)'}")
    if not any(each.anchor for each in found):
        yield error(
            "keyring.root",
            "",
            "no certificate that a chain could end at",
            expected="a root, or allow-partial-chain=true",
            got="intermediate certificates only",
            hint="Add the root to the keyring.",
        )


def _revocation(
    keyring: Keyring, found: Sequence[Member], lists: Sequence[RevocationList], now: datetime
) -> Iterator[Finding]:
    if not keyring.policy.check_crl:
        if lists:
            yield warning(
                "keyring.crl",
                "",
                "CRLs are there and not used",
                hint="Set check-crl=true in [keyring], or take them out.",
            )
        return
    for member in _without_list(found, lists):
        text = "check-crl is set and its CRL is missing: every bundle below it is refused"
        yield error("keyring.crl", member.name, text, hint="Add its CRL to the keyring.")
    for each in lists:
        yield _list(each, now)


def _without_list(found: Iterable[Member], lists: Iterable[RevocationList]) -> Iterator[Member]:
    """OpenSSL looks for the list of every CA in the chain (X509_V_FLAG_CRL_CHECK_ALL)."""
    issuers = {each.issuer for each in lists}
    return (member for member in found if member.authority and member.name not in issuers)


def _list(each: RevocationList, now: datetime) -> Finding:
    if each.next_update is None:
        return ok("keyring.crl", each.issuer, "does not expire")
    left, when = each.next_update - now, f"{each.next_update:%Y-%m-%d}"
    if left <= timedelta(0):
        text = f"its CRL expired on {when}: every bundle below it is refused"
        return error("keyring.crl", each.issuer, text, got=f"now {now:%Y-%m-%d}", hint=CLOCK)
    if now < each.last_update:
        text = f"its CRL is not valid before {each.last_update:%Y-%m-%d}"
        return error("keyring.crl", each.issuer, text, got=f"now {now:%Y-%m-%d}", hint="Is the clock right?")
    wanted = min(AHEAD, (each.next_update - each.last_update) / CRL_PART)
    if left < wanted:
        return warning(
            "keyring.crl",
            each.issuer,
            f"its CRL expires on {when}; then every bundle below it is refused",
            expected=f"{wanted.days} days left",
            got=str(left.days),
            hint="Bring a new CRL to the keyring before that.",
        )
    return ok("keyring.crl", each.issuer, f"its CRL is valid until {when}")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
