"""A simulated Agent: installs are scripts, and a gate holds one where a test wants to look at it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from updated.api.port import NO_ACCESS, Outcome, Quarantined, SlotReport, Snapshot, SystemInfo, Transaction
from updated.bundle.manifest import Image, Manifest
from updated.core.gate import Hold, Stage
from updated.core.health import Judgement
from updated.core.model import Access, Listener, Offer, Slot, SlotStatus, Transfer
from updated.core.polling import PollStatus
from updated.errors import BundleError, DeviceError, Refused, UpdatedError

SYSTEM = SystemInfo(
    compatible="Test Board", variant="red", system_version="1.0", boot_slot="A", bootloader="noop"
)
BOOTED = SlotReport(
    slot=Slot("rootfs.0", "rootfs", 0, "/dev/null", bootname="A"),
    state="booted",
    status=SlotStatus(
        bundle_compatible="Test Board",
        bundle_version="1.0",
        bundle_hash="ab" * 32,
        status="ok",
        sha256="cd" * 32,
        size=5 * 2**32,
        installed_transaction="tx-1",
        installed_timestamp="2026-01-02T03:04:05Z",
        installed_count=3,
        activated_timestamp="2026-01-02T03:04:06Z",
        activated_count=2,
    ),
    boot_status="good",
    mountpoint="/",
)
DATA = SlotReport(
    slot=Slot("appfs.0", "appfs", 0, "/dev/zero", type="ext4", description="Apps", parent="rootfs.0"),
    state="active",
    status=SlotStatus(),
    boot_status=None,
    mountpoint=None,
)
OTHER = SlotReport(
    slot=Slot("rootfs.1", "rootfs", 1, "/dev/full", bootname="B"),
    state="inactive",
    status=SlotStatus(),
    boot_status="bad",
    mountpoint=None,
)
MANIFEST = Manifest(
    compatible="Test Board",
    version="2.0",
    description="the next one",
    format="verity",
    verity_hash=bytes(range(32)),
    verity_salt=bytes(32),
    verity_size=4096,
    hook_filename="hook.sh",
    hooks=("install-check",),
    handler_filename="handler.sh",
    handler_args="-x",
    images=(
        Image(
            "rootfs", filename="rootfs.img", type="raw", sha256="ef" * 32, size=2**40, hooks=("pre-install",)
        ),
        Image("appfs", variant="red", filename="app.ext4", type="ext4", adaptive=("block-hash-index",)),
    ),
    meta={"label": {"key": "value"}},
    hash="01" * 32,
)

HOLD = "hold"  # wait here until the test opens the gate


@dataclass(frozen=True, slots=True)
class Script:
    """What an install does: progress triples, transfers and holds, and how it ends ("" is success)."""

    events: tuple[tuple[int, str, int] | Transfer | str, ...]
    error: str = ""


CHECKING: tuple[tuple[int, str, int], ...] = (
    (0, "Installing", 1),
    (0, "Determining slot states", 2),
    (10, "Determining slot states done.", 2),
    (10, "Checking bundle", 2),
)
GOOD = Script(
    (
        *CHECKING,
        (20, "Checking bundle done.", 2),
        (40, "Updating slots", 2),
        (46, "Copying image to rootfs.1", 3),
        Transfer(done=500, total=1000, rate=100.0, eta=5.0),
        (70, "Copying image to rootfs.1", 3),
        HOLD,
        (99, "Copying image to rootfs.1 done.", 3),
        (99, "Updating slots done.", 2),
        (100, "Installing done.", 1),
    )
)
REJECTED = Script(
    (*CHECKING, (20, "Checking bundle failed.", 2), (100, "Installing failed.", 1)),
    error="Compatible mismatch: Expected 'Test Board' but bundle manifest has 'Other'",
)
BROKEN_WRITE = Script(
    (
        *CHECKING,
        (20, "Checking bundle done.", 2),
        (40, "Updating slots", 2),
        (46, "Copying image to rootfs.1", 3),
        (70, "Copying image to rootfs.1 failed.", 3),
        (99, "Updating slots failed.", 2),
        (100, "Installing failed.", 1),
    ),
    error="Installation error: Failed updating slot rootfs.1: Failed to copy data: No space left on device",
)
IDLE = Snapshot(
    state="idle",
    detail="Nothing to do",
    operation="idle",
    last_error="",
    progress=(0, "", 0),
    transfer=None,
    transaction=None,
    last=None,
)
MAX_HOLD = 86400  # seconds; as the default of the configuration


class FakePoller:
    """Satisfies updated.api.port.Poller; `attempt` is what a test scripts."""

    def __init__(self) -> None:
        self.next = 0
        self.now = PollStatus()
        self.asked = 0
        self.listener: Callable[[], None] | None = None

    def poll(self) -> None:
        self.asked += 1
        self.plan(self.next + 30_000_000)

    def next_poll(self) -> int:
        return self.next

    def status(self) -> PollStatus:
        return self.now

    def subscribe(self, changed: Callable[[], None]) -> None:
        self.listener = changed

    def plan(self, next_poll: int) -> None:
        self.next = next_poll
        self._changed()

    def attempt(self, status: PollStatus, next_poll: int) -> None:
        """An attempt ended: first the one is known, then the other."""
        self.now = status
        self._changed()
        self.plan(next_poll)

    def _changed(self) -> None:
        if self.listener is not None:
            self.listener()


class FakeAgent:
    """Satisfies updated.api.port.Agent."""

    def __init__(self, script: Script = GOOD, poller: FakePoller | None = None) -> None:
        self.script = script
        self.gate = asyncio.Event()
        self.gate.set()
        self.offers: list[Offer] = []
        self.marks: list[tuple[str, str]] = []
        self.poller = poller
        self.inspected: list[tuple[str, Access]] = []
        self.confirmed = 0
        self.reasons: list[str] = []  # of `why`
        self.asking: Stage | None = None  # the question that waits for consent
        self.answers: list[tuple[Stage, bool]] = []
        self.holds: dict[int, tuple[str, str, int, str]] = {}  # number -> who, why, seconds, owner
        self.forgotten: list[str] = []
        self.floor_error = ""
        self.beats: list[str] = []
        self.judged: list[Judgement] = []
        self.rejected: list[Quarantined] = []
        self.reboots = 0
        self.inspecting = asyncio.Event()  # closed: inspect() waits
        self.inspecting.set()
        self.primary_error = ""
        self.outcomes: list[Outcome] = []
        self.now = IDLE
        self.listeners: list[Listener] = []
        self._task: asyncio.Task[None] | None = None

    @property
    def system(self) -> SystemInfo:
        return SYSTEM

    def snapshot(self) -> Snapshot:
        return self.now

    def subscribe(self, listener: Listener) -> None:
        self.listeners.append(listener)

    def unsubscribe(self, listener: Listener) -> None:
        self.listeners.remove(listener)

    def submit(self, offer: Offer) -> None:
        if self._task is not None:
            raise Refused("Already processing a different method", rule="busy")
        self.offers.append(offer)
        self.operation("installing")
        self._task = asyncio.create_task(self._install(offer))

    async def inspect(self, path: str, access: Access = NO_ACCESS) -> Manifest:
        self.inspected.append((path, access))
        await self.inspecting.wait()
        if path.endswith("missing.raucb"):
            raise BundleError(f"Failed to open bundle for reading: {path}")
        if path.endswith("bug.raucb"):
            raise KeyError("a bug")
        return MANIFEST

    async def mark(self, state: str, identifier: str) -> tuple[str, str]:
        if self._task is not None:
            raise Refused("already processing a different method", rule="busy")
        if identifier not in ("booted", "other", "rootfs.0", "rootfs.1"):
            raise UpdatedError(f"Invalid slot name format: '{identifier}'")
        name = {"booted": "rootfs.0", "other": "rootfs.1"}.get(identifier, identifier)
        self.marks.append((state, identifier))
        return name, f"marked slot(s) {name} as {state}"

    async def slots(self) -> Sequence[SlotReport]:
        return [BOOTED, DATA, OTHER]

    async def primary(self) -> str:
        if self.primary_error:
            raise DeviceError(self.primary_error)
        return "rootfs.0"

    async def cancel(self) -> None:
        if self._task is None:
            raise Refused("No install is running", rule="idle")
        self._task.cancel()

    async def confirm(self) -> None:
        if self.now.state != "confirming":
            raise Refused("Nothing is to be confirmed", rule="state", hint="look at `updated status`")
        self.confirmed += 1
        self.state("idle", "Confirmed")

    async def rollback(self) -> str:
        return "rootfs.1"

    def pause(self) -> None:
        if self._task is None:
            raise Refused("No install is running", rule="idle")
        self._show(replace(self.now, paused=True))

    def resume(self) -> None:
        if not self.now.paused:
            raise Refused("Nothing is paused", rule="idle")
        self._show(replace(self.now, paused=False))

    async def why(self) -> Sequence[str]:
        return self.reasons

    async def consent(self, stage: Stage, allow: bool) -> None:
        if self.asking != stage:
            raise Refused(f"Nobody asked for consent to the {stage}", rule="consent")
        self.asking = None
        self.answers.append((stage, allow))

    def inhibit(self, who: str, why: str, seconds: int, owner: str) -> int:
        if seconds > MAX_HOLD:
            raise Refused(f"A hold lasts at most {MAX_HOLD} s", rule="max-hold", hint="ask for less")
        number = max(self.holds, default=0) + 1
        self.holds[number] = who, why, seconds, owner
        return number

    def release(self, number: int) -> None:
        if number not in self.holds:
            raise Refused(f"There is no hold {number}", rule="inhibitor")
        del self.holds[number]

    def forget_owner(self, owner: str) -> None:
        self.forgotten.append(owner)
        self.holds = {number: hold for number, hold in self.holds.items() if hold[-1] != owner}

    async def reset_floor(self) -> None:
        if self.floor_error:
            raise DeviceError(self.floor_error)
        self._show(replace(self.now, floor=""))

    def heartbeat(self, application: str) -> None:
        if application != "kiosk":
            raise Refused(f"No heartbeat of {application!r} is expected", rule="heartbeat")
        self.beats.append(application)

    def judgements(self) -> Sequence[Judgement]:
        return self.judged[::-1]

    def health(self, judgement: Judgement) -> None:
        """The running system was judged."""
        self.judged.append(judgement)
        self._show(replace(self.now, health=judgement))

    def quarantine(self) -> Sequence[Quarantined]:
        return self.rejected[::-1]

    async def lift(self, manifest_hash: str) -> int:
        left = [one for one in self.rejected if manifest_hash not in ("", one.manifest_hash)]
        lifted = len(self.rejected) - len(left)
        if manifest_hash and not lifted:
            raise Refused(f"Bundle {manifest_hash} is not quarantined", rule="quarantine")
        self.rejected = left
        return lifted

    async def reboot(self) -> None:
        if self.now.state != "reboot-pending":
            raise Refused("Nothing waits for a reboot", rule="idle")
        self.reboots += 1

    def hold(self, hold: Hold | None) -> None:
        """Something waits, or does no longer."""
        self._show(replace(self.now, hold=hold))

    def _show(self, snapshot: Snapshot) -> None:
        self.now = snapshot
        for listener in self.listeners:
            listener.state(snapshot.state, snapshot.detail)

    def history(self, limit: int) -> Sequence[Outcome]:
        return self.outcomes[::-1][:limit]

    def operation(self, operation: str) -> None:
        self.now = replace(self.now, operation=operation)
        for listener in self.listeners:
            listener.operation(operation)

    def step(self, percentage: int, message: str, depth: int) -> None:
        self.now = replace(self.now, progress=(percentage, message, depth))
        for listener in self.listeners:
            listener.step(percentage, message, depth)

    def last_error(self, text: str) -> None:
        self.now = replace(self.now, last_error=text)
        for listener in self.listeners:
            listener.last_error(text)

    def completed(self, result: int) -> None:
        for listener in self.listeners:
            listener.completed(result)

    def state(self, state: str, detail: str) -> None:
        self.now = replace(self.now, state=state, detail=detail)
        for listener in self.listeners:
            listener.state(state, detail)

    def transfer(self, transfer: Transfer) -> None:
        self.now = replace(self.now, transfer=transfer)
        for listener in self.listeners:
            listener.transfer(transfer)

    async def _install(self, offer: Offer) -> None:
        transaction = Transaction(
            id=offer.args.transaction_id or str(uuid.uuid4()),
            source=offer.source,
            location=offer.location,
            compatible="",
            version="",
            manifest_hash="",
            target="rootfs.1",
        )
        self.now = replace(self.now, transaction=transaction)
        self.last_error("")
        self.state("install", f"Installing {offer.location}")
        try:
            await self._play()
            error, code = self.script.error, "failed" if self.script.error else "installed"
        except asyncio.CancelledError:
            error, code = "Cancelled", "cancelled"
            self.step(100, "Installing failed.", 1)
        if error:
            self.last_error(error)
        self._finish(transaction, code, error)

    async def _play(self) -> None:
        for event in self.script.events:
            if isinstance(event, str):
                await self.gate.wait()
            elif isinstance(event, Transfer):
                self.transfer(event)
            else:
                self.step(*event)
            await asyncio.sleep(0)

    def _finish(self, transaction: Transaction, code: str, error: str) -> None:
        outcome = Outcome(
            transaction=transaction.id,
            source=transaction.source,
            location=transaction.location,
            version="2.0",
            manifest_hash="01" * 32,
            target=transaction.target,
            code=code,
            text=error or "Installed",
            time="2026-01-02T03:04:05Z",
        )
        self.outcomes.append(outcome)
        self.now = replace(self.now, transfer=None, transaction=None, last=outcome)
        self._task = None
        self.state("idle", "Nothing to do")
        self.completed(1 if error else 0)
        self.operation("idle")
