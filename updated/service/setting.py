"""What follows from the configuration: made at start and at each reload, never changed in between."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from updated.config.agent_toml import AgentConfig, data_directory
from updated.core import states
from updated.core.polling import Criteria, wants_reboot
from updated.host import identity
from updated.install.adaptive import Saving
from updated.install.device import Device
from updated.install.installer import Ways
from updated.install.link_settings import send_headers, settings_from
from updated.install.location import Locations
from updated.service.bundles import Bundles
from updated.service.gate import Gatekeeper


@dataclass(frozen=True, slots=True)
class Setting:
    """A device, the rules, and the ways to bundles and slots."""

    device: Device
    config: AgentConfig
    locations: Locations
    bundles: Bundles
    gate: Gatekeeper

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

    def reboot_command(self, update: states.Update) -> Sequence[str]:
        """What reboots after `update` was installed; () if nobody wants that."""
        polling = self.device.config.polling
        if self.config.reboot.when == "immediately":
            return self.config.reboot.command
        if polling.url is None or update.source != "ota":
            return ()
        if wants_reboot(criteria_of(self.device), succeeded=True, updated_slots=True):
            return shlex.split(polling.reboot_cmd)
        return ()


async def make_setting(device: Device, config: AgentConfig, gate: Gatekeeper) -> Setting:
    """Raises ConfigError."""
    system = device.config
    link = await asyncio.to_thread(settings_from, config.http, system.streaming)
    locations = Locations(
        link,
        data_directory(config, system),
        spool_reserve=config.install.spool_reserve,
        plain=config.install.plain_over_http,
    )
    headers = await asyncio.to_thread(_headers, device)
    return Setting(device, config, locations, Bundles(device, locations, headers), gate)


def criteria_of(device: Device) -> Criteria:
    """RAUC's, of `[polling]`."""
    polling = device.config.polling
    return Criteria(polling.candidate_criteria, polling.install_criteria, polling.reboot_criteria)


def _headers(device: Device) -> dict[str, str]:
    """Blocks."""
    names = device.config.streaming.send_headers
    facts = {
        "boot-id": device.boot_id,
        "machine-id": identity.machine_id(),
        "serial": identity.serial(),
        "variant": device.variant,
        "uptime": identity.uptime(),
        "transaction-id": "-",  # each install has its own
    }
    return send_headers(names, facts) if names else {}
