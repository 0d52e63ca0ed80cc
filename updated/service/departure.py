"""The ways out of the running system: the reboot into an update, and the way back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import takewhile
from typing import Final

from updated import command
from updated.core import events, states
from updated.core.gate import Hold, Subject
from updated.errors import UpdatedError
from updated.host import reboot
from updated.host.journal import tell
from updated.install.device import Device
from updated.service.attempt import RETRY
from updated.service.facts import subject_of_update
from updated.service.judging import Judging
from updated.service.memory import log_error
from updated.service.rebooter import Rebooter
from updated.service.reboots import Reboots, Step
from updated.service.setting import Setting
from updated.store import Store

log = logging.getLogger(__name__)

MAX_WAYS_BACK: Final = 3
"""Boots of a system in a row that end with its being given up: a bootloader that starts it all the same does
not listen, and the power may have gone before it was told."""


class Departure:
    """Belongs to the event loop."""

    def __init__(
        self,
        setting: Callable[[], Setting],
        store: Store,
        judging: Judging,
        *,
        pending: Callable[[], states.Update | None],
        busy: Callable[[], object],
        post: Callable[[states.Event], None],
        show: Callable[[str], None],
        give_up: Callable[[], Awaitable[None]],
    ) -> None:
        """`pending`: the update that waits for its reboot.  `busy`: something has to end before.

        `give_up`: the running group is bad now; nothing may mark it good again.
        """
        self.left_for = ""  # the group that starts next, once the running one was given up
        self.hold: Hold | None = None  # why the update that waits does not get its reboot yet
        self._pending = pending
        self._busy = busy
        self._setting = setting
        self._store = store
        self._judging = judging
        self._post = post
        self._show = show
        self._give_up = give_up
        self._rebooter = Rebooter(self._wanted, self._may, self._told)
        self._reboots = Reboots(lambda: self._setting().config, show)

    @property
    def begun(self) -> bool:
        """A reboot was asked for, and is to come."""
        return self._reboots.begun

    @property
    def by_itself(self) -> bool:
        """The update that waits for its reboot gets one without anybody's help."""
        update = self._pending()
        return update is not None and self._setting().reboots_by_itself(update)

    def ask(self) -> None:
        """The update that waits for its reboot may perhaps have it now."""
        self._rebooter.ask()

    async def close(self) -> None:
        await self._rebooter.close()
        begun = self.begun
        await self._reboots.close()
        if begun:
            await self._outlast()

    async def prepare(self) -> None:
        """Whoever reboots now starts the update that waits for it, as long as the bootloader would, too."""
        if not self._device.reboot_argument:
            return
        try:
            await reboot.prepare_argument(await self._argument(self._pending()))
        except UpdatedError as error:
            log_error(error)

    def reboot(self, update: states.Update | None) -> None:
        """Now, into `update`, or into whatever starts next."""
        why = f"version {update.version} starts" if update else "the other group starts, or this one anew"
        way = " ".join(self._setting().reboot_command(update)) or reboot.STEPS[0]
        tell(log, events.reboot_asked(way, why))
        before = self._judging.remember_unreachable if update is not None else None
        self._reboots.begin(self._steps(update), before)
        self._show("")

    async def call_off(self) -> None:
        """What was to be left, or started, is not any more."""
        if self.begun:
            await self._reboots.close()
            try:
                await reboot.cancel_scheduled()
            except UpdatedError as error:
                log_error(error)
        await self.prepare()

    async def roll_back(self, group: str, *, by_request: bool) -> None:
        """Raises UpdatedError; nothing has begun then."""
        other = await self._device.other_bootable_group(group)
        in_vain = not by_request and self._given_up_before(group) >= MAX_WAYS_BACK
        if not other or in_vain:
            why = "the bootloader starts it all the same" if in_vain else "no other group would start"
            tell(log, events.degraded(f"{group} is not good, and {why}"))
            self._post(states.NothingToFallBackTo())
            return
        await self._device.mark_group(group, good=False)
        await self._device.lead_away(group, other)
        await self.prepare()
        self.left_for = other
        await self._give_up()  # the other group is the only one left
        self._reboot_after_rollback(by_request=by_request)

    async def go_on(self, update: states.Update | None) -> None:
        """The service died between giving the running group up and the reboot.

        `update`: what was on trial; None: somebody marked the running group bad by hand.
        """
        self.left_for = await self._other_group()
        if update is None or not self.left_for:
            self._show("")
            return
        known = self._store.quarantine().get(update.manifest_hash)
        self._reboot_after_rollback(by_request=known is None or known.reason == states.TAKEN_BACK)

    async def _other_group(self) -> str:
        """As soon as a sick bootloader tells."""
        while True:
            try:
                return await self._device.other_bootable_group(self._device.booted_group)
            except UpdatedError as error:
                log_error(error)
                await asyncio.sleep(RETRY)

    async def reboot_after_failure(self) -> None:
        """RAUC's `reboot-criteria=failed-update`."""
        hold = await self._setting().gate.may_reboot(Subject("ota", "", ""))
        if hold is not None:
            log.warning("no reboot after the failed update: %s", hold.text)
        else:
            self.reboot(None)

    async def _outlast(self) -> None:
        """Stopped by the reboot itself, which may still not come to its end."""
        try:
            if await reboot.outlast(self._setting().config.reboot.escalate_after):
                log.info("if the reboot does not come, %s asks for it harder", reboot.OUTLASTS)
        except UpdatedError as error:  # systemd's own patience ends, too
            log.debug("nobody asks harder for the reboot: %s", error)

    def _wanted(self) -> bool:
        """Not before the running group is judged: unconfirmed, it may be no way back.

        A rescue system, which is in no group, does not reboot by itself.
        """
        here = bool(self._device.booted_group)
        return here and self.by_itself and not self._busy() and not self.begun

    async def _may(self) -> Hold | None:
        update = self._pending()
        assert update is not None
        return await self._setting().gate.may_reboot(subject_of_update(update))

    def _told(self, hold: Hold | None) -> None:
        self.hold = hold
        if hold is None:
            self._post(states.RebootAllowed())
        self._show("")

    def _given_up_before(self, group: str) -> int:
        """Boots of `group` in a row, before this one, that ended with a bad verdict."""
        earlier = [one for one in self._store.judgements() if one.boot_id != self._device.boot_id]
        return len([*takewhile(lambda one: (one.group, one.state) == (group, "bad"), earlier)])

    def _reboot_after_rollback(self, *, by_request: bool) -> None:
        config = self._setting().config
        if (config.reboot.when if by_request else config.confirm.fallback) in ("immediately", "reboot"):
            self.reboot(None)
        else:
            self._show("")

    def _steps(self, update: states.Update | None) -> Sequence[Step]:
        """How to start `update`, or whatever starts next; each asks anew what that is when its time comes."""
        words = self._setting().reboot_command(update)

        async def ask(number: int) -> None:
            argument, wanted = await self._argument(update), self._setting().config.reboot
            if self._device.reboot_argument:  # also without one: what was left before does not hold any more
                await reboot.prepare_argument(argument)
            if words and number == 0:
                await command.check(words, timeout=wanted.escalate_after)
                return
            await reboot.steps(argument=argument, message=wanted.message, delay=wanted.delay)[number]()

        return [partial(ask, number) for number in range(len(reboot.steps()))]

    async def _argument(self, update: states.Update | None) -> str:
        """What the reboot into `update` has to be asked for with just now; "": nothing special.

        Only while the bootloader has a trial prepared: with the argument, and without one, a firmware may
        find nothing to start.
        """
        argument = self._device.reboot_argument
        if update is None or not argument:
            return ""
        try:
            return argument if await self._device.primary() == update.target else ""
        except UpdatedError as error:
            log_error(error)
            return ""

    @property
    def _device(self) -> Device:
        return self._setting().device
