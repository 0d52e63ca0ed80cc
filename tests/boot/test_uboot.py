"""U-Boot's environment through the real fw_printenv and fw_setenv, in a file."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from updated.boot.base import make_bootloader
from updated.boot.uboot import UBoot
from updated.core.model import Bootloader
from updated.errors import DeviceError

SIZE = 0x4000

Printenv = Callable[[], dict[str, str]]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "env").write_bytes(bytes(SIZE))
    config = tmp_path / "fw_env.config"
    config.write_text(f"{tmp_path}/env 0x0 {SIZE:#x}\n")
    defaults = tmp_path / "defaults"
    defaults.write_text("BOOT_ORDER=A B\nBOOT_A_LEFT=3\nBOOT_B_LEFT=3\ntheirs=x y\n")
    subprocess.run(
        ["fw_setenv", "-c", config, "-f", defaults, "bootdelay", "2"], check=True, capture_output=True
    )
    return config


@pytest.fixture
def setenv(config: Path) -> Callable[..., object]:
    return lambda *arguments: subprocess.run(["fw_setenv", "-c", config, *arguments], check=True)


@pytest.fixture
def printenv(config: Path) -> Printenv:
    def call() -> dict[str, str]:
        done = subprocess.run(["fw_printenv", "-c", config], check=True, capture_output=True, text=True)
        return dict(line.split("=", 1) for line in done.stdout.splitlines())

    return call


@pytest.fixture
def uboot(config: Path) -> Bootloader:
    return make_bootloader("uboot", ["A", "B"], fw_env_config=str(config))


def test_the_first_with_attempts_left_is_primary(uboot: Bootloader, setenv: Callable[..., object]) -> None:
    assert asyncio.run(uboot.get_primary()) == "A"
    setenv("BOOT_A_LEFT", "0")
    assert asyncio.run(uboot.get_primary()) == "B"
    setenv("BOOT_ORDER", "rescue A B")
    assert asyncio.run(uboot.get_primary()) == "B"
    setenv("BOOT_B_LEFT", "nonsense")
    assert asyncio.run(uboot.get_primary()) is None
    setenv("BOOT_A_LEFT", "0xA")
    assert asyncio.run(uboot.get_primary()) == "A"


def test_bad_has_no_attempts_and_leaves_the_order(uboot: Bootloader, printenv: Printenv) -> None:
    asyncio.run(uboot.set_state("A", good=False))
    assert printenv() == {
        "BOOT_ORDER": "B",
        "BOOT_A_LEFT": "0",
        "BOOT_B_LEFT": "3",
        "theirs": "x y",
        "bootdelay": "2",
    }
    assert asyncio.run(uboot.get_state("A")) is False
    assert asyncio.run(uboot.get_state("B")) is True


def test_primary_comes_first_with_fresh_attempts(config: Path, printenv: Printenv) -> None:
    uboot = UBoot(["A", "B"], attempts=5, attempts_primary=12, config=str(config))
    asyncio.run(uboot.set_state("B", good=False))
    asyncio.run(uboot.set_primary("B"))
    assert (printenv()["BOOT_ORDER"], printenv()["BOOT_B_LEFT"]) == ("B A", "c")
    asyncio.run(uboot.set_state("B", good=True))
    assert (printenv()["BOOT_ORDER"], printenv()["BOOT_B_LEFT"]) == ("B A", "5")


def test_good_after_bad_gets_the_last_place(uboot: Bootloader, printenv: Printenv) -> None:
    asyncio.run(uboot.set_state("A", good=False))
    asyncio.run(uboot.set_state("A", good=True))
    assert (printenv()["BOOT_ORDER"], printenv()["BOOT_A_LEFT"]) == ("B A", "3")
    assert asyncio.run(uboot.get_primary()) == "B"


def test_when_all_are_bad_there_is_no_order_and_a_way_back(uboot: Bootloader, printenv: Printenv) -> None:
    asyncio.run(uboot.set_state("A", good=False))
    asyncio.run(uboot.set_state("B", good=False))
    assert "BOOT_ORDER" not in printenv()
    assert asyncio.run(uboot.get_primary()) is None
    assert asyncio.run(uboot.get_state("A")) is False
    asyncio.run(uboot.set_primary("B"))
    assert printenv()["BOOT_ORDER"] == "B A"
    assert asyncio.run(uboot.get_primary()) == "B"


def test_nothing_is_written_when_nothing_changes(uboot: Bootloader, tmp_path: Path) -> None:
    os.utime(tmp_path / "env", ns=(0, 0))
    asyncio.run(uboot.set_state("A", good=True))
    asyncio.run(uboot.set_primary("A"))
    assert (tmp_path / "env").stat().st_mtime_ns == 0


def test_both_variables_change_in_one_write(
    uboot: Bootloader, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = recorder(tmp_path, monkeypatch, 'exec /usr/bin/fw_setenv "$@"')
    asyncio.run(uboot.set_state("A", good=False))
    assert len(calls.read_text().splitlines()) == 1


def test_a_tool_without_scripts_gets_single_calls(
    uboot: Bootloader, printenv: Printenv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse = (
        'case "$*" in *" -s "*) echo "invalid option -- s" >&2; exit 1;; esac\nexec /usr/bin/fw_setenv "$@"'
    )
    calls = recorder(tmp_path, monkeypatch, refuse)
    asyncio.run(uboot.set_state("A", good=False))
    assert len(calls.read_text().splitlines()) == 3
    assert (printenv()["BOOT_ORDER"], printenv()["BOOT_A_LEFT"]) == ("B", "0")


def test_a_write_that_does_not_hold_is_an_error(
    uboot: Bootloader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder(tmp_path, monkeypatch, "echo lost >&2; exit 0")
    with pytest.raises(DeviceError, match=r"did not keep BOOT_ORDER: expected 'B', got 'A B' \(lost\)"):
        asyncio.run(uboot.set_state("A", good=False))


def test_ubootsown_tool_reports_what_is_not_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """u-boot-tools' fw_printenv prints what is set, complains about the rest and exits with 1."""
    script = tmp_path / "fw_printenv"
    script.write_text(
        '#!/bin/sh\nfor name in "$@"; do\n'
        'case $name in BOOT_ORDER) echo "BOOT_ORDER=A B";; BOOT_B_LEFT) echo BOOT_B_LEFT=2;;\n'
        '*) echo "## Error: \\"$name\\" not defined" >&2;; esac\ndone\nexit 1\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert asyncio.run(UBoot(["A", "B"]).get_primary()) == "B"


@pytest.mark.parametrize("damage", ["checksum", "blank"])
def test_defaults_are_never_written_over_a_damaged_environment(
    damage: str, uboot: Bootloader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = tmp_path / "env"
    data = bytearray(env.read_bytes()) if damage == "checksum" else bytearray(b"\xff" * SIZE)
    data[20] ^= 1
    env.write_bytes(data)
    # Both tools find defaults on a real device: libubootenv in a file, U-Boot's own built in.
    for tool in ("fw_printenv", "fw_setenv"):
        script = tmp_path / tool
        script.write_text(f'#!/bin/sh\nexec /usr/bin/{tool} -f {tmp_path}/defaults "$@"\n')
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    calls = (
        uboot.get_primary,
        lambda: uboot.set_primary("B"),
        lambda: uboot.get_state("A"),
        lambda: uboot.set_state("A", good=True),
    )
    for call in calls:
        with pytest.raises(
            DeviceError, match="U-Boot environment is not valid: Cannot read environment"
        ) as caught:
            asyncio.run(call())
        assert "saveenv" in caught.value.hint
    assert env.read_bytes() == data


def test_a_missing_tool_is_named_with_its_package(uboot: Bootloader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(DeviceError, match="Failed to execute fw_printenv") as caught:
        asyncio.run(uboot.get_primary())
    assert "libubootenv-tool" in caught.value.hint


def test_a_wrong_configuration_is_an_error(tmp_path: Path) -> None:
    uboot = make_bootloader("uboot", ["A"], fw_env_config=str(tmp_path / "missing"))
    with pytest.raises(
        DeviceError, match=r"^uboot backend: fw_printenv failed with exit code: \d+ \(.*corrupted\)"
    ):
        asyncio.run(uboot.get_primary())


def test_a_cancelled_write_is_brought_to_its_end(
    uboot: Bootloader, printenv: Printenv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = recorder(tmp_path, monkeypatch, 'sleep 0.3; exec /usr/bin/fw_setenv "$@"')

    async def scenario() -> None:
        task = asyncio.create_task(uboot.set_state("A", good=False))
        while not calls.exists():  # noqa: ASYNC110 - another process makes it
            await asyncio.sleep(0.01)
        task.cancel()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
    assert (printenv()["BOOT_ORDER"], printenv()["BOOT_A_LEFT"]) == ("B", "0")


def recorder(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> Path:
    """Another fw_setenv in front of the real one; the answer is the file with a line for each call."""
    calls = folder / "calls"
    script = folder / "fw_setenv"
    script.write_text(f'#!/bin/sh\necho "$@" >>{calls}\n{body}\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return calls
