"""The automatic sources that the configuration turns on, the highest rank first."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from updated.core.link import Answer, LinkSettings
from updated.core.polling import Feed
from updated.core.schedule import Timing
from updated.core.source import Source
from updated.devices import Mount, read_mounts
from updated.document import Document, Warn
from updated.errors import ConfigError
from updated.host import identity
from updated.install.device import Device
from updated.install.keyring import load_keyring
from updated.service.setting import Setting, criteria_of
from updated.sources.folder import AutoinstallSource, FolderSource

if TYPE_CHECKING:
    from updated.bundle.trust import Keyring

MEDIA: Final = ("/media/", "/run/media/", "/mnt/")  # where others mount sticks


async def make_sources(
    setting: Setting, runtime_directory: Path, *, may_poll: Callable[[], str], warn: Warn
) -> Sequence[Source]:
    """`may_poll` says why this is no time to ask a server, "" if it is one.  Raises ConfigError."""
    device, config = setting.device, setting.config
    sources: list[Source] = []
    if config.usb.enable:
        sources.append(_usb(setting, runtime_directory))
    if config.folder.path is not None:
        move_to = Path(config.folder.move_to) if config.folder.move_to else None
        sources.append(FolderSource(Path(config.folder.path), after=config.folder.after, move_to=move_to))
    if device.config.autoinstall.path is not None:
        sources.append(AutoinstallSource(device.config.autoinstall.path))
    if config.ota.index is not None or device.config.polling.url is not None:
        sources.append(await _ota(setting, may_poll, warn))
    return sources


def _usb(setting: Setting, runtime_directory: Path) -> Source:
    from updated.sources.usb import UsbOptions, UsbSource

    usb, device = setting.config.usb, setting.device
    options = UsbOptions(
        runtime_directory,
        file_systems=usb.file_systems,
        folder=usb.folder or "",
        result_file=usb.result_file or "",
        led=usb.led or "",
        on_start=usb.on_start,
        on_success=usb.on_success,
        on_failure=usb.on_failure,
        hook_timeout=usb.hook_timeout,
    )
    return UsbSource(
        options, compatible=device.config.system.compatible, protected=lambda: _protected(device)
    )


def _protected(device: Device) -> Collection[int]:
    """Numbers of the devices that hold a slot or a part of the running system.  Blocks."""
    numbers = {_number(mount) for mount in read_mounts() if not mount.mountpoint.startswith(MEDIA)}
    for slot in device.slots:
        with suppress(OSError):
            numbers.add(os.stat(slot.device).st_rdev)  # noqa: PTH116 - slots are given through links
    return numbers


def _number(mount: Mount) -> int:
    major, _, minor = mount.number.partition(":")
    return os.makedev(int(major), int(minor))


async def _ota(setting: Setting, may_poll: Callable[[], str], warn: Warn) -> Source:
    from updated.sources.clock import BootClock
    from updated.sources.ota import Identity, OtaSource
    from updated.sources.ota_memory import OtaMemory

    device, config = setting.device, setting.config
    polling = device.config.polling
    if config.ota.index is not None and polling.url is not None:
        raise ConfigError(
            "ota.index of updated.toml and url in [polling] of system.conf exclude each other",
            hint="Take one of them out.",
        )
    machine = await asyncio.to_thread(identity.machine_id)
    feed: Feed
    if config.ota.index is not None:
        feed = _channel_feed(setting, config.ota.index, machine)
        timing = Timing(config.ota.interval, config.ota.max_interval)
        inhibit_files: tuple[str, ...] = ()
    else:
        assert polling.url is not None
        feed = _bundle_feed(setting, polling.url)
        timing = Timing(polling.interval, polling.max_interval, linear=True)
        inhibit_files = polling.inhibit_files
    memory = await asyncio.to_thread(
        Document, setting.locations.data_directory / "ota.json", OtaMemory, OtaMemory(), warn
    )
    return OtaSource(
        feed,
        timing,
        memory,
        Identity(machine, device.boot_id),
        BootClock(),
        allowed=may_poll,
        inhibit_files=inhibit_files,
    )


def _channel_feed(setting: Setting, url: str, machine: str) -> Feed:
    from updated.sources.channel import ChannelFeed
    from updated.sources.index import DeviceFacts

    device, ota = setting.device, setting.config.ota
    architecture = identity.architecture()

    def facts() -> DeviceFacts:
        return DeviceFacts(device.config.system.compatible, device.running_version, machine, architecture)

    async def keyring() -> Keyring:
        return setting.time.keyring(await asyncio.to_thread(load_keyring, device.config.keyring))

    return ChannelFeed(
        url,
        ota.channel,
        signature=ota.signature,
        fetch=_Fetch(setting.locations.link),
        keyring=keyring,
        device=facts,
        now=setting.time.now,
        on_signed=setting.time.saw,
    )


class _Fetch:
    """A `core.link.Fetch` that keeps no connection: hours pass between two looks."""

    def __init__(self, link: LinkSettings) -> None:
        self._link = link

    async def __call__(self, url: str, *, limit: int, headers: Mapping[str, str]) -> Answer:
        from updated.readers.http import HttpClient

        client = HttpClient(self._link)
        try:
            return await client.get(url, limit=limit, headers=headers)
        finally:
            await client.close()


def _bundle_feed(setting: Setting, url: str) -> Feed:
    from updated.service.bundle_feed import BundleFeed

    device = setting.device
    return BundleFeed(
        url,
        criteria_of(device),
        link=setting.locations.link,
        headers=setting.bundles.headers,
        verify=setting.bundles.verify_end,
        running=lambda: device.running_version,
    )
