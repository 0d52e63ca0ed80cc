"""Where the device keeps what it knows: tmpfs, overlays, full and read-only file systems, torn documents."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.doctor.conftest import Scene, run
from updated.core.model import Quarantined
from updated.doctor.finding import Finding, Level
from updated.store import Store

Find = Callable[..., Finding]
Mount = Callable[..., Path]


def of_storage(scene: Scene) -> list[tuple[str, Level, str]]:
    """What is not well."""
    found = [each for each in scene.examine() if each.group == "storage" and each.level is not Level.OK]
    return [(each.check, each.level, each.text) for each in found]


def images(scene: Scene, size: int) -> Path:
    image = scene.folder / "image"
    with image.open("wb") as file:
        file.truncate(size)
    run("mkfs.ext4", "-q", "-F", image)
    return image


def test_a_folder_on_a_disk_is_well(scene: Scene) -> None:
    assert of_storage(scene) == []
    (scene.folder / "data").rmdir()
    assert of_storage(scene) == [], "before the first start of the service"


@pytest.mark.root
def test_what_a_reboot_forgets(scene: Scene, mount: Mount) -> None:
    mount(scene.folder / "data", "-t", "tmpfs", "none")
    found = of_storage(scene)
    assert {check for check, _, _ in found} == {"storage.data", "storage.status"}
    assert {(level, text.partition(":")[0]) for _, level, text in found} == {
        (Level.WARNING, "is forgotten at every reboot")
    }


@pytest.mark.root
def test_an_overlay_whose_upper_layer_a_reboot_forgets(scene: Scene, mount: Mount, find: Find) -> None:
    """The usual read-only root."""
    memory = mount(scene.folder / "memory", "-t", "tmpfs", "none")
    for name in ("upper", "work"):
        (memory / name).mkdir()
    options = f"lowerdir={scene.folder}/etc,upperdir={memory}/upper,workdir={memory}/work"
    point = mount(scene.folder / "data", "-t", "overlay", "overlay", "-o", options)
    found = [each for each in scene.examine() if each.check == "storage.data" and each.level is Level.WARNING]
    assert [each.got for each in found] == [f"tmpfs at {memory} (upper layer of {point})"]


@pytest.mark.root
def test_a_slot_is_no_place_for_it(scene: Scene, mount: Mount, attach: Callable[..., str]) -> None:
    device = attach(images(scene, 32 << 20))
    scene.conf.write_text(scene.conf.read_text().replace(f"{scene.folder}/rootfs-0", device))
    mount(scene.folder / "data", device)
    errors = [text for _, level, text in of_storage(scene) if level is Level.ERROR]
    assert len(errors) == 2
    assert all("is inside slot rootfs.0" in text for text in errors)


@pytest.mark.root
def test_read_only(scene: Scene, mount: Mount, attach: Callable[..., str], find: Find) -> None:
    mount(scene.folder / "data", "-o", "ro", attach(images(scene, 32 << 20)))
    finding = find(scene.examine(), "storage.data")
    assert finding.level is Level.ERROR
    assert "cannot be written" in finding.text


@pytest.mark.root
def test_full(scene: Scene, mount: Mount, attach: Callable[..., str], find: Find) -> None:
    mount(scene.folder / "data", attach(images(scene, 4 << 20)))
    assert find(scene.examine(), "storage.data").level is Level.WARNING
    with (scene.folder / "data" / "hog").open("wb") as hog, pytest.raises(OSError):
        while True:
            hog.write(bytes(1 << 20))
            hog.flush()
    finding = find(scene.examine(), "storage.data")
    assert (finding.level, finding.text) == (Level.ERROR, "is full")


def test_a_file_where_a_folder_should_be(scene: Scene, find: Find) -> None:
    (scene.folder / "data").rmdir()
    (scene.folder / "data").write_text("")
    finding = next(each for each in scene.examine() if each.check == "storage.data")
    assert (finding.level, finding.text) == (Level.ERROR, f"{scene.folder}/data is no folder")


def test_torn_documents_are_said_and_stay_where_they_are(scene: Scene) -> None:
    data = scene.folder / "data"
    (data / "quarantine.json").write_bytes(b"{")
    (data / "central.raucs").write_bytes(b"\xff[")
    (data / "floor.json.broken").write_bytes(b"x")
    before = {path.name: path.read_bytes() for path in data.iterdir()}
    found = of_storage(scene)
    assert {path.name: path.read_bytes() for path in data.iterdir()} == before
    assert [(check, level) for check, level, _ in found] == [
        ("storage.documents", Level.WARNING),
        ("storage.documents", Level.WARNING),
        ("storage.documents", Level.NOTE),
    ]
    assert f"{data}/quarantine.json cannot be read" in found[0][2]
    assert f"{data}/central.raucs" in found[1][2]


def test_the_quarantine_is_shown(scene: Scene, find: Find) -> None:
    store = Store(scene.folder / "data", print)
    store.reject(Quarantined("ab" * 32, "2026.2", "it never came up", "2026-11-20T11:04:30Z", "boot"))
    finding = find(scene.examine(), "storage.quarantine")
    assert (finding.level, finding.about) == (Level.NOTE, "2026.2")
    assert "it never came up" in finding.text
