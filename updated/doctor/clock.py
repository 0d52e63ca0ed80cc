"""The clock: certificates cannot be judged by one that is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from updated.doctor.finding import Finding, note, ok, unknown, warning
from updated.doctor.subject import Places, Subject
from updated.host.ntp import kernel_synchronised
from updated.host.trusted_time import build_time

RTC_MAY_DIFFER: Final = timedelta(minutes=5)


def check(subject: Subject) -> Iterator[Finding]:
    yield _against_build(subject)
    clocks = _hardware_clocks(subject.places)
    yield from _hardware(clocks, subject.now)
    yield _synchronised(has_rtc=bool(clocks))


def _against_build(subject: Subject) -> Finding:
    build = build_time(subject.places.root)
    if build is None:
        return unknown("clock.build", "", "nothing tells when this system was built")
    built = build.moment
    if subject.now >= built:
        return ok("clock.build", "", f"later than the system's build ({built:%Y-%m-%d})")
    return warning(
        "clock.build",
        "",
        "the clock is before the system's build: certificates seem not to be valid yet",
        expected=f"{built:%Y-%m-%d %H:%M} UTC or later",
        got=f"{subject.now:%Y-%m-%d %H:%M} UTC",
        hint="Synchronise it (systemd-timesyncd, chrony), or look at the battery of the hardware clock.",
    )


def _hardware_clocks(places: Places) -> list[Path]:
    return sorted((places.sysfs / "class" / "rtc").glob("rtc*"))


def _hardware(clocks: list[Path], now: datetime) -> Iterator[Finding]:
    if not clocks:
        text = "no hardware clock: after a power cut the time is that of the last shutdown or of the build"
        yield note("clock.rtc", "", text, hint="Order the service after time-sync.target where a network is.")
        return
    for clock in clocks:
        try:
            told = datetime.fromtimestamp(int((clock / "since_epoch").read_text()), UTC)
        except (OSError, ValueError, OverflowError):
            yield warning("clock.rtc", clock.name, "cannot be read", hint="Is its battery empty?")
            continue
        if abs(told - now) > RTC_MAY_DIFFER:
            yield warning(
                "clock.rtc",
                clock.name,
                "differs from the system's clock, and wins after a power cut",
                expected=f"{now:%Y-%m-%d %H:%M} UTC",
                got=f"{told:%Y-%m-%d %H:%M} UTC",
                hint="Set it with `hwclock --systohc --utc`, or look at its battery.",
            )
        else:
            yield ok("clock.rtc", clock.name, "agrees with the system's clock")


def _synchronised(*, has_rtc: bool) -> Finding:
    state = kernel_synchronised()
    if state is None:
        return unknown("clock.synchronised", "", "the kernel does not tell")
    if state:
        return ok("clock.synchronised", "", "synchronised")
    make = note if has_rtc else warning
    hint = "Run systemd-timesyncd or chrony where there is a network."
    return make("clock.synchronised", "", "nobody synchronises the clock", hint=hint)
