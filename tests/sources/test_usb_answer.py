"""What the person at the device sees and hears, without a stick."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from updated.core.model import Outcome
from updated.errors import SourceError
from updated.sources.usb_answer import Hooks, Led
from updated.sources.usb_mount import OPTIONS, options, refusal
from updated.sources.usb_text import Passed, Tried, plain, result_text

NOW = "2026-01-02T03:04:05Z"


def outcome(code: str, text: str = "", version: str = "") -> Outcome:
    return Outcome("", "usb", "", version, "", "", code, text, NOW)


# The text


@pytest.mark.parametrize(
    ("code", "first"),
    [
        ("installed", "The update was installed."),
        ("failed", "The update FAILED."),
        ("refused", "The update was REFUSED."),
        ("cancelled", "The update was CANCELLED."),
        ("strange", "The update ended: strange"),
    ],
)
def test_first_line(code: str, first: str) -> None:
    text = result_text(compatible="board", time="", tried=Tried("a.raucb", outcome(code)), passed=())
    assert text.startswith(first)
    assert "Version: not known\n" in text
    assert "Reason" not in text


def test_nothing_was_tried() -> None:
    passed = (Passed("a.raucb", "too old"), Passed("b.raucb", "for another board"))
    assert result_text(compatible="board", time=NOW, tried=None, passed=passed) == (
        "No update was installed from this stick.\n\nDevice:  board\nTime:    2026-01-02T03:04:05Z\n\n"
        "Not installed:\n- a.raucb: too old\n- b.raucb: for another board\n"
    )


@given(st.text(), st.text(), st.text(max_size=3000))
def test_texts_from_elsewhere_stay_on_their_line(bundle: str, version: str, reason: str) -> None:
    tried = Tried(bundle, outcome("failed", reason, version))
    text = result_text(compatible="x", time="", tried=tried, passed=(Passed(bundle, reason),))
    assert len(text.splitlines()) <= 11
    assert len(text) < 6000


def test_plain() -> None:
    assert plain(" a\nb\t\x1b[31mc ü ") == "a b ?[31mc ü"
    assert plain("\udcff") == "?"


# The light


def light(folder: Path) -> Led:
    folder.mkdir()
    (folder / "max_brightness").write_text("7\n")
    return Led(folder.name, folder.parent)


def test_lights(tmp_path: Path) -> None:
    folder = tmp_path / "green"
    led = light(folder)

    async def scenario() -> None:
        await led.show("slow")
        names = ("trigger", "delay_on", "delay_off")
        assert [(folder / name).read_text() for name in names] == ["timer", "500", "500"]
        await led.show("fast")
        assert [(folder / name).read_text() for name in names] == ["timer", "100", "100"]
        await led.show("on")
        assert [(folder / name).read_text() for name in ("trigger", "brightness")] == ["none", "7"]
        await led.show("off")
        assert [(folder / name).read_text() for name in ("trigger", "brightness")] == ["none", "0"]
        (folder / "brightness").unlink()
        await led.show("off")
        assert not (folder / "brightness").exists()  # it is off already

    asyncio.run(scenario())


def test_a_light_that_is_not_there_is_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        led = Led("missing", tmp_path)
        for _ in range(3):
            await led.show("slow")
            await led.show("on")
        await Led("", tmp_path).show("on")

    asyncio.run(scenario())
    assert len(caplog.records) == 1
    assert "missing" in caplog.text


# The programs


def call(*program: str, timeout: float = 20.0, text: str = "") -> None:
    hooks = Hooks({"on-success": program}, timeout)
    asyncio.run(hooks.call("on-success", bundle="/a b/c", result="installed", text=text, version="1"))


def test_a_program_gets_its_words(tmp_path: Path) -> None:
    script = 'printf "%s|" "$UPDATED_BUNDLE" "$UPDATED_RESULT" "$UPDATED_TEXT" "$UPDATED_VERSION" > "$0"'
    call("sh", "-c", script, str(tmp_path / "said"), text="two\nlines\0")
    assert (tmp_path / "said").read_text() == "/a b/c|installed|two lines?|1|"


def test_no_program() -> None:
    call()


@pytest.mark.parametrize(
    ("program", "warning"),
    [
        (["false"], "exit code 1"),
        (["/nowhere/at/all"], "No such file"),
        (["sh", "-c", "kill $$"], "exit code -15"),
    ],
)
def test_a_program_that_fails_is_a_warning(
    program: list[str], warning: str, caplog: pytest.LogCaptureFixture
) -> None:
    call(*program)
    assert warning in caplog.text


def test_a_program_that_hangs_is_killed_with_all_it_started(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    call("sh", "-c", 'sleep 1000 & echo $! > "$0"; wait', str(tmp_path / "pid"), timeout=0.3)
    assert "did not finish within 0.3 s" in caplog.text
    child = int((tmp_path / "pid").read_text())
    end = time.monotonic() + 20
    while alive(child):
        assert time.monotonic() < end
        time.sleep(0.01)


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


# Mounting


def test_options() -> None:
    assert options("ext4", writable=False) == "errors=remount-ro,noload"
    assert options("ext4", writable=True) == "errors=remount-ro"
    for driver, own in OPTIONS.items():
        assert options(driver, writable=True) == own
    assert options("xfs", writable=False) == ""


@pytest.mark.parametrize("name", ["ENODEV", "EPERM", "EROFS", "EACCES", "EBUSY", "EINVAL", "EIO", "EUCLEAN"])
def test_refusals_say_what_to_do(name: str) -> None:
    number: int = getattr(__import__("errno"), name)
    error = refusal(OSError(number, os.strerror(number)), "sda1", "vfat")
    assert isinstance(error, SourceError)
    assert "sda1" in str(error)
    assert error.hint


def test_no_driver() -> None:
    error = refusal(OSError(19, "No such device"), "sda1", "vfat")
    assert str(error) == "Cannot mount sda1: the kernel has no vfat"
