"""What is examined: this device as its configuration describes it, read without changing anything.

What the service keeps is read from copies: reading it in place would set broken files aside.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Final

from updated import devices
from updated.config.agent_toml import DEFAULT_DATA_DIRECTORY, AgentConfig, data_directory
from updated.config.system_conf import SystemConfig
from updated.core.model import Slot, SlotState
from updated.doctor.finding import Finding, error, unknown
from updated.document import MAX_FILE
from updated.errors import DeviceError
from updated.host import proc
from updated.host.namespace import own_mount_namespace
from updated.host.trusted_time import TrustedTime
from updated.install.device import Device, open_device
from updated.slots.status_store import CentralStore
from updated.store import Store

NOWHERE: Final = Path("/nonexistent")  # Debian policy 9.2.3: it never is
AS_ROOT: Final = "Ask again as root."
CENTRAL: Final = "central.raucs"
DBUS_POLICIES: Final = (  # dbus-daemon(1), "INTEGRATING SYSTEM SERVICES"
    Path("/etc/dbus-1/system.d"),
    Path("/run/dbus-1/system.d"),
    Path("/usr/share/dbus-1/system.d"),
)


@dataclass(frozen=True, slots=True)
class Places:
    """Where the system tells of itself."""

    cmdline: Path = proc.CMDLINE
    boot_id: Path = proc.BOOT_ID
    mountinfo: Path = devices.MOUNTINFO
    sysfs: Path = devices.SYSFS
    watchdog: Path = Path("/dev/watchdog")
    root: Path = Path("/")  # of the running system, for its build time
    fw_env_config: Path = Path("/etc/fw_env.config")
    dbus_policies: tuple[Path, ...] = DBUS_POLICIES
    systemd: Path = Path("/run/systemd/system")  # sd_booted(3)
    bus: Path = Path("/run/dbus/system_bus_socket")


@dataclass(frozen=True, slots=True)
class Subject:
    """All that the checks look at."""

    places: Places
    now: datetime  # UTC
    root: bool
    agent: AgentConfig
    data: Path  # the data directory
    time: TrustedTime  # by which certificates are judged
    system: SystemConfig | None = None  # None: not readable
    device: Device | None = None  # None: system.conf is not readable, or the device hangs
    store: Store | None = None  # what the agent remembers; None: not readable
    memory_warnings: tuple[str, ...] = ()  # what is wrong with the files that remember
    boot_slot: str | None = None  # what runs, if that was said

    def failed(self, check: str, about: str, problem: Exception) -> Finding:
        """An error; but for somebody who may not look, something that is not known."""
        text = (isinstance(problem, OSError) and problem.strerror) or str(problem)
        if not self.root:
            return unknown(check, about, text, hint=AS_ROOT)
        return error(check, about, text, hint=getattr(problem, "hint", ""))

    def states(self) -> dict[str, SlotState] | None:
        """Slot name -> state; None: it is not known what runs."""
        if self.device is None:
            return None
        try:
            return dict(self.device.states())
        except DeviceError:
            return None

    @property
    def statusfile(self) -> Path | None:
        """None: each slot holds its own status."""
        return self.system.system.statusfile if self.system else None

    @property
    def slots(self) -> tuple[Slot, ...]:
        return self.system.slots if self.system else ()


async def with_device(subject: Subject, copies: Path) -> Subject:
    """Open the device with the slot status that is in `copies`.  Raises UpdatedError."""
    assert subject.system is not None
    system, tryboot = subject.system, subject.agent.tryboot
    if tryboot.device is not None:  # mounted for a moment: nobody else shall meet that, or be left with it
        with contextlib.suppress(DeviceError):
            own_mount_namespace()
    central = CentralStore(copies / CENTRAL)
    await central.load()
    said = [_original(text, copies / CENTRAL, subject.statusfile) for text in central.warnings[:1]]
    # Also where each slot has its own: to mount them would replay their journals.
    readable = replace(system, system=replace(system.system, statusfile=copies / CENTRAL))
    device = await open_device(
        readable,
        tryboot=tryboot,
        mount_folder=copies,
        cmdline=subject.places.cmdline,
        boot_id=subject.places.boot_id,
        override_boot_slot=subject.boot_slot,
    )
    return replace(subject, device=device, memory_warnings=(*subject.memory_warnings, *said))


def with_memory(subject: Subject, copies: Path) -> Subject:
    """Read what the agent remembers, from copies that are made in `copies`.  Blocks.  Raises OSError."""
    warnings: list[str] = []
    memory = copies / "data"
    memory.mkdir()
    files = [path for path in _listed(subject.data) if path.suffix == ".json" and path.is_file()]
    for path in files:
        _copy(path, memory / path.name)
    if subject.statusfile is not None and subject.statusfile.is_file():
        _copy(subject.statusfile, copies / CENTRAL)
    store = Store(memory, warnings.append)
    time = TrustedTime(memory, warnings.append, root=subject.places.root, wall=lambda: subject.now)
    told = tuple(_original(text, memory, subject.data) for text in warnings)
    return replace(subject, store=store, time=time, memory_warnings=told)


def data_of(agent: AgentConfig, system: SystemConfig | None) -> Path:
    """The data directory, as far as it can be known."""
    if system is not None:
        return data_directory(agent, system)
    return Path(agent.data_directory) if agent.data_directory else DEFAULT_DATA_DIRECTORY


def _original(text: str, copy: Path, original: Path | None) -> str:
    return text.replace(str(copy), str(original))


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:  # before the first start of the service
        return []


def _copy(path: Path, target: Path) -> None:
    """At most one byte more than whoever reads it takes: too large stays too large."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(handle, "rb") as file, target.open("wb") as copy:
        left = MAX_FILE + 1
        while left and (data := file.read(min(left, 1 << 16))):
            copy.write(data)
            left -= len(data)
