"""RAUC's script interface, with real shell scripts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest

from updated.boot.base import make_bootloader
from updated.boot.custom import Custom
from updated.errors import DeviceError

BACKEND = """#!/bin/sh
state={folder}
case "$1" in
get-primary) cat $state/primary;;
set-primary) echo "$2" >$state/primary; echo good >$state/$2;;
get-state) cat $state/$2;;
set-state) echo "$3" >$state/$2;;
get-current) echo A; echo ignored;;
esac
"""


def script(folder: Path, text: str) -> str:
    path = folder / "backend"
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def backend(tmp_path: Path) -> str:
    for name, value in (("primary", "A"), ("A", "good"), ("B", "bad")):
        (tmp_path / name).write_text(value + "\n")
    return script(tmp_path, BACKEND.format(folder=tmp_path))


def test_the_script_is_asked_and_told(backend: str) -> None:
    custom = make_bootloader("custom", ["A", "B"], custom_backend=backend)
    assert asyncio.run(custom.get_primary()) == "A"
    assert asyncio.run(custom.get_state("B")) is False
    asyncio.run(custom.set_primary("B"))
    assert asyncio.run(custom.get_primary()) == "B"
    assert asyncio.run(custom.get_state("B")) is True
    asyncio.run(custom.set_state("A", good=False))
    assert asyncio.run(custom.get_state("A")) is False
    assert asyncio.run(custom.get_current()) == "A"


@pytest.mark.parametrize(
    ("text", "call", "expected"),
    [
        ("echo system7", "get_primary", "custom backend: 'system7' does not match any configured bootname"),
        ("echo maybe", "get_state", 'does not match "good" or "bad": \'maybe\''),
        ("echo broken >&2; exit 3", "get_state", "failed with exit code 3: broken"),
        ("kill -9 $$", "get_state", "failed with exit code -9"),
        ("exit 1", "get_current", "failed with exit code 1"),
        ("true", "get_current", "no output"),
        ("exit 1", "set_primary", "failed with exit code 1"),
        ("echo B", "set_primary", "did not keep its primary: expected A, got B"),
        ("echo bad", "set_state", "did not keep the state of A: expected good, got bad"),
    ],
)
def test_wrong_answers_are_device_errors(tmp_path: Path, text: str, call: str, expected: str) -> None:
    custom = make_bootloader("custom", ["A", "B"], custom_backend=script(tmp_path, f"#!/bin/sh\n{text}\n"))
    calls: dict[str, Callable[[], Coroutine[object, object, object]]] = {
        "get_primary": custom.get_primary,
        "get_current": custom.get_current,
        "get_state": lambda: custom.get_state("A"),
        "set_primary": lambda: custom.set_primary("A"),
        "set_state": lambda: custom.set_state("A", good=True),
    }
    with pytest.raises(DeviceError) as caught:
        asyncio.run(calls[call]())
    assert expected in str(caught.value)


def test_a_script_that_hangs_is_ended_with_all_it_started(tmp_path: Path) -> None:
    custom = Custom(script(tmp_path, "#!/bin/sh\nsleep 60\n"), ["A"], timeout=0.2)
    started = time.monotonic()
    with pytest.raises(DeviceError, match=r"did not finish within 0.2 s"):
        asyncio.run(custom.get_primary())
    assert time.monotonic() - started < 5


def test_a_missing_script_is_named(tmp_path: Path) -> None:
    custom = Custom(str(tmp_path / "backend"), ["A"])
    with pytest.raises(DeviceError, match=r"Failed to execute .*backend: No such file"):
        asyncio.run(custom.get_primary())
