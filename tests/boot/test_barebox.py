"""barebox's state through the real barebox-state, in a file."""

from __future__ import annotations

import asyncio
import os
import struct
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

import pytest

from updated.boot.base import make_bootloader
from updated.core.model import Bootloader
from updated.errors import ConfigError, DeviceError

pytestmark = pytest.mark.root  # a folder of /dev is made

COPIES = (0, 256, 512)  # bytes; barebox keeps three of the state
BY_PARTUUID = Path("/dev/disk/by-partuuid")  # barebox-state looks there for its device

Node: TypeAlias = Mapping[str, "str | int | tuple[int, ...] | Node"]
State = Callable[..., str]


def device_tree(root: Node) -> bytes:
    """A flattened device tree (devicetree specification, chapter 5)."""
    strings, body = bytearray(), bytearray()

    def aligned(data: bytes) -> bytes:
        return data + bytes(-len(data) % 4)

    def add(name: str, node: Node) -> None:
        body.extend(struct.pack(">I", 1) + aligned(name.encode() + b"\0"))
        for key, value in node.items():
            if isinstance(value, Mapping):
                continue
            numbers = (value,) if isinstance(value, int) else value
            data = (
                numbers.encode() + b"\0"
                if isinstance(numbers, str)
                else struct.pack(f">{len(numbers)}I", *numbers)
            )
            body.extend(struct.pack(">III", 3, len(data), len(strings)) + aligned(data))
            strings.extend(key.encode() + b"\0")
        for key, value in node.items():
            if isinstance(value, Mapping):
                add(key, value)
        body.extend(struct.pack(">I", 2))

    add("", root)
    body.extend(struct.pack(">I", 9))
    total = 56 + len(body) + len(strings)
    head = (0xD00DFEED, total, 56, 56 + len(body), 40, 17, 16, 0, len(strings), len(body))
    return struct.pack(">10I", *head) + bytes(16) + body + strings


def tree(storage: Path, *, lockable: bool = True) -> Node:
    cells: Node = {"#address-cells": 1, "#size-cells": 1}

    def variable(place: int, default: int) -> Node:
        return {"reg": (place, 4), "type": "uint32", "default": default}

    def target(place: int, priority: int) -> Node:
        return {
            **cells,
            f"remaining_attempts@{place:x}": variable(place, 3),
            f"priority@{place + 4:x}": variable(place + 4, priority),
        }

    lock: Node = {"attempts_locked@14": variable(20, 0)} if lockable else {}
    outside = os.path.relpath(storage, BY_PARTUUID)
    part: Node = {"reg": (0, 0x1000), "label": "state", "partuuid": outside, "phandle": 1}
    state: Node = {
        **cells,
        "compatible": "barebox,state",
        "magic": 0x4D433230,
        "backend-type": "raw",
        "backend": 1,
        "backend-storage-type": "direct",
        "backend-stridesize": 256,
        "bootstate": {**cells, "system0": target(0, 20), "system1": target(8, 10), **lock},
    }
    partitions: Node = {**cells, "compatible": "fixed-partitions", "part@0": part}
    return {**cells, "aliases": {"state": "/state"}, "disk": {"partitions": partitions}, "state": state}


@pytest.fixture
def dtb(tmp_path: Path) -> Path:
    BY_PARTUUID.mkdir(exist_ok=True)
    (tmp_path / "state").write_bytes(bytes(4096))
    (tmp_path / "dtb").write_bytes(device_tree(tree(tmp_path / "state")))
    return tmp_path / "dtb"


@pytest.fixture
def state(dtb: Path) -> State:
    def call(*changes: str, get: str = "bootstate.") -> str:
        """Set variables as barebox would; the answer is the dump of those that begin with `get`."""
        words = [word for change in changes for word in ("-s", f"bootstate.{change}")]
        done = subprocess.run(
            ["barebox-state", "-i", str(dtb), *words], check=True, capture_output=True, text=True
        )
        done = subprocess.run(
            ["barebox-state", "-i", str(dtb), "-d"], check=True, capture_output=True, text=True
        )
        return " ".join(
            line.removeprefix("bootstate.") for line in done.stdout.split() if line.startswith(get)
        )

    call("system0.priority=21")
    call("system0.priority=20")
    return call


def barebox(dtb: Path, **options: object) -> Bootloader:
    return make_bootloader("barebox", ["system0", "system1"], dtbpath=str(dtb), **options)  # type: ignore[arg-type]


FRESH = (
    "system0.remaining_attempts=3 system0.priority=20 system1.remaining_attempts=3 system1.priority=10"
    " attempts_locked=0"
)


def test_the_highest_priority_with_attempts_left_is_primary(dtb: Path, state: State) -> None:
    assert state() == FRESH
    loader = barebox(dtb)
    assert asyncio.run(loader.get_primary()) == "system0"
    state("system0.remaining_attempts=0")
    assert asyncio.run(loader.get_primary()) == "system1"
    assert asyncio.run(loader.get_state("system0")) is False
    state("system1.priority=0")
    assert asyncio.run(loader.get_primary()) is None
    assert asyncio.run(loader.get_state("system1")) is False
    assert asyncio.run(loader.get_current()) is None


def test_an_install_and_its_confirmation(dtb: Path, state: State) -> None:
    loader = barebox(dtb, attempts=4, attempts_primary=2)
    asyncio.run(loader.set_state("system1", good=False))
    assert state(get="bootstate.system1") == "system1.remaining_attempts=0 system1.priority=0"
    asyncio.run(loader.set_primary("system1"))
    assert state() == (
        "system0.remaining_attempts=3 system0.priority=10 system1.remaining_attempts=2 system1.priority=20"
        " attempts_locked=0"
    )
    asyncio.run(loader.set_state("system1", good=True))
    assert state(get="bootstate.system1") == "system1.remaining_attempts=4 system1.priority=20"


def test_a_bad_one_stays_bad_when_another_becomes_primary(dtb: Path, state: State) -> None:
    loader = barebox(dtb)
    asyncio.run(loader.set_state("system1", good=False))
    asyncio.run(loader.set_primary("system0"))
    assert state(get="bootstate.system1") == "system1.remaining_attempts=0 system1.priority=0"


def test_both_counters_empty_and_the_way_back(dtb: Path, state: State) -> None:
    loader = barebox(dtb)
    state("system0.remaining_attempts=0", "system1.remaining_attempts=0")
    assert asyncio.run(loader.get_primary()) is None
    assert [asyncio.run(loader.get_state(name)) for name in ("system0", "system1")] == [False, False]
    asyncio.run(loader.set_state("system1", good=True))  # what runs, marked good on an ordinary boot
    assert asyncio.run(loader.get_primary()) == "system1"


def test_good_after_bad_may_start_again_after_the_others(dtb: Path, state: State) -> None:
    loader = barebox(dtb)
    asyncio.run(loader.set_state("system1", good=False))
    asyncio.run(loader.set_state("system1", good=True))
    assert state(get="bootstate.system1") == "system1.remaining_attempts=3 system1.priority=10"
    assert asyncio.run(loader.get_primary()) == "system0"


def test_nothing_is_written_when_nothing_changes(dtb: Path, state: State) -> None:
    storage = dtb.with_name("state")
    loader = barebox(dtb, lock_counter=True)
    asyncio.run(loader.set_state("system0", good=True))
    before = storage.read_bytes()
    os.utime(storage, ns=(0, 0))
    asyncio.run(loader.set_state("system0", good=True))
    assert (storage.stat().st_mtime_ns, storage.read_bytes()) == (0, before)
    state("system0.remaining_attempts=2")  # barebox has counted
    asyncio.run(loader.set_state("system0", good=True))
    assert state(get="bootstate.system0.r") == "system0.remaining_attempts=3"


def test_all_that_changes_is_written_by_one_call(
    dtb: Path, state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = recorder(tmp_path, monkeypatch)
    state("system0.remaining_attempts=1", "attempts_locked=1")
    calls.unlink()
    asyncio.run(barebox(dtb, lock_counter=True, statename="state").set_primary("system1"))
    writes = [line for line in calls.read_text().splitlines() if " -s " in line]
    assert writes == [
        f"-n state -i {dtb} -s bootstate.system0.priority=10 -s bootstate.system1.priority=20"
        " -s bootstate.attempts_locked=0"
    ]


def test_counters_are_locked_once_the_primary_is_good(dtb: Path, state: State) -> None:
    loader = barebox(dtb, lock_counter=True)
    asyncio.run(loader.set_state("system0", good=True))
    assert state(get="bootstate.att") == "attempts_locked=1"
    asyncio.run(loader.set_primary("system1"))
    assert state(get="bootstate.att") == "attempts_locked=0"
    asyncio.run(loader.set_state("system0", good=True))  # still runs, and the new one must be counted
    assert state(get="bootstate.att") == "attempts_locked=0"
    asyncio.run(loader.set_state("system1", good=True))
    assert state(get="bootstate.att") == "attempts_locked=1"


def test_without_lock_counter_the_lock_is_left_alone(dtb: Path, state: State) -> None:
    state("attempts_locked=1")
    asyncio.run(barebox(dtb).set_primary("system1"))
    assert state(get="bootstate.att") == "attempts_locked=1"


def test_a_state_that_cannot_be_locked_is_still_confirmed(
    dtb: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dtb.write_bytes(device_tree(tree(dtb.with_name("state"), lockable=False)))
    subprocess.run(["barebox-state", "-i", dtb, "-s", "bootstate.system0.remaining_attempts=1"], check=True)
    loader = barebox(dtb, lock_counter=True)
    asyncio.run(loader.set_state("system0", good=True))
    assert asyncio.run(loader.get_state("system0"))
    assert (
        "attempts cannot be locked: barebox-state failed with exit code: 1 (no such variable:" in caplog.text
    )


def test_one_damaged_copy_does_no_harm(dtb: Path, state: State) -> None:
    storage = dtb.with_name("state")
    state("system1.remaining_attempts=2")
    data = bytearray(storage.read_bytes())
    data[COPIES[0] + 20] ^= 0xFF
    storage.write_bytes(data)
    asyncio.run(barebox(dtb).set_state("system0", good=False))
    assert state(get="bootstate.system1") == "system1.remaining_attempts=2 system1.priority=10"


@pytest.mark.parametrize("damage", ["torn", "blank", "erased", "empty"])
def test_defaults_are_never_written_over_a_damaged_state(dtb: Path, state: State, damage: str) -> None:
    storage = dtb.with_name("state")
    data = bytearray(storage.read_bytes())
    for copy in COPIES:
        data[copy + 20] ^= 0xFF
    storage.write_bytes(
        {"torn": bytes(data), "blank": bytes(4096), "erased": b"\xff" * 4096, "empty": b""}[damage]
    )
    before = storage.read_bytes()
    loader = barebox(dtb)
    for call in (
        loader.get_primary,
        lambda: loader.set_primary("system1"),
        lambda: loader.get_state("system0"),
        lambda: loader.set_state("system0", good=True),
    ):
        with pytest.raises(DeviceError, match=r"^barebox backend: barebox's state is not valid: ") as caught:
            asyncio.run(call())
        assert "barebox makes a new one" in caught.value.hint
    assert storage.read_bytes() == before


def test_a_bootname_without_variables_is_named(dtb: Path, state: State) -> None:
    loader = make_bootloader("barebox", ["A", "B"], dtbpath=str(dtb))
    with pytest.raises(
        DeviceError, match=r"exit code: 1 \(no such variable: bootstate.A.priority\)"
    ) as caught:
        asyncio.run(loader.get_primary())
    assert "barebox-state -d" in caught.value.hint


def test_an_unknown_state_or_device_tree_is_an_error(dtb: Path, state: State) -> None:
    with pytest.raises(DeviceError, match=r"exit code: 1 \(no such node: other\)"):
        asyncio.run(barebox(dtb, statename="other").get_primary())
    with pytest.raises(DeviceError, match="barebox-state failed with exit code"):
        asyncio.run(barebox(dtb.with_name("missing")).get_primary())


@pytest.mark.parametrize("answer", ["", "20", "20 x 3 3", "20 3 10 3 4", "-1 3 10 3"])
def test_wrong_answers_are_device_errors(
    dtb: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    recorder(tmp_path, monkeypatch, f"printf '%s\\n' {answer}" if answer else "exit 0")
    with pytest.raises(DeviceError, match="Failed to parse value: expected 4 numbers, got "):
        asyncio.run(barebox(dtb).get_primary())


def test_a_write_that_does_not_hold_is_an_error(
    dtb: Path, state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder(tmp_path, monkeypatch, 'case "$*" in *" -s "*) exit 0;; esac')
    with pytest.raises(DeviceError, match=r"did not keep bootstate.system0.priority: expected 10, got 20"):
        asyncio.run(barebox(dtb).set_primary("system1"))


def test_a_missing_tool_is_named_with_its_package(dtb: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(DeviceError, match="Failed to execute barebox-state") as caught:
        asyncio.run(barebox(dtb).get_primary())
    assert "dt-utils" in caught.value.hint


def test_only_barebox_locks_counters() -> None:
    with pytest.raises(ConfigError, match="not supported by selected bootloader: grub"):
        make_bootloader("grub", ["A"], lock_counter=True)


def recorder(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str = "") -> Path:
    """Another barebox-state in front of the real one; the answer is the file with a line for each call."""
    calls = folder / "calls"
    script = folder / "barebox-state"
    real = "" if body.startswith(("printf", "exit")) else 'exec /usr/bin/barebox-state "$@"'
    script.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >>{calls}\n{body}\n{real}\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return calls
