"""What the slot status remembers through an install, and its file in every state of health."""

from __future__ import annotations

import asyncio
import random
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx

from updated.bundle import keyfile
from updated.bundle.manifest import Image, Manifest
from updated.core.model import Slot, SlotStatus
from updated.errors import DeviceError
from updated.slots import status
from updated.slots.status_store import CentralStore, PerSlotStore

NOW = datetime(2026, 11, 20, 10, 34, 32, tzinfo=timezone(timedelta(hours=1)))
OLD = SlotStatus(
    bundle_compatible="Test Dev",
    bundle_version="1",
    bundle_description="first",
    bundle_build="41",
    bundle_hash="aa",
    status="ok",
    sha256="11" * 32,
    size=512,
    installed_transaction="10f12008-ac42-46ed-b482-8e585c9b42e2",
    installed_timestamp="2026-01-01T00:00:00Z",
    installed_count=1,
    activated_timestamp="2026-01-01T00:00:01Z",
    activated_count=1,
)
MANIFEST = Manifest(compatible="Test Dev", version="2", build="42", hash="b5f908b9")
IMAGE = Image("rootfs", sha256="e2" * 32, size=524288)


def finish(before: SlotStatus) -> SlotStatus:
    return status.finished(before, "ok", manifest=MANIFEST, image=IMAGE, transaction="10f12008", now=NOW)


def test_before_the_first_byte_the_slot_holds_no_known_image() -> None:
    begun = status.begun(OLD)
    assert (begun.status, begun.sha256, begun.size) == ("pending", None, 0)
    assert (begun.bundle_version, begun.installed_count) == ("1", 1)


def test_after_an_install_everything_is_new_but_the_counts() -> None:
    done = finish(status.begun(OLD))
    assert done == SlotStatus(
        bundle_compatible="Test Dev",
        bundle_version="2",
        bundle_build="42",
        bundle_hash="b5f908b9",
        status="ok",
        sha256="e2" * 32,
        size=524288,
        installed_transaction="10f12008",
        installed_timestamp="2026-11-20T09:34:32Z",
        installed_count=2,
        activated_count=1,
    )


def test_a_failed_install_is_remembered_with_the_new_digest() -> None:
    failed = status.finished(OLD, "failed", manifest=MANIFEST, image=IMAGE, transaction="", now=NOW)
    assert (failed.status, failed.sha256, failed.installed_transaction) == ("failed", IMAGE.sha256, None)


def test_activation_counts() -> None:
    active = status.activated(SlotStatus(), now=NOW)
    assert (active.activated_timestamp, active.activated_count) == ("2026-11-20T09:34:32Z", 1)
    assert status.activated(OLD, now=datetime(2027, 1, 1, tzinfo=UTC)).activated_count == 2


def test_the_file_has_raucs_form(tmp_path: Path) -> None:
    path = tmp_path / "data" / "central.raucs"
    store = CentralStore(path)
    asyncio.run(store.save_boot_id("00000000-1111-2222-3333-444444444444"))
    asyncio.run(store.save("rootfs.1", finish(OLD)))
    assert path.read_text() == (
        "[system]\n"
        "boot-id=00000000-1111-2222-3333-444444444444\n"
        "\n"
        "[slot.rootfs.1]\n"
        "bundle.compatible=Test Dev\n"
        "bundle.version=2\n"
        "bundle.build=42\n"
        "bundle.hash=b5f908b9\n"
        "status=ok\n"
        f"sha256={'e2' * 32}\n"
        "size=524288\n"
        "installed.transaction=10f12008\n"
        "installed.timestamp=2026-11-20T09:34:32Z\n"
        "installed.count=2\n"
        "activated.count=1\n"
    )
    assert path.stat().st_mode & 0o7777 == 0o644
    assert path.parent.stat().st_mode & 0o7777 == 0o700
    assert asyncio.run(store.load()) == {"rootfs.1": finish(OLD)}
    assert asyncio.run(store.load_boot_id()) == "00000000-1111-2222-3333-444444444444"


def test_nothing_is_lost_through_the_file(tmp_path: Path) -> None:
    store = CentralStore(tmp_path / "status")
    odd = SlotStatus(
        bundle_description="  two\nlines; \\ and \t blanks ", bundle_version="ü", status="failed"
    )
    for name, saved in (("a.0", OLD), ("b.0", odd), ("c.0", SlotStatus())):
        asyncio.run(store.save(name, saved))
    assert asyncio.run(CentralStore(tmp_path / "status").load()) == {
        "a.0": OLD,
        "b.0": odd,
        "c.0": SlotStatus(),
    }
    assert store.warnings == ()


def test_foreign_groups_survive(tmp_path: Path) -> None:
    path = tmp_path / "status"
    path.write_text(
        "[other]\nkey= a\\sb\\q \n\n[slot.gone.7]\nstatus=ok\nnew.key=1\n\n[slot.a.0]\nstatus=ok\n"
    )
    asyncio.run(CentralStore(path).save("a.0", SlotStatus(status="failed")))
    assert path.read_text() == (
        "[other]\nkey=a\\sb\\q \n\n[slot.gone.7]\nstatus=ok\nnew.key=1\n\n[slot.a.0]\nstatus=failed\n"
    )


def test_a_missing_file_is_no_fault(tmp_path: Path) -> None:
    store = CentralStore(tmp_path / "missing")
    assert asyncio.run(store.load()) == {}
    assert asyncio.run(store.load_boot_id()) is None
    assert store.warnings == ()


@pytest.mark.parametrize("data", [b"rubbish", b"key=1\n", b"\xff" * 10, b"[a]\n" + b"#" * (1 << 20)])
def test_a_broken_file_is_put_aside_and_life_goes_on(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "status"
    path.write_bytes(data)
    store = CentralStore(path)
    assert asyncio.run(store.load()) == {}
    assert [warning.split(":")[0] for warning in store.warnings] == [
        f"Failed to load status file {path}",
        f"Moved status file to {path}.broken",
    ]
    assert (tmp_path / "status.broken").read_bytes() == data
    asyncio.run(store.save("a.0", OLD))
    assert asyncio.run(store.load()) == {"a.0": OLD}
    assert store.warnings == ()


def test_a_file_that_broke_since_the_load_is_put_aside_by_a_save(tmp_path: Path) -> None:
    path = tmp_path / "status"
    path.write_bytes(b"rubbish")
    asyncio.run(CentralStore(path).save("a.0", OLD))
    assert (tmp_path / "status.broken").read_bytes() == b"rubbish"


def test_any_bytes_are_survived(tmp_path: Path) -> None:
    dice = random.Random(6)
    path = tmp_path / "status"
    asyncio.run(CentralStore(path).save("a.0", OLD))
    good = path.read_bytes()
    for _ in range(60):
        data = bytearray(good)
        for _ in range(dice.randrange(1, 6)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        path.write_bytes(data)
        store = CentralStore(path)
        asyncio.run(store.load())
        asyncio.run(store.save("a.0", OLD))
        assert asyncio.run(store.load())["a.0"] == OLD


def test_values_that_make_no_sense_are_ignored_with_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "status"
    path.write_bytes(
        b"[slot.a.0]\nstatus=ok\nsize=7\ninstalled.count=4294967296\nactivated.count=x\nbundle.version=\xff\n"
    )
    store = CentralStore(path)
    assert asyncio.run(store.load()) == {"a.0": SlotStatus(status="ok")}
    assert len(store.warnings) == 3


def test_an_unwritable_place_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        DeviceError, match=r"Error while writing status file: .*: (Not a directory|File exists)"
    ):
        asyncio.run(CentralStore(tmp_path / "file" / "status").save("a.0", OLD))


def test_a_folder_in_its_place_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "status").mkdir()
    store = CentralStore(tmp_path / "status")
    assert asyncio.run(store.load()) == {}
    assert store.warnings[0] == f"Failed to load status file {tmp_path / 'status'}: not a regular file"
    asyncio.run(store.save("a.0", OLD))
    assert asyncio.run(store.load()) == {"a.0": OLD}
    assert (tmp_path / "status.broken").is_dir()


def test_two_saves_at_once_keep_both(tmp_path: Path) -> None:
    store = CentralStore(tmp_path / "status")

    async def scenario() -> None:
        await asyncio.gather(*(store.save(f"a.{n}", OLD) for n in range(8)), store.save_boot_id("x"))

    asyncio.run(scenario())
    assert sorted(asyncio.run(store.load())) == [f"a.{n}" for n in range(8)]
    assert asyncio.run(store.load_boot_id()) == "x"


@pytest.mark.root
def test_each_slot_can_hold_its_own_status(tmp_path: Path, image: Callable[[int], Path]) -> None:
    path = image(8 << 20)
    subprocess.run(["mkfs.ext4", "-q", path], check=True)
    slots = [
        Slot(name="rootfs.0", slot_class="rootfs", index=0, device=str(path), type="ext4"),
        Slot(name="boot.0", slot_class="boot", index=0, device=str(path), type="raw"),
        Slot(name="data.0", slot_class="data", index=0, device=str(tmp_path / "missing"), type="ext4"),
    ]
    store = PerSlotStore(slots, mount_folder=tmp_path)
    asyncio.run(store.save("boot.0", OLD))
    assert asyncio.run(store.load()) == {"rootfs.0": SlotStatus()}
    asyncio.run(store.save("rootfs.0", OLD))
    assert asyncio.run(store.load()) == {"rootfs.0": OLD}
    assert [warning.partition(":")[0] for warning in store.warnings] == [
        "Failed to load status of slot data.0"
    ]
    with pytest.raises(DeviceError):
        asyncio.run(store.save("data.0", OLD))
    text = subprocess.run(["debugfs", "-R", "cat slot.raucs", path], check=True, capture_output=True).stdout
    group = keyfile.parse(text).group("slot")
    assert group is not None
    assert group.get_string("installed.transaction") == OLD.installed_transaction
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["slot.img"]


@pytest.mark.root
def test_a_mounted_slot_is_used_where_it_is(
    tmp_path: Path, image: Callable[[int], Path], mount: Callable[..., Path]
) -> None:
    path = image(8 << 20)
    subprocess.run(["mkfs.ext4", "-q", path], check=True)
    point = mount(tmp_path / "point", "-o", "loop", str(path))
    (point / "slot.raucs").write_text("rubbish")
    slot = Slot(name="rootfs.0", slot_class="rootfs", index=0, device=str(path), type="ext4")
    store = PerSlotStore([slot])
    assert asyncio.run(store.load()) == {"rootfs.0": SlotStatus()}
    assert "Failed to load status file" in store.warnings[0]
    asyncio.run(store.save("rootfs.0", OLD))
    assert (point / "slot.raucs").read_text().startswith("[slot]\nbundle.compatible=Test Dev\n")
    assert asyncio.run(store.load()) == {"rootfs.0": OLD}


@pytest.mark.root
def test_the_loop_never_blocks(tmp_path: Path, image: Callable[[int], Path]) -> None:
    path = image(8 << 20)
    subprocess.run(["mkfs.ext4", "-q", path], check=True)
    slot = Slot(name="rootfs.0", slot_class="rootfs", index=0, device=str(path), type="ext4")
    stores = (CentralStore(tmp_path / "status"), PerSlotStore([slot], mount_folder=tmp_path))

    async def scenario() -> None:
        for store in stores:
            await store.save("rootfs.0", OLD)
            assert await store.load() == {"rootfs.0": OLD}
            await store.save_boot_id("x")
            await store.load_boot_id()

    with blockbuster_ctx():
        asyncio.run(scenario())
