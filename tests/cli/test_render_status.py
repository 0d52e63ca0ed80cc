"""What `status` prints, on the layout of Home Assistant OS: three root classes, children, no UTF-8."""

from __future__ import annotations

import json

from updated.api.port import SlotReport, SystemInfo
from updated.cli.render import plain
from updated.cli.render_status import Status, status
from updated.core.model import BootStatus, Slot, SlotState, SlotStatus

PART = "/dev/disk/by-partlabel/hassos-"


def report(
    name: str,
    device: str,
    state: SlotState,
    *,
    type_: str = "raw",
    bootname: str | None = None,
    parent: str | None = None,
    boot_status: BootStatus | None = None,
    mountpoint: str | None = None,
    found: SlotStatus | None = None,
) -> SlotReport:
    slot_class, _, index = name.partition(".")
    slot = Slot(name, slot_class, int(index), PART + device, type_, bootname=bootname, parent=parent)
    return SlotReport(slot, state, found or SlotStatus(), boot_status, mountpoint)


HAOS = Status(
    SystemInfo("haos-rpi5-64", "", "", "A", "custom"),
    "kernel.0",
    (
        report("spl.0", "boot", "inactive"),
        report("boot.0", "boot", "inactive", type_="vfat"),
        report("kernel.0", "kernel0", "booted", bootname="A", boot_status="good"),
        report("rootfs.0", "system0", "active", parent="kernel.0", mountpoint="/"),
        report("kernel.1", "kernel1", "inactive", bootname="B", boot_status="bad"),
        report("rootfs.1", "system1", "inactive", parent="kernel.1"),
    ),
    (),
)

READABLE = """\
=== System Info ===
Compatible:  haos-rpi5-64
Variant:     
Booted from: kernel.0 (A)

=== Bootloader ===
Activated: kernel.0 (A)

=== Slot States ===
  [spl.0] (/dev/disk/by-partlabel/hassos-boot, raw, inactive)

  [boot.0] (/dev/disk/by-partlabel/hassos-boot, vfat, inactive)

x [kernel.0] (/dev/disk/by-partlabel/hassos-kernel0, raw, booted)
      bootname: A
      boot status: good
    [rootfs.0] (/dev/disk/by-partlabel/hassos-system0, raw, active)
      mounted: /

o [kernel.1] (/dev/disk/by-partlabel/hassos-kernel1, raw, inactive)
      bootname: B
      boot status: bad
    [rootfs.1] (/dev/disk/by-partlabel/hassos-system1, raw, inactive)"""  # noqa: W291

INSTALLED = SlotStatus(
    bundle_compatible="box",
    bundle_version="2",
    bundle_description="it's new",
    bundle_hash="ab" * 32,
    status="ok",
    sha256="cd" * 32,
    size=1048576,
    installed_transaction="7f2c",
    installed_timestamp="2026-11-20T11:04:30Z",
    installed_count=3,
    activated_timestamp="2026-11-20T11:05:30Z",
    activated_count=2,
)

DETAILS = """\
      slot status:
          bundle:
              compatible=box
              version=2
              description=it's new
              hash=abababababababababababababababababababababababababababababababab
          checksum:
              sha256=cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd
              size=1.0\u00a0MB (1048576 bytes)
          installed:
              timestamp=2026-11-20T11:04:30Z
              count=3
              transaction=7f2c
          activated:
              timestamp=2026-11-20T11:05:30Z
              count=2
          status=ok"""


def one(found: SlotStatus) -> Status:
    slots = (report("a.0", "x", "inactive", found=found),)
    return Status(SystemInfo("box", "", "1.2", "_external_", "noop"), None, slots)


def test_readable_is_the_layout_of_the_field() -> None:
    assert plain(status(HAOS, "readable", detailed=False, utf8=False)) == READABLE


def test_readable_marks_with_utf8() -> None:
    text = plain(status(HAOS, "readable", detailed=False, utf8=True))
    assert text == READABLE.replace("\nx [", "\n⏺ [").replace("\no [", "\n○ [")


def test_colors_are_where_rauc_has_them() -> None:
    lines = status(HAOS, "readable", detailed=False, utf8=True).splitlines()
    booted = next(line for line in lines if "[kernel.0]" in line)
    assert booted == (
        f"⏺ \033[32m\033[32m\033[1m[kernel.0]\033[0m ({PART}kernel0, raw, \033[1mbooted\033[0m)"
    )
    assert "      boot status: \033[31mbad\033[0m" in lines


def test_details_of_an_installed_slot() -> None:
    assert status(one(INSTALLED), "readable", detailed=True, utf8=False).endswith(DETAILS)


def test_details_of_a_slot_that_never_was_installed() -> None:
    text = status(one(SlotStatus()), "readable", detailed=True, utf8=False)
    assert text.splitlines()[-4:] == [
        "      slot status:",
        "          bundle:",
        "              compatible=(null)",
        "          installed:",
    ]


def test_nothing_booted_and_nothing_primary() -> None:
    text = status(one(SlotStatus()), "readable", detailed=False, utf8=False)
    assert "Booted from: (null) (_external_)\n" in text
    assert "Activated: none\n" in text


def test_json_of_an_installed_slot() -> None:
    data = json.loads(status(one(INSTALLED), "json", detailed=True, utf8=False))
    assert list(data) == ["compatible", "variant", "system_version", "booted", "boot_primary", "slots"]
    assert data["boot_primary"] is None
    slot = data["slots"][0]["a.0"]
    assert list(slot)[:4] == ["class", "device", "type", "bootname"]
    assert slot["slot_status"] == {
        "bundle": {"compatible": "box", "version": "2", "description": "it's new", "hash": "ab" * 32},
        "checksum": {"sha256": "cd" * 32, "size": 1048576},
        "installed": {"transaction": "7f2c", "timestamp": "2026-11-20T11:04:30Z", "count": 3},
        "activated": {"timestamp": "2026-11-20T11:05:30Z", "count": 2},
        "status": "ok",
    }


def test_json_without_details_has_no_slot_status() -> None:
    assert "slot_status" not in status(one(INSTALLED), "json", detailed=False, utf8=False)


def test_shell_names_slots_by_number() -> None:
    lines = status(HAOS, "shell", detailed=False, utf8=False).splitlines()
    assert "RAUC_SYSTEM_SLOTS='spl.0 boot.0 kernel.0 rootfs.0 kernel.1 rootfs.1'" in lines
    assert "RAUC_SLOTS='1 2 3 4 5 6'" in lines
    assert "RAUC_SLOT_PARENT_4='kernel.0'" in lines
    assert "RAUC_SLOT_BOOT_STATUS_4=''" in lines
    assert lines[-1] == "RAUC_REPOS=''"
    assert len(lines) == 7 + 6 * 8 + 1


def test_parents_in_a_circle_end() -> None:
    slots = (report("a.0", "x", "inactive", parent="a.1"), report("a.1", "x", "inactive", parent="a.0"))
    found = Status(HAOS.system, None, slots)
    assert status(found, "readable", detailed=False, utf8=False).endswith("=== Slot States ===")
