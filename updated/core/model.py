"""The words of the project as frozen dataclasses and protocols.  No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

TIMESTAMP: Final = "%Y-%m-%dT%H:%M:%SZ"  # UTC, as RAUC writes it down (src/include/slot.h)

BootStatus = Literal["good", "bad", "unknown"]
SlotState = Literal["booted", "active", "inactive"]


@dataclass(frozen=True, slots=True)
class Slot:
    """One `[slot.<class>.<index>]` of system.conf (RAUC reference, "Slot sections")."""

    name: str  # "rootfs.0"
    slot_class: str  # "rootfs"
    index: int
    device: str  # path as configured; a block device or a regular file
    type: str = "raw"
    description: str = ""
    bootname: str | None = None
    parent: str | None = None  # name of the parent slot; None for a root slot
    readonly: bool = False
    allow_mounted: bool = False
    install_same: bool = True
    resize: bool = False
    extra_mkfs_opts: tuple[str, ...] = ()
    extra_mount_opts: str = ""
    region_start: int | None = None  # bytes
    region_size: int | None = None  # bytes
    size_limit: int | None = None  # bytes
    efi_loader: str | None = None
    efi_cmdline: str | None = None


@dataclass(frozen=True, slots=True)
class SlotStatus:
    """What the slot status file remembers of one slot.  Empty strings and None: the key is absent.

    Source: RAUC src/status_file.c; timestamps are `%Y-%m-%dT%H:%M:%SZ`, UTC.
    """

    bundle_compatible: str | None = None
    bundle_version: str | None = None
    bundle_description: str | None = None
    bundle_build: str | None = None
    bundle_hash: str | None = None  # manifest hash, lower-case hex
    status: str | None = None  # ok | failed | pending
    sha256: str | None = None  # of the image, lower-case hex
    size: int = 0  # bytes; only meaningful with sha256
    installed_transaction: str | None = None
    installed_timestamp: str | None = None
    installed_count: int = 0
    activated_timestamp: str | None = None
    activated_count: int = 0


@dataclass(frozen=True, slots=True)
class SlotReport:
    """One slot as `GetSlotStatus` shows it."""

    slot: Slot
    state: SlotState
    status: SlotStatus
    boot_status: BootStatus | None  # None: no bootname
    mountpoint: str | None


@dataclass(frozen=True, slots=True)
class InstallArgs:
    """What a caller may ask of one install (RAUC's InstallBundle arguments)."""

    ignore_compatible: bool = False
    ignore_version_limit: bool = False
    transaction_id: str = ""
    require_manifest_hash: str = ""


@dataclass(frozen=True, slots=True)
class Access:
    """How a caller wants his server reached (RAUC's InstallBundle arguments); empty: as configured."""

    tls_cert: str = ""  # PEM file or PKCS#11 URL, and so the next
    tls_key: str = ""
    tls_ca: str = ""  # PEM file
    tls_no_verify: bool = False
    headers: tuple[str, ...] = ()  # "Name: value"


@dataclass(frozen=True, slots=True)
class Expected:
    """What an index says of a bundle: nothing of it is trusted, all of it must turn out to be true."""

    version: str = ""
    size: int = 0  # bytes of the bundle; 0: not said
    sha256: str = ""  # of the whole bundle, lower-case hex
    etag: str = ""  # of the object that was looked at


@dataclass(frozen=True, slots=True)
class Offer:
    """Somebody offers a bundle: a request, a stick, the drop folder, an index entry."""

    source: str  # "request", "usb", "folder", "autoinstall", "ota"
    location: str  # local path or http(s) URL
    args: InstallArgs = field(default_factory=InstallArgs)
    access: Access = field(default_factory=Access)
    expected: Expected = field(default_factory=Expected)


@dataclass(frozen=True, slots=True)
class Transfer:
    """How far the bytes of the running install are."""

    done: int  # bytes of image data written
    total: int  # bytes of image data to write
    rate: float  # bytes per second, smoothed
    eta: float  # seconds left; -1 while unknown
    fetched: int = 0  # bytes of the bundle that were read so far
    bundle: int = 0  # bytes of the whole bundle


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a transaction ended; also one line of the history."""

    transaction: str  # UUID
    source: str  # as in Offer
    location: str
    version: str  # "" if the manifest was never verified, and so the next two
    manifest_hash: str
    target: str  # root slot of the target group
    code: str  # installed confirmed failed refused cancelled fallback rollback hook
    text: str  # for a person
    time: str  # %Y-%m-%dT%H:%M:%SZ


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A bundle that automatic sources must not try again."""

    manifest_hash: str
    version: str
    reason: str
    time: str  # %Y-%m-%dT%H:%M:%SZ
    boot_id: str  # of the boot in which it was condemned
    failed_boots: tuple[str, ...] = ()  # ids of the boots in which it ran, or tried to
    journal: tuple[str, ...] = ()  # the last lines of the last of them, where they were readable


class Reader(Protocol):
    """Random access to a bundle's bytes: a file, HTTP ranges.  All bytes are untrusted."""

    @property
    def size(self) -> int:
        """Size of the whole bundle in bytes."""
        ...

    @property
    def name(self) -> str:
        """Path or URL, for messages."""
        ...

    @property
    def remote(self) -> bool:
        """True: its bytes come over a network, so none should be fetched twice."""
        ...

    @property
    def fetched(self) -> int:
        """Bytes taken from the source so far, repeated ones included."""
        ...

    def expect(self, ranges: Iterable[tuple[int, int]]) -> None:
        """The reads that come next, as (offset, length), in this order and each once.

        A hint, taken up lazily: a server streams them without a pause between them.  What else is read is
        served too, only slower.  A new call replaces what is left of the last one; `()` ends it.
        """
        ...

    async def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`.  Raises SourceError when they cannot be had."""
        ...

    def forget(self, offset: int, length: int) -> None:
        """These bytes were bad: the next read of them must not be served from a cache.  Does not block."""
        ...

    async def close(self) -> None: ...


class SlotWriter(Protocol):
    """A slot opened for one image.  Methods block: call them from a worker thread."""

    @property
    def capacity(self) -> int:
        """Bytes the slot can take."""
        ...

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write all of `data` at `offset` of the image.  Raises DeviceError (EIO, ENOSPC, ...)."""
        ...

    def sync(self) -> None:
        """Flush what was written to the medium (fdatasync).  Raises DeviceError."""
        ...

    def read_back(self, offset: int, length: int) -> bytes:
        """What the medium holds, the page cache bypassed where the kernel allows it."""
        ...

    def close(self) -> None: ...


class Bootloader(Protocol):
    """What RAUC asks of a bootloader.  Every write is read back; all methods raise DeviceError."""

    async def get_primary(self) -> str | None:
        """Bootname that the bootloader would start next, None if it has none left."""
        ...

    async def set_primary(self, bootname: str) -> None:
        """Make `bootname` the one that starts next, with fresh attempts.  The only commit of an update."""
        ...

    async def get_state(self, bootname: str) -> bool:
        """True: good."""
        ...

    async def set_state(self, bootname: str, good: bool) -> None: ...

    async def get_current(self) -> str | None:
        """Bootname of the running system where the bootloader can tell, else None."""
        ...


class Listener(Protocol):
    """Whoever wants to know what the service does: the D-Bus interfaces, the journal, tests.

    Called from the event loop, must not block.  The order of calls during an install is RAUC's wire order
    (operation, last_error, step..., last_error, completed, operation).
    """

    def operation(self, operation: str) -> None:
        """`idle` or `installing`."""

    def step(self, percentage: int, message: str, depth: int) -> None:
        """RAUC's progress triple."""

    def last_error(self, text: str) -> None: ...

    def completed(self, result: int) -> None:
        """0 success, 1 failure; exactly once per accepted install."""

    def state(self, state: str, detail: str) -> None:
        """The machine is in another state; `detail` is a sentence for a person."""

    def transfer(self, transfer: Transfer) -> None: ...


def slot_groups(slots: Sequence[Slot]) -> dict[str, tuple[Slot, ...]]:
    """Root slot name -> the root slot and all slots below it through `parent`, root first."""
    by_name = {slot.name: slot for slot in slots}

    def root(slot: Slot) -> str:
        while slot.parent is not None:
            slot = by_name[slot.parent]
        return slot.name

    groups: dict[str, list[Slot]] = {slot.name: [slot] for slot in slots if slot.parent is None}
    for slot in slots:
        if slot.parent is not None:
            groups[root(slot)].append(slot)
    return {name: tuple(members) for name, members in groups.items()}
