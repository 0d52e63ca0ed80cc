"""Tryboot with autoboot.txt: what the agent says must be what the firmware does."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as how
from hypothesis import strategies as st

from tests.fakes.pi import Pi
from updated.boot import tryboot_text
from updated.boot.base import make_bootloader
from updated.boot.fat import Folder
from updated.boot.tryboot import Settings
from updated.boot.tryboot_firmware import Firmware
from updated.core.model import Bootloader
from updated.errors import ConfigError, DeviceError

DOCUMENTED = "[all]\ntryboot_a_b=1\nboot_partition=2\n[tryboot]\nboot_partition=3\n"
PARTITIONS = {"A": 2, "B": 3}


def backend(pi: Pi, *, least: date | None = None) -> Bootloader:
    settings = Settings(Folder(pi.boot), Firmware(pi.chosen, least), partitions=PARTITIONS)
    return make_bootloader("tryboot", ["A", "B"], tryboot=settings)


def make_pi(folder: Path, text: str = DOCUMENTED) -> Pi:
    pi = Pi(folder / "boot", folder / "chosen")
    pi.boot.mkdir()
    (pi.boot / "autoboot.txt").write_text(text, newline="")
    pi.tell(partition=2, tryboot=False)
    return pi


@pytest.fixture
def pi(tmp_path: Path) -> Pi:
    return make_pi(tmp_path)


@pytest.fixture
def tryboot(pi: Pi) -> Bootloader:
    return backend(pi)


def states(tryboot: Bootloader) -> tuple[bool, bool]:
    return asyncio.run(tryboot.get_state("A")), asyncio.run(tryboot.get_state("B"))


def text_of(pi: Pi) -> str:
    return (pi.boot / "autoboot.txt").read_text().rstrip("\n")


def test_an_update_is_tried_once_and_then_committed(pi: Pi, tryboot: Bootloader) -> None:
    assert asyncio.run(tryboot.get_primary()) == "A"
    assert asyncio.run(tryboot.get_current()) == "A"

    asyncio.run(tryboot.set_state("B", good=False))  # as an install begins
    assert states(tryboot) == (True, False)
    assert (pi.partition(), pi.partition(tryboot=True)) == (2, 2)

    asyncio.run(tryboot.set_primary("B"))
    assert asyncio.run(tryboot.get_primary()) == "B"
    assert states(tryboot) == (True, True)
    assert (pi.partition(), pi.partition(tryboot=True)) == (2, 3)

    pi.start(tryboot=True)
    assert asyncio.run(tryboot.get_current()) == "B"
    assert pi.partition() == 2  # whatever happens now leads back

    asyncio.run(tryboot.set_state("B", good=True))
    assert (pi.partition(), pi.partition(tryboot=True)) == (3, 2)
    assert asyncio.run(tryboot.get_primary()) == "B"
    assert states(tryboot) == (True, True)
    assert text_of(pi) == DOCUMENTED.replace("=2", "=X").replace("=3", "=2").replace("=X", "=3").rstrip()


def test_a_failed_trial_is_given_up(pi: Pi, tryboot: Bootloader) -> None:
    asyncio.run(tryboot.set_primary("B"))
    pi.start(tryboot=True)
    pi.start()  # it crashed
    assert asyncio.run(tryboot.get_current()) == "A"
    assert asyncio.run(tryboot.get_primary()) == "B"  # it was not given up yet
    asyncio.run(tryboot.set_state("B", good=False))
    asyncio.run(tryboot.set_state("A", good=True))
    assert asyncio.run(tryboot.get_primary()) == "A"
    assert states(tryboot) == (True, False)
    assert (pi.partition(), pi.partition(tryboot=True)) == (2, 2)


def test_a_trial_gives_itself_up(pi: Pi, tryboot: Bootloader) -> None:
    asyncio.run(tryboot.set_primary("B"))
    pi.start(tryboot=True)
    asyncio.run(tryboot.set_state("B", good=False))
    assert (pi.partition(), pi.partition(tryboot=True)) == (2, 2)
    assert states(tryboot) == (True, False)


def test_a_committed_system_that_is_given_up_stays_bad(pi: Pi, tryboot: Bootloader) -> None:
    asyncio.run(tryboot.set_state("A", good=False))
    pi.start()
    assert asyncio.run(tryboot.get_current()) == "B"
    asyncio.run(tryboot.set_state("B", good=True))
    assert states(tryboot) == (False, True)
    assert (pi.partition(), pi.partition(tryboot=True)) == (3, 3)
    asyncio.run(tryboot.set_state("A", good=True))  # a person says so
    assert states(tryboot) == (True, True)
    assert (pi.partition(), asyncio.run(tryboot.get_primary())) == (3, "B")


def test_the_last_system_is_not_given_up(pi: Pi, tryboot: Bootloader) -> None:
    asyncio.run(tryboot.set_state("B", good=False))
    before = text_of(pi)
    with pytest.raises(DeviceError, match="A is the only system that the firmware would start") as caught:
        asyncio.run(tryboot.set_state("A", good=False))
    assert caught.value.hint == "Mark B good first, if it is."
    assert text_of(pi) == before


def test_an_ordinary_start_writes_nothing_and_keeps_a_trial(pi: Pi, tryboot: Bootloader) -> None:
    for _ in range(2):
        before = (pi.boot / "autoboot.txt").stat(), text_of(pi)
        asyncio.run(tryboot.set_state("A", good=True))
        assert ((pi.boot / "autoboot.txt").stat().st_mtime_ns, text_of(pi)) == (
            before[0].st_mtime_ns,
            before[1],
        )
        asyncio.run(tryboot.set_primary("B"))
        pi.start()  # a power cut, before the reboot that sets the flag
        assert asyncio.run(tryboot.get_primary()) == "B"


def test_activating_what_is_committed_gives_up_the_trial(pi: Pi, tryboot: Bootloader) -> None:
    asyncio.run(tryboot.set_primary("B"))
    asyncio.run(tryboot.set_primary("A"))
    assert asyncio.run(tryboot.get_primary()) == "A"
    assert states(tryboot) == (True, True)
    assert text_of(pi) == DOCUMENTED.rstrip()


def test_marking_another_system_good_is_no_commit(pi: Pi, tryboot: Bootloader) -> None:
    """A command line that names the wrong slot must not lead to an empty partition."""
    asyncio.run(tryboot.set_state("B", good=False))
    asyncio.run(tryboot.set_state("B", good=True))
    assert (pi.partition(), asyncio.run(tryboot.get_primary())) == (2, "A")
    asyncio.run(tryboot.set_primary("B"))
    asyncio.run(tryboot.set_state("B", good=True))
    assert (pi.partition(), asyncio.run(tryboot.get_primary())) == (2, "B")


def test_what_was_started_by_number_is_committed_when_it_is_good(pi: Pi, tryboot: Bootloader) -> None:
    """Also what the firmware has found on its own walk through the partitions."""
    pi.tell(partition=3, tryboot=False)
    asyncio.run(tryboot.set_state("B", good=True))
    assert (pi.partition(), asyncio.run(tryboot.get_primary())) == (3, "B")


def test_firmware_that_does_not_tell_the_partition(pi: Pi) -> None:
    tryboot = backend(pi)
    pi.tells_partition = False
    asyncio.run(tryboot.set_primary("B"))
    pi.start(tryboot=True)
    assert asyncio.run(tryboot.get_current()) is None
    asyncio.run(tryboot.set_state("A", good=True))
    assert (pi.partition(), asyncio.run(tryboot.get_primary())) == (2, "B")
    asyncio.run(tryboot.set_state("B", good=True))
    assert (pi.partition(), asyncio.run(tryboot.get_primary())) == (3, "B")


def test_a_start_from_elsewhere_is_no_slot(pi: Pi, tryboot: Bootloader) -> None:
    pi.tell(partition=7, tryboot=False)
    assert asyncio.run(tryboot.get_current()) is None
    (pi.chosen / "bootloader/partition").write_bytes(b"\0\0\2")
    assert asyncio.run(tryboot.get_current()) is None


# Firmware that cannot


def test_old_firmware_is_refused_before_anything_is_marked(pi: Pi) -> None:
    before = text_of(pi)
    old = {
        "tryboot is missing": replace(pi, tells_tryboot=False),
        "expected TRYBOOT_A_B among its capabilities, got 0x3": replace(pi, capabilities=0x3),
        r"expected 2024-05-13 \(min-firmware\) or later, got 2022-11-25": replace(pi, built=1669373653),
        r"expected 2024-05-13 \(min-firmware\) or later, got no date": replace(pi, built=None),
    }
    for reason, firmware in old.items():
        firmware.tell(partition=2, tryboot=False)
        tryboot = backend(firmware, least=date(2024, 5, 13))
        for change in (tryboot.set_state("B", good=False), tryboot.set_primary("B")):
            with pytest.raises(
                DeviceError, match=f"tryboot backend: The firmware is too old.*{reason}"
            ) as caught:
                asyncio.run(change)
            assert "rpi-eeprom-update" in caught.value.hint
        asyncio.run(tryboot.set_state("A", good=True))  # no reason to call what runs sick
        assert asyncio.run(tryboot.get_primary()) == "A"
        assert text_of(pi) == before


def test_older_models_have_no_eeprom(pi: Pi) -> None:
    firmware = replace(pi, capabilities=None, built=None)
    firmware.tell(partition=2, tryboot=False)
    asyncio.run(backend(firmware).set_primary("B"))
    assert pi.partition(tryboot=True) == 3


# The file


def test_it_is_rewritten_in_place_and_keeps_its_size(pi: Pi, tryboot: Bootloader) -> None:
    file = pi.boot / "autoboot.txt"
    asyncio.run(tryboot.set_primary("B"))
    first = file.stat()
    assert first.st_size == tryboot_text.FULL_SIZE
    pi.start(tryboot=True)
    asyncio.run(tryboot.set_state("B", good=True))
    asyncio.run(tryboot.set_state("A", good=False))
    assert (file.stat().st_ino, file.stat().st_size) == (first.st_ino, first.st_size)
    assert list(pi.boot.iterdir()) == [file]


def test_filling_up_changes_nothing() -> None:
    """Of the first write the medium may have any part: each says the same as before."""
    for count in range(tryboot_text.MAX_SIZE - len(DOCUMENTED) + 1):
        filled = DOCUMENTED.encode() + b"\n" * count
        zeros = DOCUMENTED.encode() + b"\0" * count  # the length arrived, and nothing else
        for data in (filled, zeros):
            assert tryboot_text.parse(data) == tryboot_text.parse(DOCUMENTED.encode())


FOREIGN = (
    "# by the factory\r\n[all]\r\ntryboot_a_b=1\r\nboot_partition=2\r\nBOOT_WATCHDOG=30\r\n[pi5]\r\nx=1\r\n"
    "[all]\r\n[tryboot]\r\n  # the other one\r\nboot_partition=3\r\nboot_x=2\r\n[none]\r\nrest"
)


def test_all_else_stays_where_it_is(tmp_path: Path) -> None:
    pi = make_pi(tmp_path, FOREIGN)
    tryboot = backend(pi)
    asyncio.run(tryboot.set_primary("B"))
    assert (pi.boot / "autoboot.txt").read_bytes().rstrip(b"\n").decode() == f"{FOREIGN}\n# updated: on trial"
    pi.start(tryboot=True)
    asyncio.run(tryboot.set_state("B", good=True))
    assert (pi.boot / "autoboot.txt").read_bytes().rstrip(b"\n").decode() == FOREIGN.replace(
        "partition=2", "partition=X"
    ).replace("partition=3", "partition=2").replace("X", "3")


def test_a_file_without_a_trial_gets_one(tmp_path: Path) -> None:
    pi = make_pi(tmp_path, "tryboot_a_b=1\nboot_partition=2\n[pi4]\nx=1")
    tryboot = backend(pi)
    assert states(tryboot) == (True, False)
    asyncio.run(tryboot.set_primary("B"))
    assert (pi.partition(), pi.partition(tryboot=True)) == (2, 3)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", r"no boot_partition= below \[all\]"),
        ("[tryboot]\nboot_partition=3\n", r"once below \[all\] and then once below \[tryboot\]"),
        ("[tryboot]\nboot_partition=3\n[all]\nboot_partition=2\n", "and then once"),
        ("boot_partition=2\n[pi4]\nboot_partition=3\n", "and then once"),
        ("boot_partition=2\n[pi4]\n[tryboot]\nboot_partition=3\n", "and then once"),
        (DOCUMENTED + "boot_partition=4\n", "and then once"),
        ("boot_partition=2\nboot_partition=3\n", "and then once"),
        ("boot_partition = 2\n", "line 'boot_partition = 2' is not boot_partition=value"),
        ("boot_partition=two\n", "boot_partition=two is no number of a partition"),
        ("boot_partition=0\n", "boot_partition=0 is no number"),
        ("boot_partition=2 3\n", "boot_partition=2 3 is no number"),
        ("tryboot_a_b=1\ntryboot_a_b=0\nboot_partition=2\n", "tryboot_a_b= has to be there once"),
        (DOCUMENTED.replace("2", "2\0"), "zero byte at"),
        (DOCUMENTED + "#" * 512, "too large: at most 512 bytes expected"),
    ],
)
def test_what_is_not_understood_is_refused_and_left_alone(text: str, reason: str, tmp_path: Path) -> None:
    pi = make_pi(tmp_path, text)
    tryboot = backend(pi)
    for call in (
        tryboot.get_primary(),
        tryboot.get_state("A"),
        tryboot.set_primary("B"),
        tryboot.set_state("A", good=True),
        tryboot.set_state("B", good=False),
    ):
        with pytest.raises(DeviceError, match=reason):
            asyncio.run(call)
    assert (pi.boot / "autoboot.txt").read_bytes() == text.encode()


def test_without_tryboot_a_b_nothing_is_tried(tmp_path: Path) -> None:
    pi = make_pi(tmp_path, DOCUMENTED.replace("_a_b=1", "_a_b=0"))
    with pytest.raises(DeviceError, match="no tryboot_a_b=1"):
        asyncio.run(backend(pi).set_primary("B"))


def test_a_file_that_would_get_too_long_is_left_alone(tmp_path: Path) -> None:
    text = DOCUMENTED + "#" * (511 - len(DOCUMENTED))
    pi = make_pi(tmp_path, text)
    with pytest.raises(DeviceError, match=r"autoboot\.txt would have 532 bytes, the firmware reads 512"):
        asyncio.run(backend(pi).set_primary("B"))
    assert text_of(pi) == text


def test_no_file_no_folder_and_what_is_no_file(pi: Pi) -> None:
    file = pi.boot / "autoboot.txt"
    file.unlink()
    with pytest.raises(DeviceError, match=r"Failed to read .*autoboot.txt: No such file") as caught:
        asyncio.run(backend(pi).set_primary("B"))
    assert "the right partition" in caught.value.hint
    assert not file.exists()  # with one of ours the firmware might start nothing at all
    file.mkdir()
    with pytest.raises(DeviceError, match="is not a regular file"):
        asyncio.run(backend(pi).get_primary())


# Anything


@given(
    st.binary(max_size=600)
    | st.lists(st.sampled_from([*DOCUMENTED.splitlines(), "[pi4]", "#", ""])).map(
        lambda lines: "\n".join(lines).encode()
    )
)
def test_any_bytes_parse_or_raise_our_error(data: bytes) -> None:
    try:
        file = tryboot_text.parse(data)
    except DeviceError:
        return
    assert tryboot_text.parse(file.render(0)) == file


OPERATIONS = st.tuples(
    st.sampled_from(["primary", "good", "bad", "start", "tryboot"]), st.sampled_from(["A", "B"])
)


@how(max_examples=30)
@given(st.lists(OPERATIONS, max_size=12), st.sampled_from([DOCUMENTED, "tryboot_a_b=1\nboot_partition=2\n"]))
def test_what_is_said_is_what_the_firmware_does(operations: list[tuple[str, str]], text: str) -> None:
    names = {number: name for name, number in PARTITIONS.items()}
    with tempfile.TemporaryDirectory() as folder:
        pi = make_pi(Path(folder), text)
        tryboot = backend(pi)

        async def do(operation: str, name: str) -> None:
            try:
                match operation:
                    case "primary":
                        await tryboot.set_primary(name)
                    case "good" | "bad":
                        await tryboot.set_state(name, operation == "good")
                    case _:
                        pi.start(tryboot=operation == "tryboot")
            except DeviceError as error:
                assert "the only system" in str(error)

        async def scenario() -> None:
            for operation, name in operations:
                await do(operation, name)
                started = names[pi.partition()], names[pi.partition(tryboot=True)]
                assert await tryboot.get_primary() in started
                for other in PARTITIONS:
                    assert await tryboot.get_state(other) == (other in started)

        asyncio.run(scenario())


@pytest.mark.parametrize(
    ("bootnames", "partitions", "reason"),
    [
        (["A", "B", "C"], PARTITIONS, "needs two slots with a bootname, got 3"),
        (["A"], PARTITIONS, "got 1"),
        (["A", "C"], PARTITIONS, "tryboot.partitions is for A, B, and the bootnames of system.conf are A, C"),
        (["A", "B"], {}, "tryboot.roots is for none"),
    ],
)
def test_a_wrong_configuration_is_refused(
    bootnames: list[str], partitions: dict[str, int], reason: str, tmp_path: Path
) -> None:
    settings = Settings(Folder(tmp_path), Firmware(tmp_path), partitions=partitions)
    with pytest.raises(ConfigError, match=reason):
        make_bootloader("tryboot", bootnames, tryboot=settings)
    with pytest.raises(ConfigError, match=r"needs \[tryboot\] in updated.toml"):
        make_bootloader("tryboot", bootnames)
