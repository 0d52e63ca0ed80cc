"""What a boot environment may look like in the field, for U-Boot and GRUB alike, by their real tools."""

from __future__ import annotations

import asyncio
import subprocess
from abc import ABC, abstractmethod
from pathlib import Path

import pytest

from updated.boot.base import make_bootloader
from updated.core.model import Bootloader
from updated.errors import DeviceError

SIZE = 0x4000  # bytes of U-Boot's environment
CRC = 4  # bytes at its beginning; a flag follows where there are two copies


class Environment(ABC):
    """A real environment, and what its bootloader does with it."""

    files: tuple[Path, ...]
    loader: Bootloader

    @abstractmethod
    def put(self, *variables: str) -> None: ...

    @abstractmethod
    def get(self) -> dict[str, str]: ...

    @abstractmethod
    def boots(self, bootname: str) -> None:
        """The bootloader starts it once."""

    @abstractmethod
    def wear_out(self) -> None:
        """No attempts are left for anybody."""

    order: str

    def marks(self) -> list[tuple[int, int, bytes]]:
        """What differs after any write."""
        return [(file.stat().st_mtime_ns, file.stat().st_ino, file.read_bytes()) for file in self.files]


class UBootEnvironment(Environment):
    order = "BOOT_ORDER"

    def __init__(self, folder: Path) -> None:
        self.files = (folder / "env", folder / "redundant")
        self.config = folder / "fw_env.config"
        self.config.write_text("".join(f"{file} 0x0 {SIZE:#x}\n" for file in self.files))
        for file in self.files:
            file.write_bytes(bytes(SIZE))
        defaults = folder / "defaults"
        defaults.write_text("BOOT_ORDER=A B\nBOOT_A_LEFT=3\nBOOT_B_LEFT=3\n")
        self._setenv("-f", str(defaults), "theirs", "x")
        self._setenv("bootdelay", "2")  # both copies are valid now
        self.loader = make_bootloader("uboot", ["A", "B"], fw_env_config=str(self.config))

    def _setenv(self, *arguments: str) -> None:
        subprocess.run(["fw_setenv", "-c", self.config, *arguments], check=True, capture_output=True)

    def put(self, *variables: str) -> None:
        for variable in variables:
            self._setenv(*variable.split("=", 1))

    def get(self) -> dict[str, str]:
        done = subprocess.run(["fw_printenv", "-c", self.config], check=True, capture_output=True, text=True)
        return dict(line.split("=", 1) for line in done.stdout.splitlines())

    def boots(self, bootname: str) -> None:
        left = int(self.get()[f"BOOT_{bootname}_LEFT"], 16)
        self.put(f"BOOT_{bootname}_LEFT={left - 1:x}")

    def wear_out(self) -> None:
        self.put("BOOT_A_LEFT=0", "BOOT_B_LEFT=0")


class GrubEnvironment(Environment):
    order = "ORDER"

    def __init__(self, folder: Path) -> None:
        self.files = (folder / "grubenv",)
        self._editenv("create")
        self.put("ORDER=A B", "A_OK=1", "A_TRY=0", "B_OK=1", "B_TRY=0", "theirs=x")
        self.loader = make_bootloader("grub", ["A", "B"], grubenv=self.files[0])

    def _editenv(self, *arguments: str) -> str:
        done = subprocess.run(
            ["grub-editenv", self.files[0], *arguments], check=True, capture_output=True, text=True
        )
        return done.stdout

    def put(self, *variables: str) -> None:
        self._editenv("set", *variables)

    def get(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self._editenv("list").splitlines())

    def boots(self, bootname: str) -> None:
        self.put(f"{bootname}_TRY={int(self.get()[f'{bootname}_TRY']) + 1}")

    def wear_out(self) -> None:
        self.put("A_TRY=1", "B_TRY=1")


@pytest.fixture(params=[UBootEnvironment, GrubEnvironment], ids=["uboot", "grub"])
def env(request: pytest.FixtureRequest, tmp_path: Path) -> Environment:
    made: Environment = request.param(tmp_path)
    return made


def refused(env: Environment, reason: str) -> None:
    """Every call is an error, and nothing is written."""
    before = env.marks()
    for coroutine in (
        env.loader.get_primary(),
        env.loader.get_state("A"),
        env.loader.set_primary("B"),
        env.loader.set_state("A", good=True),
        env.loader.set_state("B", good=False),
    ):
        with pytest.raises(DeviceError, match=reason) as caught:
            asyncio.run(coroutine)
        assert caught.value.hint.startswith("Nothing was ")
    assert env.marks() == before


def test_with_both_counters_empty_nothing_starts_and_good_helps(env: Environment) -> None:
    env.wear_out()
    assert asyncio.run(env.loader.get_primary()) is None
    assert [asyncio.run(env.loader.get_state(name)) for name in "AB"] == [False, False]
    asyncio.run(
        env.loader.set_state("B", good=True)
    )  # the bootloader started it nevertheless, and it is well
    assert asyncio.run(env.loader.get_primary()) == "B"
    assert [asyncio.run(env.loader.get_state(name)) for name in "AB"] == [False, True]


def test_with_both_counters_empty_an_install_goes_on(env: Environment) -> None:
    env.wear_out()
    asyncio.run(env.loader.set_state("B", good=False))
    asyncio.run(env.loader.set_primary("B"))
    assert asyncio.run(env.loader.get_primary()) == "B"


def test_what_somebody_else_marked_good_in_between_counts(env: Environment) -> None:
    asyncio.run(env.loader.set_state("B", good=False))
    env.put("BOOT_ORDER=A B", "BOOT_B_LEFT=3") if env.order == "BOOT_ORDER" else env.put("B_OK=1")
    assert asyncio.run(env.loader.get_state("B")) is True
    asyncio.run(env.loader.set_state("B", good=False))
    assert asyncio.run(env.loader.get_state("B")) is False


def test_an_order_that_somebody_else_changed_counts(env: Environment) -> None:
    asyncio.run(env.loader.set_primary("B"))
    env.put(f"{env.order}=A B")
    assert asyncio.run(env.loader.get_primary()) == "A"
    asyncio.run(env.loader.set_state("B", good=True))
    assert asyncio.run(env.loader.get_primary()) == "A"


def test_unknown_names_of_the_order_start_nothing_and_stay(env: Environment) -> None:
    env.put(f"{env.order}=rescue old")
    assert asyncio.run(env.loader.get_primary()) is None
    asyncio.run(env.loader.set_state("A", good=True))
    assert env.get()[env.order] == "rescue old A"
    asyncio.run(env.loader.set_primary("B"))
    assert env.get()[env.order].split()[:4] == ["B", "rescue", "old", "A"]
    assert env.get()["theirs"] == "x"


def test_good_on_an_ordinary_boot_writes_nothing(env: Environment) -> None:
    env.put(f"{env.order}=A  B ")  # another writer's blanks are no reason to write
    before = env.marks()
    for _ in range(3):
        asyncio.run(env.loader.set_state("A", good=True))
        asyncio.run(env.loader.set_primary("A"))
    assert env.marks() == before


def test_good_gives_back_the_attempts_that_a_boot_has_used(env: Environment) -> None:
    fresh = env.get()
    for _ in range(2):
        env.boots("A")
        assert env.get() != fresh
        asyncio.run(env.loader.set_state("A", good=True))
        assert env.get() == fresh


def test_one_good_copy_of_two_is_used_and_kept(tmp_path: Path) -> None:
    env = UBootEnvironment(tmp_path)
    env.put("BOOT_B_LEFT=2")
    newest = max(env.files, key=lambda file: file.read_bytes()[CRC])
    damage(newest)
    assert env.get()["BOOT_B_LEFT"] == "3"  # as before the last write
    asyncio.run(env.loader.set_primary("B"))
    expected = {"BOOT_ORDER": "B A", "BOOT_A_LEFT": "3", "BOOT_B_LEFT": "3", "theirs": "x", "bootdelay": "2"}
    assert env.get() == expected


@pytest.mark.parametrize("kind", ["torn", "erased", "blank", "empty", "short"])
def test_no_defaults_are_written_over_a_damaged_uboot_environment(tmp_path: Path, kind: str) -> None:
    env = UBootEnvironment(tmp_path)
    for file in env.files:
        if kind == "torn":
            damage(file)
        else:
            file.write_bytes(
                {"erased": b"\xff" * SIZE, "blank": bytes(SIZE), "empty": b""}.get(kind, b"\0" * 99)
            )
    refused(env, r"^uboot backend: U-Boot environment is not valid: Cannot read environment")


@pytest.mark.parametrize("length", [0, 25, 60, 66, 100, 511, 1023])
def test_a_short_grub_environment_is_refused(tmp_path: Path, length: int) -> None:
    env = GrubEnvironment(tmp_path)
    env.files[0].write_bytes(env.files[0].read_bytes()[:length])
    refused(env, r"it is empty|cut short")


def test_a_larger_block_made_by_hand_is_fine(tmp_path: Path) -> None:
    env = GrubEnvironment(tmp_path)
    env.files[0].write_bytes(env.files[0].read_bytes() + b"#" * 3072)
    asyncio.run(env.loader.set_primary("B"))
    assert env.get()["ORDER"] == "B A"
    assert env.files[0].stat().st_size == 4096


def damage(file: Path) -> None:
    """A byte differs, as after a write that the power ended."""
    data = bytearray(file.read_bytes())
    data[100] ^= 0xFF
    file.write_bytes(data)
