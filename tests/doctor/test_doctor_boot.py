"""The boot environment: GRUB's by grub-editenv, U-Boot's by the real fw_setenv."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.doctor.conftest import Scene
from updated.core.states import Install, RebootPending, Update
from updated.doctor.finding import Finding, Level
from updated.store import Store

Find = Callable[..., Finding]
UPDATE = Update("tx", "request", "/b", "ab", "2", "rootfs.1")


def test_all_well(scene: Scene, find: Find) -> None:
    findings = scene.examine()
    assert {each.level for each in findings if each.group == "boot"} == {Level.OK}
    assert find(findings, "boot.group", "rootfs.1").text == "good (OK=1 TRY=0)"
    assert find(findings, "boot.order").text == "A B"


def test_nothing_to_go_back_to(scene: Scene, find: Find) -> None:
    scene.grub(B_OK="0")
    finding = find(scene.examine(), "boot.group", "rootfs.1")
    assert (finding.level, finding.got) == (Level.WARNING, "OK=0 TRY=0")


@pytest.mark.parametrize("setting", ["", "prevent-late-fallback=true"])
def test_what_is_bad_on_purpose_is_a_note(scene: Scene, find: Find, setting: str) -> None:
    if setting:
        scene.write(system=setting)
    else:
        Store(scene.folder / "data", print).save_state(Install(UPDATE, 1))
    scene.grub(B_OK="0")
    assert find(scene.examine(), "boot.group", "rootfs.1").level is Level.NOTE


def test_what_runs_is_not_confirmed(scene: Scene, find: Find) -> None:
    scene.grub(A_TRY="1")
    findings = scene.examine()
    assert find(findings, "boot.group", "rootfs.0").level is Level.WARNING
    assert find(findings, "boot.primary").level is Level.WARNING, "B is started next"


def test_both_counters_are_empty(scene: Scene, find: Find) -> None:
    scene.grub(A_OK="0", B_OK="0")
    finding = find(scene.examine(), "boot.primary")
    assert (finding.level, finding.text) == (
        Level.ERROR,
        "no group can be started: the next boot ends in the bootloader",
    )


def test_an_update_that_waits_for_its_reboot_is_a_note(scene: Scene, find: Find) -> None:
    scene.grub(ORDER="B A")
    assert find(scene.examine(), "boot.primary").level is Level.WARNING
    Store(scene.folder / "data", print).save_state(RebootPending(UPDATE, "boot"))
    assert find(scene.examine(), "boot.primary").level is Level.NOTE


def test_names_in_the_order_that_no_slot_has(scene: Scene, find: Find) -> None:
    scene.grub(ORDER="A B rescue")
    assert find(scene.examine(), "boot.order").level is Level.NOTE
    scene.grub(ORDER="rescue A B")
    finding = find(scene.examine(), "boot.order")
    assert (finding.level, finding.hint) == (Level.WARNING, "system.conf has A, B.")


@pytest.mark.root
def test_a_torn_environment(scene: Scene, find: Find) -> None:
    (scene.folder / "grubenv").write_bytes(b"")
    finding = find(scene.examine(), "boot.environment")
    assert finding.level is Level.ERROR
    assert "it is empty" in finding.text
    assert "grub-editenv" in finding.hint
    (scene.folder / "grubenv").unlink()
    assert "No such file" in find(scene.examine(), "boot.environment").text


@pytest.mark.root
def test_nobody_knows_what_runs(scene: Scene, find: Find) -> None:
    (scene.folder / "cmdline").write_text("quiet\n")
    finding = find(scene.examine(), "boot.booted")
    assert finding.level is Level.ERROR
    assert "Could not find any root device" in finding.text
    (scene.folder / "cmdline").unlink()
    assert find(scene.examine(), "boot.booted").level is Level.ERROR
    (scene.folder / "cmdline").write_text("rauc.external\n")
    assert find(scene.examine(), "boot.booted").level is Level.NOTE


def test_no_bootloader(scene: Scene, find: Find) -> None:
    scene.write(bootloader="noop")
    assert find(scene.examine(), "boot.environment").level is Level.NOTE


@pytest.fixture
def uboot(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets variables; the tools find the environment of the scene."""
    folder = scene.folder / "uboot"
    (folder / "bin").mkdir(parents=True)
    (folder / "env").write_bytes(b"\xff" * 0x2000)
    (folder / "defaults").write_text("")
    config = scene.places.fw_env_config
    config.write_text(f"# a comment\n{folder}/env 0x0 0x2000\n")
    for name in ("fw_printenv", "fw_setenv"):
        tool = folder / "bin" / name
        tool.write_text(f'#!/bin/sh\nexec {shutil.which(name)} -c {config} "$@"\n')
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder / "bin"), prepend=":")
    scene.write(bootloader="uboot")

    def change(**variables: str) -> None:
        for name, value in variables.items():
            argv: list[str | Path] = [folder / "bin" / "fw_setenv", "-f", folder / "defaults", name, value]
            subprocess.run(argv, check=True, capture_output=True, timeout=10)

    change(BOOT_ORDER="A B", BOOT_A_LEFT="3", BOOT_B_LEFT="3")
    return change


def test_attempts_of_both_groups(scene: Scene, find: Find, uboot: Callable[..., None]) -> None:
    findings = scene.examine()
    assert find(findings, "boot.group", "rootfs.0").text == "good (3 attempts left)"
    assert find(findings, "boot.group", "rootfs.1").level is Level.OK
    uboot(BOOT_A_LEFT="2", BOOT_B_LEFT="0")
    findings = scene.examine()
    running, other = (find(findings, "boot.group", f"rootfs.{number}") for number in (0, 1))
    assert (running.level, running.got) == (Level.WARNING, "2 attempts left")
    assert (other.level, other.got) == (Level.WARNING, "0 attempts left")


def test_one_copy_of_the_environment(scene: Scene, find: Find, uboot: Callable[..., None]) -> None:
    assert find(scene.examine(), "boot.copies").level is Level.WARNING
    config = scene.places.fw_env_config
    (scene.folder / "uboot" / "second").write_bytes(b"\xff" * 0x2000)
    config.write_text(config.read_text() + f"{scene.folder}/uboot/second 0x0 0x2000\n")
    uboot(BOOT_ORDER="A B", BOOT_A_LEFT="3", BOOT_B_LEFT="3")
    assert find(scene.examine(), "boot.copies").level is Level.OK


STATE = """#!/bin/sh
while [ $# -gt 0 ]; do
    [ "$1" = -g ] && sed -n "s/^$2=//p" {0}/state
    shift
done
"""


def test_barebox_counts_too(scene: Scene, find: Find, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a program that answers as barebox-state does; the real one wants a device tree."""
    tool = scene.folder / "bin" / "barebox-state"
    tool.parent.mkdir()
    tool.write_text(STATE.format(scene.folder))
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent), prepend=":")
    scene.write(bootloader="barebox")
    values = {"A.priority": 20, "A.remaining_attempts": 2, "B.priority": 10, "B.remaining_attempts": 0}
    lines = [f"bootstate.{name}={value}\n" for name, value in values.items()]
    (scene.folder / "state").write_text("".join(lines))
    findings = scene.examine()
    running, other = (find(findings, "boot.group", f"rootfs.{number}") for number in (0, 1))
    assert (running.level, running.got) == (Level.WARNING, "2 attempts left")
    assert (other.level, other.got) == (Level.WARNING, "0 attempts left")
    assert find(findings, "boot.primary").level is Level.OK


@pytest.mark.root
def test_a_wrong_checksum(scene: Scene, find: Find, uboot: Callable[..., None]) -> None:
    before = (scene.folder / "uboot" / "env").read_bytes()
    (scene.folder / "uboot" / "env").write_bytes(b"\0\0\0\0" + before[4:])
    finding = find(scene.examine(), "boot.environment")
    assert finding.level is Level.ERROR
    assert (scene.folder / "uboot" / "env").read_bytes() == b"\0\0\0\0" + before[4:], "nothing is repaired"


def test_a_script_that_hangs_is_ended(scene: Scene, find: Find) -> None:
    script = scene.folder / "backend.sh"
    script.write_text(f"#!/bin/sh\necho $$ > {scene.folder}/pid\nexec sleep 60\n")
    script.chmod(0o755)
    scene.write(bootloader="custom")
    scene.conf.write_text(scene.conf.read_text() + f"\n[handlers]\nbootloader-custom-backend={script}\n")
    (scene.folder / "cmdline").write_text("quiet\n")  # so that it is asked what runs
    finding = find(scene.examine(limit=1), "boot.booted")
    assert (finding.level, finding.text) == (Level.ERROR, "what runs cannot be found out in time")
    pid = (scene.folder / "pid").read_text().strip()
    assert not Path("/proc", pid).exists()
