"""Open and verify a bundle, wherever it is: one way for installs, choices, `info` and polling."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext

from updated.core.model import Offer, Reader
from updated.errors import Refused
from updated.host import identity
from updated.host.trusted_time import TrustedTime
from updated.install.device import Device
from updated.install.keyring import load_keyring
from updated.install.link_settings import send_headers
from updated.install.location import Locations, Spooling, open_location
from updated.install.opened import Detached, OnStep, OpenedBundle, open_bundle
from updated.service.watched import Pace, Watched

OpenPlain = Callable[[Detached], Awaitable[OpenedBundle]]


class Bundles:
    """Of one device and one configuration."""

    def __init__(
        self, device: Device, locations: Locations, facts: Mapping[str, str], time: TrustedTime
    ) -> None:
        """`facts`: what servers may be told of this device (`send-headers`)."""
        self._device = device
        self._time = time
        self._locations = locations
        self._facts = facts

    def headers(self, transaction: str = "") -> Mapping[str, str]:
        """What servers are told of this device, and of the install."""
        facts = {**self._facts, "uptime": identity.uptime(), "transaction-id": transaction}
        return send_headers(self._device.config.streaming.send_headers, facts)

    async def open(
        self,
        offer: Offer,
        pace: Pace,
        *,
        transaction: str = "",
        peek: bool = False,
        on_spooled: Callable[[int, int], None] = lambda _there, _size: None,
    ) -> Watched:
        """A reader, the caller's to close.

        `on_spooled` is called with the bytes that are on disk, and how many there will be (0: not known).
        Raises UpdatedError; CannotPeek only with `peek`.
        """
        headers = self.headers(transaction)
        spooling = Spooling(pace.moved, on_spooled, pace.wait)
        located = await open_location(offer, self._locations, headers=headers, spooling=spooling, peek=peek)
        return Watched(located, pace)

    async def verify(self, reader: Watched, *, on_step: OnStep = lambda _: nullcontext()) -> OpenedBundle:
        """Signature, format and manifest.  Raises UpdatedError."""
        return await self._verify(reader, on_step, reader.inner.plain)

    async def verify_end(self, reader: Reader) -> OpenedBundle:
        """The same where only the end may be read: plain bundles are refused.  Raises UpdatedError."""
        return await self._verify(reader, lambda _: nullcontext(), refuse_plain)

    async def _verify(self, reader: Reader, on_step: OnStep, plain: OpenPlain) -> OpenedBundle:
        system = self._device.config.system
        keyring = await asyncio.to_thread(load_keyring, self._device.config.keyring)
        opened = await open_bundle(
            reader,
            keyring=self._time.keyring(keyring),
            formats=system.bundle_formats,
            max_signature_size=system.max_bundle_signature_size,
            now=self._time.now(),
            on_step=on_step,
            plain=plain,
        )
        await self._time.saw(opened.chain)
        return opened

    async def peek(self, offer: Offer, pace: Pace, *, whole: bool = False) -> OpenedBundle:
        """Verify what is offered, without policy, and let go of it again.

        `whole`: even if all of it has to be fetched for that.  Raises UpdatedError.
        """
        reader = await self.open(offer, pace, peek=not whole)
        try:
            return await self.verify(reader)
        finally:
            await reader.close()


async def refuse_plain(_found: Detached) -> OpenedBundle:
    """It would have to be fetched as a whole just to be looked at.  Raises Refused."""
    raise Refused(
        "Bundle format 'plain' not supported in streaming mode",
        rule="plain-over-http",
        hint="Make it in verity format, or publish it by a channel index.",
    )
