"""The process: configuration, signals, systemd, the bus, and the runner in the middle."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import logging
import signal
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from updated.api.port import Poller
from updated.config.agent_toml import AgentConfig, data_directory, load_agent_config
from updated.config.system_conf import SystemConfig, load_system_config
from updated.core import events
from updated.core.model import Transfer
from updated.core.source import Source
from updated.errors import DeviceError, UpdatedError
from updated.event_log.logs import EventLogs
from updated.health.watchdog import Watchdog
from updated.host.journal import tell
from updated.host.lock import only_one, only_user
from updated.host.malloc import one_arena
from updated.host.namespace import own_mount_namespace
from updated.host.starts import Starts
from updated.host.systemd import Notifier, watchdog_timeout
from updated.install.device import Device, open_device
from updated.install.unsupported import unsupported
from updated.readers.spool import sweep
from updated.service.agent import ServiceAgent
from updated.service.announce import Announcer
from updated.service.degraded import stay_up
from updated.service.gate import open_gate
from updated.service.journal import Events, log_to_stderr, tell_start
from updated.service.offers import Offers
from updated.service.options import ServiceOptions
from updated.service.runner import Runner
from updated.service.setting import Setting, make_setting
from updated.service.sources import make_sources
from updated.store import Store

if TYPE_CHECKING:
    from updated.api.server import Server

log = logging.getLogger(__name__)

BUS_RETRY: Final = 5.0
"""Seconds until a bus that went away is looked for again: whoever calls meanwhile waits 25 s for us."""

KEEP_SPOOLED: Final = 7 * 86400.0
"""Seconds; what nobody has asked for again within a week only takes up room."""


def run(options: ServiceOptions) -> int:
    """`updated service`; returns the exit code.  Raises UpdatedError if it cannot start or go on."""
    one_arena()
    journal = log_to_stderr(debug=options.debug)
    faulthandler.enable(2)  # systemd's watchdog sends SIGABRT: stderr says where the service hung
    notifier = Notifier()
    starts = Starts(options.boot_id)
    try:
        starts.begin()
        code = _run(options, journal, notifier)
    except Exception as error:
        reason = "" if notifier.was_ready else starts.failed()
        if not reason:
            raise
        code = asyncio.run(stay_up(error, reason, notifier))
    finally:
        journal.close()
    starts.end()
    return code


def _run(options: ServiceOptions, journal: Events, notifier: Notifier) -> int:
    system, config = _load(options)
    if config.usb.enable:
        _own_mounts()  # before there are other threads
    return asyncio.run(_main(options, system, config, journal, notifier))


def _own_mounts() -> None:
    try:
        own_mount_namespace()
    except DeviceError as error:
        log.warning("sticks are mounted where everybody sees it: %s", error.with_hint())


async def _main(
    options: ServiceOptions, system: SystemConfig, config: AgentConfig, journal: Events, notifier: Notifier
) -> int:
    announcer = Announcer()
    announcer.subscribe(_Status(notifier))
    for sentence in unsupported(system):
        log.warning("%s", sentence)
    memory = data_directory(config, system)
    await asyncio.to_thread(_lock, options.runtime_directory, memory)
    journal.use(EventLogs(system.logs, log.warning))
    device = await _open_device(options, system, config)
    await tell_start(device, options.runtime_directory)
    store = await asyncio.to_thread(Store, memory, log.warning)
    watchdog = Watchdog(watchdog_timeout(), notifier.watchdog)
    gate = await asyncio.to_thread(
        open_gate,
        config.policy,
        config.consent,
        system_inhibit_files=system.polling.inhibit_files,
        data=memory,
        boot_id=device.boot_id,
        warn=log.warning,
    )
    setting = await make_setting(device, config, gate, memory)
    # A download that a power cut has ended goes on when somebody wants it again.
    await asyncio.to_thread(sweep, setting.locations.spool, keep_for=KEEP_SPOOLED)
    runner = Runner(
        setting=setting,
        store=store,
        offers=Offers([]),
        announcer=announcer,
        watchdog=watchdog,
        runtime_directory=options.runtime_directory,
        on_good=Starts(options.boot_id).clear,
    )
    agent = ServiceAgent(runner, announcer, store)
    service = Service(options, runner, agent, watchdog, notifier, journal=journal)
    await service.use_sources_of(setting)
    return await service.run()


def _load(options: ServiceOptions) -> tuple[SystemConfig, AgentConfig]:
    overrides = list(options.overrides)
    if options.keyring is not None:
        overrides.append(f"keyring:path={options.keyring.absolute()}")
    if options.mount is not None:
        overrides.append(f"system:mountprefix={options.mount.absolute()}")
    return load_system_config(options.conf, overrides), load_agent_config(options.agent_conf)


def _lock(folder: Path, memory: Path) -> None:
    """Make the runtime directory, and be the only one who has it and the data directory `memory`.

    Blocks.  Raises DeviceError.
    """
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise DeviceError(f"Cannot make the runtime directory {folder}: {error.strerror}") from error
    only_one(folder / "lock")
    with contextlib.suppress(OSError):  # the store says what is wrong with it
        memory.mkdir(mode=0o700, parents=True, exist_ok=True)
    only_user(memory)


async def _open_device(options: ServiceOptions, system: SystemConfig, config: AgentConfig) -> Device:
    return await open_device(
        system,
        tryboot=config.tryboot,
        efi=config.efi,
        cmdline=options.cmdline,
        boot_id=options.boot_id,
        override_boot_slot=options.override_boot_slot,
        mount_folder=options.runtime_directory,
    )


class Service:
    """Everything that runs as long as the service does."""

    def __init__(
        self,
        options: ServiceOptions,
        runner: Runner,
        agent: ServiceAgent,
        watchdog: Watchdog,
        notifier: Notifier,
        *,
        journal: Events,
    ) -> None:
        self._options = options
        self._runner = runner
        self._agent = agent
        self._watchdog = watchdog
        self._notifier = notifier
        self._journal = journal
        self._stop = asyncio.Event()
        self._reload = asyncio.Event()
        self._on_bus = asyncio.Event()  # or known to be without one
        self._failure: UpdatedError | None = None
        self._sources: Sequence[Source] = ()
        self._watching: list[asyncio.Task[None]] = []
        self._server: Server | None = None  # None: not on the bus

    async def run(self) -> int:
        """Until SIGTERM or SIGINT.  Raises UpdatedError if another service owns our name on the bus."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload.set)
        tasks = [
            asyncio.create_task(self._guarded(work))
            for work in (
                self._serve_bus(),
                self._runner.run(),
                self._watchdog.run(self._runner.shown.stuck),
                self._reloads(),
            )
        ]
        await self._on_bus.wait()
        if self._failure is None:
            self._notifier.ready()
        await self._stop.wait()
        self._notifier.stopping()
        tell(log, events.service_stopping())
        if self._failure is None:
            await self._runner.stop()
        tasks += self._watching
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._failure is not None:
            raise self._failure
        return 0

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        """No part of the service ends on its own: a bug ends all of it, and systemd starts it anew."""
        try:
            await work
        except UpdatedError as error:
            self._fail(error)
        except Exception as error:
            log.exception("a bug in `updated`")
            self._fail(UpdatedError(f"internal error: {error!r}"))

    def _fail(self, error: UpdatedError) -> None:
        self._failure = error
        self._on_bus.set()
        self._stop.set()

    async def _serve_bus(self) -> None:
        from updated.api.server import BUS_NAMES, NameTakenError, serve

        first = True
        await self._runner.resumed.wait()
        while True:
            lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            try:
                server = await serve(self._agent, on_lost=lost.set_result)
            except NameTakenError:
                raise
            except DeviceError as error:
                if first:
                    log.warning("going on without D-Bus: %s", error)
            else:
                log.info("on the bus as %s", ", ".join(BUS_NAMES))
                self._server = server
                server.poller_changed()  # perhaps, while it connected
                self._on_bus.set()
                try:
                    log.warning("%s", await lost)
                finally:
                    self._server = None
                    await server.close()
            first = False
            self._on_bus.set()
            await asyncio.sleep(BUS_RETRY)

    async def use_sources_of(self, setting: Setting) -> None:
        """Raises ConfigError."""
        self._replace(await self._sources_of(setting))
        await self._watch()

    async def _sources_of(self, setting: Setting) -> Sequence[Source]:
        return await make_sources(
            setting,
            self._options.runtime_directory,
            may_poll=self._runner.shown.may_poll,
            warn=log.warning,
        )

    def _replace(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self._runner.offers.replace(sources)
        self._agent.poller = next((one for one in sources if isinstance(one, Poller)), None)
        if self._server is not None:
            self._server.poller_changed()

    async def _watch(self) -> None:
        """The sources that are there now, and no others."""
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        self._watching = [
            asyncio.create_task(self._guarded(source.watch(self._runner.look))) for source in self._sources
        ]

    async def _reloads(self) -> None:
        while True:
            await self._reload.wait()
            self._reload.clear()
            self._notifier.reloading()
            await self._reload_now()
            self._notifier.ready()

    async def _reload_now(self) -> None:
        """Read the configuration again once nothing is being installed; a bad one changes nothing."""
        while True:
            await self._runner.rest()
            try:
                system, config = await asyncio.to_thread(_load, self._options)
                device = await _open_device(self._options, system, config)
                before = self._runner.setting
                memory = before.locations.data_directory
                setting = await make_setting(device, config, before.gate, memory, before)
                sources = await self._sources_of(setting)
            except UpdatedError as error:
                log.error("not reloaded: %s", error)
                return
            if not self._runner.busy:  # else what was read of the slots is about to be wrong
                break
        # All at once: nobody's request may begin in between.
        self._journal.use(EventLogs(system.logs, log.warning))
        self._replace(sources)
        self._runner.reconfigure(setting)
        await self._watch()
        log.info("configuration reloaded")


class _Status:
    """A Listener that keeps `systemctl status` true."""

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier
        self._detail = ""

    def operation(self, operation: str) -> None:
        if operation == "idle":  # the steps are over
            self._notifier.status(self._detail)

    def step(self, percentage: int, message: str, depth: int) -> None:
        self._notifier.status(f"{percentage}% {message}")

    def last_error(self, text: str) -> None:
        pass

    def completed(self, result: int) -> None:
        pass

    def state(self, state: str, detail: str) -> None:
        self._detail = detail
        self._notifier.status(detail)

    def transfer(self, transfer: Transfer) -> None:
        pass
