"""Power, space, files and clocks of the device, on trees of their own."""

from __future__ import annotations

import asyncio
import os
import random
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from dbus_fast import Variant

from tests.api.conftest import Daemon
from tests.fakes.neighbours import neighbours
from updated.core.gate import Conditions, Inhibitor, Power
from updated.host.conditions import HostConditions
from updated.host.power import MAX_SUPPLIES, read_power
from updated.host.timing import RELEASED, boottime, earliest, local_zone

Supply = dict[str, str]
BATTERY = {"type": "Battery", "present": "1", "status": "Discharging", "capacity": "42"}
PLUGGED = {"type": "Mains", "online": "1"}
UNPLUGGED = {"type": "Mains", "online": "0"}


@pytest.mark.parametrize(
    ("supplies", "power"),
    [
        ([], Power(mains=True)),
        ([PLUGGED], Power(mains=True)),
        ([UNPLUGGED], Power(mains=True)),  # and no battery: so it is not what feeds us
        ([BATTERY], Power(mains=False, percent=42)),
        ([BATTERY, UNPLUGGED], Power(mains=False, percent=42)),
        ([BATTERY, PLUGGED], Power(mains=True, percent=42)),
        ([BATTERY, UNPLUGGED, {"type": "USB", "online": "1"}], Power(mains=True, percent=42)),
        ([BATTERY, {"type": "USB", "online": "2"}], Power(mains=True, percent=42)),
        ([BATTERY, {"type": "USB", "online": "x"}], Power(mains=False, percent=42)),
        ([BATTERY | {"status": "Charging"}], Power(mains=True, percent=42)),
        ([BATTERY, BATTERY | {"capacity": "80"}], Power(mains=False, percent=61)),
        ([BATTERY, BATTERY | {"capacity": "", "present": "0"}], Power(mains=False, percent=42)),
        ([BATTERY, BATTERY | {"capacity": "garbled"}], Power(mains=False, percent=42)),
        ([BATTERY, {"type": "Battery", "scope": "Device", "capacity": "5"}], Power(mains=False, percent=42)),
        ([{"type": "Battery", "scope": "Device", "capacity": "5"}], Power(mains=True)),
        ([{"type": "Mains", "scope": "Device", "online": "1"}, BATTERY], Power(mains=False, percent=42)),
        ([{"type": "Battery", "scope": "System", "capacity": "5"}], Power(mains=False, percent=5)),
        ([{"type": "UPS", "capacity": "90"}], Power(mains=False, percent=90)),
        ([{"type": "Battery"}], Power(mains=False)),
        ([{"type": "Battery", "capacity": "-1"}], Power(mains=False)),
        ([{"type": "Battery", "capacity": "101"}], Power(mains=False)),
        ([{"type": "Battery", "capacity": "9" * 60}], Power(mains=False)),
        ([{"type": "Battery", "energy_now": "20", "energy_full": "80"}], Power(mains=False, percent=25)),
        ([{"type": "Battery", "charge_now": "90", "charge_full": "80"}], Power(mains=False, percent=100)),
        ([{"type": "Battery", "charge_now": "90", "charge_full": "0"}], Power(mains=False)),
        ([{"capacity": "5"}], Power(mains=True)),  # of no type
        ([{}], Power(mains=True)),
    ],
)
def test_power(tmp_path: Path, supplies: list[Supply], power: Power) -> None:
    for number, supply in enumerate(supplies):
        make_supply(tmp_path / f"supply{number}", supply)
    assert read_power(tmp_path) == power


def make_supply(path: Path, supply: Supply) -> None:
    path.mkdir()
    for name, value in supply.items():
        (path / name).write_text(f"{value}\n")


def test_power_of_rubbish(tmp_path: Path) -> None:
    """What sysfs never shows must not raise either."""
    assert read_power(tmp_path / "none") == Power(mains=True)
    (tmp_path / "file").write_text("type")
    (tmp_path / "folders" / "type").mkdir(parents=True)
    make_supply(tmp_path / "long", {"type": "Battery", "capacity": "9" * 10_000_000})
    (tmp_path / "bytes").mkdir()
    (tmp_path / "bytes" / "type").write_bytes(b"\xff\x00")
    assert read_power(tmp_path) == Power(mains=False)  # all that is certain is that there is a battery


def test_power_of_very_many(tmp_path: Path) -> None:
    for number in range(MAX_SUPPLIES + 5):
        make_supply(tmp_path / f"{number:03}", BATTERY)
    make_supply(tmp_path / "zzz", PLUGGED)
    assert read_power(tmp_path) == Power(mains=False, percent=42)


def test_free_space_is_what_df_shows(tmp_path: Path) -> None:
    shown = os.statvfs(tmp_path)
    free = asyncio.run(HostConditions(tmp_path).free_space())
    assert free is not None
    assert abs(free - shown.f_bavail * shown.f_frsize) < 2**30
    assert asyncio.run(HostConditions(tmp_path / "none").free_space()) is None


def test_the_first_file_that_is_there_is_told(tmp_path: Path) -> None:
    (tmp_path / "two").touch()
    (tmp_path / "three").mkdir()
    (tmp_path / "dangling").symlink_to(tmp_path / "one")
    (tmp_path / "leads").symlink_to(tmp_path / "two")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")

    def present(*names: str) -> str:
        files = [str(tmp_path / name) for name in names]
        return asyncio.run(HostConditions(tmp_path).present(files)).removeprefix(f"{tmp_path}/")

    assert present() == ""
    assert present("one", "dangling", "loop", "two/below", "n" * 300) == ""
    assert present("one", "two", "three") == "two"
    assert present("three", "two") == "three"
    assert present("leads") == "leads"


def test_what_hangs_is_not_waited_for(tmp_path: Path) -> None:
    """A gauge that answers when it likes: a FIFO that nobody writes to."""
    make_supply(tmp_path / "battery", BATTERY)
    (tmp_path / "battery" / "status").unlink()
    os.mkfifo(tmp_path / "battery" / "status")

    async def scene() -> Power:
        power = await HostConditions(tmp_path, power_supplies=tmp_path, timeout=0.05).power()
        # Let the thread go: asyncio.run waits for it.
        os.close(os.open(tmp_path / "battery" / "status", os.O_WRONLY | os.O_NONBLOCK))
        return power

    assert asyncio.run(scene()) == Power(mains=True)


def test_all_of_it(daemon: Daemon, tmp_path: Path) -> None:
    async def scene() -> None:
        conditions: Conditions = HostConditions(tmp_path, power_supplies=tmp_path, bus=daemon.address)
        async with neighbours(daemon.address) as here:
            here.metered = Variant("u", 3)
            here.inhibitors = [["shutdown", "Burner", "a disc", "block", 0, 1]]
            assert await conditions.metered() is True
            assert list(await conditions.inhibitors()) == [Inhibitor("Burner", "a disc")]
            assert await conditions.power() == Power(mains=True)

    asyncio.run(scene())


# Clocks

BERLIN = Path("/usr/share/zoneinfo/Europe/Berlin")


def test_the_zone_of_the_system(tmp_path: Path) -> None:
    localtime = tmp_path / "localtime"
    localtime.symlink_to(BERLIN)
    zone = local_zone(None, localtime)
    for month in (1, 7):  # it knows of summer time
        moment = datetime(2026, month, 1, tzinfo=UTC)
        assert moment.astimezone(zone).hour == moment.astimezone(ZoneInfo("Europe/Berlin")).hour
    assert local_zone("Asia/Kathmandu", localtime) is ZoneInfo("Asia/Kathmandu")


def test_without_a_zone_it_is_utc(tmp_path: Path) -> None:
    assert local_zone(None, tmp_path / "none") is UTC
    assert local_zone(None, tmp_path) is UTC


def test_a_torn_zone_is_utc(tmp_path: Path) -> None:
    localtime = tmp_path / "localtime"
    whole = BERLIN.read_bytes()
    for length in (*range(60), *range(60, len(whole), 37), len(whole) - 1):
        for end in (b"", b"\n"):
            localtime.write_bytes(whole[:length] + end)
            if whole[:length] + end != whole:
                assert local_zone(None, localtime) is UTC, length


def test_a_garbled_zone_is_some_zone(tmp_path: Path) -> None:
    localtime = tmp_path / "localtime"
    chance = random.Random(1)
    for _ in range(200):
        garbled = bytearray(BERLIN.read_bytes())
        garbled[chance.randrange(len(garbled))] = chance.randrange(256)
        localtime.write_bytes(garbled)
        datetime(2026, 7, 1, tzinfo=UTC).astimezone(local_zone(None, localtime))


def test_clocks_go_on() -> None:
    first = boottime()
    assert boottime() >= first > 0
    assert RELEASED <= earliest() <= datetime.now(UTC)
