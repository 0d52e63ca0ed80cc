"""All together: whatever is sick, the rest is still looked at, in some seconds, and nothing changes."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.doctor.conftest import Scene
from updated.doctor import run as doctor
from updated.doctor.finding import Finding, Level, ok, worst
from updated.doctor.run import GROUPS
from updated.doctor.subject import Subject
from updated.doctor.threads import DaemonThreads

Find = Callable[..., Finding]


def problems(findings: list[Finding]) -> set[str]:
    return {each.check for each in findings if each.level in (Level.WARNING, Level.ERROR, Level.UNKNOWN)}


def tree(folder: Path) -> dict[str, tuple[float, bytes]]:
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}


def test_a_device_that_is_well(scene: Scene) -> None:
    findings = scene.examine()
    assert problems(findings) <= {"clock.synchronised"}, "the machine of this test may have no NTP"
    assert {each.group for each in findings} == set(GROUPS)
    assert [GROUPS.index(each.group) for each in findings] == sorted(
        GROUPS.index(each.group) for each in findings
    )


def test_nothing_changes(scene: Scene, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (scene.folder / "data" / "journal.json").write_text("{")
    (scene.folder / "data" / ".journal.json.x.tmp").write_text("left by a power cut")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    before = tree(scene.folder)
    scene.examine()
    assert tree(scene.folder) == before
    assert list((tmp_path / "tmp").iterdir()) == []


def test_no_room_for_copies(scene: Scene, find: Find, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(scene.folder / "nowhere"))
    findings = scene.examine()
    assert find(findings, "storage.documents").level is Level.UNKNOWN
    assert find(findings, "boot.primary").level is Level.OK


def test_system_conf_is_broken(scene: Scene, find: Find) -> None:
    scene.conf.write_text("[system]\ncompatibel=x\n")
    findings = scene.examine()
    finding = find(findings, "config.file", "system.conf")
    assert finding.level is Level.ERROR
    assert "Failed to load system config" in finding.text
    assert {"clock", "storage", "tools", "service"} <= {each.group for each in findings}
    scene.conf.unlink()
    assert find(scene.examine(), "config.file", "system.conf").level is Level.ERROR


def test_updated_toml_is_broken(scene: Scene, find: Find) -> None:
    scene.toml.write_text("[polcy]\n")
    findings = scene.examine()
    finding = find(findings, "config.file", "updated.toml")
    assert (finding.level, finding.hint) == (Level.ERROR, "Did you mean 'policy'?")
    assert find(findings, "boot.primary").level is Level.OK


def test_what_the_configuration_asks_for_in_vain(scene: Scene, find: Find) -> None:
    scene.write(system="perform-pre-check=true")
    assert find(scene.examine(), "config.unsupported").level is Level.WARNING


def test_one_group_is_not_enough(scene: Scene, find: Find) -> None:
    text = scene.conf.read_text()
    scene.conf.write_text(text[: text.index("[slot.rootfs.1]")])
    assert find(scene.examine(), "config.groups").got == "1"


def test_automatic_sources_without_health_checks(scene: Scene, find: Find) -> None:
    assert find(scene.examine(), "config.health").level is Level.OK
    sources = f'[folder]\npath = "{scene.folder}/drop"\n'
    scene.toml.write_text(sources)
    assert find(scene.examine(), "config.health").level is Level.NOTE
    scene.toml.write_text(f'{sources}[[confirm.checks]]\ntype = "unit"\nunit = "app.service"\n')
    assert find(scene.examine(), "config.health").level is Level.OK


def test_programs_that_are_missing(scene: Scene, find: Find) -> None:
    scene.write(bootloader="uboot", slots="resize=true\n")
    scene.toml.write_text('[reboot]\ncommand = ["sh", "-c", "reboot"]\n')
    there = find(scene.examine(), "tools.missing")
    assert (there.level, there.text) == (
        Level.OK,
        "all there: fw_printenv, fw_setenv, e2fsck, resize2fs, sh",
    )
    scene.toml.write_text('[reboot]\ncommand = ["no-such-program", "now"]\n')
    missing = find(scene.examine(), "tools.missing")
    assert (missing.level, missing.about) == (Level.ERROR, "no-such-program")
    assert "[reboot] command" in missing.text


def test_a_check_that_fails_does_not_silence_the_others(scene: Scene, find: Find, subject: Subject) -> None:
    def sick(_: Subject) -> Iterator[Finding]:
        yield ok("slots.first", "", "found before it failed")
        raise ZeroDivisionError("oh")

    async def worse(_: Subject) -> AsyncIterator[Finding]:
        yield ok("boot.first", "", "found before it failed")
        raise KeyError("no")

    findings = asyncio.run(
        doctor.checked(subject, [], blocking={"slots": sick}, waiting={"boot": worse}, limit=4)
    )
    assert find(findings, "slots.unfinished").text == "this check failed: ZeroDivisionError: oh"
    assert find(findings, "boot.unfinished").text == "this check failed: KeyError: 'no'"
    assert {each.check for each in findings if each.level is Level.OK} == {"slots.first", "boot.first"}


def test_a_medium_that_never_answers_does_not_stop_it(subject: Subject, find: Find) -> None:
    never = threading.Event()

    def dead(_: Subject) -> Iterator[Finding]:
        yield ok("slots.first", "", "was well")
        never.wait()

    async def together() -> list[Finding]:
        asyncio.get_running_loop().set_default_executor(DaemonThreads())
        return await doctor.checked(subject, [], blocking={"slots": dead}, waiting={}, limit=0.05)

    findings = asyncio.run(together())  # which waits for ordinary threads
    assert find(findings, "slots.unfinished").text == "not done after 0.05 s"
    assert find(findings, "slots.first").level is Level.OK
    never.set()


def test_a_pipe_where_a_file_should_be_does_not_stop_it(scene: Scene, find: Find) -> None:
    scene.toml.unlink()
    os.mkfifo(scene.toml)
    findings = scene.examine(limit=1.5)
    assert find(findings, "config.file", "updated.toml").text == "cannot be read in time"
    assert find(findings, "boot.primary").level is Level.OK


@pytest.fixture
def subject(scene: Scene) -> Subject:
    return replace(scene.subject())


def test_the_worst_counts() -> None:
    def at(level: Level) -> Finding:
        return Finding("x.y", level, "", "")

    assert worst([]) is Level.OK
    assert worst([at(Level.UNKNOWN), at(Level.WARNING), at(Level.NOTE)]) is Level.WARNING
    assert worst([at(Level.UNKNOWN), at(Level.NOTE)]) is Level.UNKNOWN
