"""Slot states, the booted slot, the target group, images to slots, identifiers."""

from __future__ import annotations

from itertools import permutations

import pytest

from updated.bundle.manifest import Image
from updated.core.model import Slot, SlotStatus
from updated.core.target import (
    RAUC_ALSO_WRITES,
    WRITABLE,
    TargetGroup,
    check_not_running,
    check_size,
    check_type,
    choose_target,
    find_booted,
    image_classes,
    map_images,
    resolve_identifier,
    slot_states,
)
from updated.errors import BundleError, DeviceError, NotSupportedError, Refused


def make(name: str, **more: object) -> Slot:
    slot_class, _, index = name.partition(".")
    device = more.pop("device", f"/dev/{name}")
    return Slot(name=name, slot_class=slot_class, index=int(index), device=device, **more)  # type: ignore[arg-type]


A = make("rootfs.0", bootname="A")
B = make("rootfs.1", bootname="B")
C = make("rootfs.2", bootname="C")
APP_A = make("appfs.0", parent="rootfs.0")
APP_B = make("appfs.1", parent="rootfs.1")
AB = (A, B)
GROUPS = (A, APP_A, B, APP_B)
DATA = make("data.0")
RESCUE = make("rescue.0", bootname="R", readonly=True)

# As Home Assistant's devices: kernel is the bootable parent, boot and spl share a device and stand alone.
SPL = make("spl.0", device="/dev/boot")
BOOT = make("boot.0", device="/dev/boot", type="vfat")
KERNEL = tuple(make(f"kernel.{n}", bootname="AB"[n]) for n in (0, 1))
SYSTEM = tuple(make(f"rootfs.{n}", parent=f"kernel.{n}") for n in (0, 1))
HOME = (BOOT, SPL, KERNEL[0], SYSTEM[0], KERNEL[1], SYSTEM[1])


def target(
    slots: tuple[Slot, ...],
    booted: Slot | None,
    classes: tuple[str, ...],
    statuses: dict[str, SlotStatus] | None = None,
    primary: str | None = None,
) -> TargetGroup:
    states = slot_states(slots, booted)
    return choose_target(slots, states, classes, statuses or {}, primary=primary)


@pytest.mark.parametrize(
    ("boot_slot", "expected"),
    [
        ("A", A),
        ("B", B),
        ("rootfs.1", B),
        ("/dev/rootfs.1", B),
        ("/dev/sda2", B),
        ("/dev/disk/by-partlabel/a", A),
        ("_external_", None),
        ("/dev/nfs", None),
    ],
)
def test_find_booted(boot_slot: str, expected: Slot | None) -> None:
    resolve = {"/dev/rootfs.1": "8:2", "/dev/sda2": "8:2", "/dev/rootfs.0": "8:1"}
    resolve["/dev/disk/by-partlabel/a"] = "8:1"
    assert find_booted(AB, boot_slot, resolve) == expected


def test_a_bootname_counts_before_a_name_and_a_name_before_a_device() -> None:
    slots = (make("a.0", device="x.0"), make("x.0", device="/dev/1"), make("b.0", bootname="x.0"))
    assert find_booted(slots, "x.0", {}) == slots[2]
    assert find_booted(slots[:2], "x.0", {}) == slots[1]
    assert find_booted(slots[:1], "x.0", {}) == slots[0]


@pytest.mark.parametrize(
    ("boot_slot", "message"),
    [
        ("", "Could not find any root device or rauc slot information in /proc/cmdline"),
        ("C", "Did not find booted slot (matching 'C')"),
        ("/dev/boot", "Did not find booted slot (matching '/dev/boot'): it is the device of boot.0, spl.0"),
    ],
)
def test_no_booted_slot(boot_slot: str, message: str) -> None:
    with pytest.raises(DeviceError) as caught:
        find_booted(HOME, boot_slot, {})
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("slots", "booted", "expected"),
    [
        (AB, A, "booted inactive"),
        (AB, None, "inactive inactive"),
        (GROUPS, A, "booted active inactive inactive"),
        (GROUPS, B, "inactive inactive booted active"),
        (GROUPS, APP_B, "inactive inactive active booted"),
        (HOME, KERNEL[1], "inactive inactive inactive inactive booted active"),
        ((*AB, DATA), A, "booted inactive inactive"),
    ],
)
def test_slot_states(slots: tuple[Slot, ...], booted: Slot | None, expected: str) -> None:
    assert list(slot_states(slots, booted).values()) == expected.split()


@pytest.mark.parametrize(
    ("slots", "booted", "classes", "expected", "bootable"),
    [
        (AB, A, ("rootfs",), "rootfs.1", "rootfs.1"),
        (AB, B, ("rootfs",), "rootfs.0", "rootfs.0"),
        (GROUPS, A, ("rootfs", "appfs"), "appfs.1 rootfs.1", "rootfs.1"),
        (GROUPS, A, ("appfs",), "appfs.1 rootfs.1", "rootfs.1"),
        (GROUPS, APP_A, ("rootfs",), "appfs.1 rootfs.1", "rootfs.1"),
        (AB, None, ("rootfs",), "rootfs.0", "rootfs.0"),
        ((*AB, DATA), A, ("rootfs",), "rootfs.1", "rootfs.1"),
        ((*AB, DATA), A, ("data",), "data.0", None),
        ((*AB, DATA), A, ("rootfs", "data"), "data.0 rootfs.1", "rootfs.1"),
        ((*AB, RESCUE), A, ("rootfs",), "rootfs.1", "rootfs.1"),
        ((*AB, RESCUE), RESCUE, ("rootfs",), "rootfs.0", "rootfs.0"),
        (HOME, KERNEL[0], ("boot", "spl", "kernel", "rootfs"), "boot.0 kernel.1 rootfs.1 spl.0", "kernel.1"),
        ((A, B, C), A, ("rootfs",), "rootfs.1", "rootfs.1"),
        (AB, A, (), "", None),
    ],
)
def test_target_group(
    slots: tuple[Slot, ...],
    booted: Slot | None,
    classes: tuple[str, ...],
    expected: str,
    bootable: str | None,
) -> None:
    group = target(slots, booted, classes)
    assert sorted(slot.name for slot in group.slots.values()) == expected.split()
    assert (group.bootable.name if group.bootable else None) == bootable
    assert all(slot.slot_class == name for name, slot in group.slots.items())


OLD = SlotStatus(status="ok", installed_timestamp="2026-01-01T00:00:00Z")
NEW = SlotStatus(status="ok", installed_timestamp="2026-02-01T00:00:00Z")


@pytest.mark.parametrize(
    ("statuses", "primary", "expected"),
    [
        ({"rootfs.1": NEW, "rootfs.2": OLD}, None, "rootfs.2"),
        ({"rootfs.1": OLD, "rootfs.2": NEW}, None, "rootfs.1"),
        ({"rootfs.1": OLD}, None, "rootfs.2"),  # never installed
        (
            {"rootfs.1": OLD, "rootfs.2": SlotStatus(status="failed", installed_timestamp="2026-03")},
            None,
            "rootfs.2",
        ),
        (
            {"rootfs.1": OLD, "rootfs.2": SlotStatus(status="pending", installed_timestamp="2026-03")},
            None,
            "rootfs.2",
        ),
        ({"rootfs.1": OLD, "rootfs.2": NEW}, "rootfs.1", "rootfs.2"),
        ({"rootfs.2": NEW}, "rootfs.1", "rootfs.2"),  # the primary is not touched while there is another
        ({"rootfs.1": OLD, "rootfs.2": OLD}, None, "rootfs.1"),
        ({}, "rootfs.0", "rootfs.1"),
    ],
)
def test_of_three_groups(statuses: dict[str, SlotStatus], primary: str | None, expected: str) -> None:
    assert target((A, B, C), A, ("rootfs",), statuses, primary).slots["rootfs"].name == expected


def test_the_only_inactive_group_is_the_target_even_if_it_is_primary() -> None:
    assert target(AB, A, ("rootfs",), {"rootfs.1": NEW}, "rootfs.1").slots["rootfs"] == B


def test_of_three_groups_a_readonly_one_is_the_last_choice() -> None:
    readonly = make("rootfs.1", bootname="B", readonly=True)
    assert target((A, readonly, C), A, ("rootfs",), {"rootfs.2": NEW}).slots["rootfs"] == C
    assert target((A, readonly), A, ("rootfs",)).slots["rootfs"] == readonly  # map_images says why not


def test_a_target_never_runs() -> None:
    for slots in permutations((A, APP_A, B, APP_B, C, DATA)):
        for booted in (A, B, C, APP_A, APP_B):
            states = slot_states(slots, booted)
            group = target(slots, booted, ("rootfs", "appfs", "data"))
            assert all(states[slot.name] == "inactive" for slot in group.slots.values())


def test_no_target() -> None:
    with pytest.raises(DeviceError, match="Could not determine target group"):
        target((A,), A, ("rootfs",))
    with pytest.raises(DeviceError, match="Could not determine target group"):
        target(AB, A, ("bootloader",))


def test_two_bootable_groups_at_once() -> None:
    rescue = make("rescue.0", bootname="R")
    with pytest.raises(NotSupportedError, match=r"rescue\.0, rootfs\.1"):
        target((*AB, rescue), A, ("rootfs", "rescue"))
    assert target((*AB, rescue), A, ("rescue",)).bootable == rescue


def test_a_class_in_two_groups_comes_from_the_group_that_is_used_more() -> None:
    rescue = make("rescue.0", bootname="R")
    rescue_app = make("appfs.9", parent="rescue.0")
    group = target((rescue, rescue_app, *GROUPS), A, ("rootfs", "appfs"))
    assert group.slots["appfs"] == APP_B
    assert group.bootable == B


ROOT_IMAGE = Image("rootfs", filename="rootfs.ext4", type="ext4", size=100)
APP_IMAGE = Image("appfs", filename="appfs.img", type="raw", size=100)
ONE = TargetGroup({"rootfs": B, "appfs": APP_B}, B)


def test_map_images() -> None:
    assert map_images((ROOT_IMAGE, APP_IMAGE), None, ONE) == ((ROOT_IMAGE, B), (APP_IMAGE, APP_B))
    assert image_classes((APP_IMAGE, ROOT_IMAGE, APP_IMAGE)) == ("appfs", "rootfs")


def variant_of(name: str | None) -> Image:
    return Image("rootfs", filename=f"{name}.img", type="raw", variant=name)


@pytest.mark.parametrize(
    ("variants", "ours", "expected"),
    [
        ((None, "red", "blue"), "blue", "blue"),
        (("blue", None), "blue", "blue"),
        ((None, "red"), "blue", None),
        (("red", None), None, None),
    ],
)
def test_variants(variants: tuple[str | None, ...], ours: str | None, expected: str | None) -> None:
    images = tuple(variant_of(name) for name in variants)
    ((image, _),) = map_images(images, ours, ONE)
    assert image.variant == expected


@pytest.mark.parametrize(
    ("images", "group", "error", "message"),
    [
        ((), ONE, BundleError, "No installable image found"),
        (
            (Image("boot", filename="boot.img", type="raw"),),
            ONE,
            BundleError,
            "No target slot for class 'boot' of image 'boot.img' found",
        ),
        (
            (variant_of("red"),),
            ONE,
            BundleError,
            "Failed to find matching variant of image for slot class 'rootfs'",
        ),
        (
            (ROOT_IMAGE,),
            TargetGroup({"rootfs": make("rootfs.1", readonly=True)}, None),
            DeviceError,
            "Target slot for class 'rootfs' of image 'rootfs.ext4' is readonly",
        ),
        (
            (ROOT_IMAGE, Image("add-ons", artifact="web", filename="web.tar", type="tar")),
            ONE,
            NotSupportedError,
            "Artifact image 'web' for repo 'add-ons': artifact repositories are not supported yet",
        ),
        (
            (Image("rootfs", filename="a.img", type="raw", hooks=("install",)),),
            ONE,
            NotSupportedError,
            "Image 'a.img' for slot rootfs.1 wants the slot hooks install: slot hooks are not supported yet",
        ),
    ],
)
def test_unmappable(
    images: tuple[Image, ...], group: TargetGroup, error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        map_images(images, None, group)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("image", "slot", "error"),
    [
        ("raw", "raw", None),
        ("raw", "ext4", None),
        ("raw", "vfat", None),
        ("ext4", "ext4", None),
        ("ext4", "raw", None),
        ("vfat", "vfat", None),
        ("vfat", "raw", None),
        ("squashfs", "raw", None),
        ("squashfs", "ext4", BundleError),
        ("ext4", "vfat", BundleError),
        ("vfat", "ext4", BundleError),
        ("tar", "raw", BundleError),
        ("unknown", "raw", BundleError),
        (None, "raw", BundleError),
        ("tar", "ext4", NotSupportedError),
        ("raw", "nand", NotSupportedError),
        ("raw", "boot-emmc", NotSupportedError),
        ("ubifs", "ubivol", NotSupportedError),
        ("ext4-caibx", "ext4", NotSupportedError),
        ("emptyfs", "ext4", NotSupportedError),
    ],
)
def test_image_types(image: str | None, slot: str, error: type[Exception] | None) -> None:
    one, other = Image("rootfs", filename="x", type=image), make("rootfs.0", type=slot)
    if error is None:
        check_type(one, other)
        return
    with pytest.raises(error, match=f"^Unsupported image type '{image}' for slot type '{slot}'"):
        check_type(one, other)


def test_no_pair_of_types_is_in_both_tables() -> None:
    for image, slots in WRITABLE.items():
        assert not set(slots) & set(RAUC_ALSO_WRITES.get(image, ()))


def test_sizes() -> None:
    check_size(ROOT_IMAGE, B, 100)
    with pytest.raises(BundleError, match=r"^Slot \(99 bytes\) is too small for image \(100 bytes\)\.$"):
        check_size(ROOT_IMAGE, B, 99)
    with pytest.raises(BundleError, match=r"Image size \(100 bytes\) is larger than size-limit \(50 bytes\)"):
        check_size(ROOT_IMAGE, make("boot.0", size_limit=50), 1000)


def test_a_device_of_the_running_system_is_no_target() -> None:
    states = slot_states(AB, A)
    check_not_running((B,), AB, states, {"/dev/rootfs.0": "8:1", "/dev/rootfs.1": "8:2"})
    with pytest.raises(DeviceError, match="belongs to the running system"):
        check_not_running((B,), AB, states, {"/dev/rootfs.0": "8:1", "/dev/rootfs.1": "8:1"})


@pytest.mark.parametrize(
    ("slots", "booted", "identifier", "expected"),
    [
        (AB, A, "booted", (A,)),
        (AB, A, "other", (B,)),
        (AB, A, "rootfs.1", (B,)),
        (AB, None, "rootfs.0", (A,)),
        ((A, B, C), A, "other", (B, C)),
        ((*AB, RESCUE), A, "other", (B,)),
        (GROUPS, APP_A, "booted", (A,)),
        (GROUPS, APP_A, "other", (B,)),
    ],
)
def test_identifiers(
    slots: tuple[Slot, ...], booted: Slot | None, identifier: str, expected: tuple[Slot, ...]
) -> None:
    assert resolve_identifier(slots, booted, identifier) == expected


@pytest.mark.parametrize(
    ("slots", "booted", "identifier", "message"),
    [
        (AB, None, "booted", "Did not find booted slot"),
        (
            AB,
            None,
            "other",
            "Did not find booted slot needed to find another bootable slot of the same class",
        ),
        ((A,), A, "other", "No other bootable slot of the same class found"),
        (AB, A, "rootfs.7", "No slot with class rootfs and name rootfs.7 found"),
        (GROUPS, A, "appfs.0", "Slot appfs.0 has no bootname set"),
        (AB, A, "rootfs", "Invalid slot name format: 'rootfs'"),
        (AB, A, "a.b.c", "Invalid slot name format: 'a.b.c'"),
        (AB, A, "", "Invalid slot name format: ''"),
    ],
)
def test_bad_identifiers(slots: tuple[Slot, ...], booted: Slot | None, identifier: str, message: str) -> None:
    with pytest.raises(Refused) as caught:
        resolve_identifier(slots, booted, identifier)
    assert str(caught.value) == message
    assert caught.value.rule == "slot"


def test_a_group_that_would_not_start_anyway_is_overwritten_first() -> None:
    slots = [
        Slot(f"rootfs.{index}", "rootfs", index, f"/dev/{index}", bootname="ABC"[index]) for index in range(3)
    ]
    states = slot_states(slots, slots[1])
    for bad, expected in (({"rootfs.2"}, "rootfs.2"), ({"rootfs.0"}, "rootfs.0"), ((), "rootfs.0")):
        target = choose_target(slots, states, ["rootfs"], {}, bad=bad)
        assert target.slots["rootfs"].name == expected
