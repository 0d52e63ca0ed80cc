"""What the policy must know of this device."""

from __future__ import annotations

from updated.config.agent_toml import AgentConfig
from updated.core.gate import Subject
from updated.core.link import is_url
from updated.core.policy import PolicyFacts
from updated.core.states import Update
from updated.install.device import Device
from updated.service.choice import Chosen
from updated.store import Store


def policy_facts(
    device: Device, store: Store, config: AgentConfig, *, automatic: bool, only_above: bool = True
) -> PolicyFacts:
    """`automatic`: nobody asked for the bundle, so the quarantine counts.

    `only_above`: and it must be above the running version.
    """
    system = device.config.system
    booted = device.booted_bundle()
    return PolicyFacts(
        compatible=system.compatible,
        bundle_formats=system.bundle_formats,
        min_bundle_version=system.min_bundle_version,
        floor=store.floor() if config.policy.version_floor == "confirmed" else "",
        automatic=automatic,
        quarantine={entry.manifest_hash: entry.reason for entry in store.quarantine().values()},
        booted_hash=booted.bundle_hash or "",
        pending_hash="" if system.activate_installed else device.inactive_hash(),
        booted_version=device.running_version,
        confirmed=frozenset(o.manifest_hash for o in store.history() if o.code == "confirmed"),
        only_above=only_above,
    )


def subject_of(source: str, chosen: Chosen) -> Subject:
    """What policy is asked about before an attempt."""
    item, manifest = chosen.item, chosen.manifest
    return Subject(
        source,
        version=(manifest.version if manifest else "") or item.expected.version,
        # Without a manifest it is told apart by what the source knows of it.
        manifest_hash=manifest.hash if manifest else "/".join(map(str, item.identity)),
        remote=is_url(item.location),
    )


def subject_of_update(update: Update) -> Subject:
    """What policy is asked about before the reboot."""
    return Subject(update.source, update.version, update.manifest_hash)


def polls_any_version(device: Device) -> bool:
    """RAUC's `install-criteria` of `[polling]` may want what is not above the running version."""
    polling = device.config.polling
    return polling.url is not None and bool({"always", "different-version"} & {*polling.install_criteria})
