"""Which slots are running, and which slots an update is written to.  Pure; RAUC's rules (src/install.c).

Where RAUC takes whatever its hash table shows first, the order of system.conf decides here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from updated.bundle.manifest import Image
from updated.core.model import Slot, SlotState, SlotStatus, slot_groups
from updated.errors import BundleError, DeviceError, NotSupportedError, Refused

EXTERNAL = "_external_"

WRITABLE = {  # image type -> slot types that it is written to as it is
    "raw": ("raw", "ext4", "vfat"),
    "ext4": ("raw", "ext4"),
    "vfat": ("raw", "vfat"),
    "squashfs": ("raw",),
}
RAUC_ALSO_WRITES = {  # what RAUC's table (src/update_handler.c) has beyond WRITABLE
    "raw": (
        *("nor", "nand", "ubifs", "ubivol", "jffs2", "boot-emmc", "emmc-boot-linked"),
        *("boot-mbr-switch", "boot-gpt-switch", "boot-raw-fallback"),
    ),
    "ext4": ("boot-gpt-switch",),
    "vfat": ("boot-mbr-switch", "boot-gpt-switch"),
    "squashfs": ("ubivol",),
    "ubifs": ("ubivol", "ubifs"),
    "tar": ("ext4", "ubifs", "vfat", "jffs2"),
    "emptyfs": ("ext4",),
    "catar": ("ext4",),
    "caidx": ("ext4", "ubifs", "vfat"),
    "raw-caibx": ("ext4", "raw", "vfat", "jffs2", "nor", "nand", "ubivol", "ubifs"),
    "ext4-caibx": ("ext4", "raw"),
    "vfat-caibx": ("raw",),
    "squashfs-caibx": ("raw", "ubivol"),
    "ubifs-caibx": ("ubivol", "ubifs"),
}


@dataclass(frozen=True, slots=True)
class TargetGroup:
    """The slots that one update may write, one for each class."""

    slots: Mapping[str, Slot]  # slot class -> slot
    bootable: Slot | None  # the root slot with a bootname among the groups; None: nothing to switch


def find_booted(slots: Sequence[Slot], boot_slot: str, resolve: Mapping[str, str]) -> Slot | None:
    """The slot that `boot_slot` (bootname, slot name or device, in this order) names.

    None: booted from somewhere else.  `resolve` maps device paths (of the slots, and `boot_slot`) to values
    that are equal for the same device.  Raises DeviceError when no slot, or more than one, is meant.
    """
    if not boot_slot:
        raise DeviceError("Could not find any root device or rauc slot information in /proc/cmdline")
    by_bootname = [slot for slot in slots if slot.bootname == boot_slot]
    by_name = [slot for slot in slots if slot.name == boot_slot]
    wanted = resolve.get(boot_slot, boot_slot)
    by_device = [slot for slot in slots if resolve.get(slot.device, slot.device) == wanted]
    found = by_bootname or by_name or by_device
    if len(found) > 1:
        names = ", ".join(slot.name for slot in found)
        raise DeviceError(
            f"Did not find booted slot (matching '{boot_slot}'): it is the device of {names}",
            hint="Let the bootloader pass rauc.slot=<bootname> on the kernel command line.",
        )
    if found:
        return found[0]
    if boot_slot in (EXTERNAL, "/dev/nfs"):
        return None
    raise DeviceError(
        f"Did not find booted slot (matching '{boot_slot}')",
        hint="No slot of system.conf has this bootname, name or device.",
    )


def slot_states(slots: Sequence[Slot], booted: Slot | None) -> dict[str, SlotState]:
    """Slot name -> state: `booted`, `active` for all others of its group, else `inactive`.

    RAUC calls the parent of a booted child inactive, and could write to it; here it is active.
    """
    groups = slot_groups(slots)
    running = {
        slot.name for group in groups.values() if booted in group for slot in group if booted is not None
    }
    return {slot.name: _state(slot, booted, running) for slot in slots}


def _state(slot: Slot, booted: Slot | None, running: set[str]) -> SlotState:
    if slot == booted:
        return "booted"
    return "active" if slot.name in running else "inactive"


def choose_target(
    slots: Sequence[Slot],
    states: Mapping[str, SlotState],
    classes: Iterable[str],
    statuses: Mapping[str, SlotStatus],
    *,
    primary: str | None = None,
    bad: Collection[str] = (),
) -> TargetGroup:
    """One inactive group for each class of root slots that holds a wanted class.

    With several candidates (A/B/C): not the primary, then one that would not start anyway, then one whose
    last install did not end well, then one that was never installed, then the one installed longest ago.
    `primary` is a root slot's name, `bad` are those that the bootloader calls bad.
    Raises DeviceError or NotSupportedError.
    """
    wanted = set(classes)
    groups = slot_groups(slots)
    by_root_class: dict[str, list[Slot]] = {}
    for group in groups.values():
        root = group[0]
        inactive = all(states[slot.name] == "inactive" for slot in group)
        if inactive and wanted & {slot.slot_class for slot in group}:
            by_root_class.setdefault(root.slot_class, []).append(root)

    def rank(root: Slot) -> tuple[bool, bool, bool, str]:
        status = statuses.get(root.name, SlotStatus())
        unfinished = status.status in ("failed", "pending")
        return (
            root.name == primary,
            root.name not in bad,
            not unfinished,
            status.installed_timestamp or "",
        )

    chosen = [min(_writable(roots, groups, wanted), key=rank) for roots in by_root_class.values()]
    if wanted and not chosen:
        raise DeviceError(
            "Could not determine target group",
            hint=f"No inactive slot of system.conf is for class {', '.join(sorted(wanted))}.",
        )
    return _merge([groups[root.name] for root in chosen], wanted)


def _writable(
    roots: Sequence[Slot], groups: Mapping[str, tuple[Slot, ...]], wanted: set[str]
) -> Sequence[Slot]:
    """The roots of groups without a read-only slot of a wanted class; all of them if there is none."""
    return [
        root
        for root in roots
        if not any(slot.readonly for slot in groups[root.name] if slot.slot_class in wanted)
    ] or roots


def _merge(groups: Sequence[tuple[Slot, ...]], wanted: set[str]) -> TargetGroup:
    """Where two groups hold the same class, the group with more of the wanted classes gives the slot."""
    by_use = sorted(groups, key=lambda group: -len(wanted & {slot.slot_class for slot in group}))
    members: dict[str, Slot] = {}
    roots: dict[str, Slot] = {}
    for group in by_use:
        for slot in group:
            if slot.slot_class not in members:
                members[slot.slot_class] = slot
                if slot.slot_class in wanted:
                    roots[group[0].name] = group[0]
    bootable = [root for root in roots.values() if root.bootname is not None]
    if len(bootable) > 1:
        names = ", ".join(sorted(root.name for root in bootable))
        raise NotSupportedError(
            f"Updating more than one bootable slot at once ({names}) is not supported",
            hint="Make one bundle for each of them.",
        )
    return TargetGroup(slots=members, bootable=bootable[0] if bootable else None)


def image_classes(images: Iterable[Image]) -> tuple[str, ...]:
    """The slot classes that a manifest has images for, in its order."""
    return tuple(dict.fromkeys(image.slot_class for image in images if image.artifact is None))


def map_images(
    images: Sequence[Image], variant: str | None, target: TargetGroup
) -> tuple[tuple[Image, Slot], ...]:
    """The image for each slot class of the manifest, and the slot it is written to.

    Raises BundleError or DeviceError with RAUC's texts, NotSupportedError for what only RAUC can do.
    """
    for image in images:
        if image.artifact is not None:
            raise NotSupportedError(
                f"Artifact image '{image.artifact}' for repo '{image.slot_class}': "
                "artifact repositories are not supported yet"
            )
    pairs = tuple(_pair(name, images, variant, target) for name in image_classes(images))
    if not pairs:
        raise BundleError("No installable image found")
    return pairs


def _pair(
    slot_class: str, images: Sequence[Image], variant: str | None, target: TargetGroup
) -> tuple[Image, Slot]:
    image = _variant(slot_class, images, variant)
    slot = target.slots.get(slot_class)
    if slot is None:
        raise BundleError(
            f"No target slot for class '{slot_class}' of image '{image.filename}' found",
            hint=f"The target group has {', '.join(sorted(target.slots)) or 'no slot'}.",
        )
    if slot.readonly:
        raise DeviceError(
            f"Target slot for class '{slot_class}' of image '{image.filename}' is readonly",
            hint=f"{slot.name} has readonly=true in system.conf.",
        )
    check_type(image, slot)
    return image, slot


def _variant(slot_class: str, images: Sequence[Image], variant: str | None) -> Image:
    """The image of our variant, else the one without a variant."""
    candidates = [image for image in images if image.slot_class == slot_class]
    own = [image for image in candidates if image.variant is not None and image.variant == variant]
    default = [image for image in candidates if image.variant is None]
    if not own + default:
        raise BundleError(
            f"Failed to find matching variant of image for slot class '{slot_class}'",
            hint=f"This device is variant '{variant or ''}', the bundle has "
            + ", ".join(f"'{image.variant}'" for image in candidates)
            + ".",
        )
    return (own + default)[0]


def check_type(image: Image, slot: Slot) -> None:
    """May an image of this type be written to a slot of this type?

    Raises BundleError if RAUC would not either, NotSupportedError if RAUC would.
    """
    if image.hooks:
        raise NotSupportedError(
            f"Image '{image.filename}' for slot {slot.name} wants the slot hooks {', '.join(image.hooks)}: "
            "slot hooks are not supported yet"
        )
    if slot.type in WRITABLE.get(image.type or "", ()):
        return
    message = f"Unsupported image type '{image.type}' for slot type '{slot.type}'"
    if slot.type in RAUC_ALSO_WRITES.get(image.type or "", ()):
        raise NotSupportedError(f"{message} (not supported yet)")
    raise BundleError(message, hint=f"A slot of type {slot.type} takes {_takes(slot.type)}.")


def _takes(slot_type: str) -> str:
    fitting = [image for image, slots in WRITABLE.items() if slot_type in slots]
    return f"images of type {', '.join(fitting)}" if fitting else "no image yet"


def check_size(image: Image, slot: Slot, capacity: int) -> None:
    """Does the image fit into `capacity` bytes of the slot?  Raises BundleError with RAUC's texts."""
    if slot.size_limit is not None and image.size > slot.size_limit:
        raise BundleError(
            f"Image size ({image.size} bytes) is larger than size-limit ({slot.size_limit} bytes)."
        )
    if image.size > capacity:
        raise BundleError(
            f"Slot ({capacity} bytes) is too small for image ({image.size} bytes).",
            hint=f"'{image.filename}' does not fit into {slot.name} ({slot.device}).",
        )


def check_not_running(
    target: Iterable[Slot],
    slots: Sequence[Slot],
    states: Mapping[str, SlotState],
    resolve: Mapping[str, str],
) -> None:
    """No target slot may be a device of the running system, whatever system.conf calls it.

    `resolve` as for `find_booted`.  Raises DeviceError.
    """
    running = {
        resolve.get(slot.device, slot.device): slot for slot in slots if states[slot.name] != "inactive"
    }
    for slot in target:
        other = running.get(resolve.get(slot.device, slot.device))
        if other is not None:
            raise DeviceError(
                f"Destination device '{slot.device}' for slot '{slot.name}' belongs to the running system",
                hint=f"system.conf gives the {states[other.name]} slot {other.name} the same device.",
            )


def resolve_identifier(slots: Sequence[Slot], booted: Slot | None, identifier: str) -> tuple[Slot, ...]:
    """The slots that `booted`, `other` or `<class>.<n>` means.

    `booted` is the root of the running group.  Raises Refused(rule="slot") with RAUC's texts.
    """
    if identifier == "booted":
        if booted is None:
            raise Refused("Did not find booted slot", rule="slot")
        return (_bootable(_root(slots, booted)),)
    if identifier == "other":
        return _others(slots, booted)
    parts = identifier.split(".")
    if len(parts) != 2:
        raise Refused(
            f"Invalid slot name format: '{identifier}'",
            rule="slot",
            hint="Expected booted, other or <class>.<number>.",
        )
    for slot in slots:
        if slot.name == identifier:
            return (_bootable(slot),)
    raise Refused(f"No slot with class {parts[0]} and name {identifier} found", rule="slot")


def _others(slots: Sequence[Slot], booted: Slot | None) -> tuple[Slot, ...]:
    if booted is None:
        raise Refused(
            "Did not find booted slot needed to find another bootable slot of the same class", rule="slot"
        )
    root = _root(slots, booted)
    others = tuple(
        slot
        for slot in slots
        if slot.slot_class == root.slot_class
        and slot.parent is None
        and slot.bootname is not None
        and slot != root
    )
    if not others:
        raise Refused("No other bootable slot of the same class found", rule="slot")
    return others


def _bootable(slot: Slot) -> Slot:
    if slot.bootname is None:
        raise Refused(f"Slot {slot.name} has no bootname set", rule="slot")
    return slot


def _root(slots: Sequence[Slot], slot: Slot) -> Slot:
    return next(group[0] for group in slot_groups(slots).values() if slot in group)
