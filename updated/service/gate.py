"""The gate: what nobody asked for by hand begins when all rules agree.

They are asked in this order, and the first that says no is told:

1. hold: an application holds it back over D-Bus
2. inhibit-file: one of the configured files is there
3. consent: before the window, so that who is there by day can agree to what happens by night
4. clock, window
5. disk-space (installs only)
6. battery
7. metered (installs over a network), logind (reboots): these ask other services

What cannot be found out holds nothing back, but for the clock: a broken gauge must not keep the update away
that repairs it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC
from pathlib import Path
from typing import Final

from updated.config.agent_tables import Consent, Policy, Window
from updated.core.consent import Moment, Question, Rules
from updated.core.duration import duration
from updated.core.gate import Conditions, Hold, Stage, Subject, name_of, words
from updated.core.holds import Holds, describe
from updated.core.windows import DAYS, next_opening, open_now
from updated.document import Warn
from updated.host.conditions import HostConditions
from updated.host.timing import Clocks
from updated.service.consents import Consents

LONGEST_DELAY: Final = 3600.0  # seconds; a clock that somebody sets is noticed within an hour
SOON: Final = (
    60.0  # seconds; a file, the clock and inhibitors change within minutes and cost little to look at
)
LATER: Final = 300.0  # seconds; batteries and links change slowly


class Gatekeeper:
    """Belongs to the event loop; making it blocks."""

    def __init__(
        self,
        *,
        policy: Policy,
        consent: Consent,
        system_inhibit_files: Sequence[str],
        data: Path,
        conditions: Conditions,
        clocks: Clocks,
        warn: Warn,
    ) -> None:
        """`system_inhibit_files`: those of system.conf, [polling]; they hold back installs, not reboots."""
        self.changed: Callable[[], None] = _nobody
        self._conditions = conditions
        self._clocks = clocks
        self._earliest = clocks.earliest()
        self._holds = Holds()
        self._consents = Consents(data, self._moment, warn)
        self.reconfigure(policy, consent, system_inhibit_files)

    def reconfigure(self, policy: Policy, consent: Consent, system_inhibit_files: Sequence[str]) -> None:
        """Other rules hold from now on; holds and answers stay."""
        self._policy = policy
        self._consent = consent
        self._consent_rules = Rules(consent.expires, consent.default)
        self._system_files = tuple(system_inhibit_files)

    # May it begin?

    async def may_install(self, subject: Subject) -> Hold | None:
        """None: go on.  A person's install (source "request") only has to find room."""
        if subject.source == "request":
            return await self._space(subject)
        files = (*self._policy.inhibit_files, *self._system_files)
        return (
            self._held("install", subject)
            or await self._inhibited("install", subject, files)
            or await self._agreed("install", subject, asks=self._consent.install)
            or await self._window("install", subject, self._policy.install_windows)
            or await self._space(subject)
            or await self._charged("install", subject)
            or await self._unmetered(subject)
        )

    async def may_reboot(self, subject: Subject) -> Hold | None:
        """None: go on.  For a reboot that the agent does by itself, whoever wanted the install."""
        return (
            self._held("reboot", subject)
            or await self._inhibited("reboot", subject, self._policy.inhibit_files)
            or await self._agreed("reboot", subject, asks=self._consent.reboot)
            or await self._window("reboot", subject, self._policy.reboot_windows)
            or await self._charged("reboot", subject)
            or await self._unblocked(subject)
        )

    async def metered(self) -> bool:
        """The link costs by volume, as configured or as far as the device knows."""
        if self._policy.link != "auto":
            return self._policy.link == "metered"
        return await self._conditions.metered() or False

    # Consent

    def questions(self) -> Sequence[Question]:
        """Those that wait for an answer."""
        return self._consents.waiting()

    async def answer(self, stage: Stage, allow: bool) -> None:
        """A person's answer to what was asked last.  Raises Refused(rule="consent") if nothing was."""
        await self._consents.answer(stage, self._consent_rules, allow=allow)
        self.changed()

    async def withdraw(self, stage: Stage) -> None:
        """Nothing waits there any more: its question needs no answer."""
        await self._consents.withdraw(stage)

    # Holds of applications

    def inhibit(self, who: str, why: str, seconds: float, owner: str) -> int:
        """Returns a number to release it with.  Raises Refused(rule="hold")."""
        clock, longest = self._clocks.boottime(), self._policy.max_hold
        return self._holds.take(who, why, seconds, owner, now=clock, longest=longest)

    def release(self, number: int) -> None:
        """Raises Refused(rule="hold") if there is no such hold."""
        self._holds.release(number, now=self._clocks.boottime())
        self.changed()

    def forget_owner(self, owner: str) -> None:
        """He has left the bus."""
        if self._holds.forget_owner(owner):
            self.changed()

    # One rule each

    def _held(self, stage: Stage, subject: Subject) -> Hold | None:
        clock = self._clocks.boottime()
        held = self._holds.longest(clock)
        if held is None:
            return None
        return _hold("hold", stage, subject, f"waits: {describe(held, clock)}.", held.until - clock)

    async def _inhibited(self, stage: Stage, subject: Subject, files: Sequence[str]) -> Hold | None:
        file = await self._conditions.present(files)
        return _again("inhibit-file", stage, subject, f"waits while {file} is there", SOON) if file else None

    async def _agreed(self, stage: Stage, subject: Subject, *, asks: bool) -> Hold | None:
        if not asks:
            return None
        hold = await self._consents.ask(stage, subject, self._consent_rules)
        if hold is None or hold.delay is None:
            return hold
        return replace(hold, delay=min(hold.delay, LONGEST_DELAY))

    async def _window(self, stage: Stage, subject: Subject, windows: Sequence[Window]) -> Hold | None:
        if not windows:
            return None
        if not self._clock_is_set():
            return _again(
                "clock", stage, subject, f"waits for the {stage} window: the clock is not set", SOON
            )
        zone = await asyncio.to_thread(self._clocks.zone, self._policy.time_zone)
        local = self._clocks.wall().astimezone(zone)
        if open_now(windows, local):
            return None
        opening = next_opening(windows, local)
        delay = (opening.astimezone(UTC) - local.astimezone(UTC)).total_seconds()
        when = f"{DAYS[opening.weekday()].capitalize()} {opening:%H:%M}"
        text = f"waits for the {stage} window; it opens on {when} (in {duration(delay)})."
        return _hold("window", stage, subject, text, delay)

    async def _space(self, subject: Subject) -> Hold | None:
        """A person needs room for the bundle; what comes by itself leaves `min-free` besides."""
        by_hand = subject.source == "request"
        needed = subject.needs_space + (0 if by_hand else self._policy.min_free)
        free = await self._conditions.free_space() if needed else None
        if free is None or free >= needed:
            return None
        text = f"needs room in the data directory: {_size(needed)}, but there are {_size(free)}"
        if by_hand:
            return Hold("disk-space", f"{name_of('install', subject.version, subject.source)} {text}.")
        return _again("disk-space", "install", subject, text, LATER)

    async def _charged(self, stage: Stage, subject: Subject) -> Hold | None:
        if not self._policy.min_battery:
            return None
        power = await self._conditions.power()
        if power.mains or power.percent is None or power.percent >= self._policy.min_battery:
            return None
        text = (
            f"waits for the battery: it has {power.percent} %, expected {self._policy.min_battery} % or mains"
        )
        return _again("battery", stage, subject, text, LATER)

    async def _unmetered(self, subject: Subject) -> Hold | None:
        if not subject.remote or self._policy.metered == "allow" or not await self.metered():
            return None
        return _again("metered", "install", subject, "waits for another link: this one is metered", LATER)

    async def _unblocked(self, subject: Subject) -> Hold | None:
        inhibitors = await self._conditions.inhibitors() if self._policy.inhibit_logind else ()
        for blocker in inhibitors:
            text = f"waits: {words(blocker.who) or 'somebody'} blocks the shutdown ({words(blocker.why)})"
            return _again("logind", "reboot", subject, text, SOON)
        return None

    # Small things

    def _clock_is_set(self) -> bool:
        return self._clocks.wall() >= self._earliest

    def _moment(self) -> Moment:
        wall = self._clocks.wall().timestamp() if self._clock_is_set() else None
        return Moment(self._clocks.boot_id, self._clocks.boottime(), wall)


def open_gate(
    policy: Policy,
    consent: Consent,
    *,
    system_inhibit_files: Sequence[str],
    data: Path,
    boot_id: str,
    warn: Warn,
) -> Gatekeeper:
    """That of the real device.  Blocks."""
    return Gatekeeper(
        policy=policy,
        consent=consent,
        system_inhibit_files=system_inhibit_files,
        data=data,
        conditions=HostConditions(data),
        clocks=Clocks(boot_id),
        warn=warn,
    )


def _nobody() -> None:
    """Nobody wants to know."""


def _hold(rule: str, stage: Stage, subject: Subject, text: str, delay: float) -> Hold:
    return Hold(rule, f"{name_of(stage, subject.version, subject.source)} {text}", min(delay, LONGEST_DELAY))


def _again(rule: str, stage: Stage, subject: Subject, text: str, delay: float) -> Hold:
    """Nobody tells when it changes."""
    return _hold(rule, stage, subject, f"{text}; looked at again in {duration(delay)}.", delay)


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
