"""Slots that are missing, too small, twice the same, read-only or in use: files and loop devices."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.doctor.conftest import SLOT_SIZE, Scene, run
from updated.doctor.finding import Finding, Level

Find = Callable[..., Finding]


def of_slots(scene: Scene) -> dict[str, Level]:
    """What is not well."""
    found = [each for each in scene.examine() if each.group == "slots" and each.level is not Level.OK]
    return {f"{each.check} {each.about}": each.level for each in found}


def test_files_of_the_same_size_are_well(scene: Scene, find: Find) -> None:
    assert of_slots(scene) == {}
    findings = scene.examine()
    assert find(findings, "slots.size").text == "2 slots of 1 MiB"
    assert find(findings, "slots.device", "rootfs.1").text == f"{scene.folder}/rootfs-1, 1 MiB"


def test_a_slot_that_is_not_there(scene: Scene) -> None:
    (scene.folder / "rootfs-1").unlink()
    assert of_slots(scene) == {"slots.device rootfs.1": Level.ERROR}
    (scene.folder / "rootfs-1").mkdir()
    assert of_slots(scene) == {"slots.device rootfs.1": Level.ERROR}
    (scene.folder / "rootfs-1").rmdir()
    os.mkfifo(scene.folder / "rootfs-1")
    assert of_slots(scene) == {"slots.device rootfs.1": Level.ERROR}


def test_sizes_that_differ(scene: Scene, find: Find) -> None:
    os.truncate(scene.folder / "rootfs-1", SLOT_SIZE // 2)
    finding = find(scene.examine(), "slots.size")
    assert (finding.level, finding.got) == (Level.WARNING, "rootfs.0 1 MiB, rootfs.1 0.5 MiB")
    os.truncate(scene.folder / "rootfs-1", 0)
    assert of_slots(scene)["slots.device rootfs.1"] is Level.ERROR


def test_two_groups_on_one_device(scene: Scene, find: Find) -> None:
    (scene.folder / "rootfs-1").unlink()
    (scene.folder / "rootfs-1").symlink_to("rootfs-0")
    finding = find(scene.examine(), "slots.shared")
    assert (finding.level, finding.about) == (Level.ERROR, "rootfs.0, rootfs.1")


def test_two_parts_of_one_image_may_share(scene: Scene) -> None:
    """As Home Assistant OS does with its boot partition and what lies before it."""
    device = f"device={scene.folder}/boot\n"
    (scene.folder / "boot").write_bytes(bytes(512))
    scene.write(slots=f"[slot.boot.0]\n{device}type=vfat\n\n[slot.spl.0]\n{device}type=raw\n")
    assert of_slots(scene) == {}


def test_a_type_that_we_cannot_write(scene: Scene) -> None:
    scene.write(slots=f"[slot.nand.0]\ndevice={scene.folder}/rootfs-1\ntype=nand\n")
    assert of_slots(scene) == {"slots.device nand.0": Level.WARNING}


@pytest.mark.root
def test_loop_devices(
    scene: Scene, find: Find, attach: Callable[..., str], mount: Callable[..., Path]
) -> None:
    run("mkfs.ext4", "-q", "-F", scene.folder / "rootfs-1")
    device = attach(scene.folder / "rootfs-1")
    scene.conf.write_text(scene.conf.read_text().replace(f"{scene.folder}/rootfs-1", device))
    assert of_slots(scene) == {}
    assert find(scene.examine(), "slots.device", "rootfs.1").text == f"{device}, 1 MiB"
    point = mount(scene.folder / "mnt", device)
    finding = find(scene.examine(), "slots.mounted")
    assert finding.level is Level.WARNING
    assert f"mounted at {point}:" in finding.text
    assert find(scene.examine(), "slots.size").level is Level.OK


@pytest.mark.root
def test_a_device_that_is_read_only(scene: Scene, attach: Callable[..., str]) -> None:
    device = attach(scene.folder / "rootfs-1", "--read-only")
    scene.conf.write_text(scene.conf.read_text().replace(f"{scene.folder}/rootfs-1", device))
    assert of_slots(scene) == {"slots.writable rootfs.1": Level.ERROR}
    (scene.folder / "cmdline").write_text("rauc.slot=B\n")
    assert of_slots(scene) == {}, "what runs is never written"
