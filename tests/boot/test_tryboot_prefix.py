"""Tryboot with two systems in one boot partition, laid out as Home Assistant OS does it on a Pi 5."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.pi import Pi
from updated.boot.base import make_bootloader
from updated.boot.fat import TEMPORARY, Folder
from updated.boot.tryboot import Settings
from updated.boot.tryboot_firmware import Firmware
from updated.core.model import Bootloader
from updated.errors import DeviceError

ROOTS = {"A": "PARTUUID=a", "B": "PARTUUID=b"}
CONFIG = (
    "# For more options see\n[all]\ndtparam=audio=on\narm_64bit=1\n"
    "os_prefix=slot-A/\ncmdline=/cmdline.txt\n[cm4]\notg_mode=1\n[all]\n"
)
CMDLINE = 'rootwait console=tty1 x.root=1 y="a b" root=PARTUUID=a ro rauc.slot=A\n'
TRIAL_CMDLINE = CMDLINE.replace(" root=PARTUUID=a", " root=PARTUUID=b").replace("slot=A", "slot=B")
TRIAL = CONFIG.replace("slot-A", "slot-B").replace("/cmdline.txt", "/cmdline-tryboot.txt")


def backend(pi: Pi) -> Bootloader:
    settings = Settings(Folder(pi.boot), Firmware(pi.chosen), roots=ROOTS)
    return make_bootloader("tryboot", ["A", "B"], tryboot=settings)


@pytest.fixture
def pi(tmp_path: Path) -> Pi:
    pi = Pi(tmp_path / "boot", tmp_path / "chosen")
    for slot in ("slot-A", "slot-B"):
        (pi.boot / slot).mkdir(parents=True)
    (pi.boot / "config.txt").write_text(CONFIG)
    (pi.boot / "cmdline.txt").write_text(CMDLINE)
    pi.start(by_prefix=True)
    return pi


@pytest.fixture
def tryboot(pi: Pi) -> Bootloader:
    return backend(pi)


def files(pi: Pi) -> dict[str, str]:
    return {path.name: path.read_text() for path in pi.boot.iterdir() if path.is_file()}


def states(tryboot: Bootloader) -> tuple[bool, bool]:
    return asyncio.run(tryboot.get_state("A")), asyncio.run(tryboot.get_state("B"))


def test_an_update_is_tried_once_and_then_committed(pi: Pi, tryboot: Bootloader) -> None:
    assert asyncio.run(tryboot.get_current()) == "A"
    assert asyncio.run(tryboot.get_primary()) == "A"
    assert states(tryboot) == (True, False)
    asyncio.run(tryboot.set_state("A", good=True))
    asyncio.run(tryboot.set_state("B", good=False))

    asyncio.run(tryboot.set_primary("B"))
    assert asyncio.run(tryboot.get_primary()) == "B"
    assert states(tryboot) == (True, True)
    assert files(pi) == {
        "config.txt": CONFIG,
        "cmdline.txt": CMDLINE,
        "tryboot.txt": TRIAL,
        "cmdline-tryboot.txt": TRIAL_CMDLINE,
    }
    assert (pi.prefix(), pi.prefix(tryboot=True)) == ("slot-A/", "slot-B/")

    pi.start(tryboot=True, by_prefix=True)
    assert asyncio.run(tryboot.get_current()) == "B"
    asyncio.run(tryboot.set_state("B", good=True))
    assert files(pi) == {"config.txt": CONFIG.replace("slot-A", "slot-B"), "cmdline.txt": TRIAL_CMDLINE}
    assert pi.prefix() == "slot-B/"
    assert asyncio.run(tryboot.get_primary()) == "B"
    assert states(tryboot) == (True, True)


def test_a_failed_trial_is_given_up(pi: Pi, tryboot: Bootloader) -> None:
    asyncio.run(tryboot.set_primary("B"))
    asyncio.run(tryboot.set_state("B", good=False))
    assert asyncio.run(tryboot.get_primary()) == "A"
    assert states(tryboot) == (True, False)
    assert "tryboot.txt" not in files(pi)
    asyncio.run(tryboot.set_primary("B"))
    asyncio.run(tryboot.set_primary("A"))
    assert asyncio.run(tryboot.get_primary()) == "A"


def test_a_committed_system_that_is_given_up_stays_bad(pi: Pi, tryboot: Bootloader) -> None:
    asyncio.run(tryboot.set_state("A", good=True))
    before = files(pi)
    with pytest.raises(DeviceError, match="A is the only system that the firmware would start"):
        asyncio.run(tryboot.set_state("A", good=False))
    assert files(pi) == before
    asyncio.run(tryboot.set_state("B", good=True))
    assert asyncio.run(tryboot.get_primary()) == "A"
    asyncio.run(tryboot.set_state("A", good=False))
    assert pi.prefix() == "slot-B/"
    assert states(tryboot) == (False, True)


def test_a_trial_that_the_shell_script_has_prepared_is_committed(pi: Pi, tryboot: Bootloader) -> None:
    (pi.boot / "cmdline-tryboot.txt").write_text(TRIAL_CMDLINE)
    (pi.boot / "tryboot.txt").write_text(TRIAL)
    pi.start(tryboot=True, by_prefix=True)
    assert asyncio.run(tryboot.get_primary()) == "B"
    asyncio.run(tryboot.set_state("B", good=True))
    assert (pi.prefix(), set(files(pi))) == ("slot-B/", {"config.txt", "cmdline.txt"})


def test_firmware_that_does_not_tell_the_prefix(pi: Pi, tryboot: Bootloader) -> None:
    asyncio.run(tryboot.set_primary("B"))
    pi.start(tryboot=True, by_prefix=True)
    (pi.chosen / "os_prefix").unlink()
    asyncio.run(tryboot.set_state("B", good=True))
    assert pi.prefix() == "slot-B/"


def test_marking_another_system_good_is_no_commit(pi: Pi, tryboot: Bootloader) -> None:
    asyncio.run(tryboot.set_primary("B"))
    asyncio.run(tryboot.set_state("B", good=True))
    assert (pi.prefix(), asyncio.run(tryboot.get_primary())) == ("slot-A/", "B")


def test_an_ordinary_start_writes_nothing(pi: Pi, tryboot: Bootloader) -> None:
    asyncio.run(tryboot.set_state("A", good=True))
    asyncio.run(tryboot.set_primary("B"))
    before = {path: path.stat().st_ctime_ns for path in pi.boot.rglob("*")}
    asyncio.run(tryboot.set_state("A", good=True))
    asyncio.run(tryboot.set_primary("B"))
    assert {path: path.stat().st_ctime_ns for path in pi.boot.rglob("*")} == before


def test_old_firmware_and_a_missing_folder_are_refused(pi: Pi, tryboot: Bootloader) -> None:
    before = files(pi)
    (pi.boot / "slot-B").rmdir()
    with pytest.raises(DeviceError, match="no folder slot-B/ beside config"):
        asyncio.run(tryboot.set_primary("B"))
    pi.capabilities = 0x7
    pi.start(by_prefix=True)
    for change in (tryboot.set_primary("B"), tryboot.set_state("B", good=False)):
        with pytest.raises(DeviceError, match="expected TRYBOOT among its capabilities, got 0x7"):
            asyncio.run(change)
    assert files(pi) == before


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ("", "config.txt is not understood: expected os_prefix"),
        (CONFIG.replace("cmdline=/cmdline.txt\n", ""), "expected os_prefix"),
        (CONFIG.replace("/cmdline.txt", "/other.txt"), "expected os_prefix"),
        (CONFIG + "[pi5]\nos_prefix=x/\n", "os_prefix= has to be there once, and below no filter"),
        (CONFIG + "\0", "zero byte"),
        ("#" * 70000, "too large: at most 65536 bytes"),
    ],
)
def test_what_is_not_understood_is_refused_and_left_alone(
    config: str, reason: str, pi: Pi, tryboot: Bootloader
) -> None:
    (pi.boot / "config.txt").write_text(config)
    for call in (tryboot.get_primary(), tryboot.set_primary("B"), tryboot.set_state("A", good=True)):
        with pytest.raises(DeviceError, match=reason):
            asyncio.run(call)
    assert files(pi) == {"config.txt": config, "cmdline.txt": CMDLINE}


def test_a_torn_trial_is_none_and_is_written_anew(pi: Pi, tryboot: Bootloader) -> None:
    (pi.boot / "tryboot.txt").write_text(TRIAL[:100])
    assert asyncio.run(tryboot.get_primary()) == "A"
    asyncio.run(tryboot.set_primary("B"))
    assert pi.prefix(tryboot=True) == "slot-B/"


# Power cuts


def cut_at(number: int, do: Callable[[], Coroutine[Any, Any, None]]) -> bool:
    """Do it in a process that dies before its `number`-th rename or removal; False: it came to its end."""
    child = os.fork()
    if child == 0:
        left = number

        def hook(event: str, _arguments: tuple[Any, ...]) -> None:
            nonlocal left
            if event in ("os.rename", "os.remove"):
                left -= 1
                if left == 0:
                    os._exit(9)

        sys.addaudithook(hook)
        asyncio.run(do())
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def test_power_cuts_in_a_commit(pi: Pi, tryboot: Bootloader) -> None:
    """At each step both kinds of start work, and the next "good" brings it to its end."""
    asyncio.run(tryboot.set_state("A", good=True))
    asyncio.run(tryboot.set_primary("B"))
    pi.start(tryboot=True, by_prefix=True)
    prepared = {path: path.read_bytes() for path in pi.boot.rglob("*") if path.is_file()}
    seen = set()
    number = 1
    while True:
        for path in [path for path in pi.boot.rglob("*") if path.is_file()]:
            path.unlink()
        for path, data in prepared.items():
            path.write_bytes(data)
        pi.tell(partition=1, tryboot=True)
        (pi.chosen / "os_prefix").write_bytes(b"slot-B/\0")
        if not cut_at(number, lambda: tryboot.set_state("B", good=True)):
            break
        seen.add(pi.prefix())
        assert states(tryboot)[0]
        if pi.prefix() == "slot-A/":
            assert pi.prefix(tryboot=True) == "slot-B/"
            pi.start(tryboot=True, by_prefix=True)
        else:
            assert asyncio.run(tryboot.get_primary()) == "B"
            pi.start(by_prefix=True)
        asyncio.run(tryboot.set_state("B", good=True))
        assert set(files(pi)) - {TEMPORARY, "cmdline-tryboot.txt"} == {"config.txt", "cmdline.txt"}
        assert pi.prefix() == "slot-B/"
        number += 1
    assert seen == {"slot-A/", "slot-B/"}
    assert number > 5


def test_an_install_after_a_commit_that_was_cut_short(pi: Pi, tryboot: Bootloader) -> None:
    (pi.boot / "config.txt").write_text(TRIAL)  # B, which names cmdline-tryboot.txt
    (pi.boot / "tryboot.txt").write_text(TRIAL)
    (pi.boot / "cmdline-tryboot.txt").write_text(TRIAL_CMDLINE)
    pi.start(by_prefix=True)
    assert asyncio.run(tryboot.get_primary()) == "B"
    asyncio.run(tryboot.set_primary("A"))
    assert (pi.prefix(), pi.prefix(tryboot=True)) == ("slot-B/", "slot-A/")
