"""What follows from the configuration: made at start and at each reload, never changed in between."""

from __future__ import annotations

import asyncio
import logging
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from updated.config.agent_toml import AgentConfig
from updated.core import states
from updated.core.health import Check
from updated.core.polling import Criteria, wants_reboot
from updated.devices import declared_mountpoint
from updated.host import identity
from updated.host.trusted_time import TrustedTime
from updated.install.adaptive import Saving
from updated.install.device import Device
from updated.install.installer import Ways
from updated.install.link_settings import settings_from
from updated.install.location import Locations
from updated.service.bundles import Bundles
from updated.service.checks import Heartbeats, make_checks, memory_check
from updated.service.gate import Gatekeeper

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Setting:
    """A device, the rules, and the ways to bundles and slots."""

    device: Device
    config: AgentConfig
    locations: Locations
    bundles: Bundles
    gate: Gatekeeper
    time: TrustedTime
    checks: Sequence[Check]
    heartbeats: Heartbeats

    def ways(self, *, metered: bool) -> Ways:
        """How images get into slots."""
        install = self.config.install
        memory = self.locations.data_directory
        return Ways(
            workers=install.workers,
            checkpoints=memory / "resume" if install.resume else None,
            indexes=(self.device.config.system.data_directory or memory) if install.adaptive else None,
            saving=Saving(install.min_saved, install.poorly_saved, metered),
        )

    def reboots_by_itself(self, update: states.Update) -> bool:
        """After `update` was installed nobody has to ask for the reboot."""
        if self.config.reboot.when == "immediately":
            return True
        polled = self.device.config.polling.url is not None and update.source == "ota"
        return polled and wants_reboot(criteria_of(self.device), succeeded=True, updated_slots=True)

    def reboots_after_failure(self) -> bool:
        """RAUC's `reboot-criteria=failed-update`."""
        polled = self.device.config.polling.url is not None
        return polled and wants_reboot(criteria_of(self.device), succeeded=False, updated_slots=True)

    def reboot_command(self, update: states.Update | None) -> Sequence[str]:
        """What reboots, after `update` was installed or without one; (): logind is asked."""
        polling = self.device.config.polling
        if self.config.reboot.command or polling.url is None or update is None or update.source != "ota":
            return self.config.reboot.command
        return shlex.split(polling.reboot_cmd)


async def make_setting(
    device: Device, config: AgentConfig, gate: Gatekeeper, memory: Path, before: Setting | None = None
) -> Setting:
    """`memory`: the data directory, the same as long as the service runs.  `before`: what this replaces.

    Raises ConfigError.
    """
    system = device.config
    link = settings_from(config.http, system.streaming)
    locations = Locations(
        link,
        memory,
        trusted=config.ota.index or system.polling.url or "",
        spool_reserve=config.install.spool_reserve,
        plain=config.install.plain_over_http,
    )
    facts = await asyncio.to_thread(_facts, device)
    time = await asyncio.to_thread(TrustedTime, memory, log.warning)
    bundles = Bundles(device, locations, facts, time)
    checks, heartbeats = make_checks(config.confirm, link, before.heartbeats if before else None)
    checks += memory_check(config.confirm, await asyncio.to_thread(declared_mountpoint, memory))
    return Setting(device, config, locations, bundles, gate, time, checks, heartbeats)


def criteria_of(device: Device) -> Criteria:
    """RAUC's, of `[polling]`."""
    polling = device.config.polling
    return Criteria(polling.candidate_criteria, polling.install_criteria, polling.reboot_criteria)


def _facts(device: Device) -> dict[str, str]:
    """What servers may be told of this device.  Blocks."""
    return {
        "boot-id": device.boot_id,
        "machine-id": identity.machine_id(),
        "serial": identity.serial(),
        "variant": device.variant,
    }
