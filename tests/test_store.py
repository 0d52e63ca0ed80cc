"""What the agent remembers: no file in its directory stops the service, nothing is remembered wrongly."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from updated.core import states
from updated.core.model import Outcome, Quarantined
from updated.document import MAX_FILE
from updated.errors import DeviceError
from updated.store import MAX_HISTORY, MAX_QUARANTINE, MAX_TEXT, Store

UPDATE = states.Update("t-1", "folder", "/drop/x.raucb", "h1", "2.0.0", "rootfs.1", "Test")
LINE = Outcome(
    "t-1", "folder", "/x", "2.0.0", "h1", "rootfs.1", "installed", "Installed.", "2026-01-01T00:00:00Z"
)
REJECTED = Quarantined("h1", "2.0.0", "sick", "2026-01-01T00:00:00Z", "boot-1")
DOCUMENTS = ("journal", "quarantine", "attempts", "floor", "left", "history", "reached")

Open = Callable[[], Store]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def open_store(folder: Path, warnings: list[str]) -> Open:
    return lambda: Store(folder, warnings.append)


def fill(store: Store) -> None:
    store.save_state(states.Install(UPDATE, 2))
    store.reject(REJECTED)
    store.count_attempt("h2", 7)
    store.raise_floor("1.2.0")
    store.leave_boot("boot-1")
    store.record(LINE)


def look(store: Store) -> tuple[object, ...]:
    return (
        store.saved_state(),
        dict(store.quarantine()),
        store.floor(),
        store.left_boot(),
        list(store.history()),
    )


EMPTY: tuple[object, ...] = (states.Idle(), {}, "", "", [])


def test_a_fresh_device(open_store: Open, folder: Path, warnings: list[str]) -> None:
    assert look(open_store()) == EMPTY
    assert list(folder.iterdir()) == []  # nothing is written that says nothing
    assert folder.stat().st_mode & 0o777 == 0o700
    assert warnings == []


def test_everything_survives(open_store: Open, folder: Path, warnings: list[str]) -> None:
    store = open_store()
    fill(store)
    expected = (states.Install(UPDATE, 2), {"h1": REJECTED}, "1.2.0", "boot-1", [LINE])
    assert look(store) == look(open_store()) == expected
    assert {path.name for path in folder.iterdir()} == {f"{name}.json" for name in DOCUMENTS}
    assert open_store().count_attempt("h2", 7) == 2
    assert warnings == []


@pytest.mark.parametrize(
    "state", [states.Idle(), states.Install(UPDATE, 3), states.RebootPending(UPDATE, "boot-1")]
)
def test_states(open_store: Open, state: states.Saved) -> None:
    open_store().save_state(states.Install(UPDATE, 1))
    open_store().save_state(state)
    assert open_store().saved_state() == state


HOSTILE = {
    "empty": b"",
    "torn": b'{"state": "install", "upd',
    "zeros": bytes(4096),
    "not utf-8": b'\xff\xfe{"version": "1"}',
    "half a character": b'{"version": "\\ud800"}',
    "another type": b"[[[]]]",
    "a number": b"17",
    "a text": b'"journal"',
    "null": b"null",
    "deep": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "wrong values": b'{"state": "flying", "update": 1, "attempt": "x", "version": {}, "boot_id": []}',
    "large numbers": b'{"state": "idle", "attempt": 1e400, "version": 1, "boot_id": 1, "h": 9e999}',
    "rubbish behind": b"{} []",
    "large": b'{"version": "' + b"x" * MAX_FILE + b'"}',
}


@pytest.mark.parametrize("document", DOCUMENTS)
@pytest.mark.parametrize("kind", HOSTILE)
def test_foreign_files(open_store: Open, folder: Path, warnings: list[str], document: str, kind: str) -> None:
    """Set aside, said, and forgotten; what comes next can be remembered."""
    folder.mkdir()
    path = folder / f"{document}.json"
    path.write_bytes(HOSTILE[kind])
    assert look(open_store()) == EMPTY
    assert len(warnings) == 1
    assert str(path) in warnings[0]
    assert path.with_name(f"{document}.json.broken").read_bytes() == HOSTILE[kind]
    fill(open_store())
    assert look(open_store()) != EMPTY
    assert len(warnings) == 1


@pytest.mark.parametrize("document", DOCUMENTS)
@pytest.mark.parametrize("kind", ["folder", "fifo", "loop", "device", "dangling"])
def test_things_that_are_no_files(
    open_store: Open, folder: Path, warnings: list[str], document: str, kind: str
) -> None:
    folder.mkdir()
    path = folder / f"{document}.json"
    match kind:
        case "folder":
            path.mkdir()
            (path / "inside").touch()
        case "fifo":
            os.mkfifo(path)
        case "loop":
            path.symlink_to(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "dangling":
            path.symlink_to(folder / "nowhere")
    assert look(open_store()) == EMPTY
    assert bool(warnings) == (kind != "dangling")
    fill(open_store())
    assert look(open_store()) != EMPTY


@given(st.binary(max_size=200), st.sampled_from(DOCUMENTS))
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, data: bytes, document: str) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / f"{document}.json").write_bytes(data)
    Store(folder, lambda _: None)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["state", "update", "attempt", "boot_id", "version", "manifest_hash", "code", "h"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@given(JSON, st.sampled_from(DOCUMENTS))
def test_any_json(tmp_path_factory: pytest.TempPathFactory, value: object, document: str) -> None:
    """Taken or set aside; whatever is taken can be used."""
    folder = tmp_path_factory.mktemp("any")
    (folder / f"{document}.json").write_text(json.dumps(value))
    store = Store(folder, lambda _: None)
    look(store)
    fill(store)


def test_a_key_twice(open_store: Open, folder: Path) -> None:
    folder.mkdir()
    (folder / "floor.json").write_text('{"version": "9.0.0", "version": "1.0.0"}')
    assert open_store().floor() == "1.0.0"


def test_unknown_keys_come_from_newer_versions(open_store: Open, folder: Path, warnings: list[str]) -> None:
    folder.mkdir()
    (folder / "floor.json").write_text('{"version": "1.0.0", "since": 2030}')
    assert open_store().floor() == "1.0.0"
    assert warnings == []


def test_an_install_without_its_update_is_idle(open_store: Open, folder: Path) -> None:
    folder.mkdir()
    (folder / "journal.json").write_text('{"state": "install", "attempt": 1}')
    assert open_store().saved_state() == states.Idle()


# A disk that does not take it


@contextlib.contextmanager
def full_disk(folder: Path) -> Iterator[None]:
    """A file system without one free block."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", folder], check=True)
    try:
        (folder / "filler").write_bytes(bytes(4096))
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.root
@pytest.mark.parametrize(
    ("broken", "reason"), [(full_disk, "No space left on device"), (read_only, "Read-only file system")]
)
def test_memory_goes_on(
    open_store: Open,
    folder: Path,
    broken: Callable[[Path], contextlib.AbstractContextManager[None]],
    reason: str,
) -> None:
    with broken(folder):
        store = open_store()
        for write in (
            lambda: store.save_state(states.Install(UPDATE, 2)),
            lambda: store.reject(REJECTED),
            lambda: store.count_attempt("h2"),
            lambda: store.raise_floor("1.2.0"),
            lambda: store.leave_boot("boot-1"),
            lambda: store.record(LINE),
        ):
            with pytest.raises(DeviceError, match=reason) as caught:
                write()
            assert caught.value.hint
        expected = (states.Install(UPDATE, 2), {"h1": REJECTED}, "1.2.0", "boot-1", [LINE])
        assert look(store) == expected
        assert not list(folder.glob(".*"))
    # The disk is back: what is said again is written, though it is nothing new in memory.
    store.save_state(states.Install(UPDATE, 2))
    store.raise_floor("1.2.0")
    store.leave_boot("boot-1")
    again = open_store()
    assert (again.saved_state(), again.floor(), again.left_boot()) == (
        states.Install(UPDATE, 2),
        "1.2.0",
        "boot-1",
    )


def test_idle_is_written_though_memory_has_it_already(open_store: Open, folder: Path) -> None:
    """A stale "install" on disk would mark a good group bad at the next start."""
    store = open_store()
    store.save_state(states.Install(UPDATE, 1))
    aside = folder.rename(folder.with_name("aside"))
    folder.touch()
    with pytest.raises(DeviceError):
        store.save_state(states.Idle())
    folder.unlink()
    aside.rename(folder)
    store.save_state(states.Idle())
    assert open_store().saved_state() == states.Idle()


def test_an_unusable_directory(tmp_path: Path, warnings: list[str]) -> None:
    (tmp_path / "file").touch()
    store = Store(tmp_path / "file/data", warnings.append)
    assert look(store) == EMPTY
    assert any("cannot be made" in warning for warning in warnings)
    with pytest.raises(DeviceError, match="Failed to save"):
        store.record(LINE)
    assert list(store.history()) == [LINE]


def test_a_name_that_is_no_text_is_our_error(open_store: Open) -> None:
    store = open_store()
    with pytest.raises(DeviceError, match="Failed to save"):
        store.save_state(states.Install(replace(UPDATE, location="/drop/\udcff.raucb"), 1))


def test_what_is_the_same_is_not_written_again(open_store: Open, folder: Path) -> None:
    store = open_store()
    fill(store)
    before = {path.name: path.stat().st_ino for path in folder.iterdir()}
    store.save_state(states.Install(UPDATE, 2))
    store.raise_floor("1.2.0")
    store.leave_boot("boot-1")
    store.record(LINE)
    store.lift("unknown")
    store.forget_attempts("unknown")
    assert {path.name: path.stat().st_ino for path in folder.iterdir()} == before


WRITER = """
import sys
from pathlib import Path
from updated.core import states
from updated.core.model import Outcome
from updated.store import Store
store = Store(Path(sys.argv[1]), lambda text: sys.exit(text))
number = 0
print("begun", flush=True)
while True:
    number += 1
    update = states.Update(str(number), "folder", "/x" * 500, "h", "1", "rootfs.1")
    store.save_state(states.Install(update, number))
    store.record(Outcome(str(number), "", "", "", "", "", "failed", "x" * 900, ""))
    store.count_attempt("h")
"""


def test_killed_in_the_middle_of_writing(open_store: Open, folder: Path, warnings: list[str]) -> None:
    """Again and again; nothing is ever torn, and no litter stays."""
    seen = 0
    for number in range(8):
        with subprocess.Popen([sys.executable, "-c", WRITER, folder], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"begun\n"
            try:
                writer.wait(0.02 + 0.003 * number)
            except subprocess.TimeoutExpired:
                writer.send_signal(signal.SIGKILL)
        state = open_store().saved_state()
        assert isinstance(state, states.Install)
        assert int(state.update.transaction) == state.attempt
        count = open_store().count_attempt("h")
        assert count > seen
        seen = count
        assert {path.suffix for path in folder.iterdir()} == {".json"}
    assert warnings == []


# Bounds and rules


def test_bounds(open_store: Open, folder: Path, warnings: list[str]) -> None:
    """Everything as long as it can be: the oldest goes, and the next start can read it."""
    long = "\x01" * 100_000  # six bytes of JSON each
    store = open_store()
    store._history.value.extend(
        replace(
            LINE, transaction=f"{n}", text=long[:MAX_TEXT], location=long[:MAX_TEXT], version=long[:MAX_TEXT]
        )
        for n in range(MAX_HISTORY)
    )
    store._quarantine.value.extend(
        replace(REJECTED, manifest_hash=f"{n:064}", version=long[:MAX_TEXT], reason=long[:MAX_TEXT])
        for n in range(MAX_QUARANTINE)
    )
    store.record(replace(LINE, transaction="new", text=long, location=long, version=long))
    store.reject(replace(REJECTED, manifest_hash="new", version=long, reason=long))
    for path in folder.iterdir():
        assert path.stat().st_size < MAX_FILE
    again = open_store()
    assert warnings == []
    assert len(again.history()) == MAX_HISTORY
    assert again.history()[0].text == long[:MAX_TEXT]
    assert [line.transaction for line in again.history(2)] == ["new", str(MAX_HISTORY - 1)]
    assert again.history()[-1].transaction == "1"
    assert len(again.quarantine()) == MAX_QUARANTINE
    assert f"{0:064}" not in again.quarantine()
    assert len(again.quarantine()["new"].reason) == MAX_TEXT


def test_history(open_store: Open) -> None:
    store = open_store()
    store.record(LINE)
    store.record(replace(LINE, text="told twice after a power cut"))
    store.record(replace(LINE, code="confirmed"))
    store.record(replace(LINE, transaction="t-2"))
    assert [(line.transaction, line.code) for line in store.history()] == [
        ("t-2", "installed"),
        ("t-1", "confirmed"),
        ("t-1", "installed"),
    ]
    assert len(store.history(1)) == 1
    assert list(store.history(0)) == list(store.history(-5)) == []


def test_quarantine(open_store: Open) -> None:
    store = open_store()
    store.count_attempt("h1")
    store.reject(REJECTED)
    store.reject(replace(REJECTED, reason="again"))
    assert {key: entry.reason for key, entry in store.quarantine().items()} == {"h1": REJECTED.reason}
    assert store.count_attempt("h1") == 1  # who is let out begins anew
    store.lift("h1")
    store.lift("h1")
    assert not open_store().quarantine()


def test_attempts(open_store: Open) -> None:
    store = open_store()
    assert [store.count_attempt("h1") for _ in range(3)] == [1, 2, 3]
    store.forget_attempts("other")
    assert open_store().count_attempt("h1") == 4
    store.forget_attempts("h1")
    assert open_store().count_attempt("h1") == 1
    assert store.count_attempt("h2") == 1
    assert open_store().count_attempt("h1") == 1  # only the bundle at hand is counted


def test_an_attempt_that_got_further_is_a_new_beginning(open_store: Open) -> None:
    store = open_store()
    assert [store.count_attempt("h", reached) for reached in (0, 5, 9)] == [1, 1, 1]
    assert [open_store().count_attempt("h", reached) for reached in (9, 9, 7)] == [2, 3, 4]
    assert store.count_attempt("h", 10) == 1


@pytest.mark.parametrize(
    ("versions", "floor"),
    [
        (["1.0.0", "2.0.0"], "2.0.0"),
        (["2.0.0", "1.0.0"], "2.0.0"),
        (["2.0.0", "10.0.0", "9.9.9"], "10.0.0"),
        (["1.0.0-rc.1", "1.0.0"], "1.0.0"),
        (["1.0.0", "1.0.0-rc.1"], "1.0.0"),
        (["1.0.0", "1.0.0+other"], "1.0.0"),
        (["1.0.0", ""], "1.0.0"),
        (["1.0.0", "no version"], "1.0.0"),
        (["no version", "1.0.0"], "1.0.0"),
        (["no version"], ""),
        ([""], ""),
        (["1"], "1"),
    ],
)
def test_floor(open_store: Open, versions: list[str], floor: str) -> None:
    store = open_store()
    for version in versions:
        store.raise_floor(version)
    assert store.floor() == open_store().floor() == floor


def test_a_floor_that_is_no_version_is_replaced(open_store: Open, folder: Path) -> None:
    folder.mkdir()
    (folder / "floor.json").write_text('{"version": "latest"}')
    store = open_store()
    store.raise_floor("0.0.1")
    assert store.floor() == "0.0.1"


def test_a_floor_is_reset(open_store: Open) -> None:
    store = open_store()
    store.raise_floor("99.0.0")
    store.reset_floor()
    assert store.floor() == open_store().floor() == ""
    store.raise_floor("1.0.0")
    assert store.floor() == "1.0.0"


def test_what_failed_again_and_again_does_not_push_out_what_was_installed(tmp_path: Path) -> None:
    store = Store(tmp_path, print)
    for n in range(5):
        store.record(replace(LINE, transaction=f"good {n}", code="installed"))
    for n in range(2 * MAX_HISTORY):
        store.record(replace(LINE, transaction=f"bad {n}", code="failed"))
    kept = [line.transaction for line in store.history()]
    assert len(kept) == MAX_HISTORY
    assert kept[-5:] == [f"good {n}" for n in reversed(range(5))]
    assert kept[0] == f"bad {2 * MAX_HISTORY - 1}"


def test_what_was_installed_is_forgotten_in_the_end(tmp_path: Path) -> None:
    store = Store(tmp_path, print)
    for n in range(MAX_HISTORY + 3):
        store.record(replace(LINE, transaction=f"good {n}", code="installed"))
    assert store.history()[-1].transaction == "good 3"


def test_changes_from_several_threads_are_all_kept(folder: Path, open_store: Open) -> None:
    """The machine, a hook and a person's call write in threads of their own."""
    store = open_store()
    with ThreadPoolExecutor(3) as pool:
        for first in range(0, 45, 3):
            names = [str(n) for n in range(first, first + 3)]
            list(pool.map(lambda name: store.reject(Quarantined(name, "1", "sick", "", "")), names))
            assert len(store.quarantine()) == len(open_store().quarantine()) == first + 3
