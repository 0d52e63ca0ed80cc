"""The service as its interfaces see it: `updated.api.port.Agent`."""

from __future__ import annotations

from collections.abc import Sequence

from updated.api.port import Snapshot, SystemInfo
from updated.bundle.manifest import Manifest
from updated.core import states
from updated.core.model import Listener, Offer, Outcome, SlotReport
from updated.errors import DeviceError, Refused
from updated.install.device import Device
from updated.service.announce import Announcer
from updated.service.choice import inspect
from updated.service.runner import Runner
from updated.store import Store


class ServiceAgent:
    """Answers from what is known; all changes go through the runner."""

    def __init__(self, runner: Runner, announcer: Announcer, store: Store) -> None:
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
        return self._announce.snapshot

    def subscribe(self, listener: Listener) -> None:
        self._announce.subscribe(listener)

    def unsubscribe(self, listener: Listener) -> None:
        self._announce.unsubscribe(listener)

    def submit(self, offer: Offer) -> None:
        self._runner.request(offer)

    async def inspect(self, path: str) -> Manifest:
        return (await inspect(path, self._device)).manifest

    async def mark(self, state: str, identifier: str) -> tuple[str, str]:
        if self._runner.busy:
            raise Refused("already processing a different method", rule="busy")
        marked = await self._device.mark(state, identifier)
        if state == "good" and marked[0] == self._device.booted_group:
            await self._runner.deliver(states.HealthGood(marked[0]))  # by hand is a confirmation, too
        if state == "bad" and self._device.booted_group in marked[0].split():
            await self._runner.give_up()
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
        bundle = device.booted_bundle()
        await self._runner.deliver(
            states.RollbackWanted(booted, bundle.bundle_hash or "", bundle.bundle_version or "")
        )
        return target

    def _may_roll_back(self) -> None:
        resting = isinstance(self._runner.state, states.Idle | states.RebootPending | states.Confirming)
        if self._runner.busy or not resting:
            raise Refused("already processing a different method", rule="busy")

    def history(self, limit: int) -> Sequence[Outcome]:
        return self._store.history(limit)

    @property
    def _device(self) -> Device:
        return self._runner.device
