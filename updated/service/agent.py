"""The service as its interfaces see it: `updated.api.port.Agent`."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Sequence
from dataclasses import replace

from updated.api.port import NO_ACCESS, Poller, Snapshot, SystemInfo
from updated.bundle.manifest import Manifest
from updated.core import events, states
from updated.core.gate import Stage
from updated.core.health import Judgement
from updated.core.model import Access, Listener, Offer, Outcome, Quarantined, SlotReport
from updated.errors import DeviceError, Refused
from updated.host.journal import tell
from updated.install.device import Device
from updated.service.announce import Announcer
from updated.service.runner import Runner
from updated.store import Store

log = logging.getLogger(__name__)


class ServiceAgent:
    """Answers from what is known; all changes go through the runner."""

    def __init__(self, runner: Runner, announcer: Announcer, store: Store) -> None:
        self.poller: Poller | None = None  # None: nothing is polled
        self._runner = runner
        self._announce = announcer
        self._store = store

    @property
    def system(self) -> SystemInfo:
        device = self._device
        return SystemInfo(
            compatible=device.config.system.compatible,
            variant=device.variant,
            system_version="",  # told by the system-info handler
            boot_slot=device.boot_slot,
            bootloader=device.config.system.bootloader,
        )

    def snapshot(self) -> Snapshot:
        floor = self._store.floor() if self._runner.config.policy.version_floor == "confirmed" else ""
        return replace(self._announce.snapshot, floor=floor)

    def subscribe(self, listener: Listener) -> None:
        self._announce.subscribe(listener)

    def unsubscribe(self, listener: Listener) -> None:
        self._announce.unsubscribe(listener)

    def submit(self, offer: Offer) -> None:
        self._runner.request(offer)

    async def inspect(self, path: str, access: Access = NO_ACCESS) -> Manifest:
        return (await self._runner.peek(Offer("request", path, access=access))).manifest

    async def mark(self, state: str, identifier: str) -> tuple[str, str]:
        if self._runner.busy:
            raise Refused("already processing a different method", rule="busy")
        marked = await self._device.mark(state, identifier)
        if state == "good" and marked[0] == self._device.booted_group:
            await self._runner.deliver(states.HealthGood(marked[0]))  # by hand is a confirmation, too
        if state == "bad" and self._device.booted_group in marked[0].split():
            await self._runner.marked_bad()
        await self._runner.departure.prepare()
        return marked

    async def slots(self) -> Sequence[SlotReport]:
        return await self._device.reports()

    async def primary(self) -> str:
        return await self._device.primary()

    async def cancel(self) -> None:
        await self._runner.cancel()

    async def confirm(self) -> None:
        if not isinstance(self._runner.state, states.Confirming):
            raise Refused("There is nothing to confirm", rule="confirming")
        await self._runner.deliver(states.HealthGood(self._device.booted_group))

    async def rollback(self) -> str:
        self._may_roll_back()
        device = self._device
        booted = device.booted_group
        if not booted:
            raise DeviceError("Did not find booted slot")
        if isinstance(self._runner.state, states.RebootPending):
            target = booted
        else:
            target = await device.other_bootable_group(booted)
        if not target:
            raise Refused(
                "There is no other group to go back to",
                rule="rollback",
                hint="`updated status` shows which groups the bootloader would start.",
            )
        self._may_roll_back()  # still
        await self._runner.deliver(states.RollbackWanted(_running(device), device.boot_id))
        return target

    async def reboot(self) -> None:
        runner = self._runner
        if runner.busy:
            raise Refused("Something is being installed", rule="busy")
        if runner.hooks.running:
            raise Refused(f"The hook {runner.hooks.running} is not over yet", rule="hook")
        if isinstance(runner.state, states.RebootPending):
            await runner.deliver(states.RebootAllowed())
        elif runner.leaving:
            runner.departure.reboot(None)
        else:
            raise Refused("Nothing waits for a reboot", rule="idle")

    def heartbeat(self, application: str) -> None:
        self._runner.setting.heartbeats.beat(application)

    def judgements(self) -> Sequence[Judgement]:
        now = self._announce.snapshot.health
        kept = [one for one in self._store.judgements() if now is None or one.boot_id != now.boot_id]
        return [*([now] if now is not None else []), *kept]

    def quarantine(self) -> Sequence[Quarantined]:
        return [*self._store.quarantine().values()][::-1]

    async def lift(self, manifest_hash: str) -> int:
        quarantine = self._store.quarantine()
        known = [*quarantine]
        if manifest_hash and manifest_hash not in known:
            raise Refused(
                f"Bundle {manifest_hash} is not quarantined",
                rule="quarantine",
                hint="`updated quarantine list` shows which are.",
            )
        for one in [manifest_hash] if manifest_hash else known:
            await asyncio.to_thread(self._store.lift, one)
            tell(log, events.lifted(one, quarantine[one].version))
        self._runner.lifted()
        return 1 if manifest_hash else len(known)

    def pause(self) -> None:
        self._runner.pause(rest=True)

    def resume(self) -> None:
        self._runner.pause(rest=False)

    async def why(self) -> Sequence[str]:
        from updated.service.reasons import reasons

        return reasons(self._runner, self._announce.snapshot, self._store, self.poller)

    async def consent(self, stage: Stage, allow: bool) -> None:
        await self._runner.gate.answer(stage, allow)

    def inhibit(self, who: str, why: str, seconds: int, owner: str) -> int:
        return self._runner.gate.inhibit(who, why, seconds, owner)

    def release(self, number: int) -> None:
        self._runner.gate.release(number)

    def forget_owner(self, owner: str) -> None:
        self._runner.gate.forget_owner(owner)

    async def reset_floor(self) -> None:
        await asyncio.to_thread(self._store.reset_floor)
        self._runner.lifted()

    def _may_roll_back(self) -> None:
        resting = isinstance(self._runner.state, states.Idle | states.RebootPending | states.Confirming)
        if self._runner.busy or not resting:
            raise Refused("already processing a different method", rule="busy")

    def history(self, limit: int) -> Sequence[Outcome]:
        return self._store.history(limit)

    @property
    def _device(self) -> Device:
        return self._runner.device


def _running(device: Device) -> states.Update:
    """What runs, as the update that brought it."""
    bundle = device.booted_bundle()
    return states.Update(
        transaction=bundle.installed_transaction or str(uuid.uuid4()),
        source="request",
        location="",
        manifest_hash=bundle.bundle_hash or "",
        version=bundle.bundle_version or device.running_version,
        target=device.booted_group,
        compatible=bundle.bundle_compatible or device.config.system.compatible,
    )
