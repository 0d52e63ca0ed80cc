"""What the policy must know of this device."""

from __future__ import annotations

from updated.config.agent_toml import AgentConfig
from updated.core.policy import PolicyFacts
from updated.install.device import Device
from updated.store import Store


def policy_facts(device: Device, store: Store, config: AgentConfig, *, automatic: bool) -> PolicyFacts:
    """`automatic`: nobody asked for the bundle, so the quarantine counts."""
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
        booted_version=booted.bundle_version or "",
        confirmed=frozenset(o.manifest_hash for o in store.history() if o.code == "confirmed"),
    )
