"""What `[[confirm.checks]]` asks for, as checks."""

from __future__ import annotations

from updated.config.agent_tables import Confirm
from updated.config.check_tables import (
    AnyCheck,
    ClockCheck,
    CommandCheck,
    HeartbeatCheck,
    HttpCheck,
    MountCheck,
    NoFailedCheck,
    SocketCheck,
    SpaceCheck,
    TargetCheck,
    UnitCheck,
    is_local,
    names_of,
)
from updated.core.health import Check, Rule
from updated.core.link import LinkSettings
from updated.health import clock, commands, heartbeat, http, places, sockets, units
from updated.health.heartbeat import Heartbeats as Heartbeats
from updated.host import ntp
from updated.host.units import Systemd
from updated.readers.probe import Probe


def make_checks(
    confirm: Confirm,
    link: LinkSettings,
    heartbeats: Heartbeats | None = None,
    *,
    bus: str | None = None,
) -> tuple[tuple[Check, ...], Heartbeats]:
    """Nothing is loaded or connected before the first look.

    `heartbeats`: those of before, from now on with the applications of `confirm`.  `bus`: its address,
    instead of the system's.
    """
    applications = [check.application for check in confirm.checks if isinstance(check, HeartbeatCheck)]
    if heartbeats is None:
        heartbeats = Heartbeats(applications)
    else:
        heartbeats.expect(applications)
    maker = _Maker(confirm, link, heartbeats, bus)
    named = zip(names_of(confirm.checks), confirm.checks, strict=True)
    return tuple(maker.make(name, table) for name, table in named), heartbeats


def memory_check(confirm: Confirm, mountpoint: str) -> tuple[Check, ...]:
    """Without the file system that it has its memory on, a system does not know that it is on trial.

    `mountpoint`: where it belongs; "": on no file system of its own.
    """
    rule = Rule("data-directory", deadline=confirm.deadline)
    return (places.MountCheck(rule, period=1.0, path=mountpoint, writable=False),) if mountpoint else ()


class _Maker:
    """What the checks share."""

    def __init__(self, confirm: Confirm, link: LinkSettings, heartbeats: Heartbeats, bus: str | None) -> None:
        self._deadline = confirm.deadline
        self._heartbeats = heartbeats
        self._bus = bus
        self._systemd = Systemd(bus)
        self._probe = Probe(link, is_local=is_local)

    def make(self, name: str, table: AnyCheck) -> Check:
        deadline = self._deadline if table.deadline is None else table.deadline
        rule = Rule(name, required=table.counts, deadline=deadline, remote=table.remote)
        period, systemd = table.period, self._systemd
        match table:
            case UnitCheck(unit=unit):
                return units.UnitCheck(rule, period=period, systemd=systemd, unit=unit)
            case TargetCheck(target=target):
                return units.TargetCheck(rule, period=period, systemd=systemd, target=target)
            case NoFailedCheck(units=patterns):
                return units.NoFailedCheck(rule, period=period, systemd=systemd, patterns=patterns)
            case HttpCheck():
                return self._http(rule, table)
            case CommandCheck(command=argv, timeout=timeout):
                return commands.CommandCheck(rule, period=period, argv=argv, timeout=timeout)
            case SocketCheck(address=address, timeout=timeout):
                return sockets.SocketCheck(rule, period=period, address=address, timeout=timeout)
            case MountCheck(path=path, writable=writable):
                return places.MountCheck(rule, period=period, path=path, writable=writable)
            case SpaceCheck(path=path, min_free=min_free):
                return places.SpaceCheck(rule, period=period, path=path, min_free=min_free)
            case ClockCheck():
                return clock.ClockCheck(rule, period=period, synchronised=self._synchronised)
            case HeartbeatCheck(application=application, within=within):
                return heartbeat.HeartbeatCheck(
                    rule, period=period, heartbeats=self._heartbeats, application=application, within=within
                )

    def _http(self, rule: Rule, table: HttpCheck) -> Check:
        return http.HttpCheck(
            rule,
            period=table.period,
            fetch=self._probe.fetch,
            url=table.url,
            status=table.status,
            body=table.body or "",
            timeout=table.timeout,
            close=self._probe.close,
        )

    async def _synchronised(self) -> bool:
        return await ntp.synchronised(self._bus)
